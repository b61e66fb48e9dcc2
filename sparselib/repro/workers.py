"""Carry out tasks that wait for one another, on worker processes of this machine or elsewhere.

`Here` and `Processes` stand below; `cluster.Cluster` sends the same calls to other machines.
"""

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import Counter, defaultdict
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache

from joblib.externals.loky import ProcessPoolExecutor
from tqdm import tqdm

LOSSES = 2  # so often may a task lose its worker before the run ends
ENDINGS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]  # Windows: one
HANDED_ON = 5.0  # seconds to wait for a call to reach a worker; it takes a thousandth of one
REPEATED = 10.0  # seconds in which another of them changes nothing: terminals and batch systems send several


class WorkerError(RuntimeError):
    """The workers cannot go on; the message says what became of them and what to do."""


class Stopped(SystemExit):
    """A signal ended the run. Its code is 128 + the number of the signal."""


class _Holding:
    """Whether Stopped has to wait, and the one that waits."""

    on: bool = False
    came: Stopped | None = None


def stop_on_signals():
    """Let the signals that end a process raise Stopped here, so that workers and kernels end, too."""
    first = 0.0

    def stop(number, _):
        nonlocal first
        if not first or time.monotonic() - first > REPEATED:
            first = time.monotonic()
            if not _Holding.on:
                raise Stopped(128 + number)
            _Holding.came = Stopped(128 + number)

    for number in ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, stop)


@dataclass(frozen=True, eq=False)
class Task:
    """One call, in words for people, with the names of what it makes and of what must be made before."""

    label: str
    arguments: tuple
    makes: frozenset = frozenset()
    needs: frozenset = frozenset()
    weight: float = 1.0
    kind: str = ""


def carry_out(function, tasks, pool, tick=lambda: None):
    """Call function(*task.arguments) for every task once what it needs is there; yield (task, result) of each.

    Of the tasks that are ready, the one on which most work waits (its own included) goes first: so the workers stay
    busy to the end. One of each kind goes before all others: then it is known how long that kind takes.
    A task whose worker died is given out once more. The first error ends the run.
    `tick()` is called every second or so.
    """
    behind = _work_behind(tasks)
    waiting = sorted(tasks, key=lambda task: -behind[task])
    unmade = frozenset().union(*(task.makes for task in tasks))
    running, losses, tried = {}, Counter(), set()
    while waiting or running:
        ready = [task for task in waiting if not task.needs & unmade]
        for _ in range(min(len(ready), pool.slots() - len(running))):
            task = next((t for t in ready if t.kind not in tried), ready[0])
            tried.add(task.kind)
            ready.remove(task)
            waiting.remove(task)
            running[pool.submit(function, *task.arguments)] = task
        if not running:  # no slot yet
            time.sleep(0.2)
        finished, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
        lost = []
        for future in finished:
            task = running.pop(future)
            try:
                result = pool.result(future)
            except BrokenExecutor:
                lost.append(task)
                continue
            except Exception as error:
                raise pool.explain(error, task) from None
            unmade -= task.makes
            yield task, result
        if lost:  # what ran beside them is lost as well, if it had not finished
            for future in list(running):
                if not wait([future], timeout=10).done or isinstance(future.exception(), BrokenExecutor):
                    lost.append(running.pop(future))
            losses.update(lost)
            if suspects := "; ".join(task.label for task in lost if losses[task] >= LOSSES):
                raise WorkerError(
                    f"a worker process was killed {LOSSES} times (is the memory enough?) while this was computed: "
                    f"{suspects}. What is done is kept."
                )
            pool.restart()
            waiting = lost + waiting
        tick()
        pool.check()


def _work_behind(tasks):
    """Return {task: its weight and that of all tasks that wait for it, directly or not}."""
    users = defaultdict(set)
    for task in tasks:
        for name in task.needs:
            users[name].add(task)

    @cache
    def behind(task):
        direct = set().union(*(users[name] for name in task.makes))
        return direct.union(*map(behind, direct))

    return {task: task.weight + sum(user.weight for user in behind(task)) for task in tasks}


