"""Statistics over seeds, and the rule that turns a difference into an outcome.

A *contrast* is one comparison of two networks in one measure, paired by seed: the mean difference with the interval of
Student's t at the level of 95 %. δ (`delta`) is the smallest difference that would matter. Its outcome:

    better, worse    the interval lies above 0, below 0 ("by less than δ" where it ends before ±δ)
    equal            the interval lies within ±δ
    open             neither: the seeds cannot tell
    floor            both arms lie within 2 points of 0, of chance or of 100: there is nothing to compare
    not comparable   the arm's clean accuracy is more than 2 points below its partner's (the *gate*)

Only the primary endpoints are corrected for their number (Holm 1979): what that does not bear out is open after
correction. All else is exploratory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from sparselib import checks

BETTER, WORSE, EQUAL, OPEN = "better", "worse", "equal", "open"
FLOOR, NOT_COMPARABLE, UNDONE = "floor", "not comparable", "open after correction"
OUTCOMES = (BETTER, EQUAL, OPEN, UNDONE, WORSE, FLOOR, NOT_COMPARABLE)
MOST = 100.0  # points: no difference of percentages is larger
NEAR = 2.0  # points: so near to 0, chance or 100 there is nothing to compare
GATE = 2.0  # points of clean accuracy that an arm may lie below its partner
LEVEL = 0.95  # of every interval; an outcome asks for p < 1 − LEVEL
POWER = 0.8


def interval(values: ArrayLike) -> tuple[float, float, float]:
    """Return (mean, low, high): the 95 % interval (Student's t) of the mean of independent values, one per seed.

    With a single value the interval is unbounded: low = −inf, high = inf. Raises ValueError when empty or not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"values must be finite and not empty, got {values.tolist()}")
    mean = float(values.mean())
    if values.size == 1:
        return mean, -np.inf, np.inf
    half = stats.t.ppf((1 + LEVEL) / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return mean, mean - float(half), mean + float(half)


@dataclass(frozen=True)
class Contrast:
    """The differences of one measure, seed by seed: their mean, its interval [low, high], and what it comes to."""

    differences: tuple[float, ...]
    mean: float
    low: float
    high: float
    outcome: str
    delta: float

    def __str__(self):
        interval = f"[{self.low:z.1f}, {self.high:z.1f}]" if np.isfinite(self.low) else "(one seed, so no interval)"
        return f"{self.mean:+z.1f} {interval}"

    @property
    def small(self) -> bool:
        """Whether it is better or worse, but by less than δ as far as the interval says."""
        better, worse = self.outcome == BETTER, self.outcome == WORSE
        return (better and self.high < self.delta) or (worse and self.low > -self.delta)

    @property
    def told(self) -> str:
        """The outcome in words, see `told`."""
        return told(self.outcome, self.small, self.delta)


def told(outcome: str, small: bool, delta: float) -> str:
    """Return an outcome in words, with δ where it decides: "equal within 2"; where `small`, "better by less than 2"."""
    within = " by less than" if small else " within" if outcome == EQUAL else ""
    return f"{outcome}{within} {delta:.2g}" if within else outcome


def paired(treated: Mapping[int, float], control: Mapping[int, float]) -> np.ndarray:
    """Return the differences treated − control of two {seed: value} mappings, in the order of the seeds.

    Raises ValueError unless both have the same seeds: a pair without its partner says nothing.
    """
    if set(treated) != set(control) or not len(treated):
        raise ValueError(f"treated and control must have the same seeds, got {sorted(treated)} and {sorted(control)}")
    return np.array([treated[seed] - control[seed] for seed in sorted(treated)], dtype=np.float64)


def contrast(differences: ArrayLike, delta: float, *, comparable: bool = True, floor: bool = False) -> Contrast:
    """Return the Contrast of differences in points, one per seed, by the rule above.

    Args: delta: at least 0, in points. comparable: whether the gate is passed. floor: see `at_floor`.

    The interval of several seeds ends at ±100, beyond which no difference of percentages lies: it covers as before.
    """
    checks.number("delta", delta, 0)
    values = np.asarray(differences, dtype=np.float64)
    mean, low, high = interval(values)
    if values.size > 1:
        low, high = max(low, -MOST), min(high, MOST)
    if not comparable:
        outcome = NOT_COMPARABLE
    elif floor:
        outcome = FLOOR
    elif low > 0:
        outcome = BETTER
    elif high < 0:
        outcome = WORSE
    else:
        outcome = EQUAL if low > -delta and high < delta else OPEN
    return Contrast(tuple(values.tolist()), mean, low, high, outcome, float(delta))


def at_floor(one: float, other: float, chance: float | None = None) -> bool:
    """Return whether two means in percent are both within 2 points of 0, of `chance`, or of 100."""
    return any(abs(one - end) <= NEAR and abs(other - end) <= NEAR for end in (0.0, 100.0, chance) if end is not None)


def p_value(differences: ArrayLike) -> float:
    """Return the two-sided p of Student's t for a mean of 0; 1 for a single difference, 0 for equal ones but 0."""
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return 1.0
    spread = values.std(ddof=1) / np.sqrt(len(values))
    if not spread:
        return 0.0 if values.any() else 1.0
    return float(2 * stats.t.sf(abs(values.mean()) / spread, len(values) - 1))


def p_no_worse(differences: ArrayLike, delta: float) -> float:
    """Return twice the one-sided p of Student's t for a loss of δ or more: below 0.05, such a loss is excluded."""
    values = np.asarray(differences, dtype=np.float64) + delta
    p = p_value(values)
    return p if values.mean() > 0 else 1.0


def p_worse(differences: ArrayLike, delta: float) -> float:
    """Return twice the one-sided p of Student's t for a loss of δ or less: below 0.05, the loss is larger than δ."""
    return p_no_worse(-np.asarray(differences, dtype=np.float64), -delta)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values corrected for their number (Holm 1979): below 0.05, the family's error is below it, too."""
    order, found, largest = np.argsort(p_values, kind="stable"), [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        found[index] = largest
    return found


def detectable(differences: ArrayLike) -> float:
    """Return the smallest true difference that so many seeds would find with a probability of 80 %, at their spread.

    (t_{.975} + t_{.8})·s/√n, infinite for a single seed.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return float("inf")
    quantiles = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) + stats.t.ppf(POWER, len(values) - 1)
    return float(quantiles * values.std(ddof=1) / np.sqrt(len(values)))


def widening(seeds: int, tested: int, trained: int) -> float:
    """Return by which factor intervals grow where the seeds' images come from one pool: √(1 + seeds·tested/trained).

    The correction of Nadeau and Bengio (2003) for train and test sets of these sizes, drawn anew for each seed.
    """
    return float(np.sqrt(1 + seeds * tested / trained))
