import inspect
import shlex

import nasty
import nbformat
import pytest
import yaml

from sparselib import cli, experiments, training
from sparselib.experiments import fields, sensnorm
from sparselib.experiments.sparsity import CONTROLS, weights
from sparselib.outside import short
from sparselib.repro import notebooks
from sparselib.repro import parameters as typed
from sparselib.repro.page import rerun_command


def _page(name):
    return typed.find(experiments.PAGES, name)


SENSNORM = experiments.FIGURES["05_sensnorm"]


@pytest.mark.parametrize("profile", experiments.PROFILES)
@pytest.mark.parametrize("model", experiments.FIGURES.values(), ids=list(experiments.FIGURES))
def test_every_profile_is_valid_for_every_figure(profile, model):
    parameters = typed.resolve(model, {"profile": profile})
    assert parameters.profile == profile and typed.overrides(parameters) == {}
    assert all(field.description for field in model.model_fields.values())


def test_overrides_win_and_none_means_the_profile():
    parameters = typed.resolve(SENSNORM, {"profile": "mnist", "seeds": 2, "sparsities": "[0.5, 0.9]", "width": None})
    assert (parameters.seeds, parameters.sparsities, parameters.width) == (2, [0.5, 0.9], 16)
    assert typed.overrides(parameters) == {"seeds": 2, "sparsities": [0.5, 0.9]}
    assert rerun_command(parameters) == (
        "sparselib run notebooks/05_sensnorm.ipynb --profile mnist --set seeds=2 --set 'sparsities=[0.5, 0.9]' "
        "-o out.ipynb"
    )


