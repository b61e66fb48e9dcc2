"""Tell a right answer to an exercise from a wrong one, and name the mistake where it is a known one."""

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from sparselib import checks

PARTS = (  # modules beside this one, each with its EXERCISES
    *("why", "weights", "sparsity", "robustness", "anomalies"),
    *("measures", "outcomes"),
)


@dataclass(frozen=True)
class Exercise:
    """What is right, and the wrong answers that are known.

    Args:
        right: a function, or a number, a text, a truth value, an array, or a sequence of these.
        mistakes: {what went wrong, in a sentence or two to the learner: that wrong answer}.
        why: said of a right answer.
        cases: for a function, the tuples of arguments that it is tried on. Each mistake fails at least one.
        tolerance: numbers may differ by so much, relative to the right one where that is larger than 1.
    """

    right: Any
    mistakes: Mapping[str, Any]
    why: str = ""
    cases: Sequence[tuple] = ()
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and what is said of it; as a truth value, whether it is right."""

    right: bool
    message: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return f"{'Right' if self.right else 'Not yet'}. {self.message}".rstrip()


@cache
def exercises() -> dict[str, Exercise]:
    """Return all exercises of the book by name."""
    found: dict[str, Exercise] = {}
    for part in PARTS:
        found |= importlib.import_module(f"sparselib.experiments.lessons.{part}").EXERCISES
    return found


def check(name: str, answer: Any) -> Verdict:
    """Return the Verdict on an answer to the exercise `name`: a function where one is asked for, else a value.

    A known mistake gets a message of its own. Whatever the answer does, a Verdict comes back; only an unknown name
    raises ValueError.
    """
    checks.choice("exercise", name, exercises())
    exercise = exercises()[name]
    if callable(exercise.right) and not callable(answer):
        return Verdict(False, f"A function is asked for, got {type(answer).__name__}.")
    try:
        return _of_function(exercise, answer) if callable(exercise.right) else _of_value(exercise, answer)
    except Exception as error:  # of a learner's code: never the end of the page
        return Verdict(False, f"The answer could not be compared: {type(error).__name__}: {error}")


def _of_value(exercise, answer):
    if _same(exercise.right, answer, exercise.tolerance):
        return Verdict(True, exercise.why)
    for message, wrong in exercise.mistakes.items():
        if _same(wrong, answer, exercise.tolerance):
            return Verdict(False, message)
    return Verdict(False, f"{_short(answer)} is neither right nor a mistake that this check knows.")


def _of_function(exercise, answer):
    wrong_at, given = None, []
    for case in exercise.cases:
        try:
            given.append(answer(*copy.deepcopy(case)))
        except Exception as error:
            return Verdict(False, f"For {_told(case)} it raised {type(error).__name__}: {error}")
        if wrong_at is None and not _same(_of(exercise.right, case), given[-1], exercise.tolerance):
            wrong_at = len(given) - 1
    if wrong_at is None:
        return Verdict(True, exercise.why)
    for message, wrong in exercise.mistakes.items():
        if all(_same(_of(wrong, c), g, exercise.tolerance) for c, g in zip(exercise.cases, given, strict=True)):
            return Verdict(False, message)
    case = exercise.cases[wrong_at]
    expected = _short(_of(exercise.right, case))
    return Verdict(False, f"For {_told(case)} it gave {_short(given[wrong_at])}, expected {expected}.")


def _of(function: Callable, case: tuple) -> Any:
    return function(*copy.deepcopy(case))


def _same(right, given, tolerance):
    """Return whether two answers are equal: truth values and texts exactly, numbers within the tolerance."""
    if isinstance(right, (str, bool)) or isinstance(given, (str, bool)):
        return type(right) is type(given) and right == given
    if isinstance(right, (list, tuple)) and any(isinstance(r, str) for r in right):
        return isinstance(given, (list, tuple)) and list(right) == list(given)
    one, other = (np.asarray(v.detach().cpu() if isinstance(v, torch.Tensor) else v) for v in (right, given))
    if one.shape != other.shape or (one.dtype == bool) != (other.dtype == bool):
        return False
    if one.dtype == bool:
        return bool((one == other).all())
    one, other = one.astype(float), other.astype(float)
    near = np.isclose(other, one, rtol=0, atol=tolerance) | np.isclose(other, one, rtol=tolerance, atol=0)
    return bool(near.all())


def _told(case):
    return "(" + ", ".join(_short(value) for value in case) + ")"


def _short(value, most=80):
    value = value.tolist() if isinstance(value, (torch.Tensor, np.ndarray)) else value
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"
