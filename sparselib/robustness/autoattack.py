"""AutoAttack (Croce & Hein 2020, https://arxiv.org/abs/2003.01690) through the Adversarial Robustness Toolbox.

Call it as `attacks.autoattack`, which checks the arguments and puts the result back into the ball. It differs from the
authors' own code: both Auto-PGDs are untargeted with RESTARTS restarts (theirs: one restart, and targeted for the
second loss), and DeepFool stands where they have FAB. Against the toolbox's defaults, the first step of Auto-PGD is
2·eps (not 0.1 at any eps) and Square restarts once (not 5 times).
"""

import random
import warnings
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from sparselib import seeds
from sparselib.models import requiring_gradients

STEPS = 100  # of Auto-PGD and DeepFool
RESTARTS = 5  # of Auto-PGD
QUERIES = 5000  # of Square


def run(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float, norm: str, classes: int, seed: int, batch_size: int
) -> torch.Tensor:
    """Return float32 (N, C, H, W) on the device of x: a point near the ball where an attack succeeded, else x."""
    largest, (height, width) = _largest_square(x.shape[2:], norm), x.shape[2:]
    if not largest:
        warnings.warn(f"autoattack without Square: in {norm} it does not fit images of {height}×{width}", stacklevel=3)
    # No gradient is added to what the parameters hold; the import inside draws random numbers as well.
    with requiring_gradients(model.parameters(), False), _isolated(seed), np.errstate(all="ignore"):
        return _run(model, x, y, eps, {"linf": np.inf, "l2": 2}[norm], classes, largest, batch_size)


def _run(model, x, y, eps, order, classes, largest, batch_size):
    try:
        from art.attacks.evasion import AutoProjectedGradientDescent, DeepFool, SquareAttack
        from art.attacks.evasion.auto_attack import run_attack
        from art.estimators.classification import PyTorchClassifier
    except ImportError as error:
        raise ImportError("autoattack needs the package adversarial-robustness-toolbox") from error
    # On the CPU as far as the toolbox knows: it exchanges NumPy arrays, and `_Logits` moves them.
    target = PyTorchClassifier(
        _Logits(model, x), _Margin(), tuple(x.shape[1:]), classes, clip_values=(0.0, 1.0), device_type="cpu"
    )
    ball = {"norm": order, "eps": eps, "batch_size": batch_size, "verbose": False}
    climb = {"eps_step": 2 * eps, "max_iter": STEPS, "nb_random_init": RESTARTS, **ball}
    attacks = [
        AutoProjectedGradientDescent(target, loss_type="cross_entropy", **climb),
        # The difference of logits ratio divides by z_(1) − z_(3). With two classes its numerator is left: the margin.
        AutoProjectedGradientDescent(target, loss_type="difference_logits_ratio" if classes > 2 else None, **climb),
        DeepFool(target, max_iter=STEPS, epsilon=1e-3, nb_grads=10, batch_size=batch_size, verbose=False),
    ]
    if largest:
        attacks.append(SquareAttack(target, max_iter=QUERIES, p_init=largest, nb_restarts=1, **ball))
    found = x.cpu().float().numpy().copy()
    wanted = np.eye(classes, dtype=np.float32)[y.cpu().numpy()]  # (N, K), one-hot
    robust = target.predict(found, batch_size).argmax(1) == wanted.argmax(1)
    for attack in attacks:  # what its class AutoAttack does, which imports a package that the toolbox does not require
        if robust.any():
            found, robust = run_attack(found, wanted, robust, attack, target, order, eps)
    return torch.from_numpy(found).to(x.device)


class _Logits(nn.Module):
    """The model as the toolbox wants it, from float32 on the CPU to the same.

    The model is not registered as a part: the toolbox moves its network, sets its modes and clears its gradients.
    log-softmax shifts all logits alike, which no loss sees: the toolbox refuses logits that look like probabilities.
    """

    def __init__(self, model, like):
        super().__init__()
        self.call = lambda x: model(x.to(like))

    def forward(self, x):
        logits = self.call(x).log_softmax(1).float().cpu()
        if x.requires_grad and not logits.requires_grad:  # it stops at networks that let no gradient through
            logits = logits + 0 * x.flatten(1).sum(1, keepdim=True)
        return logits


class _Margin(nn.modules.loss._Loss):
    """max_{k≠y} z_k − z_y, for one-hot y."""

    def forward(self, logits, y):
        own = y.bool()
        values = logits.masked_fill(own, -torch.inf).amax(1) - logits.masked_fill(~own, 0).sum(1)
        return values if self.reduction == "none" else values.mean()


def _largest_square(size, norm):
    """Return Square's first share of the pixels, 0.8 or what fits into the image, or None where it cannot run.

    The toolbox draws a corner from range(side − square), which must not be empty, and makes L2 squares odd, from 3 on.
    """
    side = min(size)
    square = side - 1
    if norm == "l2":
        square -= square % 2 == 0
    if square < (3 if norm == "l2" else 1) or (norm == "l2" and size[1] < size[0]):
        return None
    return min(0.8, square**2 / (size[0] * size[1]))


@contextmanager
def _isolated(seed):
    """Seed the three global generators that the toolbox draws from; restore them after."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with seeds.isolated(seed, "autoattack"):
        random.seed(seeds.derive(seed, "autoattack"))
        np.random.seed(seeds.derive(seed, "autoattack") % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