@pytest.mark.parametrize(
    "values, message",
    [
        ({"sedes": 2}, "unknown parameter 'sedes' of 05_sensnorm; did you mean 'seeds'?"),
        ({"profile": "mnits"}, "unknown profile 'mnits'; did you mean 'mnist'?"),
        ({"dataset": "digit"}, "parameter 'dataset' of 05_sensnorm: unknown dataset 'digit'; did you mean 'digits'?"),
        ({"detectors": ["sensnrom"]}, "unknown detector 'sensnrom'; did you mean 'sensnorm'?"),
        ({"anomalies": []}, "parameter 'anomalies' of 05_sensnorm"),
        ({"seeds": 0}, "parameter 'seeds' of 05_sensnorm: .*greater than or equal to 1, got 0"),
        ({"seeds": "two"}, "parameter 'seeds' of 05_sensnorm: .*integer, got 'two'"),
        ({"seeds": True}, "parameter 'seeds' of 05_sensnorm: .*integer, got True"),
        ({"sparsities": [0.5, 1.0]}, "parameter 'sparsities.1' of 05_sensnorm: .*less than 1, got 1.0"),
        ({"sparsities": [float("nan")]}, "05_sensnorm: sparsities must be finite, got nan"),
    ],
)
def test_bad_parameters_are_one_line(values, message):
    with pytest.raises(typed.ParameterError, match=message) as caught:
        typed.resolve(SENSNORM, values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, values, message",
    [
        (1, {"recipes": ["magntude after"]}, "unknown criterion 'magntude'; did you mean 'magnitude'"),
        (1, {"recipes": ["magnitude aftr"]}, "unknown when 'aftr'; did you mean 'after'"),
        (1, {"recipes": ["snip"]}, "unknown when ''"),
        (1, {"recipes": ["snip before layers"]}, "recipe must be '<criterion> <when>'"),
        (1, {"recipes": ["snip before", "snip before"]}, "must not name anything twice"),
        (1, {"shifts": ["fog:6"]}, "severity must be in 1..5, got '6'"),
        (1, {"shifts": ["fogg"]}, "unknown shift 'fogg'; did you mean 'fog'"),
        (1, {"sparsities": [0]}, "must hold at least one sparsity above 0"),
        (1, {"noisy_epochs": 1}, "greater than or equal to 2, got 1"),
        (1, {"eps_linf": []}, "at least 1 item"),
        (5, {"detectors": ["msp"]}, "must hold 'sensnorm'"),
        (5, {"sparsities": "[0.5"}, r"sparsities is no YAML list or mapping, got '\[0.5'"),
        (6, {"figures": {"05_sensnorm": {"profile": "mnist"}}}, "unknown parameter of 05_sensnorm 'profile'"),
        (2, {"anomalies": ["pgd"]}, "needs a strength: pgd:0.1"),
        (2, {"detectors": ["sensnorm layer:all"]}, "detector 'sensnorm layer:all': .*layer"),
        (2, {"detectors": ["sensnorm layers"]}, "must be '<name> <option>:<value>"),
        (3, {"outliers": "textures"}, "must not be among the anomalies"),
        (3, {"objectives": ["cleen"]}, "unknown objective 'cleen'; did you mean 'clean'"),
        (4, {"recipe": "magnitude after"}, "recipe must remove whole units"),
        (4, {"unit_sparsities": [0.5]}, "scratch_sparsities must be among unit_sparsities"),
        (6, {"figures": {"01_sparsity": {}}}, "did you mean '01_sparsity_and_robustness'"),
        (6, {"figures": {"05_sensnorm": {"sedes": 2}}}, "did you mean 'seeds'"),
        (6, {"figures": {"05_sensnorm": {"rounds": 0}}}, "parameter 'rounds' of 05_sensnorm: .*got 0"),
        (6, {"delta": -1}, "greater than or equal to 0, got -1"),
        (1, {"headline_sparsity": 0.3}, r"headline_sparsity must be among \[0.5, 0.8, 0.95\], got 0.3"),
        (1, {"precision": "float16"}, "unknown precision 'float16'"),
        (5, {"dataset": "folder:"}, "dataset must be a name or folder:<path>, got 'folder:'"),
        (5, {"network": "x:"}, "network must be a name or <path or module>:<factory>, got 'x:'"),
        (5, {"weights": "none.pt"}, "weights must be a file, got 'none.pt'"),
        (4, {"scratch_sparsities": [0.5, 0.5]}, "must not name anything twice"),
        (5, {"held_out": [8]}, "valid string, got 8: as a text, write '\"8\"'"),
        (5, {"epochs": 10**7}, "less than or equal to 10000, got 10000000"),
        (1, {"augment": "crops"}, "unknown augment 'crops'; did you mean 'crop'"),
        (1, {"rounds": None, "attack_restarts": 0}, "attack_restarts' of 01_sparsity_and_robustness: .*got 0"),
        (2, {"detectors": ["knn"]}, "must hold 'msp'"),
        (3, {"objectives": ["clean"]}, "must hold 'adversarial'"),
        (3, {"controls": ["snip"]}, "unknown control 'snip'"),
        (3, {"evaded": ["msp", "gradnorm"]}, "detector 'gradnorm' has no score that can be attacked"),
        (3, {"evaded": []}, "at least 1 item"),
        (7, {"mask_sparsities": []}, "parameter 'mask_sparsities' of 07_a_network_of_others"),
        (5, {"detectors": ["msp", "sensnorm"]}, "must hold 'sensnorm-ayle'"),
        (5, {"detectors": ["msp", "sensnorm-ayle norm:1"]}, "detector 'sensnorm-ayle norm:1': "),
    ],
)
def test_bad_settings_of_figures_are_one_line(name, values, message):
    with pytest.raises(typed.ParameterError, match=message) as caught:
        typed.resolve(_page(name), values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, values",
    [
        (
            5,
            {"held_out": ["7", "9"], "detectors": ["msp", "sensnorm", "sensnorm-ayle", "sensnorm layers:all norm:inf"]},
        ),
        (5, {"anomalies": ["pgd:0.1", "folder:/tmp/a, b: 'c'"], "width": 0}),
        (1, {"recipes": ["magnitude after units"], "label_noise": 0.25, "eps_linf": [1e-05]}),
        (6, {"figures": {"05_sensnorm": {"sparsities": [0.0, 0.5], "recipe": "snip before"}}}),
    ],
)
def test_the_command_under_a_figure_gives_its_parameters(name, values):
    parameters = typed.resolve(_page(name), values)
    words = shlex.split(rerun_command(parameters))
    sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert typed.resolve(_page(name), cli._assignments(sets)) == parameters


