"""Statistics over seeds, and the rule that turns them into verdicts.

A *contrast* is one comparison of two networks, paired by seed: the differences, seed by seed, of one measure. A claim
is tested on a family of contrasts, one for each sparsity (and criterion) tried. All intervals of a family hold
together with the level's probability (Bonferroni; Student's t over seeds).

"Better somewhere" is supported if at least one interval lies above 0, and contradicted if every one lies below the
margin, the smallest difference that would matter. "As good" is supported if at least one lies above −margin, and
contradicted if every one lies below it. All else is undecided: one seed decides nothing.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from sparselib import checks


def interval(values, level=0.95):
    """Return (mean, low, high): Student's t interval of the mean of independent values, one per seed.

    With a single value the interval is unbounded: low = −inf, high = inf. Raises ValueError when empty or not finite.
    """
    checks.number("level", level, 0, 1, low_open=True, high_open=True)
    values = np.asarray(values, dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"values must be finite and not empty, got {values.tolist()}")
    mean = float(values.mean())
    if values.size == 1:
        return mean, -np.inf, np.inf
    half = stats.t.ppf((1 + level) / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return mean, mean - float(half), mean + float(half)


@dataclass(frozen=True)
class Contrast:
    """Mean difference over `n` seeds with its interval [low, high], in the units of the measure.

    `effect` is Cohen's d of paired samples, mean / standard deviation of the differences (NaN where that is 0).
    """

    label: str
    n: int
    mean: float
    low: float
    high: float
    effect: float

    def __str__(self):
        return f"{self.mean:+.1f} [{self.low:.1f}, {self.high:.1f}]"


def paired(treated, control):
    """Return the differences treated − control of two {seed: value} mappings, in the order of the seeds.

    Raises ValueError unless both have the same seeds: a pair without its partner says nothing.
    """
    if set(treated) != set(control) or not len(treated):
        raise ValueError(f"treated and control must have the same seeds, got {sorted(treated)} and {sorted(control)}")
    return np.array([treated[seed] - control[seed] for seed in sorted(treated)], dtype=np.float64)


def contrasts(family, level=0.95):
    """Return a Contrast for each entry {label: differences over seeds} of a family; the intervals hold together."""
    if not family:
        raise ValueError("family must hold at least one contrast")
    found = []
    for label, differences in family.items():
        differences = np.asarray(differences, dtype=np.float64)
        mean, low, high = interval(differences, 1 - (1 - level) / len(family))
        spread = differences.std(ddof=1) if len(differences) > 1 else 0.0
        effect = mean / spread if spread > 0 else float("nan")
        found.append(Contrast(label, len(differences), mean, low, high, float(effect)))
    return found


def better_somewhere(found, margin):
    """Return "supported", "contradicted" or "undecided": at least one of the contrasts is a gain."""
    checks.number("margin", margin, 0)
    return _decided(found, above=0, below=margin)


def as_good(found, margin):
    """Return "supported", "contradicted" or "undecided": at least one of the contrasts is no loss of the margin."""
    checks.number("margin", margin, 0)
    return _decided(found, above=-margin, below=-margin)


def _decided(found, above, below):
    if any(c.low > above for c in found):
        return "supported"
    return "contradicted" if all(c.high < below for c in found) else "undecided"
