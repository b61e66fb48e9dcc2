"""A real scheduler and real worker processes, on this machine."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import toy

from sparselib.repro import cluster, runner
from sparselib.repro.step import StepError
from sparselib.repro.store import Store
from sparselib.repro.workers import WorkerError

dask = pytest.importorskip("dask")
pytest.importorskip("distributed")
TESTS = Path(__file__).parent


@pytest.fixture
def processes(tmp_path):
    """Start programs of dask that end with the test: start(name, *arguments) -> Popen."""
    running = []

    def start(name, *arguments, **environment):
        program = [sys.executable, "-m", f"distributed.cli.dask_{name}", *map(str, arguments)]
        # So that the workers find toy, and this checkout.
        path = os.pathsep.join([str(TESTS), str(TESTS.parents[1])])
        environment = {**os.environ, "PYTHONPATH": path, **environment}
        log = (tmp_path / f"{name}{len(running)}.log").open("w", encoding="utf-8")
        running.append(subprocess.Popen(program, env=environment, stdout=log, stderr=log, cwd=tmp_path))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait(30)


@pytest.fixture
def scheduler(processes, tmp_path):
    """Return (process, address) of a scheduler."""
    file = tmp_path / "scheduler.json"
    process = processes(
        "scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file, "--no-show"
    )
    _wait_for(lambda: file.exists() and file.read_text(encoding="utf-8").endswith("}"))
    return process, json.loads(file.read_text(encoding="utf-8"))["address"]


@pytest.fixture
def worker(processes, scheduler, tmp_path):
    """Start a worker of it."""
    return lambda **environment: processes(
        "worker", scheduler[1], "--nthreads", 1, "--no-nanny", "--no-dashboard", "--local-directory", tmp_path / "dask",
        **environment,
    )  # fmt: skip


def _wait_for(condition, seconds=60):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "nothing happened"
        time.sleep(0.05)


def _lines(log):
    return [line.split() for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def test_two_workers_one_killed_on_the_way_give_the_rows_of_a_local_run(scheduler, worker, tmp_path):
    process, address = scheduler
    log, store, local = tmp_path / "log", Store(tmp_path / "store"), Store(tmp_path / "local")
    victim, other = worker(), worker()
    wanted = toy.grid(nets=4, numbers=5, seconds=0.2, log=str(log))

    def kill():
        _wait_for(lambda: {str(victim.pid), str(other.pid)} <= {pid for _, pid in _lines(log)})
        victim.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    runner.compute(wanted, store, scheduler=address, progress=False)
    killer.join()
    assert victim.wait(30) == -signal.SIGKILL
    made = _lines(log)
    assert len({what for what, _ in made}) == 24 and len(made) <= 25, "only the cell in flight was lost"
    assert {pid for _, pid in made} == {str(victim.pid), str(other.pid)}, "nothing was computed in this process"
    runner.compute(toy.grid(nets=4, numbers=5, seconds=0.2, log=str(log)), local, progress=False)
    assert toy.values(wanted, store) == toy.values(wanted, local)
    assert list((store.folder / "runs").iterdir()) == []

    # The scheduler goes: an end, not a hang.
    more = toy.grid(nets=6, numbers=5, seconds=0.5)
    threading.Timer(2, process.kill).start()
    started = time.monotonic()
    with pytest.raises(WorkerError, match=f"scheduler at {address} is gone. What is done is kept"):
        runner.compute(more, store, scheduler=address, progress=False)
    assert time.monotonic() - started < 60


def test_a_worker_with_other_code_is_refused_and_one_that_sees_no_store_too(scheduler, worker, tmp_path):
    worker(TOY_CODE="2")
    store = Store(tmp_path / "store")
    with pytest.raises(StepError, match="Net seed=0: the worker .* has other code, data or package versions"):
        runner.compute(toy.grid(nets=1), store, scheduler=scheduler[1], progress=False)
    assert len(runner.missing(toy.grid(nets=1), store)) == 5
    pool = cluster.Cluster(scheduler[1], store.folder)
    pool._mark.unlink()  # as it is on a machine that does not share the folder
    with pytest.raises(WorkerError, match=f"does not see the store {store.folder}: all machines must share"):
        pool.submit(os.getpid).result(30)
    pool.stop()


def test_a_scheduler_without_workers_is_told(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with pytest.raises(WorkerError, match=f"has had no worker for 1 s; start one with: dask worker {scheduler[1]}"):
        runner.compute(toy.grid(nets=1), Store(tmp_path), scheduler=scheduler[1], progress=False)


def test_a_notebook_whose_loop_runs_can_compute_on_a_cluster(scheduler, worker, tmp_path):
    worker()
    steps = toy.grid(nets=1, numbers=2)

    async def cell():
        return runner.compute(steps, Store(tmp_path / "store"), scheduler=scheduler[1], progress=False)

    with ThreadPoolExecutor(1) as thread:  # other tests leave a loop running in this one
        thread.submit(asyncio.run, cell()).result()
    runner.compute(steps, Store(tmp_path / "local"), progress=False)
    assert toy.values(steps, Store(tmp_path / "store")) == toy.values(steps, Store(tmp_path / "local"))


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("kind", ["closed", "silent", "talking", "unknown"])
def test_an_unreachable_scheduler_is_named_within_10_seconds(kind, tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        if kind == "talking":  # another kind of server
            threading.Thread(target=lambda: silent.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")).start()
        port = {"closed": _free_port(), "unknown": 8786}.get(kind, silent.getsockname()[1])
        address = f"tcp://{'no-such-host.invalid' if kind == 'unknown' else '127.0.0.1'}:{port}"
        started = time.monotonic()
        with pytest.raises(WorkerError, match=f"cannot reach a Dask scheduler at {address}") as caught:
            runner.compute(toy.grid(nets=1), Store(tmp_path), scheduler=address, progress=False)
        assert time.monotonic() - started < 10 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["", "localhost:8786", "tcp://localhost", "tcp://:8786", "tcp://a:0", "tcp://a:65536", "http://a:1",
                "tcp://a b:1", "tcp://a:1/x", "tcp://a:port"],
)  # fmt: skip
def test_malformed_addresses_are_refused(address, tmp_path):
    with pytest.raises(ValueError, match="scheduler must be tcp://host:port or tls://host:port, got"):
        cluster.Cluster(address, tmp_path)


@pytest.mark.parametrize("address", ["tcp://a:1", "tcp://10.0.0.1:8786", "tcp://node-1.lab:8786", "tls://[::1]:8786"])
def test_well_formed_addresses_pass(address):
    assert cluster.check_address(address) == address


def test_without_distributed_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(WorkerError, match=r'needs distributed: pip install .*"\.\[cluster\]"'):
        cluster.Cluster("tcp://127.0.0.1:1", tmp_path)


def test_a_scheduler_that_shows_its_certificate(processes, tmp_path, monkeypatch):
    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=tmp_path)

    for name in ("own", "other"):  # two authorities, each with its own certificate for this machine
        openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", f"{name}.key", "-out", f"{name}.pem",
        )  # fmt: skip
    own = ("--tls-ca-file", tmp_path / "own.pem", "--tls-cert", tmp_path / "own.pem", "--tls-key", tmp_path / "own.key")
    file = tmp_path / "scheduler.json"
    processes(
        "scheduler", "--host", "tls://127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file, "--no-show",
        *own,
    )  # fmt: skip
    _wait_for(lambda: file.exists() and file.read_text(encoding="utf-8").endswith("}"))
    address = json.loads(file.read_text(encoding="utf-8"))["address"]
    assert address.startswith("tls://")
    processes("worker", address, "--nthreads", 1, "--no-nanny", "--no-dashboard", "--local-directory", tmp_path, *own)
    steps = toy.grid(nets=1, numbers=2)

    def known_as(name):
        for what, suffix in (("CA_FILE", "pem"), ("CLIENT__CERT", "pem"), ("CLIENT__KEY", "key")):
            monkeypatch.setenv(f"{cluster.TLS}{what}", str(tmp_path / f"{name}.{suffix}"))
        dask.config.refresh()

    with pytest.raises(WorkerError, match=f"cannot reach .*{cluster.TLS}CA_FILE"):
        runner.compute(steps, Store(tmp_path / "none"), scheduler=address, progress=False)
    known_as("other")
    with pytest.raises(WorkerError, match="cannot reach .*certificate"):
        runner.compute(steps, Store(tmp_path / "none"), scheduler=address, progress=False)
    known_as("own")
    store = Store(tmp_path / "store")
    runner.compute(steps, store, scheduler=address, progress=False)
    assert not runner.missing(steps, store)
    monkeypatch.undo()
    dask.config.refresh()


def test_what_connecting_means_is_said_before():
    assert "can run programs here" in cluster.risk("tcp://h:1") and cluster.risk("tls://h:1") is None