def test_the_verdict_judges_the_figures_as_they_are_set():
    given = {
        "seeds": 2,
        "sparsities": [0.5],
        "headline_sparsity": 0.5,
        "unit_sparsities": [0.7],
        "scratch_sparsities": [0.7],
        "anomalies": ["uniform"],
    }
    pages = {p.notebook: p for p in typed.resolve_all(list(experiments.FIGURES.values()), "digits", given)}
    judged = pages["06_verdict"].judged()
    assert judged == {name: page for name, page in pages.items() if name in judged} and len(judged) == 5
    wider = typed.resolve_all([_page(n) for n in (3, 4, 6)], "mnist", {"width": 16, "train_limit": 4000})
    assert wider[2].judged()[wider[0].notebook] == wider[0] and wider[2].judged()[wider[1].notebook] == wider[1]
    one = typed.resolve(_page(6), {"seeds": 2, "figures": {"05_sensnorm": {"seeds": 3}}}).judged()
    assert one["05_sensnorm"].seeds == 3 and one["01_sparsity_and_robustness"].seeds == 2
    assert judged["01_sparsity_and_robustness"].seeds == 2 and judged["05_sensnorm"].sparsities == [0.5]
    with pytest.raises(typed.ParameterError, match="unknown parameter 'sedes' of any page; did you mean 'seeds'"):
        typed.resolve_all(list(experiments.FIGURES.values()), "digits", {"sedes": 2})


def test_narrow_and_wide_networks_have_the_same_number_of_weights():
    p = typed.resolve(_page(1), {"recipes": ["magnitude after"], "narrow_widths": [4, 8], "wide_width": 16})
    found = list(p.same_size(0))
    *narrow, (_, _, wide), (_, last, _) = found
    assert last == "unpruned" and wide.width == 16 and len(narrow) == 6
    for width, three in zip([4, 8], (narrow[:3], narrow[3:]), strict=True):
        assert [arm for _, arm, _ in three] == ["dense", "unpruned", "magnitude after"]
        (size, _, dense), (_, _, unpruned), (_, _, pruned) = three
        assert {s for s, _, _ in three} == {size} and dense.width == unpruned.dense.width == width
        assert size == weights(dense) == round((1 - pruned.sparsity) * weights(wide))
        assert pruned.dense.width == wide.width and unpruned.sparsity == 0
        assert (pruned.rounds, pruned.epochs) == (unpruned.rounds, unpruned.epochs) == (p.rounds, p.finetune_epochs)
        assert pruned.dense.epochs + pruned.epochs == dense.epochs == wide.epochs
    nets = [net for role, net in p.networks(0) if role["question"] == "width"]
    assert {net.dense.epochs + net.epochs for net in nets[1:]} == {nets[0].epochs}
    noisy = [(arm, net) for arm, net in p.noisy_labels(0)]
    assert tuple(arm for arm, _ in noisy if arm in CONTROLS) == ("dense", *CONTROLS[2:], CONTROLS[1])
    sparse = [net for _, net in noisy if net is not net.origin]
    assert len(sparse) == 1 + len(p.noisy_recipes) * len(p.noisy_sparsities)
    assert all(net.dense.epochs + net.epochs == p.noisy_epochs for net in sparse)


def test_only_what_is_pruned_after_training_is_cut_in_the_rounds_of_the_page():
    p = typed.resolve(_page(1), {})
    dense = p.trained(0)
    rounds = {how: p.pruned(dense, how, 0.5).rounds for how in p.recipes}
    assert rounds == {how: p.rounds if "after" in how else None for how in p.recipes}
    assert p.pruned(dense, "magnitude after", 0.5, rounds=2).rounds == 2


