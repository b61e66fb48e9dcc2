import pytest

from sparselib.repro import cells, runner
from sparselib.repro.store import Store

DATA = cells.Data(name="digits", held_out=("8", "9"), train_limit=200, test_limit=60)


def _cells(seeds=2, **changes):
    found = []
    for seed in range(seeds):
        dense = cells.Trained(**{"data": DATA, "network": "convnet", "width": 4, "epochs": 1, "seed": seed, **changes})
        sparse = cells.Pruned(dense=dense, criterion="snip", sparsity=0.5, epochs=1)
        found += [
            cells.Detection(model=m, detector=d, anomaly="uniform") for m in (dense, sparse) for d in ("msp", "energy")
        ]
    return found


def _values(wanted, store):
    return runner.rows(wanted, store)[["condition", "metric", "seed", "sparsity", "value"]].values.tolist()


def test_rows_do_not_depend_on_jobs_and_nothing_is_computed_twice(tmp_path, monkeypatch):
    wanted = _cells()
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    runner.compute(wanted, one, jobs=1, progress=False)
    runner.compute(wanted, two, jobs=2, progress=False)
    assert _values(wanted, one) == _values(wanted, two)
    assert len(runner.closure(wanted)) == 2 * (2 + 4)
    monkeypatch.setattr(runner, "_make", lambda *_: pytest.fail("computed again"))
    runner.compute(wanted, one, jobs=1, progress=False)


def test_rows_are_tidy_and_say_where_they_come_from(tmp_path):
    store = Store(tmp_path)
    wanted = _cells(seeds=1)
    runner.compute(wanted, store, progress=False)
    table = runner.rows(wanted, store)
    assert {"dataset", "network", "criterion", "structured", "sparsity", "seed", "task", "condition", "metric", "value",
            "key", "commit", "versions", "device", "seconds"} <= set(table.columns)  # fmt: skip
    assert set(table["criterion"]) == {"none", "snip"} and table["value"].between(0, 1).all()


def test_a_new_parameter_computes_only_what_is_new_and_says_why(tmp_path):
    store = Store(tmp_path)
    runner.compute(_cells(), store, progress=False)
    more = runner.missing(_cells(seeds=3), store)
    assert {c.columns()["seed"] for c in more} == {2} and len(more) == 6
    assert {runner.reason(c, store) for c in more} == {"new parameters"}


def test_a_damaged_file_is_recomputed_to_the_same_values(tmp_path):
    store, wanted = Store(tmp_path), _cells(seeds=1)
    runner.compute(wanted, store, progress=False)
    before = _values(wanted, store)
    for path in (tmp_path / "cells").rglob("*.*"):
        path.write_bytes(path.read_bytes()[:20])
    with pytest.warns(UserWarning, match="damaged"):
        runner.compute(wanted, store, progress=False)
    assert _values(wanted, store) == before


def test_a_failing_cell_is_named_and_the_rest_is_kept(tmp_path):
    store = Store(tmp_path)
    dense = cells.Trained(data=DATA, network="convnet", width=4, epochs=1)
    bad = cells.Detection(model=dense, detector="sensnorm", options=(("norm", -1),), anomaly="uniform")
    with pytest.raises(cells.CellError, match=r"Detection dataset=digits .*detector=sensnorm.*norm must be in"):
        runner.compute([bad], store, progress=False)
    assert runner.missing([dense], store) == []
