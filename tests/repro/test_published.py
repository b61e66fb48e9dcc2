import json
import shutil
import subprocess

import pandas as pd
import pytest
import toy

from sparselib import cli, experiments
from sparselib.experiments import fields
from sparselib.repro import page, project, published, runner, verify
from sparselib.repro import parameters as typed
from sparselib.repro.store import Store

SMALL = {
    "seeds": 2, "epochs": 1, "width": 4, "train_limit": 100, "test_limit": 60, "sparsities": [0.0, 0.5],
    "finetune_epochs": 1, "detectors": ["msp", "sensnorm", "sensnorm-ayle"], "anomalies": ["uniform"],
    "ablation": ["sensnorm norm:1"], "rounds": 1,
}  # fmt: skip
NAME = "05_sensnorm"
PAGE = experiments.PAGES[NAME]


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """The parameters of a small figure and a store with its rows."""
    parameters = typed.resolve(PAGE, SMALL)
    store = Store(tmp_path_factory.mktemp("store"))
    runner.compute(parameters.steps(), store, progress=False)
    return parameters, store


@pytest.fixture(scope="module")
def original(computed, tmp_path_factory):
    """The folder results/ with the figure published."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "folder", lambda profile: folder / profile)
        assert [path.name for path in published.write(*computed)] == [f"{NAME}.csv", f"{NAME}.json"]
    return folder


@pytest.fixture
def results(original, tmp_path, monkeypatch):
    """A copy of it, which a test may spoil."""
    shutil.copytree(original, tmp_path / "results")
    monkeypatch.setattr(published, "folder", lambda profile: tmp_path / "results" / profile)
    return tmp_path / "results"


def test_what_is_written_is_read_value_for_value(computed, results):
    parameters, store = computed
    rows = published.read("digits", NAME)
    wanted = runner.rows(parameters.roles(), store).drop(columns="taken")
    short = {name: wanted[name].str[: published.SHORT] for name in ("what", "key")}
    wanted = wanted.assign(**short, seconds=wanted["seconds"].round(2))[list(rows.columns)]
    pd.testing.assert_frame_equal(rows, wanted, check_exact=True, check_dtype=False)
    assert rows["value"].tolist() == wanted["value"].tolist(), "to the last bit"
    assert set(rows["what"]) == {step.what[: published.SHORT] for step in parameters.steps()}
    assert published.parameters(PAGE, "digits") == parameters
    about = json.loads((results / "digits" / f"{NAME}.json").read_text(encoding="utf-8"))
    assert about["versions"] == project.versions() and {"machine", "date"} <= set(about)
    lines = (results / "digits" / f"{NAME}.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) - 1 == len(parameters.roles()), "one line for each thing measured"
    assert not {"network", "commit", "family"} & set(lines[0].split(",")), "what is the same, or told, stands once"


def test_the_code_behind_rows_is_told_without_their_data(computed, results, monkeypatch):
    parameters, _ = computed
    path = results / "digits" / f"{NAME}.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    assert "sparselib.experiments.networks.Pruned" in about["code"]["from"], "of the inputs, too"
    assert "sparselib.detection.baselines.MSP" in about["code"]["from"], "what a step chooses by name"
    assert published.code_changed("digits", NAME) is False
    with monkeypatch.context() as patch:
        real = published.dependencies.of_names
        patch.setattr(published.dependencies, "of_names", lambda *a: real(*a) | {"sparselib.data.load": "edited"})
        assert published.code_changed("digits", NAME) is True
        patch.setattr(published, "folder", lambda profile: results / "digits")
        patch.setattr(published, "_about", lambda profile, notebook: about)
        with pytest.warns(UserWarning, match="rows of mnist were computed by other code than this"):
            page.published_results(PAGE, but="digits")
    for wrong in (3, {"from": "x", "tables": [], "digest": ""}, {"from": [], "tables": []}):
        path.write_text(json.dumps(published.sealed({**about, "code": wrong})), encoding="utf-8")
        with pytest.raises(published.PublishedError, match="code must have from, tables and digest"):
            published.code_changed("digits", NAME)
    del about["code"]
    path.write_text(json.dumps(published.sealed(about)), encoding="utf-8")
    assert published.code_changed("digits", NAME) is None and published.read("digits", NAME) is not None


def test_rows_of_equal_keys_are_taken_and_nothing_is_computed(computed, results, tmp_path, monkeypatch):
    parameters, full = computed
    store = Store(tmp_path / "empty")
    assert published.adopt([parameters], store) == len(parameters.steps())
    assert runner.missing(parameters.steps(), store) == []
    monkeypatch.setattr(runner, "_make", lambda *_: pytest.fail("computed"))
    runner.compute(parameters.steps(), store, progress=False)
    taken, own = (runner.rows(parameters.roles(), s) for s in (store, full))
    assert taken["taken"].all() and not own["taken"].any()
    names = ["taken", "seconds"]
    pd.testing.assert_frame_equal(taken.drop(columns=names), own.drop(columns=names), check_exact=True)
    assert published.adopt([parameters], store) == 0, "they are there already"


def test_a_network_is_computed_when_only_its_rows_were_taken(computed, results, tmp_path):
    parameters, full = computed
    store = Store(tmp_path / "empty")
    published.adopt([parameters], store)
    more = typed.resolve(PAGE, {**SMALL, "anomalies": ["uniform", "inverted"]})
    missing = runner.missing(more.steps(), store)
    assert {type(step).__name__ for step in missing} == {"Trained", "Pruned", "Detection"}
    runner.compute(more.steps(), store, progress=False)
    taken, own = (runner.rows(parameters.roles(), s) for s in (store, full))
    names = ["metric", "value", "key"]
    pd.testing.assert_frame_equal(taken[names], own[names], check_exact=True)
    everything = runner.missing(parameters.steps(), store, adopted=False)
    assert everything and {type(step).__name__ for step in everything} == {"Detection"}, "networks were computed here"


def test_rows_of_other_code_are_not_taken(computed, results, tmp_path):
    parameters, _ = computed
    _republish(results, lambda rows: rows.assign(key="0" * published.SHORT))
    assert published.adopt([parameters], Store(tmp_path / "empty")) == 0


def test_damaged_rows_are_told_and_not_taken(computed, results, tmp_path):
    parameters, _ = computed
    path = results / "digits" / f"{NAME}.csv"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.warns(UserWarning, match=r"05_sensnorm.csv: not what .* \(checksum\).* left aside"):
        assert published.adopt([parameters], Store(tmp_path / "empty")) == 0


def test_publishing_again_changes_no_file(computed, results):
    before = {path: path.stat().st_mtime_ns for path in (results / "digits").iterdir()}
    assert published.write(*computed) == []
    assert {path: path.stat().st_mtime_ns for path in (results / "digits").iterdir()} == before


def test_line_ends_of_another_system_do_no_harm(results):
    whole, path = published.read("digits", NAME), results / "digits" / f"{NAME}.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(published.read("digits", NAME), whole, check_exact=True)


def test_nothing_published_is_none(results):
    assert published.read("mnist", NAME) is None and published.parameters(PAGE, "mnist") is None


def _sealed(old, new):
    """Return a change of a JSON file that knows of its checksum."""
    return lambda text: json.dumps(published.sealed(json.loads(text.replace(old, new))))


@pytest.mark.parametrize(
    "file, change, message",
    [
        ("csv", lambda text: text[:-1], r"05_sensnorm.csv: not what 05_sensnorm.json says \(checksum\)"),
        ("csv", lambda text: text.replace("msp", "psm"), "checksum"),
        ("csv", None, "05_sensnorm.csv: No such file"),
        ("json", lambda text: text[:-5], "05_sensnorm.json: cannot be read"),
        ("json", lambda text: "[]", "05_sensnorm.json: is not about format 3"),
        ("json", lambda text: text.replace('"digits"', '"mnist"', 1), "profile 'digits'"),
        ("json", lambda text: text.replace('"checksum"', '"c"'), "lacks checksum"),
        ("json", None, "05_sensnorm.csv: has no 05_sensnorm.json"),
        ("json", lambda text: text.replace('"seeds": 2', '"seeds": 3'), r"was changed by hand \(checksum\)"),
        ("json", lambda text: text.replace('"cores": ', '"cores": 1'), r"was changed by hand \(checksum\)"),
        ("json", _sealed('"auroc": "float"', '"aurok": "float"'), "not a table of published rows"),
        ("json", _sealed('"detector": "text"', '"detector": "int"'), "not a table of published"),
    ],
)
def test_damaged_and_foreign_files_are_named(results, file, change, message):
    path = results / "digits" / f"{NAME}.{file}"
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(published.PublishedError, match=message):
        published.read("digits", NAME)


def test_parameters_of_another_version_are_told(results):
    path = results / "digits" / f"{NAME}.json"
    path.write_text(_sealed('"seeds": 2', '"sedes": 2')(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(published.PublishedError, match="not the parameters of this version: unknown parameter 'sedes'"):
        published.parameters(PAGE, "digits")


def test_what_is_no_file_is_named_at_once(results):
    for suffix in ("json", "csv"):
        path = results / "digits" / f"{NAME}.{suffix}"
        kept = path.read_bytes()
        for make in toy.ODD:
            path.unlink()
            make(path)
            with pytest.raises(published.PublishedError, match=rf"{NAME}.{suffix}"):
                published.read("digits", NAME)
            published.marks([NAME], but="mnist")
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            path.write_bytes(kept)


def _verify(monkeypatch, capsys, tmp_path, *options):
    monkeypatch.setenv("SPARSELIB_STORE", str(tmp_path / "unused"))
    monkeypatch.setattr("sys.argv", ["sparselib", "verify", *options, "--jobs", "1", "--seed", "1"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0, *capsys.readouterr()


def _republish(results, change):
    """Publish the rows as if other numbers had been computed."""
    rows = published.read("digits", NAME)
    within = json.loads((results / "digits" / f"{NAME}.json").read_text(encoding="utf-8"))["within"]
    published.write_rows(published.parameters(PAGE, "digits"), change(rows), within)


def test_verify_recomputes_from_nothing_and_finds_the_same(monkeypatch, capsys, tmp_path, results):
    code, out, err = _verify(monkeypatch, capsys, tmp_path, "--sample", "3")
    assert code == 0, out + err
    assert "3 of 3 steps identical, 0 within 0.02, 0 different" in out and "3 steps, drawn with --seed 1" in err
    assert out.count("recomputed") >= 3 and not (tmp_path / "unused").exists()


def test_verify_finds_what_differs_and_what_has_changed(monkeypatch, capsys, tmp_path, results):
    def change(rows):
        first = rows["what"] == rows["what"].iloc[0]
        rows.loc[first & (rows["metric"] == "accuracy"), "value"] += 0.01
        rows.loc[~first & (rows["metric"] == "auroc"), "value"] -= 0.5
        rows["key"] = "0" * published.SHORT
        return rows

    _republish(results, change)
    code, out, _ = _verify(monkeypatch, capsys, tmp_path, "--sample", "100")
    assert code == 1 and out.count("the code or the data have changed since") == 18
    assert " 1 within 0.02, 14 different" in out and "difference 0.5: DIFFERENT" in out
    code, out, _ = _verify(monkeypatch, capsys, tmp_path, "--sample", "100", "--tolerance", "0.6")
    assert code == 0 and "3 of 18 steps identical, 15 within 0.6, 0 different" in out


def test_measured_values_and_gone_steps(results):
    def change(rows):
        first = rows["what"] == rows["what"].iloc[0]
        rows.loc[~first, "what"] = "0" * published.SHORT
        return rows

    _republish(results, change)
    picked = verify.sample([PAGE], "digits", 9, 0)
    gone, kept = sorted(verify.recompute("digits", picked, progress=False), key=lambda found: len(found.notes))[::-1]
    assert gone.outcome == verify.DIFFERENT and "do not lead to this step any more" in gone.notes[0]
    assert kept.outcome == verify.SAME and not kept.notes
    for metric in published.MEASURED:
        assert verify._outcome(metric, 1.0, 3.0, 0.02) == verify.MEASURED
    assert verify._outcome("macs", 1e6, 1.01e6, 0.02) == verify.NEAR
    assert verify._outcome("macs", 1e6, 1.03e6, 0.02) == verify.DIFFERENT
    assert verify._outcome("auroc", 0.5, float("nan"), 9) == verify.DIFFERENT


def test_verify_says_what_is_missing(monkeypatch, capsys, tmp_path, results, strengths):
    monkeypatch.setenv("SPARSELIB_DATA", str(tmp_path / "data"))
    with monkeypatch.context() as patch:
        patch.setattr(fields, "choices", strengths)
        patch.setattr(project, "results_folder", lambda: tmp_path / "nothing chosen")
        code, _, err = _verify(monkeypatch, capsys, tmp_path, "--profile", "cifar10")
        assert code == 2 and "python benchmarks/choose_strengths.py cifar10" in err
    code, _, err = _verify(monkeypatch, capsys, tmp_path, "--profile", "cifar10")
    assert code == 1 and "no published rows" in err and "reproduce --profile cifar10 --rows-only --publish" in err
    code, _, err = _verify(monkeypatch, capsys, tmp_path, "--sample", "0")
    assert code == 2 and "--sample" in err
    small, mnist = (typed.resolve(PAGE, {**SMALL, "profile": profile}) for profile in ("digits", "mnist"))
    other = {a.what[: published.SHORT]: b.what for a, b in zip(small.steps(), mnist.steps(), strict=True)}
    rows = published.read("digits", NAME)
    published.write_rows(mnist, rows.assign(what=rows["what"].map(other)), [])
    code, out, err = _verify(monkeypatch, capsys, tmp_path, "--profile", "mnist")
    assert code == 1 and "dataset 'mnist': its files are missing" in err and "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("sparselib: ")]) == 1


def test_the_commit_says_changes_but_for_published_rows(tmp_path, monkeypatch):
    def git(*arguments):
        own = ("-c", "user.name=n", "-c", "user.email=e")
        subprocess.run(["git", "-C", str(tmp_path), *own, *arguments], check=True, capture_output=True)

    (tmp_path / "results").mkdir()
    code, rows = tmp_path / "code.py", tmp_path / "results" / "rows.csv"
    for file in (code, rows):
        file.write_text("1", encoding="utf-8")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    monkeypatch.setattr(project, "root", lambda: tmp_path)
    commit = project.commit.__wrapped__
    rows.write_text("2", encoding="utf-8")
    clean = commit()
    code.write_text("2", encoding="utf-8")
    assert len(clean) == 10 and commit() == clean + "+changes"


def test_what_is_adopted_is_what_was_computed_row_by_row(tmp_path, monkeypatch):
    """Rows of an ensemble have columns of their own that are columns of other steps: detector, anomaly, attack."""
    small = {
        "seeds": 1, "epochs": 1, "finetune_epochs": 1, "width": 4, "train_limit": 60, "test_limit": 40, "members": 2,
        "rounds": 1, "unit_sparsities": [0.5], "scratch_sparsities": [], "certify_n": 20, "certify_samples": 4,
        "attack_steps": 1, "attack_restarts": 1, "attack_samples": 10, "anomalies": ["uniform", "mixed"],
        "gradient_detectors": ["msp"],
    }  # fmt: skip
    parameters, computed, other = (
        typed.resolve(experiments.PAGES["04_structured_sparsity_and_cost"], small),
        *(Store(tmp_path / name) for name in ("computed", "adopted")),
    )
    monkeypatch.setattr(published, "folder", lambda profile: tmp_path / "results" / profile)
    runner.compute(parameters.steps(), computed, progress=False)
    published.write(parameters, computed)
    assert published.adopt([parameters], other) == len({step.key for step in parameters.steps()})
    drop = ["taken", "seconds"]
    own, taken = (runner.rows(parameters.roles(), store).drop(columns=drop) for store in (computed, other))
    order = ["question", "key", "metric", "detector", "anomaly", "attack"]
    own, taken = (table.sort_values(order, ignore_index=True) for table in (own, taken))
    pd.testing.assert_frame_equal(taken, own[list(taken.columns)], check_dtype=False)
    assert {"disagreement", "msp"} <= set(taken.loc[taken["question"] == "ensemble", "detector"].dropna())