def test_the_precision_is_that_of_the_machine_or_is_refused(monkeypatch):
    monkeypatch.setattr(training, "has_bfloat16", lambda device: True)
    assert [fields.effective(name) for name in ("float32", "bfloat16", "auto")] == ["float32", "bfloat16", "bfloat16"]
    monkeypatch.setattr(training, "has_bfloat16", lambda device: False)
    assert fields.effective("float32") == "float32"
    with pytest.warns(UserWarning, match="no bfloat16 arithmetic here"):
        assert fields.effective("auto") == "float32"
    with pytest.raises(ValueError, match="precision 'bfloat16' needs a processor that has it"):
        fields.effective("bfloat16")


def test_page_7_asks_for_masks_over_one_network_and_its_controls():
    p = typed.resolve(_page(7), {"mask_sparsities": [0.6, 0.9], "objectives": ["adversarial", "clean"]})
    found = [(role["arm"], role["learnt"], role["batch_norm"], net) for role, net in p.networks(0)]
    assert [(*line,) for *line, _ in found] == [
        ("dense", False, "frozen"), ("adversarial", True, "frozen"), ("clean", True, "frozen"),
        ("magnitude", False, "frozen"), ("magnitude", False, "restated"), ("random", False, "frozen"),
        ("random", False, "restated"), ("scales", False, "learnt"),
    ]  # fmt: skip
    dense = found[0][3]
    assert all(net.dense == dense for *_, net in found[1:])
    assert {net.sparsity for *_, net in found[1:-1]} == {0.6}


def test_figures_go_by_number_name_and_path():
    for name in (5, "5", "05", "05_sensnorm", "notebooks/05_sensnorm.ipynb", r"notebooks\05_sensnorm.ipynb"):
        assert _page(name) is SENSNORM
    with pytest.raises(typed.ParameterError, match="unknown figure '05_sensnrom'; did you mean '05_sensnorm'"):
        _page("05_sensnrom")


def _namespace(**changed):
    """What a notebook's globals hold before its set-up cell: the parameters cell has run, and perhaps papermill's."""
    found = {"__name__": "x", "In": ["", typed.cell(SENSNORM)], "Out": {}, "nbformat": nbformat}
    exec(typed.cell(SENSNORM), found)
    injected = changed.pop("injected", {})
    if injected:
        found["In"].append("# Parameters\n" + "\n".join(f"{name} = {value!r}" for name, value in injected.items()))
    return {**found, **injected, **changed}


def test_the_cell_of_parameters_is_the_live_profile():
    assert typed.from_notebook(SENSNORM, _namespace()) == typed.resolve(SENSNORM, {})
    lines = typed.cell(SENSNORM).splitlines()
    assert "seeds: int = 5  # number of seeds: 0, 1, …" in lines and max(map(len, lines)) <= typed.COLUMNS


def test_what_a_person_or_papermill_sets_counts_and_the_rest_is_as_the_profile_has_it():
    assert typed.from_notebook(SENSNORM, _namespace(seeds=2)).seeds == 2
    mnist = typed.resolve(SENSNORM, {"profile": "mnist"})
    assert typed.from_notebook(SENSNORM, _namespace(profile="mnist")) == mnist
    assert typed.from_notebook(SENSNORM, _namespace(injected={"profile": "mnist"})) == mnist
    assert mnist.epochs != 20
    given = typed.from_notebook(SENSNORM, _namespace(injected={"profile": "mnist", "epochs": 20}))
    assert given == typed.resolve(SENSNORM, {"profile": "mnist", "epochs": 20}), "given, though it is the cell's value"


@pytest.mark.parametrize("profile", ["digits", "mnist", "cifar10"])
def test_a_profile_is_a_file_that_papermill_hands_over(profile):
    path = SENSNORM.profiles / f"{profile}.yml"
    handed = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert typed.from_notebook(SENSNORM, _namespace(injected=handed)) == typed.resolve(SENSNORM, {"profile": profile})
    handed["sensnorm"]["rounds"] = 7  # a file of one's own
    assert typed.from_notebook(SENSNORM, _namespace(injected=handed)).rounds == 7


