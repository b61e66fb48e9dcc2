import shlex

import nbformat
import pytest

from sparselib.repro import cli, gates, notebooks
from sparselib.repro import parameters as typed
from sparselib.repro.figure import rerun_command
from sparselib.repro.networks import weight_count

SENSNORM = typed.FIGURES["05_sensnorm"]


@pytest.mark.parametrize("profile", typed.PROFILES)
@pytest.mark.parametrize("model", typed.FIGURES.values(), ids=list(typed.FIGURES))
def test_every_profile_is_valid_for_every_figure(profile, model):
    parameters = typed.resolve(model, {"profile": profile})
    assert parameters.profile == profile and typed.overrides(parameters) == {}
    assert all(field.description for field in model.model_fields.values())


def test_overrides_win_and_none_means_the_profile():
    parameters = typed.resolve(SENSNORM, {"profile": "mnist", "seeds": 2, "sparsities": "[0.5, 0.9]", "width": None})
    assert (parameters.seeds, parameters.sparsities, parameters.width) == (2, [0.5, 0.9], 16)
    assert typed.overrides(parameters) == {"seeds": 2, "sparsities": [0.5, 0.9]}
    assert rerun_command(parameters) == (
        "sparselib run notebooks/05_sensnorm.ipynb --profile mnist --set seeds=2 --set 'sparsities=[0.5,0.9]' "
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
        ({"sparsities": [float("nan")]}, "parameter 'sparsities.0' of 05_sensnorm"),
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
        (1, {"severity": 6}, "less than or equal to 5, got 6"),
        (1, {"shifts": ["fogg"]}, "unknown shift 'fogg'; did you mean 'fog'"),
        (1, {"sparsities": [0]}, "must hold at least one sparsity above 0"),
        (1, {"noisy_epochs": 1}, "greater than or equal to 2, got 1"),
        (1, {"eps_linf": []}, "at least 1 item"),
        (5, {"detectors": ["msp"]}, "must hold 'sensnorm'"),
        (5, {"sparsities": "[0.5"}, r"sparsities is no YAML list or mapping, got '\[0.5'"),
        (6, {"figures": {"05_sensnorm": {"profile": "mnist"}}}, "unknown parameter of 05_sensnorm 'profile'"),
        (2, {"anomalies": ["pgd"]}, "needs a strength: pgd:0.1"),
        (2, {"detectors": ["sensnorm layer=all"]}, "detector 'sensnorm layer=all': .*layer"),
        (2, {"detectors": ["sensnorm layers"]}, "must be '<name> <option>=<value>"),
        (3, {"outliers": "textures"}, "must not be among the anomalies"),
        (3, {"objectives": ["cleen"]}, "unknown objective 'cleen'; did you mean 'clean'"),
        (4, {"recipe": "magnitude after"}, "recipe must remove whole units"),
        (4, {"unit_sparsities": [0.5]}, "scratch_sparsities must be among unit_sparsities"),
        (6, {"figures": {"01_sparsity": {}}}, "did you mean '01_sparsity_and_robustness'"),
        (6, {"figures": {"05_sensnorm": {"sedes": 2}}}, "did you mean 'seeds'"),
        (6, {"figures": {"05_sensnorm": {"fresh_seeds": -1}}}, "parameter 'fresh_seeds' of 05_sensnorm: .*got -1"),
        (6, {"margin": -1}, "greater than or equal to 0, got -1"),
    ],
)
def test_bad_settings_of_figures_are_one_line(name, values, message):
    with pytest.raises(typed.ParameterError, match=message) as caught:
        typed.resolve(typed.figure(name), values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, values",
    [
        (5, {"held_out": ["7", "9"], "detectors": ["msp", "sensnorm", "sensnorm layers=all norm=inf"]}),
        (5, {"anomalies": ["pgd:0.1", "folder:/tmp/a, b: 'c'"], "width": 0}),
        (1, {"recipes": ["magnitude after units"], "label_noise": 0.25, "eps_linf": [1e-05]}),
        (6, {"figures": {"05_sensnorm": {"sparsities": [0.0, 0.5], "recipe": "snip before"}}}),
    ],
)
def test_the_command_under_a_figure_gives_its_parameters(name, values):
    parameters = typed.resolve(typed.figure(name), values)
    words = shlex.split(rerun_command(parameters))
    sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert typed.resolve(typed.figure(name), cli._assignments(sets)) == parameters


