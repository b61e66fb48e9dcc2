"""The kernels that notebooks run in, each with a folder of its own, and where their notebooks are kept meanwhile."""

import os
import secrets
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import zmq
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from papermill.iorw import papermill_io
from traitlets import default

WATCH = """
import atexit, os, shutil, threading, time
if folder:  # its parent removes it, too, if it is not killed meanwhile
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
def watch():
    while os.getppid() == parent:
        time.sleep(0.2)
    for _ in range(50):  # while this process starts, it writes there itself
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            break
        time.sleep(0.1)
    os._exit(1)
if os.name != "nt":
    threading.Thread(target=watch, daemon=True).start()
"""
KERNEL = """
import logging, runpy
# Who ends a kernel interrupts it first; that is no error, though a kernel that has just run a cell says so.
logging.getLogger("IPKernelApp").addFilter(lambda record: not str(record.msg).startswith("KeyboardInterrupt"))
if os.name != "nt":
    os.environ["JPY_PARENT_PID"] = "1"  # a kernel that watches its parent itself would leave its folder
runpy.run_module("ipykernel_launcher", run_name="__main__")
"""


def with_parent(code: str, folder: str = "") -> list[str]:
    """Return the command that runs Python code and, should this process be killed, ends and takes a folder along."""
    return [sys.executable, "-c", f"parent, folder = {os.getpid()}, {folder!r}{WATCH}{code}"]


class KernelManager(AsyncKernelManager):
    """A kernel that is this interpreter, whatever a kernelspec says, and sees no one's settings of IPython, matplotlib.

    All its files lie in a folder of its own, its sockets, too, where the system has such: no ports, so none can clash,
    whatever else runs.
    """

    def __init__(self, *args, **kwargs):
        self._folder = tempfile.TemporaryDirectory(prefix=_prefix(os.getpid()), dir=_place())
        super().__init__(*args, connection_file=str(Path(self._folder.name) / "connection.json"), **kwargs)

    @property
    def kernel_spec(self):
        command = with_parent(KERNEL, self._folder.name)
        return KernelSpec(argv=[*command, "-f", "{connection_file}"], display_name="Python 3", language="python")

    @default("transport")
    def _use_ipc(self):
        # On Windows zmq may have such sockets, too, but Jupyter itself uses ports there.
        return "ipc" if os.name != "nt" and zmq.has("ipc") and len(self._folder.name) < 100 else "tcp"

    @default("ip")
    def _own_folder(self):
        return str(Path(self._folder.name) / "s") if self.transport == "ipc" else "127.0.0.1"

    async def _async_pre_start_kernel(self, **kw):
        own = {"IPYTHONDIR": self._folder.name, "MATPLOTLIBRC": os.devnull}
        kw["env"] = {**(kw.get("env") or os.environ), **own}
        return await super()._async_pre_start_kernel(**kw)


class _Memory:
    """Where papermill writes as it goes: no file, so that runs of one notebook side by side share none."""

    def __init__(self):
        self.texts = {}  # by place

    def place(self):
        return f"memory:{secrets.token_hex(8)}.ipynb"

    def write(self, text, place):
        self.texts[place] = text

    def pretty_path(self, place):
        return place


memory = _Memory()
papermill_io.register("memory:", memory)


def _place():
    """Return where the folders of kernels lie: in a short path, for that of a socket must be short."""
    usual = tempfile.gettempdir()
    return usual if len(usual) < 70 or not os.path.isdir("/tmp") else "/tmp"


def _prefix(process):
    return f"kernel-{socket.gethostname()[:16]}-{process}-"


def tidy_up():
    """Remove the folders of kernels whose managers were killed together with them."""
    for folder in Path(_place()).glob(_prefix("*") + "*") if os.name != "nt" else ():
        try:
            os.kill(int(folder.name.split("-")[-2]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, OSError):  # not ours
            continue
