import re
import subprocess
import warnings

import nasty
import pytest

from sparselib import cli
from sparselib.repro import project, published, workers
from sparselib.repro.store import Store

GRID = ["--set", "seeds=1", "--set", "epochs=1", "--set", "width=4"]


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("SPARSELIB_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SPARSELIB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(project, "build_folder", lambda: tmp_path / "_build")

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["sparselib", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "5", "-o", "x.ipynb", "--set", "seeds=two"], "parameter 'seeds' of 05_sensnorm"),
        (["run", "5", "-o", "x.ipynb", "--set", "sparsities=[1.5]"], "parameter 'sparsities.0' of 05_sensnorm"),
        (["run", "5", "-o", "x.ipynb", "--set", "seeds"], "--set takes name=value, got 'seeds'"),
        (["run", "5", "-o", "x.ipynb", "--set", "seeds=[1"], "--set seeds: not a YAML value"),
        (["run", "notebooks/09.ipynb", "-o", "x.ipynb"], "unknown figure '09'"),
        (["run", "5", "-o", "notebooks/05_sensnorm.ipynb"], "output must not lie in"),
        (["run", "5", "-o", "x.html"], "output must end in .ipynb"),
        (["reproduce", "--set", "sedes=2"], "unknown parameter 'sedes' of any page; did you mean 'seeds'"),
        (["reproduce", "--profile", "mnits"], "unknown profile 'mnits'; did you mean 'mnist'"),
        (["reproduce", "--figure", "55"], "unknown figure '55'"),
        (["status", "--profile", "x"], "unknown profile 'x'"),
        (["reproduce", "--set", "seeds=1.5"], "parameter 'seeds'"),
        (["reproduce", "--set", "seeds={a: 1}"], "parameter 'seeds'"),
        (["reproduce", "--set", "seeds=-1"], "greater than or equal to 1, got -1"),
        (["reproduce", "--set", "sparsities=0.5"], "parameter 'sparsities'"),
        (["reproduce", "--set", "sparsities=[]"], "parameter 'sparsities'"),
        (["reproduce", "--set", "sparsities=[a]"], "parameter 'sparsities.0'"),
        (["reproduce", "--set", "dataset=[digits]"], "parameter 'dataset'"),
        (["reproduce", "--set", "=1"], "--set takes name=value, got '=1'"),
        (["reproduce", "--scheduler", "localhost:8786"], "or tls://host:port, got 'localhost:8786'"),
        (["reproduce", "--scheduler", ""], "scheduler must be tcp://host:port or tls://host:port, got ''"),
        (["run", "5", "-o", "x.ipynb", "--scheduler", "tcp://a:b"], "scheduler must be tcp://host:port"),
        (["verify", "--scheduler", "tcp://a:99999"], "or tls://host:port, got 'tcp://a:99999'"),
        (["verify", "--profile", "mnits"], "unknown profile 'mnits'; did you mean 'mnist'"),
        (["verify", "--figure", "77"], "unknown figure '77'"),
        (["list", "figure"], "cannot list 'figure' (allowed: figures,"),
    ],
)
def test_wrong_values_end_with_code_2_and_one_line(call, arguments, message):
    code, out, err = call(*arguments)
    assert code == 2 and out == "" and message in err
    assert err.startswith("sparselib: ") and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [["reproduce", "--sets", "a=1"], ["reproduce", "--jobs", "0"], ["run", "5"], ["x"], ["verify", "--sample", "0"]],
)
def test_wrong_options_end_with_code_2_and_usage(call, arguments):
    code, out, err = call(*arguments)
    assert code == 2 and "Usage" in err and "Traceback" not in err


def test_missing_data_and_wrong_classes_are_told(call, tmp_path):
    code, _, err = call("run", "5", "--profile", "mnist", "-o", tmp_path / "x.ipynb")
    assert code == 1 and "'mnist'" in err and str(tmp_path / "data") in err and "download=True" in err
    code, _, err = call("run", "5", *GRID, "--set", "held_out=[eight]", "-o", tmp_path / "x.ipynb")
    assert code == 1 and "unknown held_out class 'eight'" in err


def test_a_store_of_another_layout_is_told_and_not_used(call, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "format").write_text("0", encoding="utf-8")
    code, out, err = call("status", "--figure", "5", *GRID)
    assert code == 0 and "of layout '0': kept, but not used" in err and "  0 of " in out
    assert err.count("layout '0'") == 1 and (tmp_path / "store" / "format").read_text(encoding="utf-8") == "0"


def test_a_store_that_cannot_be_used_is_one_line(call, tmp_path):
    (tmp_path / "store").write_text("a file, not a folder", encoding="utf-8")
    code, out, err = call("status", "--figure", "5")
    assert code == 1 and out == "" and err.startswith("sparselib: cannot use the store") and err.count("\n") == 1


def test_lists_and_status(call):
    for what, word in [
        ("figures", "05_sensnorm"),
        ("detectors", "sensnorm"),
        ("profiles", "digits:"),
        ("datasets", "svhn"),
    ]:
        code, out, _ = call("list", what)
        assert code == 0 and word in out
    code, out, _ = call("status", "--figure", "0", "--figure", "5", *GRID)
    number = int(re.search(r"0 of (\d+) steps", out)[1])
    assert code == 0 and "00_quickstart: stale: never run" in out
    assert number > 50 and f"{number + 1} to compute: new parameters" in out, (
        "and the network that the others start from"
    )


