"""The exercises of the chapters on why weights can go, which go, and when."""

import math

import numpy as np
import torch
from scipy import stats

from sparselib.experiments import statistics
from sparselib.experiments.lessons.checking import Exercise
from sparselib.pruning import masks


def keep(theta, sparsity):
    """Return the bool mask of the largest |θ|; of equal ones the first stay."""
    return masks.keep_highest(theta.abs(), _count(theta, sparsity))


def _count(theta, sparsity):
    return round((1 - sparsity) * theta.numel())


def _at_least(score, sparsity):
    """Keep every score that reaches the last one that stays: too many where scores tie."""
    return score >= score.flatten().sort(descending=True).values[_count(score, sparsity) - 1]


def survivors(theta, g, sparsity):
    """Return the bool mask of SNIP over all layers (layers, weights) together."""
    return masks.keep_highest((theta * g).abs(), _count(theta, sparsity))


def _layer_by_layer(theta, g, sparsity):
    return torch.stack([survivors(t, d, sparsity) for t, d in zip(theta, g, strict=True)])


def difference(one, other):
    """Return (mean, low, high) of the paired difference one − other."""
    return statistics.interval(one - other)


def _around(mean, half):
    return mean, mean - half, mean + half


def _spread(values):
    return values.std(ddof=1) / math.sqrt(len(values))


def _quantile(freedom):
    return stats.t.ppf(0.975, freedom)


def _unpaired(one, other):
    found = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    return one.mean() - other.mean(), found.low, found.high


def _lengths_added(one, other):
    (a, low, _), (b, below, _) = statistics.interval(one), statistics.interval(other)
    return _around(a - b, (a - low) + (b - below))


MATRIX = torch.tensor([[3.0, -4.0, 1.0], [-0.5, 2.0, -1.5]])
TIED = torch.tensor([[1.0, -1.0, 3.0], [-1.0, 2.0, 0.25]])
SCALED = torch.tensor([[5.0, -7.0, 6.0, 4.0], [0.5, 0.25, -0.75, 1.0]])
SLOPES = torch.tensor([[0.5, -0.1, 2.0, -1.0], [-2.0, 1.0, 1.6, -0.1]])

