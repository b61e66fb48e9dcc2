import copy
import itertools
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparselib import masks, models, per_sample, pruning, sensitivity, vision


class Shared(nn.Module):
    """A convolution called twice, on two sizes, and a linear weight tied to another layer's."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.one, self.two = nn.Linear(12, 12), nn.Linear(12, 12)
        self.two.weight = self.one.weight
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = F.max_pool2d(self.twice(self.stem(x)).tanh(), 2)
        x = F.avg_pool2d(self.twice(x).tanh(), 2).flatten(1)
        return self.head(self.two(self.one(x).tanh()).tanh())


class Dimensions(nn.Module):
    """1-d and 3-d convolutions, paddings of every kind, a linear layer on tokens, a keyword call, an unused layer."""

    def __init__(self):
        super().__init__()
        self.volume = nn.Conv3d(1, 2, (1, 3, 3), padding="same", dilation=(1, 1, 2))
        self.circular = nn.Conv2d(4, 9, 2, padding=(1, 0), padding_mode="circular", stride=(2, 1))
        self.line = nn.Conv1d(9, 6, 4, stride=3, padding=2, groups=3, bias=False)
        self.reflect = nn.Conv1d(6, 6, 4, padding="same", padding_mode="reflect")
        self.tokens = nn.Linear(6, 5)
        self.head = nn.Linear(5, 4)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        x = self.volume(x.unsqueeze(1)).flatten(1, 2).sigmoid()
        x = self.circular(x).flatten(2).sigmoid()
        x = self.reflect(self.line(x).sigmoid())
        return self.head(input=self.tokens(x.transpose(1, 2)).sigmoid().mean(1))


class Odd(nn.Module):
    """Weights that act in other ways than through calls of their layers with one row a sample."""

    def __init__(self):
        super().__init__()
        self.frames = nn.Conv2d(1, 3, 3, stride=2)  # two frames a sample, folded into the batch
        self.function = nn.Linear(27, 8)  # handed to a function
        self.both = nn.Linear(8, 8)  # called, and transposed elsewhere
        self.time_first = nn.Linear(4, 4)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.frames(x.flatten(0, 1).unsqueeze(1)).sigmoid().unflatten(0, (-1, 2)).mean(1).flatten(1)
        x = F.linear(x, self.function.weight, self.function.bias).sigmoid()
        x = (self.both(x).sigmoid() @ self.both.weight).sigmoid()
        x = self.time_first(x.unflatten(1, (2, 4)).transpose(0, 1)).transpose(0, 1).flatten(1).sigmoid()  # (T, N, F)
        return self.head(x)


def _plain():
    return nn.Sequential(
        *(nn.Conv2d(2, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 9, 3, bias=False), nn.ReLU(inplace=True)),
        *(nn.MaxPool2d(2), nn.Conv2d(9, 5, 2), nn.Flatten(), nn.Linear(5, 4)),  # its last map is one position
    )


def _linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 16), nn.Tanh(), nn.Linear(16, 8, bias=False), nn.Linear(8, 4))


def _residual():
    net = models.build("resnet8", in_channels=2, num_classes=4, image_size=8, width=4)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return net


@pytest.fixture
def network(request, grouped):
    """An untrained float64 network by name, from (N, 2, 8, 8) to 4 classes."""
    if request.param.startswith("grouped"):
        net = grouped
    else:
        torch.manual_seed(5)
        net = NETWORKS[request.param.removesuffix(" masked")]().double()
    return pruning.prune(net, "magnitude", 0.6) if request.param.endswith("masked") else net


NETWORKS = {
    "plain": _plain, "linear": _linear, "residual": _residual, "shared": Shared, "dimensions": Dimensions, "odd": Odd,
}  # fmt: skip
ALL = [*NETWORKS, "grouped", "grouped masked", "residual masked"]
NORMS = (1, 2, 5, 2.5, torch.inf)


def _x(n=5, **options):
    return torch.rand(n, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64, **options)


def _loss(z, y, target):
    if target == "uniform":
        return -z.log_softmax(1).mean()
    return F.cross_entropy(z, y) if target == "predicted" else -z[0, y[0]]


def _oracle(net, x, y=None, *, criterion="snip", target="predicted", per_loss=False):
    """Saliencies {name: (N, …)} by autograd, one sample at a time: the definitions, spelt out."""
    net = copy.deepcopy(net).eval()
    layers = {n: net.get_submodule(n.removesuffix(".weight")) for n in sensitivity.names(net)}
    originals = [masks.original(layer) for layer in layers.values()]
    found = {name: [] for name in layers}
    for i in range(len(x)):
        z = net(x[i : i + 1])
        label = z.argmax(1) if y is None else y[i : i + 1]
        loss = _loss(z / 200 if criterion == "grasp" else z, label, target)
        second = criterion in ("crop", "grasp")
        gradients = torch.autograd.grad(loss, originals, create_graph=second, allow_unused=True, materialize_grads=True)
        if second:
            product = sum((g * g.detach()).sum() for g in gradients)
            gradients = torch.autograd.grad(product, originals, allow_unused=True, materialize_grads=True)
        for (name, layer), s in zip(layers.items(), gradients, strict=True):
            s = s if criterion == "gradient" else s * layer.weight
            s = s.flatten(1).sum(1) if criterion == "snap" else s
            found[name].append((s / (loss + 1e-8) if per_loss else s).detach())
    return {name: torch.stack(s) for name, s in found.items()}


def _norms(saliencies, norm):
    return torch.stack([torch.linalg.vector_norm(s.flatten(1), ord=norm, dim=1) for s in saliencies.values()], dim=1)


def _close(ours, oracle, rtol=1e-10):
    torch.testing.assert_close(ours, oracle, rtol=rtol, atol=1e-300)


@pytest.mark.parametrize("network", ALL, indirect=True)
@pytest.mark.parametrize("criterion", sensitivity.CRITERIA)
def test_every_criterion_norm_and_target_equals_autograd_on_single_samples(network, criterion):
    x = _x()
    labels = torch.tensor([0, 3, 1, 1, 2])
    for target, y, per_loss in (("predicted", None, False), ("predicted", labels, True), ("logit", None, True),
                                ("uniform", None, False)):  # fmt: skip
        options = dict(criterion=criterion, target=target, per_loss=per_loss)
        oracle = _oracle(network, x, y, **options)
        for norm in NORMS:
            _close(sensitivity.profile(network, x, y, norm=norm, **options), _norms(oracle, norm))