def test_a_stray_name_in_a_notebook_is_caught_once():
    with pytest.raises(typed.ParameterError, match="did you mean 'seeds'"):
        typed.from_notebook(SENSNORM, _namespace(sedes=3))
    namespace = _namespace()
    typed.from_notebook(SENSNORM, namespace)
    again = {**namespace, "results": [], "width_of": 3, "seeds": 2}  # the cells below have run; the person edits
    assert typed.from_notebook(SENSNORM, again).seeds == 2
    edited = typed.cell(SENSNORM).replace("seeds: int = 5", "sedes: int = 3")
    again = {**namespace, "results": [], "sedes": 3, "In": [*namespace["In"], "%time 1", edited, "results = []"]}
    with pytest.raises(typed.ParameterError, match="unknown parameter 'sedes' .*did you mean 'seeds'"):
        typed.from_notebook(SENSNORM, again)  # also where the edited cell of parameters has been run again


GOOD = """
profile: small
dataset: digits
held_out: []
train_limit: 0
test_limit: 0
network: convnet
weights: ''
width: 4
epochs: 1
batch_size: 8
precision: float32
augment: ''
lesson: {seed: 0}
"""


def test_profiles_come_from_the_smallest_scale_on_and_those_of_others_behind(tmp_path):
    for name in ("zebra", "cifar10", "ant", "mnist", "digits"):
        (tmp_path / f"{name}.yml").write_text(f"profile: {name}\n", encoding="utf-8")
    assert list(typed.profiles(tmp_path)) == ["digits", "mnist", "cifar10", "ant", "zebra"]


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("width: 4", "width: 4\nwdith: 3", r"unknown parameter 'wdith' of .*small.yml; did you mean 'width'"),
        ("width: 4\n", "", r"small.yml: parameter 'width' of sparsity: Field required"),
        ("width: 4", "width: four", r"small.yml: parameter 'width' of sparsity: .*got 'four'"),
        ("width: 4", "width: 4\nwidth: 5", r"small.yml, line 10: 'width' stands twice"),
        ("seed: 0", "sed: 0", r"unknown parameter 'sed' of lesson in .*small.yml; did you mean 'seed'"),
        ("lesson: {seed: 0}", "lesson: 3", r"small.yml: lesson must hold names and values, got 3"),
        ("profile: small", "profile: large", r"small.yml: profile must be 'small', like the file, got 'large'"),
        ("width: 4", "width: [4", r"small.yml, line \d+: "),
        (GOOD, "- 1", r"small.yml: must hold names and values, got list"),
        ("width: 4", "width: 4\a", r"small.yml: unacceptable character"),
    ],
)
def test_a_faulty_profile_is_told_with_file_and_key(tmp_path, old, new, message):
    class Small(experiments.LESSONS["sparsity"]):
        profiles = tmp_path

    path = tmp_path / "small.yml"
    path.write_text(GOOD, encoding="utf-8")
    typed.profiles.cache_clear()
    typed.check_profile(path, typed.profiles(tmp_path)["small"], [Small])
    typed.profiles.cache_clear()
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(typed.ParameterError, match=message):
        typed.check_profile(path, typed.profiles(tmp_path)["small"], [Small])


@pytest.mark.parametrize("profile", experiments.PROFILES)
def test_the_profiles_give_every_page_just_what_it_needs(profile):
    typed.check_profile(SENSNORM.profiles / f"{profile}.yml", experiments.PROFILES[profile], experiments.PAGES.values())


@pytest.mark.parametrize("model", experiments.PAGES.values(), ids=list(experiments.PAGES))
def test_templates_pass_the_gate_and_hold_no_outputs(model):
    notebook = nbformat.read(notebooks.template(model), as_version=4)
    notebooks.check_template(notebook, model)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    assert cell.source == typed.cell(model), "values and meanings are those of the model"


