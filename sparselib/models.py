"""Classifiers from images in [0, 1] to logits. Normalisation is their first layer, so attacks work on pixels."""

import copy
import importlib.util
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from sparselib import checks, seeds

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


class Normalize(nn.Module):
    """(x − mean) / std per channel. Its state_dict holds both, unless they are not `persistent`."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=persistent)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or x.shape[1] != self.mean.shape[1]:  # broadcasting would hide it
            raise ValueError(f"x must have shape (N, {self.mean.shape[1]}, H, W), got {tuple(x.shape)}")
        return (x - self.mean) / self.std


def _conv(c_in, c_out, kernel=3, stride=1):
    """Convolution, batch-norm, ReLU."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(c_out), nn.ReLU()]


def _head(features, num_classes):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, num_classes)]


def convnet(c: int, k: int, size: int, width: int) -> list[nn.Module]:
    """Three convolutions (width, 2·width, 2·width) and a linear layer; 14k weights at width 16, for small images."""
    early, wide = [nn.MaxPool2d(2)] if size >= 16 else [], 2 * width
    return [*_conv(c, width), *early, *_conv(width, wide), nn.MaxPool2d(2), *_conv(wide, wide), *_head(wide, k)]


def lenet5(c: int, k: int, size: int, width: int) -> list[nn.Module]:
    """LeNet-5 (LeCun 1998) with ReLU and max-pooling; `width` is its first number of channels, 6 in the original."""
    w1, w2, w3, w4 = (round(width * f / 6) for f in (6, 16, 120, 84))
    padding = 0 if size >= 16 else 2  # the original shrinks 28×28 images; smaller ones keep their size
    side = (size // 2 + 2 * padding - 4) // 2
    if side < 1:
        raise ValueError(f"image_size must be at least 4 for lenet5, got {size}")
    return [
        *(nn.Conv2d(c, w1, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(w1, w2, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(w2 * side * side, w3), nn.ReLU()),
        *(nn.Linear(w3, w4), nn.ReLU(), nn.Linear(w4, k)),
    ]


class BasicBlock(nn.Module):
    """Residual block of two 3×3 convolutions (He 2016), with a 1×1 projection where the shape changes."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(c_in, c_out, 3, stride), *_conv(c_out, c_out)[:-1])
        same = stride == 1 and c_in == c_out
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(c_in, c_out, 1, stride)[:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def _resnet(c, k, size, width, blocks):
    """ResNet with basic blocks, the CIFAR stem (3×3, no pooling) below 96 pixels, the ImageNet stem from there on."""
    layers, c_in = _conv(c, width) if size < 96 else [*_conv(c, width, 7, 2), nn.MaxPool2d(3, 2, 1)], width
    for stage, count in enumerate(blocks):
        for i in range(count):
            layers.append(BasicBlock(c_in, width * 2**stage, stride=2 if stage and i == 0 else 1))
            c_in = width * 2**stage
    return [*layers, *_head(c_in, k)]


def resnet8(c: int, k: int, size: int, width: int) -> list[nn.Module]:
    """Three stages of one basic block (16, 32, 64 channels at width 16): 75k weights."""
    return _resnet(c, k, size, width, (1, 1, 1))


def resnet18(c: int, k: int, size: int, width: int) -> list[nn.Module]:
    """Four stages of two basic blocks (64 … 512 channels at width 64): 11M weights."""
    return _resnet(c, k, size, width, (2, 2, 2, 2))


def vgg16(c: int, k: int, size: int, width: int) -> list[nn.Module]:
    """VGG-16 (Simonyan 2015) with batch-norm and one linear layer; pools while more than one pixel is left."""
    layers, c_in = [], c
    for stage, count in enumerate((2, 2, 3, 3, 3)):
        for _ in range(count):
            layers += _conv(c_in, width * min(2**stage, 8))
            c_in = width * min(2**stage, 8)
        if size > 1:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            size = -(-size // 2)
    return [*layers, *_head(c_in, k)]


# name -> (constructor of the layers, default width)
MODELS = {
    "convnet": (convnet, 16), "lenet5": (lenet5, 6), "resnet8": (resnet8, 16), "resnet18": (resnet18, 64),
    "vgg16": (vgg16, 64),
}  # fmt: skip
NAMES = tuple(MODELS)


class Network(nn.Sequential):
    """Layers in a row; `spec` holds the arguments of `build` that give its like."""

    spec: dict[str, Any]


@checks.typed
def build(
    name: str, *, in_channels: int, num_classes: int, image_size: int, width: int | None = None,
    mean: float | Sequence[float] | None = None, std: float | Sequence[float] | None = None, seed: int = 0,
) -> Network:  # fmt: skip
    """Return a new network from (N, in_channels, image_size, image_size) in [0, 1] to logits (N, num_classes).

    Args:
        name: "convnet", "lenet5", "resnet8", "resnet18" or "vgg16".
        width: channels of the first layer, which the others follow; default: the network's own.
        mean, std: per channel, of the pixels, for the normalisation inside; default 0 and 1. A number serves all.
        seed: of the initial weights; torch's global random state is left as found.
    The returned network carries its arguments as `.spec`, a plain dict: `build(**net.spec)` builds its like.
    Raises: ValueError for unknown names and sizes out of range.
    """
    checks.choice("model", name, NAMES)
    in_channels = int(checks.integer("in_channels", in_channels, low=1))  # plain, for the spec
    num_classes = int(checks.integer("num_classes", num_classes, low=2))
    image_size = int(checks.integer("image_size", image_size, low=4))
    seed = int(checks.integer("seed", seed))
    layers, default_width = MODELS[name]
    width = default_width if width is None else int(checks.integer("width", width, low=1))
    means = _per_channel("mean", 0.0 if mean is None else mean, in_channels)
    stds = _per_channel("std", 1.0 if std is None else std, in_channels)
    if min(stds) <= 0:
        raise ValueError(f"std must be positive, got {stds}")
    with seeds.isolated(seed, "weights"):
        net = Network(Normalize(means, stds), *layers(in_channels, num_classes, image_size, width))
    net.spec = {
        "name": name, "in_channels": in_channels, "num_classes": num_classes, "image_size": image_size,
        "width": width, "mean": means, "std": stds, "seed": seed,
    }  # fmt: skip
    return net


def _per_channel(name, value, channels):
    values = value if isinstance(value, (list, tuple)) else [value] * channels
    if len(values) != channels:
        raise ValueError(f"{name} must have one value per channel, {channels}, got {len(values)}")
    return [float(checks.number(name, v)) for v in values]


@checks.typed
def load(source: str, *, weights: str | Path | None = None, seed: int = 0, **options: Any) -> nn.Module:
    """Return a network that somebody else wrote, in eval mode: what a factory in a module makes.

    Args:
        source: "path/to/module.py:factory" or "package.module:factory". The module is run, so it must be trusted.
        weights: file of its weights: .safetensors, or .pth and .pt as far as torch reads them without running code;
            "package:path/to/file" for one that an installed package carries.
        seed: of the initial weights; torch's global random state is left as found.
        options: handed to the factory.
    Raises: ValueError or TypeError naming the module, the factory, or the weights that do not fit.
    """
    make = factory(source)
    try:
        with seeds.isolated(seed, "weights"):
            net = copy.deepcopy(make) if isinstance(make, nn.Module) else make(**options)
    except Exception as error:  # of other people's code
        raise ValueError(f"source {source!r} gives no network: {type(error).__name__}: {error}") from error
    if not isinstance(net, nn.Module):
        raise TypeError(f"source {source!r} must give an nn.Module, got {type(net).__name__}")
    if weights is not None:
        fill(net, weights)
    return net.eval()


def factory(source: str) -> Callable[..., Any]:
    """Return what `source` names: "path/to/module.py:factory" or "package.module:factory". Raises ValueError."""
    place, _, name = source.rpartition(":") if isinstance(source, str) else ("", "", "")
    if not place or not name.isidentifier():
        raise ValueError(f"source must be 'path/to/module.py:factory' or 'package.module:factory', got {source!r}")
    try:
        made: Any = getattr(_module(place), name)
    except Exception as error:  # of other people's code
        raise ValueError(f"source {source!r} gives no network: {type(error).__name__}: {error}") from error
    if not callable(made):
        raise TypeError(f"source {source!r} must be callable, got {type(made).__name__}")
    return made


@cache
def _module(place):
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # for what it imports from beside itself
    try:
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def weights_file(weights: str | Path) -> Path:
    """Return the file that `weights` names: a path, or "package:path" inside an installed package (which is not run).

    Raises: ValueError where there is no such file or no such package.
    """
    path = Path(weights).expanduser()
    package, colon, inside = str(weights).partition(":")
    if not path.is_file() and colon and package.isidentifier():
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise ValueError(f"weights {str(weights)!r}: no package {package!r} is installed")
        path = Path(found.submodule_search_locations[0]) / inside
    if not path.is_file():
        raise ValueError(f"weights must be a file, got {str(path)!r}")
    return path


@checks.typed
def fill(net: nn.Module, weights: str | Path) -> None:
    """Give a network the weights of a file (see `load`); refuse what does not fit, by the first name."""
    path = weights_file(weights)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"weights {str(path)!r} would have to run code to be read, which is not done; where they come from, export "
            "them by torch.save(net.state_dict(), path) or safetensors.torch.save_file(net.state_dict(), path)"
        ) from error
    except Exception as error:  # of many kinds, for damaged files
        raise ValueError(f"weights {str(path)!r} cannot be read: {error}") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ValueError(f"weights {str(path)!r} must hold named tensors, a state_dict")
    if state and all(name.startswith("module.") for name in state):  # saved inside DataParallel
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    own = net.state_dict()
    for name in (*own, *state):
        here, there = (tuple(s[name].shape) if name in s else "none" for s in (own, state))
        if here != there:
            raise ValueError(f"weights {str(path)!r} do not fit: {name} is {there} in the file, {here} in the network")
        if not torch.isfinite(state[name]).all():
            raise ValueError(f"weights {str(path)!r} are not finite: {name}")
    net.load_state_dict(state)


@checks.typed
def answers(model: nn.Module, shape: Sequence[int], classes: int) -> nn.Module:
    """Return the model if it maps images of shape (C, H, W) to logits of so many classes; else raise ValueError."""
    if not isinstance(shape, Sequence) or isinstance(shape, str) or len(shape) != 3:
        raise ValueError(f"shape must be (C, H, W), got {shape!r}")
    for length in shape:
        checks.integer("shape", length, low=1)
    like = next((t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), torch.zeros(()))
    x = torch.zeros(2, *shape, dtype=like.dtype, device=like.device)
    try:
        with evaluating(model), torch.no_grad():
            z = checks.logits(model(x), x)
    except Exception as error:
        raise ValueError(f"model does not take images of shape {tuple(shape)}: {error}") from error
    if z.shape[1] != classes:
        raise ValueError(f"model tells {z.shape[1]} classes apart, the data have {classes}")
    return model


@contextmanager
def keeping_modes(model: nn.Module) -> Iterator[nn.Module]:
    """Run a block that may change modes; give every submodule its own mode back after, also when the block fails."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Run a block with the model in eval mode; give every submodule its own mode back after."""
    with keeping_modes(model):
        model.eval()
        yield model


@contextmanager
def requiring_gradients(parameters: Iterable[torch.Tensor], wanted: bool) -> Iterator[None]:
    """Run a block in which these parameters take gradients, or take none; give each its own flag back after."""
    switched = [p for p in parameters if p.requires_grad != wanted]
    try:
        for parameter in switched:
            parameter.requires_grad_(wanted)
        yield
    finally:
        for parameter in switched:
            parameter.requires_grad_(not wanted)


def device_of(model: nn.Module, default: str | torch.device = "cpu") -> torch.device:
    """Return the device of the model's first parameter or buffer (`default` when it has none)."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device(default))


def on_device_of(model: nn.Module, x: torch.Tensor, *, name: str = "x") -> torch.Tensor:
    """Return `x` if it lies where the model does and has its dtype, or the model has no tensors; else ValueError."""
    tensors = (*model.parameters(), *model.buffers())
    like = next((tensor for tensor in tensors if tensor.is_floating_point()), x)
    for what, own, found in (("on the device", like.device, x.device), ("of the dtype", like.dtype, x.dtype)):
        if found != own:
            raise ValueError(f"{name} must be {what} of the model, {own}, got {found}")
    return x


def input_shape(model: nn.Module) -> tuple[int, int, int] | None:
    """Return the shape (C, H, W) that a network of `build` was built for, None for any other."""
    spec = getattr(model, "spec", None)
    return spec and (spec["in_channels"], spec["image_size"], spec["image_size"])


def batch_norms(model: nn.Module) -> list[BatchNorm]:
    """Return the batch-norm layers of the model."""
    return [module for module in model.modules() if isinstance(module, BatchNorm)]
