"""Runs that are killed, stopped, or started twice at once, as real processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import toy

from sparselib.repro import runner
from sparselib.repro.store import Store

TOY = Path(toy.__file__)
ROOT = TOY.parents[2]
GRID = {"nets": 4, "numbers": 6, "seconds": 0.05}


def _start(folder, jobs, log="", **more):
    options = [f"{name}={value}" for name, value in {**GRID, "log": log, "jobs": jobs, **more}.items()]
    command = [sys.executable, TOY, folder, *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True)


def _wait_for(condition, seconds=120):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "nothing happened"
        time.sleep(0.01)


def _gone(pids):
    return not any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids)


def _contents(folder):
    """Return {file: content} of the steps, without what depends on the moment."""
    found = {}
    for path in sorted((folder / "steps").rglob("*")):
        if path.suffix == ".json":
            record = json.loads(path.read_text(encoding="utf-8"))["record"]
            found[path.relative_to(folder)] = {n: v for n, v in record.items() if n not in ("seconds", "commit")}
        elif path.suffix == ".safetensors":
            found[path.relative_to(folder)] = path.read_bytes()
    return found


def _lines(log):
    return [line.split()[0] for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The store of a run that nothing happened to, and its log beside it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    runner.compute(toy.grid(**GRID, log=str(folder / "log")), Store(folder / "store"), progress=False)
    return folder


def test_killed_at_any_moment_only_the_steps_in_flight_are_lost(undisturbed, tmp_path):
    log = undisturbed / "log"  # the same name, for it is a parameter of the steps
    log.unlink()
    seed = random.randrange(10**6)
    print(f"moments drawn with seed {seed}")
    store = tmp_path / "store"
    with _start(store, jobs=2, log=log) as run:
        _wait_for(lambda: len(_lines(log)) > random.Random(seed).randrange(1, 20))
        workers = [child.pid for child in psutil.Process(run.pid).children(recursive=True)]
        run.kill()
    pids = [run.pid, *workers]
    _wait_for(lambda: _gone(workers), 10)
    done = len(list((store / "steps").rglob("*.json")))
    assert len(_lines(log)) - done <= 2, "one in flight for each worker"
    with _start(store, jobs=1, log=log) as run:
        _, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert len(set(_lines(log))) == 28 and len(_lines(log)) <= 28 + 2
    assert _contents(store) == _contents(undisturbed / "store")
    # Nothing of the killed run is left in the places for temporary files.
    _wait_for(lambda: not [p for p in Path("/dev/shm").glob("*") if any(str(pid) in p.name for pid in pids)], 10)


def test_two_runs_at_once_share_the_work(tmp_path):
    log = tmp_path / "log"
    with _start(tmp_path / "store", 1, log) as one, _start(tmp_path / "store", 1, log, numbers=8) as two:
        errors = [run.communicate(timeout=120)[1] for run in (one, two)]
    assert one.returncode == two.returncode == 0, errors
    pids = {line.split()[1] for line in log.read_text(encoding="utf-8").splitlines()}
    assert sorted(_lines(log)) == sorted(set(_lines(log))) and len(_lines(log)) == 36, "each cell once"
    assert pids == {str(one.pid), str(two.pid)}
    steps = toy.grid(**GRID | {"numbers": 8}, log=str(log))
    assert runner.missing(steps, Store(tmp_path / "store")) == []


def test_ctrl_c_ends_with_130_and_no_worker_is_left(tmp_path):
    small = [
        "seeds=40", "epochs=1", "width=4", "sparsities=[0.5]", "finetune_epochs=1",
        "detectors=[msp,sensnorm,sensnorm-ayle]", "anomalies=[uniform]", "ablation=[knn]", "rounds=1",
        "train_limit=300",
    ]  # fmt: skip
    sets = [part for text in small for part in ("--set", text)]
    command = [sys.executable, "-m", "sparselib", "reproduce", "--figure", "5", "--rows-only", "--jobs", "2", *sets]
    environment = {**os.environ, "SPARSELIB_STORE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True, env=environment, cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells ignore it in what runs behind
    ) as run:  # fmt: skip
        _wait_for(lambda: len(list(tmp_path.glob("steps/*/*.json"))) > 3)
        workers = [child.pid for child in psutil.Process(run.pid).children(recursive=True)]
        os.killpg(run.pid, signal.SIGINT)  # as the terminal does it: to the workers, too
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130 and "sparselib: stopped; what was computed is kept" in err
    assert len(workers) >= 2
    if "Traceback" in err or "leaked" in err:
        pytest.fail(err[-3000:])  # an assertion would cut it short
    _wait_for(lambda: _gone(workers), 10)
