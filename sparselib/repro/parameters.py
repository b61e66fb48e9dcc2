"""The typed parameters of every page by name: found, filled in from the profile, checked, read back from a notebook.

The same models check the command line, the notebooks and YAML. A page's model also says which cells it needs.
"""

import difflib
from types import FunctionType, ModuleType

from pydantic import ValidationError

from sparselib import checks
from sparselib.repro import figures, lessons
from sparselib.repro.settings import PROFILES, ParameterError, filled, in_one_line

__all__ = ["FIGURES", "LESSONS", "PAGES", "PROFILES", "ParameterError"]

FIGURES = {model.notebook: model for model in figures.ALL}
LESSONS = {model.notebook: model for model in lessons.ALL}
PAGES = {**FIGURES, **LESSONS}


def figure(name):
    """Return the parameter model of a page: a figure by number (5, "5", "05"), any by the name of its notebook
    ("05_sensnorm", with or without folder and .ipynb)."""
    stem = str(name).rsplit("/", 1)[-1].removesuffix(".ipynb")
    by_number = {str(model.number): key for key, model in FIGURES.items()}
    stem = by_number.get(stem.lstrip("0") or "0", stem) if stem.isdigit() else stem
    try:
        return PAGES[checks.choice("figure", stem, PAGES)]
    except ValueError as error:
        raise ParameterError(str(error)) from None


def refuse_unknown(name, known, where):
    """Raise ParameterError for a parameter name that does not exist, with the closest that does."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ParameterError(f"unknown parameter {name!r} of {where}{hint} (parameters: {', '.join(known)})")


def resolve(model, values):
    """Return the model's parameters: the profile's values under the given ones (None: as the profile has it).

    Raises ParameterError, in one line, for a name that does not exist or a value that is not allowed.
    """
    fields = list(model.model_fields)
    for name in values:
        if name not in fields:
            refuse_unknown(name, fields, model.notebook)
    given = {name: value for name, value in values.items() if value is not None}
    profile = given.pop("profile", "digits")
    try:
        return filled(model, profile, **given)
    except ValidationError as error:
        raise ParameterError(in_one_line(error, model)) from None
    except ValueError as error:
        raise ParameterError(str(error)) from None


def resolve_all(models, profile, given):
    """Return the parameters of several pages under the same given values; each page takes those that it knows.

    The page of verdicts takes the others' as well: it judges the figures as they are computed. Raises ParameterError
    for a name that no page knows.
    """
    known = dict.fromkeys(name for model in models for name in model.model_fields)
    for name in given:
        if name not in known:
            refuse_unknown(name, known, "any page")
    found = []
    for model in models:
        own = {name: value for name, value in given.items() if name in model.model_fields}
        if model is figures.Verdict:
            changed = {m.notebook: {n: v for n, v in given.items() if n in m.model_fields} for m in figures.CLAIMS}
            own = {"figures": {name: values for name, values in changed.items() if values}, **own}
        found.append(resolve(model, {"profile": profile, **own}))
    return found


def from_notebook(name, namespace):
    """Return the parameters of a figure as its notebook's namespace has them.

    Every plain value in the namespace must be a parameter: that is how a misspelt one is caught, which plain papermill
    would pass in silence. So this is called before the notebook defines anything of its own.
    """
    shell = {"In", "Out", "exit", "quit", "open", "get_ipython"}
    plain = {
        n: v for n, v in namespace.items()
        if not n.startswith("_") and n not in shell and not isinstance(v, (ModuleType, FunctionType, type))
    }  # fmt: skip
    return resolve(figure(name), plain)


def overrides(parameters):
    """Return {name: value} of what differs from the profile: the least that reruns the figure."""
    plain = resolve(type(parameters), {"profile": parameters.profile})
    return {n: v for n, v in parameters if v != getattr(plain, n)}
