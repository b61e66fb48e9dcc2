"""Can a robustness curve be believed? Checks that every honest evaluation passes.

A network that hides its gradients looks robust to attacks that follow them (Athalye et al. 2018,
https://arxiv.org/abs/1802.00420). The checks: Carlini et al. 2019, https://arxiv.org/abs/1902.06705, section 5.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from sparselib import checks, seeds
from sparselib.data import Samples
from sparselib.models import device_of, evaluating
from sparselib.robustness import attacks

STEPS = 20  # of every PGD
DRAWS = 100  # of noise, each at the edge of the ball
SLACK = 0.01  # share of the samples by which an inequality may fail: attacks are heuristics
GAP = 0.05  # between the accuracies under the two losses
BATCH = 256
USUAL = {"linf": 8 / 255, "l2": 0.5}  # eps on CIFAR-10


@dataclass(frozen=True)
class Check:
    """What should hold, whether it does, and the numbers behind it (accuracies, unless named otherwise)."""

    name: str
    passed: bool
    numbers: dict[str, float]

    def __str__(self) -> str:
        numbers = ", ".join(f"{key} {value:.3f}" for key, value in self.numbers.items())
        return f"{'passed' if self.passed else 'FAILED'}  {self.name}: {numbers}"


@dataclass(frozen=True)
class Report:
    """The checks in order. Printing it lists them; `.passed` says whether all did, `.failed` names the others."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(check.name for check in self.checks if not check.passed)

    def __str__(self) -> str:
        return "\n".join(map(str, self.checks))


@checks.typed
def check(
    model: nn.Module, samples: Samples, *, eps: float | None = None, norm: str = "linf",
    transfer_from: nn.Module | None = None, seed: int = 0,
) -> Report:  # fmt: skip
    """Return the Report of seven checks of the model's accuracy under FGSM and PGD of radius eps.

    1. At eps = 0 the attacks change nothing. 2. Accuracy falls as eps grows. 3. PGD is at least as strong as FGSM.
    4. A ball that covers [0, 1]^D leaves (almost) nothing. 5. An attack that sees the gradients is at least as strong
    as one that does not: examples made for `transfer_from`, or random noise. 6. The network lets gradients through;
    beside it stands the share of samples whose cross-entropy is 0 as computed, where attacks that do not mind it
    stand still (see `attacks.losses`). 7. Cross-entropy and margin agree within 0.05. Failing 4 to 7 is the mark of
    masked gradients: accuracy under these attacks is then an overestimate, and AutoAttack's may be one, too.

    Args:
        model: from (N, C, H, W) in [0, 1] to logits; in eval mode, left as found.
        samples: Samples with labels, at least 1; a few hundred give numbers to rely on.
        eps: radius of interest, above 0; default: the usual one on CIFAR-10, 8/255 in "linf" and 0.5 in "l2".
        transfer_from: another network for the same inputs, whose adversarial examples are tried on `model`.
        seed: of the starts of PGD and of the noise.
    An inequality between accuracies may be off by 1 % of the samples, or by one sample where that is more.
    Raises: ValueError/TypeError for bad arguments.
    """
    checks.choice("norm", norm, attacks.NORMS)
    eps = USUAL[norm] if eps is None else checks.number("eps", eps, 0, low_open=True)
    if not len(samples):
        raise ValueError("samples must not be empty")
    device = device_of(model)
    x, y = samples.x.to(device), samples.y.to(device)
    checks.labels(y, x, name="samples.y")

    def pgd(radius, *, against=model, loss="ce"):
        def attack(xs, ys):
            return attacks.pgd(against, xs, ys, radius, norm=norm, steps=STEPS, loss=loss, seed=seed)

        return _accuracy(model, x, y, attack)

    def fgsm(radius):
        return _accuracy(model, x, y, lambda xs, ys: attacks.fgsm(model, xs, ys, radius, norm=norm))

    slack = max(SLACK, 1 / len(x))
    clean = _accuracy(model, x, y, lambda xs, ys: xs)
    still = {"clean": clean, "fgsm": fgsm(0.0), "pgd": pgd(0.0)}
    white, one_step, margin = pgd(eps), fgsm(eps), pgd(eps, loss="margin")
    curve = {0: clean, eps / 4: pgd(eps / 4), eps / 2: pgd(eps / 2), eps: white, 2 * eps: pgd(2 * eps)}
    falls = all(b <= a + slack for a, b in pairwise(curve.values()))
    cover = 1.0 if norm == "linf" else x[0].numel() ** 0.5
    largest, (silent, saturated) = pgd(cover), _zero_gradients(model, x, y)
    shares = {"share of samples without gradient": silent, "of a saturated cross-entropy": saturated}
    if transfer_from is None:
        blind, black = "noise", _noise(model, x, y, eps, norm, seed)
    else:
        blind, black = "transfer", pgd(eps, against=transfer_from)
    found = (
        Check("eps 0 equals clean", len(set(still.values())) == 1, still),
        Check("accuracy falls with eps", falls, {f"eps {e:.3g}": a for e, a in curve.items()}),
        Check("PGD at least as strong as FGSM", white <= one_step + slack, {"fgsm": one_step, "pgd": white}),
        Check("the largest eps leaves nothing", largest <= slack, {f"eps {cover:.3g}": largest}),
        Check(f"white-box at least as strong as {blind}", white <= black + slack, {blind: black, "pgd": white}),
        Check("gradients are not zero", silent <= slack, shares),
        Check("cross-entropy and margin agree", abs(white - margin) <= GAP, {"ce": white, "margin": margin}),
    )
    return Report(found)


def _batches(*tensors):
    return zip(*(tensor.split(BATCH) for tensor in tensors), strict=True)


def _accuracy(model, x, y, attack):
    return sum(int(_right(model, attack(xs, ys), ys).sum()) for xs, ys in _batches(x, y)) / len(x)


def _right(model, x, y):
    with evaluating(model), torch.no_grad():
        return checks.logits(model(x), x).argmax(1) == y


def _noise(model, x, y, eps, norm, seed):
    """Return the share of samples that no draw of noise of length eps breaks: corners of the cube, or the sphere."""
    rng = seeds.generator(seed, "sanity noise")
    standing = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for _ in range(DRAWS):
        for xs, ys, still in _batches(x, y, standing):
            direction = attacks.steepest(torch.randn(xs.shape, generator=rng), norm).to(xs)
            still &= _right(model, (xs + eps * direction).clamp(0, 1), ys)
    return standing.double().mean().item()


def _zero_gradients(model, x, y):
    """Return the share of samples without any gradient, and that whose cross-entropy is 0 in its own precision."""
    silent = saturated = 0
    with evaluating(model):
        for xs, ys in _batches(x, y):
            leaf, logits = attacks.forward(model, xs)
            silent += int((attacks.input_gradient(leaf, logits, ys) == 0).flatten(1).all(1).sum())
            saturated += int((F.cross_entropy(logits, ys, reduction="none") == 0).sum())
    return silent / len(x), saturated / len(x)
