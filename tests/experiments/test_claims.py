"""What would change an outcome does change it, and no fewer seeds do."""

from types import SimpleNamespace

import numpy as np
import pytest

from sparselib.experiments import statistics
from sparselib.experiments.findings import Endpoint
from sparselib.experiments.lessons import claims


def _end(values, delta=2.0, claim="C1", outcome=None):
    found = outcome or statistics.contrast(values, delta).outcome
    return Endpoint(claim, "", "", found, 0.0, 0.0, tuple(values), delta)


def _seeds(told):
    return 1 if told.startswith("One") else int(told.split()[0])


@pytest.mark.parametrize(
    ("values", "further"), [([5, 6, 7, 6, 5], -5.8), ([-5, -6, -7, -6, -5], 5.8), ([0.1, -0.1, 0.2, -0.2, 0.0], 4.0)]
)
def test_the_seeds_that_are_named_change_the_outcome_and_one_fewer_does_not(values, further):
    end, n = _end(values), _seeds(claims.turn(_end(values)))
    assert statistics.contrast([*values, *[further] * n], 2.0).outcome != end.outcome
    assert n == 1 or statistics.contrast([*values, *[further] * (n - 1)], 2.0).outcome == end.outcome


def test_an_open_outcome_names_the_seeds_that_decide_it():
    told = claims.turn(_end([3.0, 9.0, -2.0, 4.0, 1.0]))
    n = int(told.split()[1])
    values = np.array([3.0, 9.0, -2.0, 4.0, 1.0])
    half = [statistics.stats.t.ppf(0.975, k - 1) * values.std(ddof=1) / np.sqrt(k) for k in (n - 1, n)]
    assert half[1] < values.mean() <= half[0] and told.endswith("it would be better.")
    assert claims.turn(_end([50.0, -50.0, 1.0])).startswith("Not even")


def test_what_is_decided_now_is_told_as_not_corrected(monkeypatch):
    said, decided, undecided = [], _end([5, 6, 7, 6, 5]), _end([3.0, 9.0, -2.0, 4.0, 1.0])
    monkeypatch.setattr(claims, "endpoints", lambda *_: [decided, undecided])
    claims.turns(SimpleNamespace(say=said.append), [SimpleNamespace(profile="digits", parameters=None, rows=None)])
    first, second = said[0].splitlines()
    assert "now **better on its own** " in first and "now **open** " in second


def test_what_no_seed_changes_is_told_otherwise():
    assert "clean accuracy" in claims.turn(_end([-60, -61], outcome=statistics.NOT_COMPARABLE))
    assert "chance or 100" in claims.turn(_end([0, 0.1], outcome=statistics.FLOOR))
    assert "second seed" in claims.turn(_end([3.0]))
    saved = _end([-0.6, 0.25, -0.35, -0.64, -0.03], claim="C3", outcome=statistics.BETTER)
    told = claims.turn(saved)
    n = _seeds(told)
    assert "twice δ is lost" in told
    assert statistics.p_no_worse([*saved.differences, *[-4.0] * n], 2.0) >= 0.05
