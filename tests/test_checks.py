import math

import numpy as np
import pytest
import torch
from torch import nn

from sparselib import checks, seeds


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2), torch.tensor(2)])
def test_whole_numbers_of_numpy_and_torch_arrive_as_plain_ones(value):
    for found in (checks.integer("n", value), checks.number("n", value)):
        assert type(found) is int and found == 2
    assert seeds.derive(value, "x") == seeds.derive(2, "x")


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), torch.tensor(0.5), torch.tensor(0.5).half()])
def test_numbers_of_numpy_and_torch_arrive_as_plain_ones(value):
    found = checks.number("eps", value, 0, 1)
    assert type(found) is float and found == 0.5
    with pytest.raises(TypeError, match="n must be an int"):
        checks.integer("n", value)


@pytest.mark.parametrize("value", [True, np.True_, torch.tensor(True), "1", None, 1j, [1], np.ones(1), torch.ones(1)])
def test_what_is_no_number_is_refused(value):
    for check in (checks.number, checks.integer):
        with pytest.raises(TypeError, match="n must be a"):
            check("n", value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -(10**400)])
def test_numbers_that_float32_cannot_hold_are_refused(value):
    with pytest.raises(ValueError, match="n must be finite"):
        checks.number("n", value)
    with pytest.raises(ValueError, match="n must fit into 64 bits"):
        checks.integer("n", 10**400)


X = torch.rand(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("x", "kind", "message"),
    [
        (X.numpy(), TypeError, "got type ndarray: torch.from_numpy makes a tensor"),
        ((255 * X).byte(), TypeError, "got dtype torch.uint8: images are bytes / 255"),
        (255 * X, ValueError, r"must lie in \[0, 1\], got values in .*: bytes are x / 255"),
        (X - 2, ValueError, "normalisation is the network's first layer"),
        (X[:, 0], ValueError, r"got \(2, 4, 4\): x\[None\] is a batch of one image, x\[:, None\] of grey ones"),
        (X[:, :, :0], ValueError, r"must have shape \(N, C, H, W\)"),
        (X / 0, ValueError, "must be finite"),
        (X.to_sparse(), TypeError, "torch.float32 that is sparse"),
        (X.to("meta"), TypeError, "torch.float32 without values"),
        (X.bfloat16(), TypeError, "must be float32 or float64, got torch.bfloat16"),
    ],
)
def test_images_that_are_none_are_told_the_remedy(x, kind, message):
    with pytest.raises(kind, match=f"^pixels .*{message}"):
        checks.images(x, name="pixels", unit_range=True, half=False)


def test_labels_of_other_types_are_told_the_remedy():
    for y, remedy in ((torch.ones(2).int(), r"\.long\(\) makes int64"), (np.ones(2), "torch.from_numpy")):
        with pytest.raises(TypeError, match=rf"y must be an int64 tensor \(N,\), got .*: {remedy}"):
            checks.labels(y, X)


def test_arguments_are_checked_against_their_annotations():
    @checks.typed
    def function(model: nn.Module, n: int, eps: float | None = None, *, flag: bool = False, name: str = "a", **more):
        return n, eps, flag, name, more

    assert function(nn.Identity(), np.int64(3), torch.tensor(0.5), other=1) == (3, 0.5, False, "a", {"other": 1})
    assert function(nn.Identity(), n=3, eps=None, flag=True) == (3, None, True, "a", {})
    for wrong, message in [
        ({"model": nn.Linear}, "model must be of type Module"),
        ({"n": 1.5}, "n must be an int"),
        ({"eps": "1"}, "eps must be a number"),
        ({"flag": 1}, "flag must be of type bool, got 1"),
        ({"name": None}, "name must be of type str, got None"),
    ]:
        with pytest.raises(TypeError, match=message):
            function(**{"model": nn.Identity(), "n": 1, **wrong})
