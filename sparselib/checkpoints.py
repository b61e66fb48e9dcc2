"""Networks of `models.build` as files: safetensors with the architecture in the header. Nothing is ever unpickled."""

import json
import os
import tempfile
import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from sparselib import models
from sparselib.pruning import masks


def save_model(model: nn.Module, path: str | Path) -> None:
    """Write the network, its masks included, to `path` in one atomic step. Needs a network of `models.build`."""
    if not hasattr(model, "spec"):
        raise ValueError("model must come from models.build (it has no .spec), or its shape cannot be rebuilt")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomic(path, save(state, metadata={"spec": json.dumps(model.spec)}))


def load_model(path: str | Path, *, device: str | torch.device = "cpu") -> models.Network:
    """Return the network stored at `path`, in eval mode. Raises ValueError when the file is not one of ours."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            spec = json.loads((file.metadata() or {})["spec"])
            state = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged or not a network of sparselib: {error!r}") from error
    try:
        model = models.build(**spec).to(device)
        _fit_shapes(model, state)
        for name, layer in masks.prunable(model).items():
            stem = name.removesuffix("weight")
            if f"{stem}parametrizations.weight.0.mask" in state:
                masks.set_mask(layer, torch.ones_like(layer.weight, dtype=torch.bool))
        model.load_state_dict(state)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold a network of this version of sparselib: {error}") from error
    return model.eval()


def _fit_shapes(model, state):
    """Give the layers the sizes of the stored tensors: a shrunk network has fewer units than its architecture says."""
    for name, module in model.named_modules():
        for kind, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            stored = state.get(f"{name}.{kind}", state.get(f"{name}.parametrizations.{kind}.original"))
            if stored is None or stored.shape == tensor.shape:
                continue
            empty = torch.empty_like(stored)
            setattr(module, kind, nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty)
            if kind == "weight" and isinstance(module, nn.Linear):
                module.out_features, module.in_features = stored.shape
            elif kind == "weight" and isinstance(module, nn.Conv2d):
                module.out_channels, module.in_channels = stored.shape[:2]
            elif kind == "running_mean" and isinstance(module, models.BatchNorm):
                module.num_features = len(stored)


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
