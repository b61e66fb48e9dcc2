"""The exercises on what the pages of the claims measure: accuracy under attack, detection, cost, SensNorm."""

import itertools

import numpy as np
import torch

from sparselib.detection import metrics
from sparselib.experiments.lessons.checking import Exercise


def _counted(one, other, swapped, *, neighbours=False):
    """Return for how many pairs of networks `swapped` says so of their differences under two attacks."""
    places = range(len(one))
    pairs = itertools.pairwise(places) if neighbours else itertools.combinations(places, 2)
    return sum(bool(swapped(one[i] - one[j], other[i] - other[j])) for i, j in pairs)


def swaps(one, other):
    """Return how many pairs of networks two attacks put in opposite orders; a tie is no order."""
    return _counted(one, other, lambda a, b: a * b < 0)


def _neighbours(one, other):
    return _counted(one, other, lambda a, b: a * b < 0, neighbours=True)


def _moved(one, other):
    ranks = [np.argsort(np.argsort(values, kind="stable")) for values in (one, other)]
    return int((ranks[0] != ranks[1]).sum())


def rejected(ordinary, scores, right):
    """Return the share of anomalous inputs that are classified rightly or rejected, at 5 % false alarms."""
    return metrics.right_or_rejected(scores, right, metrics.threshold(ordinary))


def _alarms(ordinary, scores):
    return np.asarray(scores) > metrics.threshold(ordinary)


def least(shares, kept):
    """Return the least share of cost at which nothing is lost, tested from the largest to the smallest."""
    return _least(sorted(zip(shares, kept, strict=True), reverse=True))


def _least(pairs, every=all, skip=False):
    found = 1.0
    for share, both in pairs:
        if every(both):
            found = share
        elif not skip:
            break
    return found


def _first_lost(shares, kept):
    lost = [share for share, both in zip(shares, kept, strict=True) if not all(both)]
    return max(lost, default=min(shares))


def authors(reference, saliency):
    """Return the mean over layers of the 5-norm of what the saliencies differ from the reference by."""
    return float(torch.stack(_distances(reference, saliency)).mean())


def _distances(reference, saliency, p=5):
    return [(bar - own).flatten().norm(p) for bar, own in zip(reference, saliency, strict=True)]


def _lengths(reference, saliency):
    norms = [[layer.flatten().norm(5) for layer in layers] for layers in (reference, saliency)]
    return float((torch.stack(norms[0]) - torch.stack(norms[1])).abs().mean())


def _together(reference, saliency):
    return float(torch.cat([(b - s).flatten() for b, s in zip(reference, saliency, strict=True)]).norm(5))


def _layers(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in ((3, 2), (4, 3), (2, 4))]


_ORDINARY = np.arange(40.0)
_SCORES = np.array([50.0, 38.0, 37.0, 12.0, 60.0, 3.0, 38.5, 1.0, 0.5, 0.0])
_RIGHT = np.array([True, False, False, True, False, False, False, True, False, False])
_LOST, _KEPT = (True, False), (True, True)

