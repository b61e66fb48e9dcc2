"""Processes that are killed, stopped or told to end at moments that are drawn: the rows are those of a calm run."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import test_resume as resume
import toy
from campaign import ROOT

from sparselib.repro import runner
from sparselib.repro.store import Store

GRID = {"nets": 3, "numbers": 6, "seconds": 0.02}
STEPS = GRID["nets"] * (GRID["numbers"] + 1)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What the steps are in the store of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("calm")
    runner.compute(toy.grid(**GRID), Store(folder), progress=False)
    return resume._contents(folder)


def forked(work):
    """Do work() in a copy of this process, which is started at once. Returns its pid."""
    child = os.fork()
    if child:
        return child
    code = 1
    with contextlib.suppress(BaseException):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        work()
        code = 0
    os._exit(code)


def computing(folder):
    return lambda: runner.compute(toy.grid(**GRID), Store(folder), progress=False)


def whole(folder, calm):
    """Return what is wrong with the store once a last run has gone through it."""
    runner.compute(toy.grid(**GRID), Store(folder), progress=False)
    found = resume._contents(folder)
    left = [path.name for path in folder.rglob(".*.json.*")]  # of a write that was cut off
    shutil.rmtree(folder)
    return None if found == calm else f"other rows: {sorted(map(str, found.keys() ^ calm.keys()))}, {left}"


def test_parents(campaign, calm, tmp_path):
    def attempt(rng, number):
        folder = tmp_path / str(number)
        Store(folder)
        for _ in range(rng.randrange(1, 4)):
            child = forked(computing(folder))
            time.sleep(rng.uniform(0, 0.7))
            os.kill(child, rng.choice([signal.SIGKILL, signal.SIGTERM]))
            os.waitpid(child, 0)
        return whole(folder, calm)

    campaign("kill: the process that computes", attempt, short=10, long=100)


def _pool(folder, rng):
    run = resume._start(folder, jobs=2, **GRID)
    ends = time.monotonic() + 200
    while not list(folder.glob("steps/*/*.json")) and time.monotonic() < ends:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.5))
    return run


def test_workers(campaign, calm, tmp_path):
    def attempt(rng, number):
        folder = tmp_path / str(number)
        with _pool(folder, rng) as run:
            workers = [p for p in psutil.Process(run.pid).children() if "loky" in " ".join(p.cmdline())]
            if workers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    rng.choice(workers).kill()
            _, err = run.communicate(timeout=200)
        if run.returncode and "Traceback" not in err:  # toy.py is no command line, whose messages are one line
            return f"code {run.returncode}: {err[-300:]}"
        if run.returncode and "killed 2 times" not in err:
            return err[-300:]
        return whole(folder, calm)

    campaign("kill: a worker", attempt, short=1, long=8)


def test_parents_of_workers(campaign, calm, tmp_path):
    def attempt(rng, number):
        folder = tmp_path / str(number)
        with _pool(folder, rng) as run:
            family = [run.pid, *(p.pid for p in psutil.Process(run.pid).children(recursive=True))]
            run.kill()
        resume._wait_for(lambda: resume._gone(family), 30)
        if left := [p.name for p in Path("/dev/shm").glob("*") if any(str(pid) in p.name for pid in family)]:
            time.sleep(2)  # who watches them is a process of its own
            left = [name for name in left if Path("/dev/shm", name).exists()]
        return whole(folder, calm) or (f"left behind: {left}" if left else None)

    campaign("kill: the parent of workers", attempt, short=1, long=8)


PAGE = [sys.executable, str(Path(__file__).with_name("one_page.py"))]


def page(folder, cell, **more):
    """Start a process that runs a notebook of one cell into folder/out.ipynb."""
    (folder / "tmp").mkdir(exist_ok=True, parents=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp"), **more}
    return subprocess.Popen(
        [*PAGE, folder, cell], stderr=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=environment,
    )  # fmt: skip


def kernels_of(folder):
    return sorted((folder / "tmp").glob("kernel-*"))


def left(folder, seconds=20):
    """Return what kernels have left in a folder, once they had a moment to end."""
    ends = time.monotonic() + seconds
    while kernels_of(folder) and time.monotonic() < ends:
        time.sleep(0.1)
    return f"left behind: {kernels_of(folder)}" if kernels_of(folder) else None


def test_kernels(campaign, tmp_path):
    def attempt(rng, number):
        folder = tmp_path / str(number)
        with page(folder, "import time; time.sleep(1)") as run:
            victim, delay = rng.choice(["kernel", "kernel", "parent"]), rng.uniform(0, 2.5)

            def kill():
                resume._wait_for(lambda: kernels_of(folder) or run.poll() is not None, 200)
                time.sleep(delay)
                with contextlib.suppress(psutil.NoSuchProcess):
                    kernels = psutil.Process(run.pid).children()
                    for process in kernels if victim == "kernel" else [psutil.Process(run.pid)]:
                        process.kill()

            killer = threading.Thread(target=kill)
            killer.start()
            _, err = run.communicate(timeout=250)
            killer.join()
        said = err.strip().splitlines()[-1:] or [""]
        if victim == "kernel" and run.returncode and "its kernel " not in said[0]:
            return err[-300:]
        if (folder / "out.ipynb").exists() == bool(run.returncode) and run.returncode != -signal.SIGKILL:
            return f"code {run.returncode}, and the notebook is the other way round"
        return left(folder)

    campaign("kill: a kernel or its parent", attempt, short=2, long=10)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT"])
def test_signals(campaign, tmp_path, name):
    sets = [
        "seeds=40", "epochs=1", "width=4", "sparsities=[0.5]", "finetune_epochs=1",
        "detectors=[msp,sensnorm,sensnorm-ayle]", "anomalies=[uniform]", "ablation=[knn]", "rounds=1",
        "train_limit=300",
    ]  # fmt: skip
    signals = [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT]

    def free():
        for one in signals:
            signal.signal(one, signal.SIG_DFL)

    def attempt(rng, number):
        folder = tmp_path / str(number)
        jobs = rng.choice(["1", "2"]) if campaign.long else "2"
        options = ["--figure", "5", "--rows-only", "--jobs", jobs, *(f"--set={each}" for each in sets)]
        command = [sys.executable, "-m", "sparselib", "reproduce", *options]
        environment = {**os.environ, "SPARSELIB_STORE": str(folder), "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True, env=environment, cwd=ROOT,
            preexec_fn=free,
        ) as run:  # fmt: skip
            resume._wait_for(lambda: len(list(folder.glob("steps/*/*.json"))) > 1 or run.poll() is not None, 200)
            time.sleep(rng.uniform(0, 1))
            family = [p.pid for p in psutil.Process(run.pid).children(recursive=True)]
            number = getattr(signal, name)
            (os.killpg if rng.random() < 0.5 else os.kill)(run.pid, number)  # as a terminal does it, or as a person
            _, err = run.communicate(timeout=120)
        resume._wait_for(lambda: resume._gone(family), 30)
        if run.returncode != 128 + number or "stopped; what was computed is kept" not in err or "Traceback" in err:
            return f"code {run.returncode}: {err[-400:]}"
        store = Store(folder)
        whole = [store.get(p.parent.name, p.stem) for p in (folder / "steps").glob("*/*.json")]
        return None if whole and all(whole) else "a record is not whole"

    campaign(f"signal: {name}", attempt, short=1, long=2)


def test_pages_side_by_side(campaign, tmp_path):
    def attempt(rng, number):
        folder, fails = tmp_path / str(number), number % 3 == 2
        runs = [page(folder, "1 / 0" if fails else "print(6 * 7)") for _ in range(4)]
        told = [run.communicate(timeout=250)[1] for run in runs]
        if any(bool(run.returncode) != fails for run in runs):
            return f"codes {[run.returncode for run in runs]}: {[text[-200:] for text in told]}"
        failed = folder / "out.failed.ipynb"
        said = f"sparselib: 00_quickstart, cell 2: ZeroDivisionError: division by zero (see {failed})\n"
        if fails and set(told) != {said}:
            return str(set(told) - {said})
        names = sorted(path.name for path in folder.iterdir())
        wanted = ["out.failed.ipynb" if fails else "out.ipynb", "page.ipynb", "tmp"]
        return left(folder) or (None if names == wanted else f"there is {names}")

    campaign("writers: one notebook, four times", attempt, short=1, long=4)


def test_writers(campaign, calm, tmp_path):
    def attempt(rng, number):
        folder = tmp_path / str(number)
        Store(folder)
        runs = [forked(computing(folder)) for _ in range(rng.randrange(2, 5))]
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, 0.4))
            os.kill(runs[0], signal.SIGKILL)
            os.waitpid(runs.pop(0), 0)
        codes = [os.waitstatus_to_exitcode(os.waitpid(run, 0)[1]) for run in runs]
        return f"codes {codes}" if any(codes) else whole(folder, calm)

    campaign("writers: one store, two to four", attempt, short=3, long=25)
