"""The end of the pages of the claims: what to remember, and what would change the outcome."""

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat

import numpy as np

from sparselib.experiments import statistics, words
from sparselib.experiments.findings import Endpoint, endpoints
from sparselib.repro.page import Result, Run

MOST = 200  # seeds, beyond which nobody waits


def takeaway(run: Run, results: Iterable[Result], remember: str) -> None:
    """Show the box that ends a page: the outcome of each endpoint, then Markdown that needs no numbers."""
    lines = [f"- {words.scale(r.profile)}, {e.question}: **{e.alone}**." for r in results for e in _ends(r)]
    told = "\n".join([*(lines or ["- Nothing can be compared."]), "", remember])
    run.say(f"````{{admonition}} To remember\n:class: takeaway\n\n{told}\n````")


def turns(run: Run, results: Iterable[Result]) -> None:
    """Say of each endpoint which further evidence would change its outcome."""
    lines = [
        f"- *{words.scale(r.profile)}*, {e.question}: now **{e.alone}** ({e.number}). {turn(e)}"
        for r in results
        for e in _ends(r)
    ]
    run.say("\n".join(lines or ["- Nothing can be compared yet."]))


def turn(end: Endpoint) -> str:
    """Return in a sentence what would change the outcome of an endpoint, if the spread over seeds stays as it is.

    Of an outcome that the seeds decide, it is the number of further seeds that say otherwise; of an open one, how many
    seeds of this mean and spread would decide it.
    """
    values, delta = end.differences, end.delta
    if end.outcome == statistics.NOT_COMPARABLE:
        return (
            f"A network whose clean accuracy stays within {statistics.GATE:g} points of its partner's could be judged."
        )
    if end.outcome == statistics.FLOOR:
        return f"A test could tell on which the two are not both within {statistics.NEAR:g} points of 0, chance or 100."
    if len(values) < 2:
        return "A second seed is needed: a single one has no interval."
    if end.claim == "C3" and end.outcome == statistics.BETTER:  # it claims that nothing is lost, not that much is won
        n = _until(values, -2 * delta, lambda v: statistics.p_no_worse(v, delta) >= 1 - statistics.LEVEL)
        return f"{_more(n)} at which twice δ is lost would change that."
    if end.outcome == statistics.OPEN:
        return _decided(values, delta)
    if end.outcome == statistics.EQUAL:
        n = _until(values, 2 * delta, lambda v: statistics.contrast(v, delta).outcome != statistics.EQUAL)
        return f"{_more(n)} with a difference of twice δ would change that."
    n = _until(values, -float(np.mean(values)), lambda v: statistics.contrast(v, delta).outcome != end.outcome)
    return f"{_more(n)} with the opposite difference would change that."


def _ends(result):
    return endpoints(result.parameters, result.rows)


def _until(values: Sequence[float], further: float, changed: Callable[[list[float]], bool]) -> int | None:
    """Return how many seeds of the difference `further` change the outcome."""
    tried = list(values)
    for n, value in enumerate(repeat(further, MOST), 1):
        tried.append(value)
        if changed(tried):
            return n
    return None


def _more(n):
    if n is None:
        return f"Not even {MOST} more seeds"
    return "One more seed" if n == 1 else f"{n} more seeds"


def _decided(values, delta):
    """Say how many seeds of the mean and spread of `values` would decide what is open."""
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    shape = np.linspace(-1, 1, 2 * MOST)
    for n in range(len(values) + 1, MOST + 1):
        own = shape[:n] - shape[:n].mean()
        own *= spread / own.std(ddof=1)
        outcome = statistics.contrast(mean + own, delta).outcome
        if outcome != statistics.OPEN:
            return f"With {n} seeds of this mean and spread it would be {outcome}."
    return f"Not even {MOST} seeds of this mean and spread would decide; it takes a test with less spread."
