"""Import torchvision even where its compiled part does not match this torch.

Its Linux wheel is linked against CUDA: beside a CPU build of torch, `import torchvision` dies with "operator
torchvision::nms does not exist". This project needs its Python parts only (data sets, image folders), so the missing
operators are declared, without a body, and the import is tried again.
"""

import importlib
import re
import sys
from types import ModuleType

import torch

_OPERATORS = ("nms", "qnms")  # with the schema that torchvision 0.26-0.28 registers
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
declared: torch.library.Library | None = (
    None  # the torch.library object must outlive the import, or its operators vanish
)


def torchvision() -> ModuleType:
    """Return the torchvision module, declaring its missing operators first when that is what it takes.

    Raises ImportError, with the first reason, when torchvision is absent or broken in another way.
    """
    global declared
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if not re.search(r"operator torchvision::\w+ does not exist", str(error)):
            raise ImportError(f"torchvision cannot be imported: {error}") from error
    for name in [m for m in sys.modules if m == "torchvision" or m.startswith("torchvision.")]:
        del sys.modules[name]  # half-imported
    declared = torch.library.Library("torchvision", "DEF")
    for name in _OPERATORS:
        declared.define(name + _SIGNATURE)
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        raise ImportError(f"torchvision does not fit torch {torch.__version__}: {error}") from error
