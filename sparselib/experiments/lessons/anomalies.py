"""The exercises of the part on anomalies."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from sparselib.detection import metrics
from sparselib.experiments.lessons.checking import Exercise


def ece(confidence, right, bins, *, weighted=True, signed=False, left=False, power=1):
    """Return the expected calibration error: over bins of confidence, the mean of |confidence − accuracy|.

    Args:
        confidence: (N,) in (0, 1]. right: bool (N,), whether the prediction was right.
        bins: how many of equal width, each without its left end and with its right one.
        weighted: each bin counts by its samples; else all alike. signed: gaps cancel. left: bins hold their left end
            instead. power: of the gaps. All but the defaults are mistakes.
    """
    confidence, right = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    place = np.floor(confidence * bins) if left else np.ceil(confidence * bins) - 1
    gaps, counts = [], []
    for b in range(bins):
        inside = place == b
        if inside.any():
            gap = confidence[inside].mean() - right[inside].mean()
            gaps.append(gap if signed else abs(gap) ** power)
            counts.append(inside.sum())
    weights = np.array(counts) / len(confidence) if weighted else np.full(len(gaps), 1 / len(gaps))
    return float(abs((weights * np.array(gaps)).sum()))


def _ranks(ordinary, anomalies, ties):
    wins = np.subtract.outer(np.asarray(anomalies), np.asarray(ordinary))
    return float(((wins > 0) + ties * (wins == 0)).mean())


def _caught(anomalies):
    """Return the highest score at or above which at least 95 % of the anomalies lie."""
    ranked = np.sort(anomalies)[::-1]
    return ranked[math.ceil(0.95 * len(ranked) - 1e-9) - 1]


def _tpr_at_5_fpr(ordinary, anomalies):
    return float((np.asarray(anomalies) > metrics.threshold(ordinary, 0.05)).mean())


def _knn(train, h, k, *, unit=True, mean=False, off=0, sign=1):
    if unit:
        train, h = F.normalize(train, dim=1), F.normalize(h, dim=0)
    nearest = (train - h).norm(dim=1).sort().values
    return sign * float(nearest[:k].mean() if mean else nearest[k - 1 + off])


def _sensnorm(weight, h, z, *, theta=True, hot=True, q=2, root=True, uniform=False):
    d = z.softmax(0)
    if uniform:
        d = d - 1 / len(z)
    elif hot:
        d = d - F.one_hot(z.argmax(), len(z))
    saliency = d[:, None] * h[None, :] * (weight if theta else 1)
    norm = float(saliency.abs().pow(q).sum())
    return norm ** (1 / q) if root else norm


def _same_place(first, second):
    return sum(bool(torch.equal(a, b)) for a, b in zip(first, second, strict=False))


def _pairs(first, second):
    return sum(bool(torch.equal(a, b)) for a in first for b in second)


def _shared(first, second):
    return sum(any(bool(torch.equal(a, b)) for b in second) for a in first)


def _as_bright(first, second):
    return sum(any(bool(torch.isclose(a.mean(), b.mean())) for b in second) for a in first)


_CONFIDENT = np.array([1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.6, 0.55, 0.5, 0.3])
_RIGHT = np.array([True, True, False, True, True, False, True, False, True, False])
_CALM = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 5.8, 6.0, 7.0, 8.0, 9.0])
_LOUD = np.array([4.0, 5.0, *[7.0] * 8, *[12.0] * 10])
_GAP = np.array([1.0, 6.0, *[6.5] * 8, *[8.5] * 10])
_BANK = torch.tensor([[1.0, 0.0], [3.0, 0.5], [0.0, 2.0], [1.0, 1.0], [-1.0, 0.2]])
_HEAD = torch.tensor([[1.0, 2.0], [0.0, 1.0], [-1.0, 0.5]])
_IMAGES = torch.stack([torch.eye(2), torch.zeros(2, 2), torch.ones(2, 2), torch.eye(2).flip(0), torch.eye(2)])[:, None]

EXERCISES: dict[str, Exercise] = {
    "confidence-far": Exercise(
        right="falls to zero",
        mistakes={
            "The probability does not settle between 0 and 1: the gap between the two largest logits grows in "
            "proportion to the distance. What does a softmax make of a gap that grows?": "settles",
            "The features do grow with the distance, in proportion. Compare that with how fast 1 − p vanishes.": (
                "grows without bound"
            ),
        },
        why="A factor that grows in proportion, times one that vanishes exponentially, vanishes.",
    ),
    "confidence-bins": Exercise(
        right=0.2,
        mistakes={
            "The bins do not count alike: each weighs what it holds of the predictions.": (0.7 / 3 + 0.15) / 2,
            "Gaps of different sign must not cancel: take the size of each gap first.": 0.08,
            "That is the largest gap of a bin, the maximum calibration error.": 0.7 / 3,
        },
        why="Six tenths of the predictions are too sure, four tenths not sure enough; both count.",
        tolerance=1e-3,
    ),
    "confidence-ece": Exercise(
        right=ece,
        mistakes={
            "Gaps of different sign cancel here: take the size of each gap before the mean.": lambda c, r, b: ece(
                c, r, b, signed=True
            ),
            "All bins count alike here; each should weigh what it holds of the samples.": lambda c, r, b: ece(
                c, r, b, weighted=False
            ),
            "A confidence on an edge went into the bin above; and one of exactly 1 into none. Each bin has its right "
            "end, not its left one.": lambda c, r, b: ece(c, r, b, left=True),
            "The gaps are squared here; the plain definition takes their size.": lambda c, r, b: ece(c, r, b, power=2),
        },
        why="Empty bins add nothing, and every sample counts once.",
        cases=[(_CONFIDENT, _RIGHT, 5), (_CONFIDENT, _RIGHT, 2), (_CONFIDENT, _RIGHT, 20)],
    ),
    "thresholds-share": Exercise(
        right=0.05 * 0.999 / (0.05 * 0.999 + 0.95 * 0.001),
        mistakes={
            "That is the false-alarm rate: a share of the ordinary inputs. Asked for is a share of the alarms.": 0.05,
            "That is the share of alarms that are right.": 0.95 * 0.001 / (0.05 * 0.999 + 0.95 * 0.001),
            "That is the share of ordinary inputs among all inputs, whether flagged or not.": 0.999,
        },
        why="Of a thousand inputs one is an anomaly; some fifty alarms come from the others.",
        tolerance=1e-3,
    ),
    "thresholds-auroc": Exercise(
        right=14 / 16,
        mistakes={
            "A tie was counted as a win: it counts one half.": 15 / 16,
            "A tie was counted as a loss: it counts one half.": 13 / 16,
            "The sign of the score is reversed: that is how often an ordinary input scores above an anomaly.": 2 / 16,
        },
        why="Thirteen pairs are won, two are ties and count one half each.",
        tolerance=1e-3,
    ),
    "thresholds-fpr95": Exercise(
        right=metrics.fpr_at_95_tpr,
        mistakes={
            "The other class is positive here: that is the share of anomalies that pass when 95 % of the ordinary "
            "inputs do.": lambda i, o: metrics.fpr_at_95_tpr(i, o, positive="id"),
            "Inputs at the threshold itself are left out: `>` where `>=` is meant, so that of the anomalies fewer than "
            "95 % would be caught, too.": lambda i, o: float((i > _caught(o)).mean()),
            "The threshold lies between two scores: an interpolated quantile. It should be a score that at least 95 % "
            "of the anomalies reach.": lambda i, o: float((i >= np.quantile(o, 0.05)).mean()),
            "The sign of the score is reversed: here a low score means an anomaly.": lambda i, o: metrics.fpr_at_95_tpr(
                -i, -o
            ),
            "The rates are exchanged: that is the share of anomalies caught when 5 % of the ordinary inputs are "
            "flagged.": _tpr_at_5_fpr,
        },
        why="The threshold is an anomaly's score, and what reaches it is flagged.",
        cases=[(_CALM, _LOUD), (_CALM, _GAP), (_CALM + 3, _LOUD)],
    ),
    "detection-shift": Exercise(
        right=["energy", "max logit"],
        mistakes={
            "A softmax does not see a number that is added to all logits: e to it is a factor above and below.": [
                "MSP",
                "energy",
                "max logit",
            ],
            "Of the three, the one that is unchanged was asked to be left out.": ["MSP"],
            "The largest logit moves with all others, too.": ["energy"],
        },
        why="Differences of logits decide the probabilities; the other two read the level of the logits.",
    ),
    "detection-energy": Exercise(
        right=-math.log(4),
        mistakes={
            "The sign: a high score must mean an anomaly, and known kinds have large logits.": math.log(4),
            "That is the score by the largest logit; the energy sums over all classes.": -math.log(3),
            "That is the score by the largest probability.": -0.75,
            "The logits themselves were summed; sum their exponentials, then take the logarithm.": -math.log(
                math.log(3)
            ),
        },
        why="e⁰ + e^(ln 3) is 4.",
        tolerance=1e-3,
    ),
    "detection-knn": Exercise(
        right=_knn,
        mistakes={
            "The features keep their lengths here: put them all on the unit sphere first.": lambda t, h, k: _knn(
                t, h, k, unit=False
            ),
            "That is the mean distance to the k nearest; the score is that of the k-th.": lambda t, h, k: _knn(
                t, h, k, mean=True
            ),
            "Counting starts at 0 in Python: that is the neighbour after the k-th.": lambda t, h, k: _knn(
                t, h, k, off=1
            ),
            "The sign of the score is reversed: far from the training data must score high.": lambda t, h, k: _knn(
                t, h, k, sign=-1
            ),
        },
        why="Directions alone count, and one neighbour, the k-th.",
        cases=[(_BANK, torch.tensor([2.0, 1.0]), 2), (_BANK, torch.tensor([-1.0, -3.0]), 3)],
    ),
    "sensnorm-double": Exercise(
        right=2.0,
        mistakes={
            "Every saliency is doubled, and its square is four times as large; but the norm takes a root.": 4.0,
            "The probabilities are not all: each saliency is θ times an error times a feature.": 1.0,
            "The weights are the same network's: only the features are doubled.": 0.5,
        },
        why="A norm grows in proportion to what it is taken of, and the saliency of the last layer to the features.",
    ),
    "sensnorm-hand": Exercise(
        right=math.sqrt(1.3125),
        mistakes={
            "The weights are missing: that is the norm of the gradient. Multiply by θ first.": math.sqrt(0.625),
            "The root is missing.": 1.3125,
            "The label is missing: the error is p minus 1 at the predicted class, not p itself.": math.sqrt(
                0.75**2 + 3**2 + 0.5**2
            ),
            "That is the sum of sizes, the norm of order 1.": 1.75,
        },
        why="Four saliencies: −1/4, −1, 0 and 1/2.",
        tolerance=1e-3,
    ),
    "sensnorm-code": Exercise(
        right=_sensnorm,
        mistakes={
            "The weights are missing: that is the norm of the gradient.": lambda w, h, z: _sensnorm(
                w, h, z, theta=False
            ),
            "The error at the logits is p minus 1 at the predicted class; here it is p itself.": lambda w, h, z: (
                _sensnorm(w, h, z, hot=False)
            ),
            "That is the norm of order 1; asked for is order 2.": lambda w, h, z: _sensnorm(w, h, z, q=1),
            "The root is missing.": lambda w, h, z: _sensnorm(w, h, z, root=False),
            "The target is uniform here, as in GradNorm; SensNorm takes the predicted label.": lambda w, h, z: (
                _sensnorm(w, h, z, uniform=True)
            ),
        },
        why="No gradient was asked of torch: the last layer has a closed form.",
        cases=[
            (_HEAD, torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.5, 0.0])),
            (_HEAD, torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0, -1.0])),
        ],
        tolerance=1e-3,
    ),
    "testing-leaks": Exercise(
        right=["B", "D"],
        mistakes={
            "In one more of the four, what was chosen has seen the outliers of the test.": ["B"],
            "In one more of the four, the outliers of the test have helped to choose.": ["D"],
            "Training images may be used for a threshold: the threshold may be off, but no outlier of the test has "
            "been seen.": ["A", "B", "D"],
            "Another kind of outliers, other images and another seed: that is how a choice should be made.": [
                "B",
                "C",
                "D",
            ],
        },
        why="Two of the four choose with the very outliers that are reported.",
    ),
    "testing-luck": Exercise(
        right=1 - 0.95**20,
        mistakes={
            "That is the chance for one detector; twenty have tried.": 0.05,
            "Chances of events that can happen together do not simply add.": 1.0,
            "That is the chance that none of them passes.": 0.95**20,
        },
        why="All twenty must fail for the paper not to be written.",
        tolerance=1e-3,
    ),
    "testing-shared": Exercise(
        right=_shared,
        mistakes={
            "Only images at the same place were compared; a copy may stand anywhere.": _same_place,
            "Pairs were counted: an image of the first set counts once, however many copies it has.": _pairs,
            "Images of equal mean brightness were counted as equal. Compare all pixels.": _as_bright,
            "The question is about the images of the first set, not of the second.": lambda a, b: _shared(b, a),
        },
        why="Every image of the first set is looked for in all of the second.",
        cases=[
            (_IMAGES[:3], _IMAGES[[4, 3, 0]]),
            (_IMAGES[[0, 1, 1]], _IMAGES[[1, 2, 3]]),
            (_IMAGES[2:4], _IMAGES[:2]),
            (_IMAGES[:2], _IMAGES[[0, 4, 2, 4]]),
        ],
    ),
}
