"""Places where it is hard to work: full disks, no rights, no memory, no /dev/shm, no home, clocks that go back."""

import os
import resource
import shutil
import subprocess
import sys
import time
import warnings

import pytest
import test_kills as kills
import test_resume as resume
import toy
from campaign import ROOT
from test_cluster import processes, scheduler, worker  # noqa: F401  (fixtures)

from sparselib.repro import runner
from sparselib.repro.store import Store, StoreError
from sparselib.repro.workers import WorkerError

GRID, calm, whole = kills.GRID, kills.calm, kills.whole


def compute(folder):
    runner.compute(toy.grid(**GRID), Store(folder), progress=False)


def told(call):
    """Return what a call says in one line where it ends in a StoreError, None where it ends well."""
    try:
        call()
    except StoreError as error:
        return str(error)
    return None


def mounted(folder, options):
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a file system needs more rights")


def test_full_disks(campaign, calm, tmp_path):
    def attempt(rng, number):
        disk, folder = tmp_path / f"disk{number}", tmp_path / f"copy{number}"
        mounted(disk, f"size={rng.randrange(8, 160)}k")
        try:
            said = told(lambda: compute(disk / "store"))
            if said and ("No space left" not in said or "\n" in said):
                return said
            if (disk / "store").exists():
                shutil.copytree(disk / "store", folder)
        finally:
            subprocess.run(["umount", disk], check=True)
        return whole(folder, calm)

    campaign("place: a full disk", attempt, short=4, long=25)


def test_files_that_may_not_grow(campaign, calm, tmp_path):
    def attempt(rng, number):
        folder, limit = tmp_path / str(number), rng.randrange(100, 12000)

        def work():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            said = told(lambda: compute(folder))
            os._exit(0 if said is None or ("File too large" in said and "\n" not in said) else 9)

        code = os.waitstatus_to_exitcode(os.waitpid(kills.forked(work), 0)[1])
        return f"limit {limit}: code {code}" if code else whole(folder, calm)

    campaign("place: files that may not grow", attempt, short=4, long=25)


def test_read_only(campaign, calm, tmp_path):
    def attempt(rng, number):
        disk, folder = tmp_path / f"disk{number}", tmp_path / f"copy{number}"
        mounted(disk, "size=8m")
        try:
            some = toy.grid(**GRID)[: rng.randrange(1, 18)]
            runner.compute(some, Store(disk), progress=False)
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            if (said := told(lambda: runner.compute(some, Store(disk), progress=False))) is not None:
                return f"cannot be read: {said}"
            said = told(lambda: compute(disk))
            if not said or "Read-only file system" not in said or "\n" in said:
                return f"said {said}"
            shutil.copytree(disk, folder)
        finally:
            subprocess.run(["umount", disk], check=True)
        return whole(folder, calm)

    campaign("place: a read-only disk", attempt, short=2, long=10)


def toy_run(folder, jobs=2, before=(), limit=None, **environment):
    options = [f"{name}={value}" for name, value in {**GRID, "jobs": jobs}.items()]
    surroundings = {name: value for name, value in os.environ.items() if environment.get(name, "") is not None}
    surroundings |= {name: value for name, value in environment.items() if value is not None}
    done = subprocess.run(
        [*before, sys.executable, toy.__file__, folder, *options], capture_output=True, encoding="utf-8", timeout=250,
        env={**surroundings, "PYTHONPATH": str(ROOT)}, preexec_fn=limit,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_no_home_and_no_shared_memory(campaign, calm, tmp_path):
    hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o ro,size=4k none /dev/shm && exec "$@"', "sh"]
    may = subprocess.run([*hidden, "true"], capture_output=True).returncode == 0

    def attempt(rng, number):
        folder = tmp_path / str(number)
        nowhere = str(tmp_path / "nowhere")
        if number % 2 and may:
            code, err = toy_run(folder, before=hidden)
        else:
            home = rng.choice([None, nowhere, "/dev/null"])
            code, err = toy_run(folder, HOME=home, XDG_CACHE_HOME=home, XDG_RUNTIME_DIR=nowhere, USER=None)
        return err[-400:] if code else whole(folder, calm)

    campaign("place: no home, no shared memory", attempt, short=0, long=6)


def test_clocks_that_go_back(campaign, calm, tmp_path, monkeypatch):
    def attempt(rng, number):
        folder, now = tmp_path / str(number), time.time
        runner.compute(toy.grid(**GRID)[: rng.randrange(1, 18)], Store(folder), progress=False)
        for path in folder.rglob("*"):
            moment = rng.choice([0, 1, now() + 10**8, now() - 10**8, 2**33])
            os.utime(path, (moment, moment))
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: now() - rng.uniform(0, 10**9))
            return whole(folder, calm)

    campaign("place: a clock that goes back", attempt, short=3, long=20)


def test_little_memory(campaign, calm, tmp_path):
    def attempt(rng, number):
        folder, size = tmp_path / str(number), rng.randrange(900, 2600) * 10**6
        jobs = rng.choice([1, 2])
        code, err = toy_run(folder, jobs, limit=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)))
        if code and not any(word in err for word in ("rror", "memory", "killed")):
            return f"{size}: code {code}: {err[-300:]}"
        return whole(folder, calm)

    campaign("place: little memory", attempt, short=0, long=6)


def test_clusters(campaign, scheduler, worker, tmp_path):  # noqa: F811
    process, address = scheduler
    workers = [worker(), worker()]

    def attempt(rng, number):
        folder, last = Store(tmp_path / str(number)), campaign.long and number == 2
        victim, delay = process if last else workers[number], rng.uniform(0.2, 2)

        def work():
            time.sleep(delay)
            victim.kill()

        resume._wait_for(lambda: True)
        killer = kills.threading.Thread(target=work)
        killer.start()
        if not last:
            workers.append(worker())
        said, steps = None, toy.grid(nets=2, numbers=4, seconds=0.2)
        try:
            runner.compute(steps, folder, scheduler=address, progress=False)
        except WorkerError as error:
            said = str(error)
        killer.join()
        if said and not (last and "is gone. What is done is kept" in said and "\n" not in said):
            return said
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runner.compute(steps, folder, progress=False)
        other = Store(tmp_path / "other")
        runner.compute(steps, other, progress=False)
        return None if toy.values(steps, folder) == toy.values(steps, other) else "other rows"

    campaign("kill: workers, scheduler of a cluster", attempt, short=0, long=3)
