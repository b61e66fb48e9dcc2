"""The exercises of the part on robustness."""

import numpy as np
import torch
from scipy import special

from sparselib.experiments.lessons.checking import Exercise


def _step(x, here, gradient, eps, step):
    """One step of PGD in L∞: climb, back into the ball about x, back into [0, 1]."""
    r = (here + step * gradient.sign() - x).clamp(-eps, eps)
    return (x + r).clamp(0, 1)


_X = torch.tensor([0.5, 0.02, 0.97, 0.4])
_G = torch.tensor([3.0, -0.2, 0.01, -5.0])
_STEPS = [
    (_X, _X, _G, 0.1, 0.04),
    (_X, torch.tensor([0.58, 0.0, 1.0, 0.31]), _G, 0.1, 0.04),
    (_X, torch.tensor([0.45, 0.05, 0.93, 0.45]), -_G, 0.05, 0.03),
]

_DRAWS = [
    (torch.tensor([[5.0, -1.0, 0.5], [-1.0, -1.0, 0.5], [-1.0, 2.5, -2.0]]),),
    (torch.tensor([[0.2, -4.0], [0.3, 1.0], [-4.0, 1.0], [0.1, 1.0]]),),
]

_ERRORS = [
    (np.array([[0.10, 0.20, 0.30], [0.05, 0.05, 0.40]]), np.array([[0.05, 0.20, 0.25], [0.10, 0.10, 0.20]])),
    (np.array([[0.20, 0.40], [0.10, 0.50]]), np.array([[0.10, 0.60], [0.40, 0.20]])),
]


def _bound(k, n, alpha):
    return float(special.betaincinv(k, n - k + 1, alpha)) if k else 0.0


def _certified(picking, counting, alpha, sigma, *, pick="picking", bound=_bound, abstain=True):
    """The class and the radius, from votes: one list picks the class, the other counts how often it comes out."""
    top = int(np.argmax(picking if pick == "picking" else counting))
    p = bound(int(counting[top]), int(np.sum(counting)), alpha)
    if abstain and p <= 0.5:
        return [-1, 0.0]
    return [top, sigma * float(special.ndtri(min(p, 1 - 1e-12)))]


_VOTES = [
    ([3, 90, 7], [40, 940, 20], 0.001, 0.25),
    ([30, 36, 34], [330, 320, 350], 0.001, 0.25),
    ([51, 49], [450, 550], 0.01, 0.5),
    ([80, 20], [530, 470], 0.001, 0.5),
]

