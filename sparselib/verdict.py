"""Statistics over seeds."""

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
