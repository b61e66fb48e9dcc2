"""The workers of a Dask cluster, as a pool: the same calls on other machines, which share the store's folder.

Dask sends pickled programs both ways: whoever answers at the address of a scheduler, and whoever reaches its port, can
run programs. Behind tls:// both show certificates (files named in Dask's own settings, see TLS).
"""

import asyncio
import logging
import re
import secrets
import socket
import time
import warnings
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from sparselib.repro.workers import Here, WorkerError

CONNECT = 5  # seconds to reach the scheduler
PATIENCE = 60  # seconds without any worker before giving up
TLS = "DASK_DISTRIBUTED__COMM__TLS__"
HINT = f"; its certificates are named by {TLS}CA_FILE, {TLS}CLIENT__CERT and {TLS}CLIENT__KEY"


def check_address(address):
    """Return the address of a scheduler, or raise ValueError unless it is tcp://host:port or tls://host:port."""
    found = re.fullmatch(r"(?:tcp|tls)://(?:[\w.\-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", address)
    if not found or not 0 < int(found[1]) < 65536:
        raise ValueError(f"scheduler must be tcp://host:port or tls://host:port, got {address!r}")
    return address


def risk(address: str) -> str | None:
    """Return what to know before connecting to the address of a scheduler."""
    if address.startswith("tls:"):
        return None
    return f"connecting to {address}: whoever answers there can run programs here (tls:// asks for its certificate)"


class Cluster(Here):
    """The workers behind the scheduler at `address`; all must see `folder`, the store, under the same path.

    A task whose worker dies is given to another one by the scheduler.
    """

    def __init__(self, address, folder):
        check_address(address)
        try:
            import distributed
        except ImportError:
            raise WorkerError(
                'running on a cluster needs distributed: pip install -c constraints.txt -e ".[cluster]"'
            ) from None
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is told by WorkerError
        self._address, self._killed = address, distributed.KilledWorker
        try:
            security = distributed.Security()  # as Dask's settings have it
            asked = asyncio.wait_for(_identity(address, security), CONNECT)  # the client alone waits for ever
            with ThreadPoolExecutor(1) as thread:  # a notebook has a loop running in this one
                thread.submit(asyncio.run, asked).result()
            self._client = distributed.Client(address, timeout=CONNECT, set_as_default=False, security=security)
        except Exception as error:  # whatever answers there may send anything
            why = str(error).splitlines()[0] if str(error) else "no answer"
            why += HINT if address.startswith("tls:") else ""
            raise WorkerError(f"cannot reach a Dask scheduler at {address} within {CONNECT} s: {why}") from None
        self._executor = self._client.get_executor(pure=False)
        self._workers_seen = time.monotonic()
        # Workers look for this file: a store of another machine under the same path does not have it.
        self._mark = Path(folder) / "runs" / secrets.token_hex(8)
        self._mark.parent.mkdir(parents=True, exist_ok=True)
        self._mark.touch()

    def slots(self):
        workers: Any = ()
        with suppress(Exception):  # the scheduler does not answer: `check` or the futures tell
            workers = self._client.nthreads()
        if workers:
            self._workers_seen = time.monotonic()
        return len(workers)  # one task a process, whatever its threads

    def submit(self, function, *arguments):
        return self._executor.submit(_on_worker, str(self._mark), function, *arguments)

    def check(self):
        if time.monotonic() - self._workers_seen > PATIENCE:
            raise WorkerError(
                f"the scheduler at {self._address} has had no worker for {PATIENCE} s; start one with: "
                f"dask worker {self._address} --nthreads 1. What is done is kept."
            )

    def explain(self, error, task):
        told = {
            self._killed: f"workers were killed again and again (is the memory enough?) by: {task.label}",
            CancelledError: f"the scheduler at {self._address} is gone. What is done is kept.",
            (ImportError, AttributeError): f"a worker of {self._address} has another installation than this: {error}",
        }
        return next((WorkerError(text) for kind, text in told.items() if isinstance(error, kind)), error)

    def stop(self, now=False):
        self._mark.unlink(missing_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._client.close(timeout=5)


async def _identity(address, security):
    from distributed import rpc

    async with rpc(address, timeout=CONNECT, connection_args=security.get_connection_args("client")) as server:
        return await server.identity()


def _on_worker(mark, function, *arguments):
    if not Path(mark).exists():
        raise WorkerError(
            f"the worker on {socket.gethostname()} does not see the store {Path(mark).parents[1]}: all machines must "
            "share its folder, under the same path"
        )
    return function(*arguments)
