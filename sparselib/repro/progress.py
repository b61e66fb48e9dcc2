"""How long things take, and a bar whose time left is reckoned from that."""

import sys
import time
from collections import Counter

from tqdm import tqdm

from sparselib.outside import visible


class Durations:
    """Seconds of work by kind, learnt as it is done; a kind is a tuple, from the general to the particular."""

    def __init__(self):
        self._number, self._seconds = Counter(), Counter()  # by every beginning of a kind

    def learn(self, kind, seconds):
        for length in range(1, len(kind) + 1):
            self._number[kind[:length]] += 1
            self._seconds[kind[:length]] += seconds

    def guess(self, kind):
        """Return the mean seconds of this kind, or of the nearest more general one that has been seen; else None."""
        beginnings = (kind[:length] for length in range(len(kind), 0, -1))
        known = next((beginning for beginning in beginnings if beginning in self._number), None)
        return None if known is None else self._seconds[known] / self._number[known]


class Bar:
    """A progress bar over things of unequal length. `guess(thing)` gives the seconds that one may take, or None.

    Things of a kind that has not been seen yet count like the mean of those that have; no time left is shown as long as
    that goes for more than half of what is left: it would be far off.
    """

    def __init__(self, things, guess, *, unit, shown=True):
        self._left, self._guess, self._done, self._spent, self._told = set(things), guess, 0, 0.0, 0.0
        self._count = len(self._left)
        self._unit = unit
        self._bar = tqdm(total=1.0, bar_format=" ", disable=not shown or not self._left, smoothing=0)
        self._show()

    def done(self, things, seconds):
        """Count things as done, which took so many seconds of work."""
        self._left.difference_update(things)
        self._spent += seconds
        if not self._left or time.monotonic() - self._told > 0.5:
            self._show()

    def refresh(self):
        """Show the time as it passes."""
        self._bar.refresh()

    def write(self, line):
        """Print a line above the bar."""
        tqdm.write(visible(line), file=sys.stderr)

    def _show(self):
        self._told = time.monotonic()
        if self._bar.disable:
            return
        seen = [guess for guess in map(self._guess, self._left) if guess is not None]
        # The bar's own numbers are seconds of work: that is where its time left comes from.
        self._bar.n, self._bar.total, left = 0, 1.0, "?"
        if 2 * len(seen) >= len(self._left):
            ahead = sum(seen) / max(1, len(seen)) * len(self._left)
            self._bar.n, self._bar.total, left = self._spent, self._spent + ahead or 1.0, "{remaining}"
        done = f"{self._count - len(self._left)}/{self._count}"
        self._bar.bar_format = f"{self._unit} {{percentage:3.0f}}%|{{bar:30}}| {done} [{{elapsed}}, {left} left]"
        self._bar.refresh()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
