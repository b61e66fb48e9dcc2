import nbformat
import pytest

from sparselib.repro import gates, notebooks
from sparselib.repro import parameters as typed
from sparselib.repro.figure import rerun_command

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
        "sparselib run notebooks/05_sensnorm.ipynb --profile mnist --set seeds='2' --set sparsities='[0.5,0.9]' "
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
