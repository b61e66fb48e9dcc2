import pytest
import torch
import toy
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_info

from sparselib import experiments
from sparselib.experiments import networks
from sparselib.repro import parameters as typed
from sparselib.repro import runner, step, workers
from sparselib.repro.store import Store

SMALL = {
    "seeds": 2, "epochs": 1, "width": 4, "train_limit": 100, "test_limit": 60, "sparsities": [0.0, 0.5],
    "finetune_epochs": 1, "detectors": ["msp", "sensnorm", "sensnorm-ayle", "mahalanobis"],
    "anomalies": ["uniform", "pgd:0.1"], "ablation": ["sensnorm norm:1"], "rounds": 1,
}  # fmt: skip


def _small(**changes):
    return typed.resolve(typed.find(experiments.PAGES, 5), {**SMALL, **changes}).steps()


def _values(wanted, store):
    rows = runner.rows([({}, step) for step in wanted], store)
    names = ["detector", "anomaly", "metric", "seed", "sparsity", "value"]
    return rows[names].fillna("").values.tolist()


def test_rows_do_not_depend_on_jobs_and_nothing_is_computed_twice(tmp_path, monkeypatch):
    wanted = _small()
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    runner.compute(wanted, one, jobs=1, progress=False)
    runner.compute(wanted, two, jobs=2, progress=False)
    assert _values(wanted, one) == _values(wanted, two)
    assert (
        len(list((tmp_path / "two" / "steps").glob("*/*.json")))
        == len(runner.missing(wanted, Store(tmp_path / "none")))
        == len(wanted) + 2  # of each seed the network that the others start from
    )
    monkeypatch.setattr(runner, "_make", lambda *_: pytest.fail("computed again"))
    runner.compute(wanted, one, jobs=1, progress=False)


def test_rows_are_tidy_and_say_where_they_come_from(tmp_path):
    store, wanted = Store(tmp_path), _small(seeds=1)
    runner.compute(wanted, store, progress=False)
    table = runner.rows([({"arm": "x"}, step) for step in wanted], store)
    told = {"arm", "task", "network", "criterion", "structured", "sparsity", "seed", "detector", "anomaly", "family"}
    origin = {"metric", "value", "what", "key", "commit", "versions", "device", "seconds"}
    assert told | origin <= set(table.columns)
    assert set(table["criterion"].dropna()) == {"magnitude"}
    assert table.loc[table["metric"] == "auroc", "value"].between(0, 1).all()
    with pytest.raises(step.StepError, match="Pruned .*not in the store .*compute it first"):
        runner.rows([({}, step) for step in _small(seeds=2)], store)


def test_a_new_parameter_computes_only_what_is_new_and_says_why(tmp_path):
    store = Store(tmp_path)
    runner.compute(toy.grid(nets=2), store, progress=False)
    more = runner.missing(toy.grid(nets=3), store)
    assert {c.columns()["seed"] for c in more} == {2} and len(more) == 5
    assert {runner.reason(c, store) for c in more} == {"new parameters"}


def test_a_network_is_made_once_however_many_steps_need_it(tmp_path):
    log = tmp_path / "log"
    runner.compute(toy.grid(nets=1, numbers=30, log=str(log)), Store(tmp_path / "store"), progress=False)
    lines = [line.split()[0] for line in log.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == len(set(lines)) == 31


def test_large_groups_are_cut_into_short_pieces_and_small_ones_stay_whole(tmp_path):
    todo = {
        c.key: c
        for c in runner.missing([*toy.grid(nets=1, numbers=200), *toy.grid(nets=2, numbers=3)], Store(tmp_path))
    }
    tasks = runner._tasks(todo, lambda key: 1.0, 2, tmp_path)
    total = sum(task.weight for task in tasks)
    assert total == len(todo) == 205
    limit = total / (runner.SHARES * 2)
    assert max(task.weight for task in tasks) <= limit + 1 and len(tasks) <= 200 / limit + 5
    assert sorted(key for task in tasks for key in task.makes) == sorted(todo)
    small = [t for t in tasks if all(getattr(todo[k], "net", None) == toy.Net(seed=1) for k in t.makes)]
    assert [len(task.makes) for task in small] == [3] and small[0].needs == {toy.Net(seed=1).key}


def test_the_time_of_steps_is_foreseen_from_their_kind(tmp_path):
    known = runner.Durations()
    todo = {c.key: c for c in runner.missing(toy.grid(nets=1, numbers=1), Store(tmp_path))}
    net, number = todo
    guess = runner._guesses(todo, known, Store(tmp_path))
    assert guess(net) is None
    known.learn(runner._kind(todo[net]), 4.0)
    known.learn(runner._kind(todo[net]), 2.0)
    assert guess(net) == 3.0 and guess(number) is None


def test_a_damaged_file_is_recomputed_to_the_same_values(tmp_path):
    store, wanted = Store(tmp_path), _small(seeds=1)
    runner.compute(wanted, store, progress=False)
    before = _values(wanted, store)
    for path in (tmp_path / "steps").rglob("*.*"):
        path.write_bytes(path.read_bytes()[:20])
    with pytest.warns(UserWarning, match="damaged"):
        runner.compute(wanted, store, progress=False)
    assert _values(wanted, store) == before


def test_a_failing_step_is_named_and_the_rest_is_kept(tmp_path):
    store = Store(tmp_path)
    dense = toy.Net(seed=3)
    with pytest.raises(step.StepError, match=r"Number seed=3 n=-1: ValueError: n must be at least 0, got -1"):
        runner.compute([toy.Number(net=dense, n=n) for n in (1, -1)], store, progress=False)
    assert runner.missing([dense, toy.Number(net=dense, n=1)], store) == []


def test_what_a_step_does_to_a_network_is_not_seen_by_the_next(tmp_path):
    store = Store(tmp_path)
    spoil = [toy.Number(net=toy.Net(seed=0), n=n, spoils=True) for n in range(3)]
    runner.compute(spoil, store, progress=False)
    plain = toy.grid(nets=1, numbers=3)
    runner.compute(plain, store, progress=False)
    assert toy.values(spoil, store) == toy.values(plain, store)


def test_code_that_was_edited_meanwhile_is_told(tmp_path):
    one = toy.Net(seed=0)
    with pytest.raises(step.StepError, match="Net seed=0: the worker .* has other code, data or package versions"):
        runner.work([one], ["0" * 20], tmp_path)


def test_work_is_done_on_one_thread_and_the_setting_comes_back():
    before = torch.get_num_threads()
    PCA(1).fit(torch.rand(5, 5).numpy())  # loads what sklearn computes with
    torch.set_num_threads(2)
    with runner._one_thread():
        assert torch.get_num_threads() == 1 and {pool["num_threads"] for pool in threadpool_info()} == {1}
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_missing_data_are_told_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSELIB_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(workers, "carry_out", lambda *_, **__: pytest.fail("something ran"))
    one = networks.Trained(data=networks.Data(name="svhn"), network="convnet", epochs=1)
    with pytest.raises(FileNotFoundError, match="dataset 'svhn': its files are missing .*none.*download=True"):
        runner.compute([one], Store(tmp_path), progress=False)
