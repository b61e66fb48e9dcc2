import io
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import toy

from sparselib.repro import progress, runner, workers
from sparselib.repro.store import Store

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def _task(name, *needs, weight=1.0, kind=""):
    return workers.Task(name, (name,), frozenset([name]), frozenset(needs), weight, kind)


def _order(tasks):
    called = []
    for _ in workers.carry_out(called.append, tasks, workers.Here()):
        pass
    return called


def test_what_most_work_waits_for_goes_first():
    tasks = [
        _task("lonely", weight=3), _task("leaf", "root"), _task("root"), _task("far", "leaf", weight=2), _task("short"),
    ]  # fmt: skip
    assert _order(tasks) == ["root", "lonely", "leaf", "far", "short"]


def test_one_of_each_kind_goes_before_the_rest():
    tasks = [_task(f"net{i}", weight=9, kind="net") for i in range(3)]
    tasks += [_task(f"number{i}", "net0", kind="number") for i in range(2)]
    assert _order(tasks) == ["net0", "number0", "net1", "net2", "number1"]


def test_a_killed_worker_loses_nothing(tmp_path):
    wanted = toy.grid(nets=2) + toy.grid(nets=1, dies=str(tmp_path / "died"))
    store, calm = Store(tmp_path / "a"), Store(tmp_path / "b")
    runner.compute(wanted, store, jobs=2, progress=False)
    assert (tmp_path / "died").exists()
    runner.compute(wanted, calm, jobs=1, progress=False)
    assert toy.values(wanted, store) == toy.values(wanted, calm)


def test_a_cell_that_kills_every_worker_is_named_and_the_rest_is_kept(tmp_path):
    store = Store(tmp_path)
    deadly = toy.Number(net=toy.Net(seed=0), n=7, dies="always")
    with pytest.raises(workers.WorkerError, match=r"killed 2 times .*Number seed=0 n=7"):
        runner.compute([deadly, *toy.grid(nets=2)], store, jobs=2, progress=False)
    assert runner.missing([deadly], store) == [deadly], "the network is there"


def test_time_left_is_reckoned_from_seconds_and_withheld_while_unknown(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    known = progress.Durations()
    clock = iter(range(0, 100000, 10)).__next__
    monkeypatch.setattr(progress.time, "monotonic", clock)
    things = [("net", str(i)) for i in range(2)] + [("number", str(i)) for i in range(8)]
    with progress.Bar(things, known.guess, unit="cells") as bar:
        known.learn(("net", "0"), 9.0)
        bar.done([("net", "0")], 9.0)
        assert "1/10" in shown.getvalue() and shown.getvalue().rstrip().endswith("? left]")
        known.learn(("number", "0"), 1.0)
        bar.done([("number", "0")], 1.0)  # 10 s of work done; left: 9 + 7 × 1
        assert bar._bar.n == 10 and bar._bar.total == 26
        assert " 38%" in shown.getvalue().split("\r")[-1] and "2/10" in shown.getvalue()


def test_where_no_process_can_be_made_this_one_does_the_work(monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")  # no semaphores without /dev/shm

    monkeypatch.setattr(workers, "ProcessPoolExecutor", refuse)
    with pytest.warns(RuntimeWarning, match="no worker processes can be made here .*Read-only.*: all is"):
        pool = workers.local(2)
    assert [result for _, result in workers.carry_out(str, [_task("a"), _task("b", "a")], pool)] == ["a", "b"]


SIGNALLED = """
import signal, time
from sparselib.repro import workers

workers.stop_on_signals()
pool = workers.Processes(2, None)
handed_on, submit = [], pool._executor.submit

def interrupted(*arguments):
    signal.raise_signal(signal.SIGTERM)
    handed_on.append(submit(*arguments))
    return handed_on[0]

pool._executor.submit = interrupted
try:
    with pool:
        pool.submit(time.sleep, 30)
        time.sleep(5)
except workers.Stopped as stopped:
    print(len(handed_on), stopped.code)
"""


@posix
def test_a_signal_waits_until_a_call_is_handed_on():
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, encoding="utf-8", timeout=100)
    assert (done.stdout, done.stderr) == (f"1 {128 + signal.SIGTERM}\n", "")


BOTH = """
import signal
from sparselib.repro import workers

workers.stop_on_signals()
before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
try:
    with workers._held_back():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)  # to this thread: another could take it, and this one hear of it later
except BaseException as ended:
    print(repr(ended))
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before, workers._Holding.on, workers._Holding.came)
"""


@posix
def test_signals_that_have_waited_leave_nothing_behind():
    done = subprocess.run([sys.executable, "-c", BOTH], capture_output=True, encoding="utf-8", timeout=100)
    assert (done.stdout, done.stderr) == (f"Stopped({128 + signal.SIGTERM})\nTrue False None\n", "")


def test_a_pool_can_be_ended_at_once(monkeypatch):
    failures = []
    monkeypatch.setattr(threading, "excepthook", lambda hooked: failures.append(hooked.exc_value))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), workers.Processes(2, None) as pool:
            futures = [pool.submit(time.sleep, 30) for _ in range(2)]
            assert all(future.running() for future in futures)
            raise ZeroDivisionError
    assert not failures


TERMINAL = """
import os, signal, time
from joblib.externals.loky.backend import resource_tracker
from sparselib.repro import workers

with workers.Processes(2, None) as pool:
    keeper = resource_tracker._resource_tracker._pid
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(keeper, number)
    time.sleep(0.5)
    print(pool.result(pool.submit(max, 1, 2)), os.waitpid(keeper, os.WNOHANG))
"""


@posix
def test_who_keeps_account_of_semaphores_outlives_the_signals_of_a_terminal():
    done = subprocess.run([sys.executable, "-c", TERMINAL], capture_output=True, encoding="utf-8", timeout=100)
    assert (done.stdout, done.stderr) == ("2 (0, 0)\n", "")
