import pytest

from sparselib.repro import cli, project

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
        (["run", "5", "-o", "notebooks/05_sensnorm.ipynb"], "output must not be the template itself"),
        (["run", "5", "-o", "x.html"], "output must end in .ipynb"),
        (["reproduce", "--set", "sedes=2"], "unknown parameter 'sedes' of any page; did you mean 'seeds'"),
        (["reproduce", "--profile", "mnits"], "unknown profile 'mnits'; did you mean 'mnist'"),
        (["reproduce", "--figure", "55"], "unknown figure '55'"),
        (["status", "--profile", "x"], "unknown profile 'x'"),
        (["list", "figure"], "cannot list 'figure' (allowed: figures,"),
    ],
)
def test_wrong_values_end_with_code_2_and_one_line(call, arguments, message):
    code, out, err = call(*arguments)
    assert code == 2 and out == "" and message in err
    assert err.startswith("sparselib: ") and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["reproduce", "--sets", "a=1"], ["reproduce", "--jobs", "0"], ["run", "5"], ["x"]]
)
def test_wrong_options_end_with_code_2_and_usage(call, arguments):
    code, out, err = call(*arguments)
    assert code == 2 and "Usage" in err and "Traceback" not in err


def test_missing_data_and_wrong_classes_are_told(call, tmp_path):
    code, _, err = call("run", "5", "--profile", "mnist", "-o", tmp_path / "x.ipynb")
    assert code == 1 and "'mnist'" in err and str(tmp_path / "data") in err and "download=True" in err
    code, _, err = call("run", "5", *GRID, "--set", "held_out=[eight]", "-o", tmp_path / "x.ipynb")
    assert code == 1 and "unknown held_out class 'eight'" in err


def test_a_foreign_store_is_told(call, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "format").write_text("0")
    code, _, err = call("status")
    assert code == 1 and "layout '0'" in err and "left as it is" in err


def test_lists_and_status(call):
    for what, word in [
        ("figures", "05_sensnorm"),
        ("detectors", "sensnorm"),
        ("profiles", "digits:"),
        ("datasets", "svhn"),
    ]:
        code, out, _ = call("list", what)
        assert code == 0 and word in out
    code, out, _ = call("status")
    assert code == 0 and "00_quickstart: stale: never run" in out and "0 of 475 cells" in out
    assert "475 to compute: new parameters" in out


def test_ctrl_c_ends_cleanly(call, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.runner, "compute", interrupted)
    code, _, err = call("reproduce")
    assert code == 130 and "stopped; what was computed is kept" in err and "Traceback" not in err