def test_status_copes_with_missing_data(call, tmp_path):
    code, out, err = call("status", "--profile", "mnist")
    assert code == 0 and err == "" and "00_quickstart: stale: never run" in out
    assert out.count("dataset 'mnist': its files are missing") == 1 and str(tmp_path / "data") in out
    assert out.count(": cannot tell") >= 2


def test_rows_are_computed_and_published_without_notebooks(call, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "folder", lambda profile: tmp_path / "results" / profile)
    small = [
        "sparsities=[0.5]", "finetune_epochs=0", "detectors=[msp,sensnorm,sensnorm-ayle]",
        "anomalies=[uniform]", "ablation=[knn]", "rounds=1", "train_limit=80",
    ]  # fmt: skip
    sets = [part for text in small for part in ("--set", text)]
    arguments = ["reproduce", "--figure", "5", "--rows-only", "--publish", "--jobs", "1", *GRID, *sets]
    code, out, err = call(*arguments)
    assert code == 0, err
    assert "05_sensnorm: published in " in err
    assert {path.name for path in (tmp_path / "results" / "digits").iterdir()} == {
        "05_sensnorm.csv", "05_sensnorm.json",
    }  # fmt: skip
    assert not (tmp_path / "_build").exists() and out == ""
    code, _, err = call(*arguments)
    assert code == 0 and ", 0 to compute" in err and "05_sensnorm: published already" in err


def test_a_full_disk_is_one_line_and_nothing_is_spoilt(call, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a file system needs more rights")
    monkeypatch.setenv("SPARSELIB_STORE", str(disk))
    small = [
        "seeds=8",
        "rounds=1",
        "detectors=[msp,sensnorm,sensnorm-ayle]",
        "ablation=[knn]",
        "epochs=0",
        "train_limit=80",
        "width=4",
    ]
    sets = [part for text in small for part in ("--set", text)]
    try:
        code, _, err = call("reproduce", "--figure", "5", "--rows-only", "--jobs", "1", *sets)
        assert code == 1 and "Traceback" not in err
        last = err.rstrip().splitlines()[-1]
        assert last == f"sparselib: cannot write to the store {disk}: [Errno 28] No space left on device"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            whole = [Store(disk).get(path.parent.name, path.stem) for path in disk.glob("steps/*/*.json")]
        assert whole and None not in whole
    finally:
        subprocess.run(["umount", disk], check=True)


def test_ctrl_c_ends_cleanly(call, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.runner, "compute", interrupted)
    code, _, err = call("reproduce", "--figure", "5", *GRID)
    assert code == 130 and "stopped; what was computed is kept" in err and "Traceback" not in err


def test_warnings_of_workers_are_told_once_in_one_line(call, monkeypatch):
    def compute(*_, **__):
        tasks = [workers.Task(str(i), (f"low \x1b[31m on\u202e memory {i % 2}",)) for i in range(4)]
        with workers.local(2) as pool:
            list(workers.carry_out(warnings.warn, tasks, pool))

    monkeypatch.setattr(cli.runner, "compute", compute)
    code, out, err = call("reproduce", "--figure", "5", "--rows-only", *GRID)
    told = [line for line in err.splitlines() if "memory" in line]
    assert code == 0 and sorted(told) == [rf"sparselib: warning: low \x1b[31m on\u202e memory {i}" for i in (0, 1)]


def test_messages_wrap_to_the_width_of_a_terminal(call, monkeypatch):
    monkeypatch.setattr(cli.sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    code, _, err = call("list", "nothing")
    assert code == 2 and len(err.splitlines()) > 1 and max(map(len, err.splitlines())) <= 60
    assert " ".join(err.split()).startswith("sparselib: cannot list 'nothing' (allowed: figures, lessons")


@pytest.mark.parametrize("text", [text for text in nasty.ALL if text and "\0" not in text])
@pytest.mark.parametrize(
    "arguments",
    [["list", "{}"], ["cell", "{}"], ["reproduce", "--set", "{}=1"], ["reproduce", "--set", "dataset={}"], ["{}"],
     ["status", "--figure", "{}"], ["verify", "--profile", "{}"], ["archive", "-o", "{}.x"], ["reproduce", "--{}"]],
)  # fmt: skip
def test_nothing_that_is_typed_comes_back_as_more_than_text(call, arguments, text):
    code, out, err = call(*(argument.replace("{}", text) for argument in arguments))
    assert code == 2 and out == "" and "Traceback" not in err
    assert all(sign.isprintable() or sign == "\n" for sign in err)


def test_an_endless_argument_is_not_repeated_in_full(monkeypatch, capsys):
    for arguments in (["list", "x" * 5000], ["run", "5", "-o", "x.ipynb", "--set", "x" * 5000], ["x" * 5000]):
        monkeypatch.setattr("sys.argv", ["sparselib", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        err = capsys.readouterr().err
        assert ended.value.code == 2 and max(map(len, err.splitlines())) < 1000 and "xxx … xxx" in err