EXERCISES: dict[str, Exercise] = {
    "attacks-bound": Exercise(
        right=0.6,
        mistakes={
            "That is what the first attack alone leaves. An image that either attack breaks is broken.": 0.7,
            "That is what the weaker attack leaves. Each attack gives a bound, and the smallest one counts.": 0.8,
            "That is the mean of the two. Ask of each image whether some attack breaks it.": 0.75,
            "Image 3 is broken by both attacks, and counts once.": 0.5,
        },
        why="Four of the ten images are broken by some attack; six may still be breakable, so it is an upper bound.",
    ),
    "attacks-fgsm": Exercise(
        right=[0.1, 1.0, 0.5],
        mistakes={
            "The second pixel leaves the range of pixels: clip to [0, 1].": [0.1, 1.05, 0.5],
            "That goes along the gradient itself. In L∞ the steepest step is along its sign.": [0.0, 0.951, 0.5],
            "That goes downhill. The attack raises the loss.": [0.3, 0.85, 0.5],
            "Where the gradient is 0 its sign is 0, and the pixel stays.": [0.1, 1.0, 0.6],
        },
        why="Sign (−1, 1, 0), times 0.1, added, and clipped to [0, 1].",
    ),
    "attacks-step": Exercise(
        right=_step,
        mistakes={
            "It leaves the ball: after the step, the change from x, the image, must be at most ε in every pixel.": (
                lambda x, h, g, e, a: (h + (a * g.sign()).clamp(-e, e)).clamp(0, 1)
            ),
            "It leaves the range of pixels: clip to [0, 1] as well.": lambda x, h, g, e, a: (
                x + (h + a * g.sign() - x).clamp(-e, e)
            ),
            "It goes downhill: the attack raises the loss.": lambda x, h, g, e, a: _step(x, h, -g, e, a),
            "In L∞ the steepest step is along the sign of the gradient, not the gradient.": lambda x, h, g, e, a: (
                x + (h + a * g - x).clamp(-e, e)
            ).clamp(0, 1),
        },
        why="A step along the sign, back into the ball about x, back into [0, 1].",
        cases=_STEPS,
    ),
    "believed-slack": Exercise(
        right="PGD at least as strong as FGSM",
        mistakes={
            "The transferred examples leave more images right than the network's own attack does, as they "
            "should.": "white-box at least as strong as transfer",
            "The two losses differ by less than 0.05, which the check allows.": "cross-entropy and margin agree",
            "At the largest radius nothing is left: that is passed.": "the largest eps leaves nothing",
        },
        why="Many steps leave more images right than one step does: they climb worse, and something is in the way.",
    ),
    "believed-saturated": Exercise(
        right=[-400.0, 0.0],
        mistakes={
            "The logits were not multiplied by 100.": [-4.0, float(np.log1p(np.exp(-4) + np.exp(-7)))],
            "The margin loss is the best other logit minus that of the label: it is negative while the network is "
            "right.": [400.0, 0.0],
            "The cross-entropy is 400 where the answer is wrong. Here the label has the largest logit.": [
                -400.0,
                400.0,
            ],
        },
        why="The margin is 100 times as large, its gradient too, and FGSM takes the same step; the cross-entropy is "
        "log(1 + exp(−400) + exp(−700)), in float32 exactly 0, and has no gradient.",
    ),
    "believed-direction": Exercise(
        right=lambda gradients: gradients.mean(0).sign(),
        mistakes={
            "One draw is what the plain attack uses: average over all of them.": lambda gradients: gradients[0].sign(),
            "Average first, then take the sign. A vote of signs forgets how steep each draw is.": (
                lambda gradients: gradients.sign().mean(0).sign()
            ),
            "That is the mean gradient. In L∞ the step goes along its sign.": lambda gradients: gradients.mean(0),
            "The mean is over the draws (rows), not over the pixels (columns).": lambda gradients: gradients.mean(
                1
            ).sign(),
        },
        why="The gradient of an average is the average of the gradients; its sign is the steepest step in L∞.",
        cases=_DRAWS,
    ),
    "shifts-worst": Exercise(
        right=[0.9, 0.8],
        mistakes={
            "The second number asks for images that are right under both draws: two are not.": [0.9, 0.9],
            "The first number is the average over the draws: each leaves nine of ten right.": [0.8, 0.8],
            "These two stand the wrong way round: the worst case is never above the average.": [0.8, 0.9],
        },
        why="Each draw spoils one image of ten, but another one: the worst case is lower than any average.",
    ),
    "shifts-rejected": Exercise(
        right=0.75,
        mistakes={
            "That counts only what is rejected. What passes and is classified rightly does no harm.": 0.375,
            "That counts only what is classified rightly. What is wrong but rejected does no harm.": 0.5,
            "A score equal to the threshold passes: rejected is what lies above it.": 0.875,
            "That is the share that is wrong and passes. Right or rejected is the rest.": 0.25,
        },
        why="Four are right; of the four wrong ones two are rejected (D and F); E lies on the threshold and passes.",
    ),
    "shifts-relative": Exercise(
        right=lambda errors, base: float((errors.sum(1) / base.sum(1)).mean()),
        mistakes={
            "That divides at each severity, so that a severity with hardly any errors counts most: sum over the "
            "severities first.": lambda errors, base: float((errors / base).mean()),
            "That pools all kinds, so that the kinds with many errors decide alone: divide for each kind, then "
            "average.": lambda errors, base: float(errors.sum() / base.sum()),
            "The base network stands below the fraction bar.": lambda errors, base: float(
                (base.sum(1) / errors.sum(1)).mean()
            ),
            "Errors, not accuracies, are summed: do not subtract them from 1.": lambda errors, base: float(
                ((1 - errors).sum(1) / (1 - base).sum(1)).mean()
            ),
        },
        why="Each kind is measured against the base network on the same kind, and all kinds count alike.",
        cases=_ERRORS,
    ),
    "certificates-double": Exercise(
        right=[2.0, 1.0],
        mistakes={
            "The radius is σ Φ⁻¹(p): it grows with σ itself, not with its square.": [4.0, 1.0],
            "With the same votes the bound is the same, but σ stands before it.": [1.0, 1.0],
            "The true probability did not change, and more copies only bring the bound nearer to it.": [2.0, 10.0],
            "The radius does not go like the square root of n: the bound only comes nearer to the true probability.": [
                2.0,
                3.0,  # rounded
            ],
        },
        why="Twice the noise with the same votes doubles the radius; more copies only bring the bound nearer to the "
        "probability, which is what it is.",
    ),
    "certificates-all": Exercise(
        right=float(0.25 * special.ndtri(0.5**0.25)),
        mistakes={
            "All copies agree, so the share of votes is 1; the bound on the probability is α to the power 1/n.": (
                float("inf")
            ),
            "That is the bound p, not yet the radius σ Φ⁻¹(p).": 0.5**0.25,
            "σ is missing before Φ⁻¹(p).": float(special.ndtri(0.5**0.25)),
            "That is α to the power n. Four agreeing copies have probability p⁴, which is set equal to α.": 0.0,
        },
        why="p⁴ = 0.5 gives p = 0.841, one standard deviation above one half: the radius is σ.",
        tolerance=0.005,
    ),
    "certificates-votes": Exercise(
        right=_certified,
        mistakes={
            "The class must be picked by other copies than those that are counted, or the bound does not hold.": (
                lambda first, second, alpha, sigma: _certified(first, second, alpha, sigma, pick="counting")
            ),
            "That uses the share of votes. It is an estimate; a certificate needs a lower bound.": (
                lambda first, second, alpha, sigma: _certified(
                    first, second, alpha, sigma, bound=lambda k, n, alpha: k / n
                )
            ),
            "That is the bound of a two-sided interval. Only the lower side is needed, with all of α.": (
                lambda first, second, alpha, sigma: _certified(first, second, alpha / 2, sigma)
            ),
            "Where the bound is not above one half it must abstain: class −1, radius 0.": (
                lambda first, second, alpha, sigma: _certified(first, second, alpha, sigma, abstain=False)
            ),
        },
        why="Pick with one set of copies, bound with the other, abstain at or below one half.",
        cases=_VOTES,
    ),
}