EXERCISES: dict[str, Exercise] = {
    "robustness-partner": Exercise(
        right="worse",
        mistakes={
            "That is what the comparison with the partner of two phases says. This one has one phase.": "equal",
            "The second phase costs something here, and only the pruned network has one.": "better",
        },
        why="The pruned network has the second phase and this partner has not: the loss is due to the phase.",
    ),
    "robustness-area": Exercise(
        right=50,
        mistakes={
            "That is the mean of three accuracies. The second stretch of radii is three times as long as the first.": (
                170 / 3
            ),
            "That is the area. As a share of the whole it is divided by the largest radius.": 20,
            "The stretch from radius 0 on is left out: without attack the accuracy is known, too.": 40,
            "Each stretch counts by its lower end here. Between two radii the line falls evenly: take the mean.": 25,
        },
        why="0.1 · 80 + 0.3 · 40 is 20; the whole would be 0.4 · 100.",
    ),
    "robustness-order": Exercise(
        right=swaps,
        mistakes={
            "Each pair is counted twice: once from either side.": lambda one, other: 2 * swaps(one, other),
            "A tie is counted as a swap: networks that an attack cannot tell apart have no order to turn round.": (
                lambda one, other: _counted(one, other, lambda a, b: a * b <= 0)
            ),
            "That counts networks whose rank changes. A single pair in opposite orders changes two ranks.": _moved,
            "Only neighbours are compared. Every network must meet every other.": _neighbours,
            "That counts the pairs in the same order.": (
                lambda one, other: _counted(one, other, lambda a, b: a * b > 0)
            ),
        },
        why="Every pair counts once, and a tie is no order.",
        cases=[
            (np.array([60.0, 50.0, 40.0, 30.0]), np.array([20.0, 25.0, 10.0, 22.0])),
            (np.array([60.0, 60.0, 40.0, 30.0, 10.0]), np.array([5.0, 25.0, 25.0, 10.0, 12.0])),
            (np.array([3.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])),
        ],
    ),
    "detection-either": Exercise(
        right="either",
        mistakes={
            "The second may reject most of what it gets wrong, and then come out above the first.": "first",
            "A higher AUROC is about all thresholds. At the one that is used, few of its errors may be rejected.": (
                "second"
            ),
        },
        why="The first has at least 90 %. The second has between 50 % and 100 %: the threshold decides.",
    ),
    "detection-families": Exercise(
        right=90,
        mistakes={
            "All kinds count alike here. First the kinds of a family are averaged, then the families.": 265 / 3,
            "That is the near family alone.": 85,
            "That is the far family alone.": 95,
        },
        why="Near is 85, far is 95; the two families count alike.",
    ),
    "detection-rejected": Exercise(
        right=rejected,
        mistakes={
            "Only what is rejected counts here. What is classified rightly does no harm, noticed or not.": (
                lambda ordinary, scores, right: float(_alarms(ordinary, scores).mean())
            ),
            "What is right and rejected as well is counted twice.": (
                lambda ordinary, scores, right: float(_alarms(ordinary, scores).mean() + right.mean())
            ),
            "The threshold is taken from the anomalous scores. In use nobody has those: it comes from ordinary ones.": (
                lambda ordinary, scores, right: metrics.right_or_rejected(scores, right, metrics.threshold(scores))
            ),
            "95 % of the ordinary inputs are rejected here, not 5 %: the threshold is at the wrong end.": (
                lambda ordinary, scores, right: metrics.right_or_rejected(
                    scores, right, metrics.threshold(ordinary, 0.95)
                )
            ),
            "What equals the threshold passes: `>`, not `>=`, or more than 5 % of the ordinary inputs are rejected.": (
                lambda ordinary, scores, right: float((right | (scores >= metrics.threshold(ordinary))).mean())
            ),
        },
        why="The threshold comes from ordinary inputs alone, and each anomalous input counts once.",
        cases=[
            (_ORDINARY, _SCORES, _RIGHT),
            (_ORDINARY, np.array([37.0, 37.0, 37.5, 2.0]), np.array([False, False, True, False])),
        ],
    ),
    "cost-one": Exercise(
        right="one dense network",
        mistakes={
            "It takes less than the dense ensemble, but five members at 0.3 each are more than one dense network.": (
                "the ensemble"
            ),
            "Each member runs on every input, so their shares add up.": "both the same",
        },
        why="Five times 0.3 is 1.5 dense networks.",
    ),
    "cost-sizes": Exercise(
        right=0.4,
        mistakes={
            "A size that loses nothing counts only if every larger one does, too: the tests end at the first that "
            "fails. Else the luckiest of several would be picked.": 0.1,
            "At this size something is lost: it is where the tests end.": 0.2,
            "The next size loses nothing either.": 0.7,
        },
        why="The tests go down from the largest size and end at the first loss.",
    ),
    "cost-least": Exercise(
        right=least,
        mistakes={
            "The tests go on behind a size that fails, so that the luckiest of several is picked.": (
                lambda shares, kept: _least(sorted(zip(shares, kept, strict=True), reverse=True), skip=True)
            ),
            "The sizes are tested in the order in which they came. Sort them: the largest first.": (
                lambda shares, kept: _least(zip(shares, kept, strict=True))
            ),
            "One of the two measures is enough here. Both must be kept.": (
                lambda shares, kept: _least(sorted(zip(shares, kept, strict=True), reverse=True), every=any)
            ),
            "That is the share at which the tests end, not the last one that lost nothing.": _first_lost,
        },
        why="From the largest to the smallest, in both measures, until one fails.",
        cases=[
            ([0.2, 0.7, 0.1, 0.4], [_LOST, _KEPT, _KEPT, _KEPT]),
            ([0.3, 0.6], [_KEPT, (False, False)]),
            ([0.5, 0.25], [_KEPT, _KEPT]),
        ],
    ),
    "sensnorm-uniform": Exercise(
        right="sure",
        mistakes={
            "The gradient is the probabilities minus a uniform share: it vanishes where the network is unsure.": (
                "unsure"
            ),
            "The target is the same for all inputs, the gradient is not: it depends on the probabilities.": "alike",
        },
        why="The further the probabilities are from uniform, the larger the gradient: ordinary inputs score highest.",
    ),
    "sensnorm-layers": Exercise(
        right=1.5,
        mistakes={
            "That is the sum over layers. The score is their mean.": 3.0,
            "That is one norm over all layers together. Each layer has a norm of its own.": (2**5 + 1) ** 0.2,
            "The reference is left out: the score is a distance from it.": 2.0,
            "The fifth root is left out.": 16.5,
        },
        why="The distances of the two layers are 2 and 1.",
        tolerance=1e-3,
    ),
    "sensnorm-authors": Exercise(
        right=authors,
        mistakes={
            "The layers are added up. The score is their mean.": (
                lambda reference, saliency: float(torch.stack(_distances(reference, saliency)).sum())
            ),
            "All layers are in one norm here. Each has a norm of its own.": _together,
            "That is the Euclidean norm. The authors' form takes the 5-norm.": (
                lambda reference, saliency: float(torch.stack(_distances(reference, saliency, 2)).mean())
            ),
            "That compares the lengths of two saliencies. Take the length of their difference.": _lengths,
            "The reference is left out: the score is a distance from it.": (
                lambda reference, saliency: authors([0 * layer for layer in reference], saliency)
            ),
        },
        why="Layer by layer the difference first, then its 5-norm, then the mean.",
        cases=[(_layers(0), _layers(1)), (_layers(2), _layers(3))],
    ),
}
