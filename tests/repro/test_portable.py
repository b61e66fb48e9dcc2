"""Nothing that only POSIX systems have is needed: the package runs here with all of that taken away from it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
POSIX = ("fcntl", "resource", "termios", "pwd", "grp", "pty", "tty", "posix", "syslog", "readline", "curses")
MODULES = sorted((ROOT / "sparselib").rglob("*.py"))

# Read by every process at its start, workers and kernels included. For modules of sparselib, and for no others, the
# POSIX modules cannot be imported, os and signal lack what Windows lacks, and zmq has no sockets in files.
SITE = f"""
import builtins, os, sys, types
POSIX = {POSIX}
LACKING = {{
    "os": ("getppid", "fork", "getuid", "geteuid", "killpg", "getpgid", "setsid", "sysconf", "O_NOFOLLOW"),
    "signal": ("pthread_sigmask", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGALRM", "alarm", "setitimer"),
}}
true_import, seen = builtins.__import__, set()

def without(module):
    less = types.ModuleType(module.__name__)
    vars(less).update({{n: v for n, v in vars(module).items() if n not in LACKING.get(module.__name__, ())}})
    if module.__name__ == "zmq":
        less.has = lambda feature: feature != "ipc" and module.has(feature)
    return less

def less_import(name, globals=None, locals=None, fromlist=(), level=0):
    if (globals or {{}}).get("__name__", "").split(".")[0] != "sparselib":
        return true_import(name, globals, locals, fromlist, level)
    if not seen:
        with open(os.environ["PROCESSES"], "a", encoding="utf-8") as log:
            log.write(" ".join(sys.orig_argv).replace("\\n", " ") + "\\n")
    seen.add(name)
    if name.split(".")[0] in POSIX:
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    module = true_import(name, globals, locals, fromlist, level)
    return without(module) if name in (*LACKING, "zmq") and not fromlist else module

builtins.__import__ = less_import
"""
ALL = """
import importlib, os, pkgutil, sparselib
names = [m.name for m in pkgutil.walk_packages(sparselib.__path__, "sparselib.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names), os.path.dirname(sparselib.__file__))
"""
SMALL = [
    "seeds=2", "epochs=1", "width=4", "sparsities=[0,0.5]", "finetune_epochs=0",
    "detectors=[msp,sensnorm,sensnorm-ayle]", "anomalies=[uniform]", "ablation=[knn]", "rounds=1", "train_limit=200",
]  # fmt: skip


@pytest.fixture
def elsewhere(tmp_path):
    """Run Python where POSIX modules are lacking: returns (what it printed, how each process with sparselib began)."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE, encoding="utf-8")

    def run(*arguments):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SPARSELIB")} | {
            "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)]),
            "PYTHONIOENCODING": "latin-1",
            "PROCESSES": str(tmp_path / "processes"),
            "SPARSELIB_STORE": str(tmp_path / "store"),
        }
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            encoding="latin-1",
            cwd=ROOT,
            env=environment,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, (tmp_path / "processes").read_text(encoding="utf-8").splitlines()

    return run


def test_every_module_can_be_imported(elsewhere):
    told, _ = elsewhere("-c", ALL)
    assert told.split() == [str(len([p for p in MODULES if p.stem != "__main__"]) - 1), str(ROOT / "sparselib")]


def test_a_figure_is_computed_by_two_workers_and_its_notebook_run(elsewhere, tmp_path):
    sets = [part for text in SMALL for part in ("--set", text)]
    _, processes = elsewhere("-m", "sparselib", "run", "5", *sets, "--jobs", "2", "-o", str(tmp_path / "out.ipynb"))
    assert sum("loky" in line for line in processes) >= 2 and sum("ipykernel" in line for line in processes) == 1
    outputs = [o for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells for o in cell.get("outputs", [])]
    assert any("image/svg+xml" in output.get("data", {}) for output in outputs)


def test_signs_that_the_output_cannot_show_are_no_reason_to_fail(elsewhere):
    told, _ = elsewhere("-m", "sparselib", "list", "figures")
    assert "05_sensnorm" in told and "C1?C4" in told


def test_no_module_imports_what_only_posix_has():
    for path in MODULES:
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
        assert not found & set(POSIX), path


def _text_without_encoding(tree):
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = getattr(getattr(node.func, "value", None), "id", "")
        texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        opens = name == "open" and owner not in ("Image", "os", "tarfile") and not {"rb", "wb", "ab", "xb"} & set(texts)
        runs = owner == "subprocess" and any(k.arg == "text" for k in node.keywords)
        if (opens or runs or name in ("read_text", "write_text")) and all(k.arg != "encoding" for k in node.keywords):
            yield ast.unparse(node)


@pytest.mark.parametrize("folder", ["sparselib", "tests", "benchmarks"])
def test_text_is_read_and_written_as_utf_8_whatever_the_locale(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        found = list(_text_without_encoding(ast.parse(path.read_text(encoding="utf-8"))))
        assert not found, f"{path}: {found}"
