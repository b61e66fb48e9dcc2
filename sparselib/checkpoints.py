"""Networks as files: safetensors with the architecture and its sizes in the header. Nothing is ever unpickled."""

import errno
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from sparselib import checks, models
from sparselib.pruning import masks


@checks.typed
def save_model(model: nn.Module, path: str | Path) -> None:
    """Write the network's tensors, its masks included, and the sizes of its layers to `path` in one atomic step.

    Of a network of `models.build` the file also says how to build it; any other is loaded `into` one of its class.
    """
    # Cloned: tied tensors are written under each of their names, and loaded into the one that has them all.
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    header = {"spec": getattr(model, "spec", None), "sizes": _sizes(model)}
    write_atomic(_path(path), save(state, metadata={"network": json.dumps(header)}))  # several would be in any order


@checks.typed
def load_model(
    path: str | Path, *, into: nn.Module | Callable[[], nn.Module] | None = None, device: str | torch.device = "cpu"
) -> nn.Module:
    """Return the network stored at `path`, in eval mode, masked and shrunk as it was.

    `into`: a network of the class that was saved, which is left as it is, or a function that makes one; not needed for
    networks of `models.build`. Raises ValueError when the file is damaged or does not fit.
    """
    path = _path(path)
    try:
        if path.exists():  # else it is told below
            _check_regular(path, LARGEST)
        with safe_open(path, framework="pt", device=str(device)) as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})["network"])
            state = {name: file.get_tensor(name) for name in sorted(file.keys())}
        spec, sizes = header["spec"], dict(header["sizes"])
        build = None if spec is None else partial(models.build, **spec)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or not a network of sparselib: {error!r}") from error
    if into is None and spec is None:
        raise ValueError(f"{path} is not of models.build: give a network of its class, or what makes one, as `into`")
    make: Any = build if into is None else into
    try:
        model = masks.bare(make if isinstance(make, nn.Module) else make()).to(device)
        _resize(model, sizes, state)
        for name, layer in masks.prunable(model).items():
            stem = name.removesuffix("weight")
            if f"{stem}parametrizations.weight.0.mask" in state:
                masks.set_mask(layer, torch.ones_like(layer.weight, dtype=torch.bool))
        model.load_state_dict(state)
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} does not hold a network of this version of sparselib: {error}") from error
    return model.eval()


def _path(path):
    if not str(path).strip() or "\0" in str(path):
        raise ValueError(f"path must be that of a file, got {str(path)!r}")
    return Path(path)


LARGEST = 2**35  # bytes of a network
SIZES = (
    "in_features", "out_features", "in_channels", "out_channels", "groups", "num_features", "num_channels",
    "num_groups", "normalized_shape", "num_parameters", "normalized_dim", "split_size",
)  # fmt: skip


def _sizes(model):
    """Return {module: {attribute: size}} of the layers, which say more than the shapes of their tensors."""
    found = {name: {key: getattr(m, key) for key in SIZES if hasattr(m, key)} for name, m in model.named_modules()}
    return {name: sizes for name, sizes in found.items() if sizes}


def _resize(model, sizes, state):
    """Give the layers the sizes and the tensors the shapes of the stored ones: a shrunk network has fewer units."""
    for name, module in model.named_modules():
        for key, size in sizes.get(name, {}).items():
            setattr(module, key, tuple(size) if isinstance(size, list) else size)
        for kind, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            stem = f"{name}." if name else ""
            stored = state.get(f"{stem}{kind}", state.get(f"{stem}parametrizations.{kind}.original"))
            if stored is None or stored.shape == tensor.shape or stored.ndim != tensor.ndim:
                continue
            empty = torch.empty_like(stored)
            setattr(module, kind, nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty)


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write bytes so that readers see the old file or the whole new one, whatever happens to this process.

    Not forced to the disk: what a power cut tears, the checksums of the store tell.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # made for the owner alone; a store may be shared
        _replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_bytes(path: str | Path, *, most: int = 2**28) -> bytes:
    """Return what a file holds. Raises OSError for what is no regular file, or has more than `most` bytes.

    A pipe in its place would let the reader wait for ever, and a device never end.
    """
    _check_regular(path, most)
    return Path(path).read_bytes()


def _check_regular(path, most):
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if about.st_size > most:
        raise OSError(errno.EFBIG, f"{about.st_size:,} bytes, at most {most:,} are read", str(path))


def _replace(temporary, path, attempts=20):
    """Rename a file over another. Windows refuses that while some other process opens or replaces the old one."""
    for left in reversed(range(attempts)):
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            if not left:
                raise
            time.sleep(0.05)