def _notebook(*sources, tag="parameters"):
    cells = [nbformat.v4.new_code_cell(s, metadata={"tags": [tag]}) for s in sources]
    return nbformat.v4.new_notebook(cells=cells)


def _with_boxes(notebook):
    """Add what a page of a claim has: a vote, and exercises with their solutions."""
    for kind in (kind for kind, least in SENSNORM.boxes.items() for _ in range(least)):
        notebook.cells.append(nbformat.v4.new_markdown_cell(f"````{{admonition}} A box\n:class: {kind}\nText.\n````"))
        if kind == "exercise":
            notebook.cells.append(nbformat.v4.new_code_cell("assert True", metadata={"tags": ["solution"]}))
    return notebook


def test_the_pages_of_the_claims_need_three_exercises_with_solutions_that_assert():
    good = typed.cell(SENSNORM)
    for name in ("01_sparsity_and_robustness", "06_verdict", "07_a_network_of_others", "sparsity"):
        assert experiments.PAGES[name].boxes["exercise"] == 3
    with pytest.raises(notebooks.GateError, match="0 boxes of the class 'exercise', should have 3"):
        notebooks.check_template(_notebook(good), SENSNORM)
    notebook = _with_boxes(_notebook(good))
    notebook.cells[-1].source = "1 + 1"
    with pytest.raises(notebooks.GateError, match="not followed by a cell tagged 'solution' that asserts something"):
        notebooks.check_template(notebook, SENSNORM)
    notebook.cells[-1] = nbformat.v4.new_code_cell("assert True")
    with pytest.raises(notebooks.GateError, match="not followed by a cell tagged 'solution'"):
        notebooks.check_template(notebook, SENSNORM)


def test_a_template_with_faults_is_refused():
    good = typed.cell(SENSNORM)
    notebooks.check_template(_with_boxes(_notebook(good)), SENSNORM)
    for sources, message in [
        ((), "needs one cell tagged 'parameters', has 0"),
        ((good + "\nextra: int = 1",), "not a parameter: extra"),
        ((good.replace("seeds: int = 5", "# "),), "parameter without a place in the cell: seeds"),
        ((good.replace("seeds: int = 5", "seeds: int = 2 + n"),), "not a literal"),
        ((good.replace("seeds: int = 5", "seeds = 5"),), "not a typed literal"),
        ((good.replace("seeds: int = 5", "seeds: int = 3"),), "'seeds' is 3, in profiles/digits.yml it is 5"),
        ((good.replace("seeds: int = 5", "seeds: int = None"),), "'seeds' is None, in profiles/digits.yml it is 5"),
        ((good + "\n<<<<<<< HEAD",), "its cell of parameters does not parse"),
    ]:
        with pytest.raises(notebooks.GateError, match=message):
            notebooks.check_template(_with_boxes(_notebook(*sources)), SENSNORM)


def test_the_experiment_in_the_notebook_is_the_librarys():
    source = inspect.getsource(sensnorm.networks)
    notebook = _with_boxes(_notebook(typed.cell(SENSNORM)))
    notebook.cells.append(_notebook(source, tag="experiment").cells[0])
    notebooks.check_template(notebook, SENSNORM)
    notebook.cells[-1].source = source.replace('"sparse"', '"thin"')
    with pytest.raises(notebooks.GateError, match="networks is not what sparselib.experiments.sensnorm has"):
        notebooks.check_template(notebook, SENSNORM)
    notebooks.check_template(notebook, SENSNORM, book=False)  # one's own experiment, outside of the book


def _executed(**changes):
    about = {"sparselib": {"name": "fig-a", "caption": "c", "alt": "words"}}
    image = nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg/>"}, metadata=about)
    cell = nbformat.v4.new_code_cell("1", outputs=[image], execution_count=1, metadata={"tags": ["figure"]})
    notebook = nbformat.v4.new_notebook(cells=[cell])
    for name, value in changes.items():
        setattr(cell, name, value)
    return notebook


