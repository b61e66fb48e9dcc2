"""The exercises on what the pages of the claims conclude: gates, pairs, intervals, corrections."""

import math

from sparselib.experiments import statistics
from sparselib.experiments.lessons.checking import Exercise


def largest(mask, dense):
    """Return (shift, gain) of the largest mean gain of {shift: {seed: accuracy}}, paired by the seeds of both."""
    return _largest(_paired(mask, dense))


def _paired(mask, dense):
    return {kind: [own[seed] - dense[kind][seed] for seed in own if seed in dense[kind]] for kind, own in mask.items()}


def _mean(values):
    return sum(values) / len(values)


def _largest(gains, by=_mean, size=lambda gain: gain):
    found = {kind: by(own) for kind, own in gains.items()}
    kind = max(found, key=lambda name: size(found[name]))
    return kind, found[kind]


def _unpaired(mask, dense):
    return _largest({kind: [_mean(own.values()) - _mean(dense[kind].values())] for kind, own in mask.items()})


def _highest(mask, dense):
    kind = max(mask, key=lambda name: _mean(mask[name].values()))
    return kind, _mean(_paired(mask, dense)[kind])


def admitted(networks, gate=2.0, *, allowed=lambda lost, gate: lost <= gate, of="attacked", reverse=True):
    """Return the names of comparable networks, the largest gain under attack first.

    Args: networks: {name: (clean, attacked)} in percent, "dense" among them. The rest: of mistakes.
    """
    clean, attacked = networks["dense"]
    gains = {name: b - attacked for name, (a, b) in networks.items() if name != "dense" and allowed(clean - a, gate)}
    if of == "both":
        gains = {name: gain + networks[name][0] for name, gain in gains.items()}
    return sorted(gains, key=lambda name: gains[name], reverse=reverse)


def _bonferroni(p):
    return [min(1.0, len(p) * value) for value in p]


def _stepped(p, factor=lambda n, rank: n - rank, rising=True, most=1.0):
    found, so_far = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        value = min(most, factor(len(p), rank) * p[i])
        so_far = max(so_far, value)
        found[i] = so_far if rising else value
    return found


_THREE = (1.0, 3.0, 5.0)
_MASK = {"fog": {0: 60.0, 1: 64.0, 2: 71.0}, "noise": {1: 40.0, 0: 38.0}, "turn": {0: 69.0, 1: 75.0}}
_DENSE = {
    "fog": {1: 65.0, 0: 55.0, 2: 66.0}, "noise": {0: 35.0, 1: 33.0, 2: 20.0}, "turn": {0: 80.0, 1: 86.0},
}  # fmt: skip
_CALM = {"fog": {0: 50.0, 1: 60.0}, "noise": {0: 30.0, 1: 30.0}}
_BASE = {"fog": {0: 52.0, 1: 54.0, 2: 20.0}, "noise": {0: 27.0, 1: 28.0}}
_NETWORKS = {
    "dense": (97.0, 20.0), "adversarial": (95.0, 41.0), "clean": (98.0, 22.0), "random": (80.0, 55.0),
    "scales": (99.5, 33.0),
}  # fmt: skip
_OTHERS = {"a": (90.0, 30.0), "b": (92.5, 29.0), "dense": (91.0, 35.0), "c": (88.0, 60.0), "d": (96.0, 25.0)}