EXERCISES: dict[str, Exercise] = {
    "sparsity-twice": Exercise(
        right=0.5,
        mistakes={
            "That would be a half of what the first cut left. Of which weights is the sparsity a fraction?": 0.75,
            "The fractions of two cuts do not add up: the second cut counts the weights that are gone already.": 1.0,
            "That is a density. The sparsity is the fraction that is gone.": 0.25,
        },
        why="Sparsity is a fraction of all prunable weights. The smallest half is gone already, so nothing more goes.",
    ),
    "sparsity-bytes": Exercise(
        right=[9216, 16644],
        mistakes={
            "The mask takes one bit a weight, not one byte.": [16384, 16644],
            "The bitmap itself is missing: without it nobody knows where the values belong.": [8192, 16644],
            "CSR also stores where each row begins.": [9216, 16384],
            "CSR stores one pointer more than it has rows: the end of the last row.": [9216, 16640],
            "You stored the weights that were removed. How many stay?": [25600, 49412],
        },
        why="Of 8,192 weights 2,048 stay: 8,192 bytes of values, plus 1,024 of bits, or plus 8,192 of columns and 260.",
    ),
    "sparsity-mask": Exercise(
        right=keep,
        mistakes={
            "Large negative weights are lost. Does the sign of a weight say how much it matters?": (
                lambda theta, sparsity: masks.keep_highest(theta, _count(theta, sparsity))
            ),
            "You keep the smallest weights. Which end of the order should stay?": (
                lambda theta, sparsity: masks.keep_highest(-theta.abs(), _count(theta, sparsity))
            ),
            "Where weights tie, too many stay: comparing with a threshold by >= keeps all of the equal ones.": (
                lambda theta, sparsity: _at_least(theta.abs(), sparsity)
            ),
            "The number that stays is the number that should go. Is the sparsity what goes or what stays?": (
                lambda theta, sparsity: keep(theta, 1 - sparsity)
            ),
        },
        why="Exactly the right number stays, at the largest |θ|, also where weights tie.",
        cases=[(MATRIX, 2 / 3), (TIED, 0.5), (-TIED, 1 / 3)],
    ),
    "criteria-rescaled": Exercise(
        right=["snip", "synflow"],
        mistakes={
            "SNIP is right, but one more keeps its order: what happens to the sum over all paths?": ["snip"],
            "SynFlow is right, but one more keeps its order: how does g change where θ is multiplied?": ["synflow"],
            "The loss is the same, but gᵀg is not: where θ grows, g shrinks, so other weights hold the flow up.": [
                "crop",
                "grasp",
                "snip",
                "synflow",
            ],
            "The outputs are the same, but a criterion looks at the weights. Which of them see the factor?": [
                "crop",
                "grasp",
                "magnitude",
                "snip",
                "synflow",
            ],
        },
        why="θ times the derivative of a function that the rescaling leaves as it is stays as it is: L, and R.",
    ),
    "criteria-taylor": Exercise(
        right=[-3.0, 1.5],
        mistakes={
            "The sign: removing θ moves it by Δ = −θ, so the first term is −θg.": [3.0, 1.5],
            "The first number is −g. How far does θ move when it is removed?": [-2.0, 1.5],
            "The second number is the second term alone. The change has both.": [-3.0, 4.5],
            "The second number is the loss after the removal, not its change.": [-3.0, 2.0],
        },
        why="g = 2, so −θg = −3, and ½θ²H = 4.5. The two add up to the change. The first alone has the wrong sign.",
    ),
    "criteria-global": Exercise(
        right=survivors,
        mistakes={
            "Every layer loses the same fraction. One threshold for all layers lets them differ.": _layer_by_layer,
            "Weights whose θg is negative are lost first. SNIP asks how large the change is, in either direction.": (
                lambda theta, g, sparsity: masks.keep_highest(theta * g, _count(theta, sparsity))
            ),
            "Where scores tie, too many stay: comparing with a threshold by >= keeps all of the equal ones.": (
                lambda theta, g, sparsity: _at_least((theta * g).abs(), sparsity)
            ),
            "You keep the weights with the smallest scores.": (
                lambda theta, g, sparsity: masks.keep_highest(-(theta * g).abs(), _count(theta, sparsity))
            ),
            "That is the mask of magnitude: the gradient is missing.": (
                lambda theta, g, sparsity: keep(theta, sparsity)
            ),
        },
        why="One order over all layers, by |θg|, with exactly the right number of survivors.",
        cases=[(SCALED, SLOPES, 0.5), (TIED, torch.ones(2, 3), 0.5), (SCALED, SLOPES, 0.75)],
    ),
    "schedules-overlap": Exercise(
        right="b",
        mistakes={
            "Two intervals of means say nothing about the spread of the differences. Look at the invented seeds.": "a",
            "More seeds make every interval shorter. But how do the two values of one seed move?": "c",
        },
        why="Where a good seed is good for both, the differences spread less than two values without a partner.",
    ),
    "schedules-rounds": Exercise(
        right=0.9,
        mistakes={
            "That is half of the way in sparsity. In rounds, it is the density that falls by a fixed factor.": 0.495,
            "That is the density after the first round. What is gone?": 0.1,
        },
        why="The density falls from 1 to 0.01 in two equal factors of 0.1, so 0.9 is gone after the first.",
    ),
    "schedules-paired": Exercise(
        right=difference,
        mistakes={
            "That is the interval for two groups of seeds without partners. Take the differences first.": _unpaired,
            "You added the lengths of two intervals. Take the differences first: they have a spread of their own.": (
                _lengths_added
            ),
            "1.96 is for very many seeds. With few, Student's t has a larger factor.": (
                lambda one, other: _around((one - other).mean(), 1.9599639845 * _spread(one - other))
            ),
            "The spread is that of one difference. The mean of n of them varies less.": (
                lambda one, other: _around((one - other).mean(), _quantile(len(one) - 1) * (one - other).std(ddof=1))
            ),
            "The standard deviation divides by n. With an estimated mean it has to divide by n − 1.": (
                lambda one, other: _around(
                    (one - other).mean(), _quantile(len(one) - 1) * (one - other).std() / math.sqrt(len(one))
                )
            ),
            "The sign is the other way round: one − other.": lambda one, other: difference(other, one),
        },
        why="The differences first, then the interval of their mean.",
        cases=[
            (np.array([90.0, 93.0, 97.0]), np.array([89.0, 91.5, 95.0])),
            (np.array([70.0, 80.0, 75.0, 90.0, 85.0]), np.array([71.0, 78.0, 75.5, 86.0, 84.0])),
        ],
    ),
}