def local(jobs, environment=None):
    """Return a pool of so many processes, in which `environment` is set; for one, this process does the work.

    So it does, with a warning, where no process can be made: they need semaphores, and so a /dev/shm to write to.
    """
    if jobs > 1:
        try:
            return Processes(jobs, environment)
        except OSError as error:
            told = f"no worker processes can be made here ({error}): all is computed in one"
            warnings.warn(told, RuntimeWarning, stacklevel=2)
    return Here()


class Here:
    """No worker: calls are made in this process, one by one. Also what all pools have in common."""

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        self.stop(now=failure is not None)

    def slots(self):
        """Return how many tasks may run at once."""
        return 1

    def submit(self, function, *arguments):
        """Return a concurrent.futures.Future; BrokenExecutor in it means that a worker died and `restart` helps."""
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def result(self, future):
        """Return what a call returned, or raise what it raised."""
        return future.result()

    def check(self):
        """Raise WorkerError when it is no use to wait."""

    def explain(self, error, task):
        """Return the error to show for one that came back from a task."""
        return error

    def stop(self, now=False):
        """End the workers; `now`: whatever they do."""


class Processes(Here):
    """Worker processes, one task each at a time. They end with this one, however it ends, and leave signals to it."""

    def __init__(self, count, environment):
        self._count, self._environment = count, environment
        self._start()

    def slots(self):
        return self._count

    def submit(self, function, *arguments):
        try:
            with _held_back():  # the processes start here, and inherit what is held back
                future = self._executor.submit(_recorded, function, *arguments)
                ends = time.monotonic() + HANDED_ON
                while not (future.running() or future.done()) and time.monotonic() < ends:
                    time.sleep(0.0005)  # an executor that is ended before it has handed a call on prints a traceback
                return future
        except BrokenExecutor as error:
            future = Future()
            future.set_exception(error)
            return future

    def _start(self):
        watched, self._held = multiprocessing.Pipe(duplex=False)  # nothing is sent: it closes when this process ends
        with _held_back():  # loky starts a process of its own here, which keeps account of semaphores
            self._executor = ProcessPoolExecutor(
                self._count, initializer=_begin, initargs=(watched,), env=self._environment
            )

    def result(self, future):
        result, told = future.result()
        for category, message in told:  # as if it had been said here
            warnings.warn(message, category, stacklevel=2)
        return result

    def restart(self):
        self.stop(now=True)
        self._start()

    def stop(self, now=False):
        self._executor.shutdown(kill_workers=now)


def _of_terminals():
    return [getattr(signal, name) for name in ("SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


def _recorded(function, *arguments):
    """Return the result of a call, and the warnings on the way: (category, message) of each."""
    with warnings.catch_warnings(record=True) as seen:
        result = function(*arguments)
    return result, [(warning.category, str(warning.message)) for warning in seen]


@contextmanager
def _held_back():
    """Let no signal cut in, for what is half made cannot be ended; processes that start are deaf to a terminal's."""
    masks = hasattr(signal, "pthread_sigmask")  # Windows: a worker is deaf to them once it has begun
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ()) if masks else ()
    try:
        _Holding.on = True
        if masks:
            signal.pthread_sigmask(signal.SIG_BLOCK, _of_terminals())
        yield
    finally:
        try:
            if masks:  # first, as what comes now still waits; a Ctrl-C that has waited is raised here
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        finally:
            _Holding.on = False
            came, _Holding.came = _Holding.came, None
            if came:
                raise came


def _begin(watched):
    """Leave a terminal's signals to the parent, and let this process end with it, which may have been killed."""
    for number in _of_terminals():
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tqdm.set_lock(threading.RLock())  # its usual lock is a semaphore of the system, which a killed process would leave

    def watch():
        with suppress(EOFError, OSError):
            watched.recv_bytes()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