EXERCISES: dict[str, Exercise] = {
    "subnetworks-gate": Exercise(
        right="not comparable",
        mistakes={
            "Under attack it gains. But a mask that gives up clean accuracy buys the gain: what does the gate say?": (
                "better"
            ),
            "The interval lies above zero, so that it is not worse. But may it be compared?": "worse",
            "Open is an interval that holds zero and reaches beyond the band.": "open",
        },
        why="The clean accuracy is more than two points lower: the gate comes before any other rule.",
    ),
    "subnetworks-weights": Exercise(
        right=0.2,
        mistakes={
            "That is the mean over the three attacks. The attacker may choose for each image.": 2 / 3,
            "That is the attack that does best over all images. It may choose another one for each image.": 0.6,
            "An image counts if it stands all three, not one of them.": 1.0,
        },
        why="Only the first image stands all three.",
        tolerance=1e-3,
    ),
    "subnetworks-shift": Exercise(
        right=largest,
        mistakes={
            "That is the shift at which the accuracy is highest. Asked for is what the mask gains there.": _highest,
            "The means are over different seeds. Take the differences first, of the seeds that both have.": _unpaired,
            "That is the largest gain of a single seed. Take the mean over seeds first.": (
                lambda mask, dense: _largest(_paired(mask, dense), by=max)
            ),
            "A loss is no gain: the sign counts.": lambda mask, dense: _largest(_paired(mask, dense), size=abs),
            "The sign is the other way round: mask minus dense.": lambda mask, dense: largest(dense, mask),
        },
        why="Differences within a seed, their mean, then the largest.",
        cases=[(_MASK, _DENSE), (_CALM, _BASE)],
    ),
    "verdict-delta": Exercise(
        right="equal",
        mistakes={
            "Better and worse ask where the interval lies against zero. δ does not enter there.": "better",
            "Worse asks for an interval below zero. δ does not move it.": "worse",
            "The band is wider now, and an interval that holds zero may lie within it.": "none",
        },
        why="The interval stays, the band grows: it may come to lie within.",
    ),
    "verdict-seeds": Exercise(
        right=0.576,
        mistakes={
            "That is the root alone. The factor of Student's t becomes smaller, too.": math.sqrt(0.5),
            "That is the factor of Student's t alone. The mean of more seeds varies less as well.": 2.262 / 2.776,
            "Twice the seeds do not halve an interval: the root of their number divides it.": 0.5,
            "That is how many times as long the old interval is.": 1.736,
        },
        why="2.262 / √10 over 2.776 / √5.",
        tolerance=6e-3,
    ),
    "verdict-holm": Exercise(
        right=statistics.holm,
        mistakes={
            "Every p is multiplied by their number: that is Bonferroni. Only the smallest needs the whole factor.": (
                _bonferroni
            ),
            "A larger p came out below a smaller one. None may be below those before it in the order.": (
                lambda p: _stepped(p, rising=False)
            ),
            "The factors run the wrong way: the smallest p takes the largest.": (
                lambda p: _stepped(p, factor=lambda n, rank: rank + 1)
            ),
            "The values come back sorted. Each must stand where its own p stood.": lambda p: sorted(statistics.holm(p)),
            "A probability came out above 1.": lambda p: _stepped(p, most=math.inf),
        },
        why="Multiplied by n, n − 1, …, never below those before, and never above 1.",
        cases=[([0.04, 0.001, 0.03, 0.8, 0.7],), ([0.02, 0.019, 0.9],), ([0.8, 0.01, 0.7],)],
    ),
    "others-seeds": Exercise(
        right="nothing",
        mistakes={
            "The seeds are those of the search and of the test images. The network was the same each time.": "better",
            "The 95 % are about other seeds of this search on this network, not other networks.": "probably better",
        },
        why="One network is one network: the spread between networks was never seen.",
    ),
    "others-interval": Exercise(
        right=[statistics.interval(_THREE)[1], statistics.interval(_THREE)[2]],
        mistakes={
            "1.96 is for very many seeds. Three seeds leave two degrees of freedom: 4.303.": [
                3 - 1.96 * 2 / math.sqrt(3),
                3 + 1.96 * 2 / math.sqrt(3),
            ],
            "That is the spread of one difference. The mean of three varies less: divide by √3.": [
                3 - 4.303 * 2,
                3 + 4.303 * 2,
            ],
            "The standard deviation divides by n here. With an estimated mean it divides by n − 1.": [
                3 - 4.303 * math.sqrt(8 / 3) / math.sqrt(3),
                3 + 4.303 * math.sqrt(8 / 3) / math.sqrt(3),
            ],
        },
        why="The mean is 3, the standard deviation 2: 3 ± 4.303 · 2 / √3.",
        tolerance=2e-2,
    ),
    "others-gate": Exercise(
        right=admitted,
        mistakes={
            "Nothing is gated: a network that lost its clean accuracy says nothing about robustness.": (
                lambda networks, gate=2.0: admitted(networks, gate, allowed=lambda lost, gate: True)
            ),
            "A network with a higher clean accuracy than the dense one is shut out. The gate is for losses.": (
                lambda networks, gate=2.0: admitted(networks, gate, allowed=lambda lost, gate: abs(lost) <= gate)
            ),
            "A loss of exactly the gate is still comparable: more than two points are not.": (
                lambda networks, gate=2.0: admitted(networks, gate, allowed=lambda lost, gate: lost < gate)
            ),
            "The order is turned round: the largest gain first.": (
                lambda networks, gate=2.0: admitted(networks, gate, reverse=False)
            ),
            "Clean accuracy and gain are added up. The gate says who is compared, the gain in which order.": (
                lambda networks, gate=2.0: admitted(networks, gate, of="both")
            ),
        },
        why="The gate first, then the order by gain.",
        cases=[(_NETWORKS,), (_OTHERS,), (_OTHERS, 3.0)],
    ),
}