def test_the_verdict_judges_the_figures_as_they_are_set():
    given = {
        "seeds": 2,
        "sparsities": [0.5],
        "unit_sparsities": [0.7],
        "scratch_sparsities": [0.7],
        "anomalies": ["uniform"],
    }
    pages = {p.notebook: p for p in typed.resolve_all(list(typed.FIGURES.values()), "digits", given)}
    judged = pages["06_verdict"].judged()
    assert judged == {name: page for name, page in pages.items() if name in judged} and len(judged) == 5
    wider = typed.resolve_all([typed.figure(n) for n in (3, 4, 6)], "mnist", {"width": 16, "train_limit": 4000})
    assert wider[2].judged()[wider[0].notebook] == wider[0] and wider[2].judged()[wider[1].notebook] == wider[1]
    one = typed.resolve(typed.figure(6), {"seeds": 2, "figures": {"05_sensnorm": {"seeds": 3}}}).judged()
    assert one["05_sensnorm"].seeds == 3 and one["01_sparsity_and_robustness"].seeds == 2
    assert judged["01_sparsity_and_robustness"].seeds == 2 and judged["05_sensnorm"].sparsities == [0.5]
    with pytest.raises(typed.ParameterError, match="unknown parameter 'sedes' of any page; did you mean 'seeds'"):
        typed.resolve_all(list(typed.FIGURES.values()), "digits", {"sedes": 2})


def test_narrow_and_wide_networks_have_the_same_number_of_weights():
    p = typed.resolve(typed.figure(1), {"recipes": ["magnitude after"], "narrow_widths": [4, 8], "wide_width": 16})
    *pairs, (wide,) = p.same_size(0)
    assert [narrow.width for narrow, _ in pairs] == [4, 8] and wide.width == 16
    for narrow, sparse in pairs:
        left = round((1 - sparse.sparsity) * weight_count(wide))
        assert sparse.dense.width == wide.width and left == weight_count(narrow)
        assert sparse.dense.epochs + sparse.epochs == narrow.epochs == wide.epochs
    for net in p.same_width(0)[1:]:
        assert net.dense.epochs + net.epochs == p.same_width(0)[0].epochs
    names = p.noisy_labels(0)
    assert {"dense", "fewer epochs", "weight decay", "narrow"} < set(names)
    sparse = [net for name, net in names.items() if net is not net.origin]
    assert sparse and all(net.dense.epochs + net.epochs == p.noisy_epochs for net in sparse)


def test_figures_go_by_number_name_and_path():
    for name in (5, "5", "05", "05_sensnorm", "notebooks/05_sensnorm.ipynb"):
        assert typed.figure(name) is SENSNORM
    with pytest.raises(typed.ParameterError, match="unknown figure '05_sensnrom'; did you mean '05_sensnorm'"):
        typed.figure("05_sensnrom")


def test_a_stray_name_in_a_notebook_is_caught():
    namespace = {"__name__": "x", "In": [], "nbformat": nbformat, "profile": "digits", "seeds": None}
    assert typed.from_notebook("05_sensnorm", namespace).seeds == 5
    with pytest.raises(typed.ParameterError, match="did you mean 'seeds'"):
        typed.from_notebook("05_sensnorm", {**namespace, "sedes": 3})


@pytest.mark.parametrize("model", typed.FIGURES.values(), ids=list(typed.FIGURES))
def test_templates_pass_the_gate(model):
    gates.check_template(nbformat.read(notebooks.template(model), as_version=4), model)


def _notebook(*sources, tag="parameters"):
    cells = [nbformat.v4.new_code_cell(s, metadata={"tags": [tag]}) for s in sources]
    return nbformat.v4.new_notebook(cells=cells)


def test_a_template_with_faults_is_refused():
    good = "\n".join(f"{name}: str = None" for name in SENSNORM.model_fields)
    gates.check_template(_notebook(good), SENSNORM)
    for sources, message in [
        ((), "needs one cell tagged 'parameters', has 0"),
        ((good + "\nextra: int = 1",), "not a parameter: extra"),
        ((good.replace("seeds: str = None\n", ""),), "parameter without a place in the cell: seeds"),
        ((good.replace("seeds: str = None", "seeds: int = 2 + n"),), "not a literal"),
        ((good.replace("seeds: str = None", "seeds = None"),), "not a typed literal"),
    ]:
        with pytest.raises(gates.GateError, match=message):
            gates.check_template(_notebook(*sources), SENSNORM)


def _executed(**changes):
    about = {"sparselib": {"name": "fig-a", "caption": "c", "alt": "words"}}
    image = nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg/>"}, metadata=about)
    cell = nbformat.v4.new_code_cell("1", outputs=[image], execution_count=1, metadata={"tags": ["figure"]})
    notebook = nbformat.v4.new_notebook(cells=[cell])
    for name, value in changes.items():
        setattr(cell, name, value)
    return notebook


def test_executed_notebooks_that_failed_or_show_nothing_are_refused():
    gates.check_executed(_executed(), "05_sensnorm")
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
        with pytest.raises(gates.GateError, match=message):
            gates.check_executed(notebook, "05_sensnorm")
    stopped = _executed()
    stopped.metadata["papermill"] = {"exception": True}
    with pytest.raises(gates.GateError, match="papermill reports an exception"):
        gates.check_executed(stopped, "05_sensnorm")