def test_executed_notebooks_that_failed_or_show_nothing_are_refused():
    notebooks.check_executed(_executed(), "05_sensnorm")
    failed = nbformat.v4.new_output("error", ename="KeyError", evalue="'x'", traceback=[])
    loud = nbformat.v4.new_output("stream", name="stderr", text="UserWarning")
    bare = nbformat.v4.new_output("display_data", {"image/png": ""})
    for notebook, message in [
        (_executed(outputs=[failed]), "cell 0 failed: KeyError"),
        (_executed(outputs=[]), "cell 0 should show a figure"),
        (_executed(execution_count=None), "cell 0 was not run"),
        (_executed(outputs=[loud]), "writes to stderr: UserWarning"),
        (_executed(outputs=[bare]), "lacks name, caption, alt"),
        (_executed(outputs=[], metadata={}), "shows no figure"),
    ]:
        with pytest.raises(notebooks.GateError, match=message):
            notebooks.check_executed(notebook, "05_sensnorm")
    stopped = _executed()
    stopped.metadata["papermill"] = {"exception": True}
    with pytest.raises(notebooks.GateError, match="papermill reports an exception"):
        notebooks.check_executed(stopped, "05_sensnorm")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("dataset=folder:/x/my #1 images", "folder:/x/my #1 images"),
        ("held_out=['8 # eight', '#9']", ["8 # eight", "#9"]),
        ("lr=1e-3", 0.001),  # YAML 1.1 takes these for texts, or other numbers, or dates
        ("lr=-.5E+1", -5.0),
        ("seed=010", 10),
        ("a=[1_000, 0x10, 1:30, 2020-01-01, 1e, '1', ٣]", ["1_000", "0x10", "1:30", "2020-01-01", "1e", "1", "٣"]),
        ("weights=''", ""),
        (" seed = 3", 3),
    ],
)
def test_an_assignment_is_read_as_meant(text, value):
    assert typed.assignment(text) == (text.partition("=")[0].strip(), value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed", "--set takes name=value, got 'seed'"),
        ("weights=", "gives no value: leave it out, or write --set weights='\"\"' for an empty text"),
        ("seed=null", "gives no value"),
        ("seed=!!set {1}", "a value of the kind 'set' is not taken"),
        ("a=!!float x", "a value of the kind 'float' is not taken"),
        ("a=!x 1", "a value of the kind '!x' is not taken"),
        ("a={[1]: 2}", "a name must be a text"),
        ("a={<<: {b: 1}, ? {c: 1} : 2}", "a name must be a text"),
        ("a=" + "x" * 200_000, "longer than 100,000 signs"),
        ("a=" + "- " * 3000, "deep"),
        ("figures={a: &x [1], b: *x}", r"no alias \(\*x\) is taken"),
        ("seed=" + "[" * 5000, "nested more than 20 deep"),
        ("a={b: 1, b: 2}", "'b' stands twice"),
    ],
)
def test_an_assignment_that_says_nothing_clear_is_refused(text, said):
    with pytest.raises(typed.ParameterError, match=said):
        typed.assignment(text)


def _holding_itself():
    own = []
    own.append(own)
    return own


def _bomb():
    value = [1]
    for _ in range(60):
        value = [value, value]
    return value


@pytest.mark.parametrize("name", nasty.FIELDS)
def test_odd_values_are_refused_in_one_short_line_or_read_as_meant(name):
    page = next(page for page in experiments.PAGES.values() if name in page.model_fields)
    kind = type(getattr(page.of_profile("digits"), name))
    for value in (*nasty.VALUES, _holding_itself(), _bomb()):
        try:
            found = getattr(typed.resolve(page, {name: value}), name)
        except typed.ParameterError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000 and name in str(error), short(value)
        else:
            read = yaml.safe_load(value) if isinstance(value, str) and kind in (list, dict) else value
            assert type(found) is kind and found == read and str(found) != "-0.0", short(value)
