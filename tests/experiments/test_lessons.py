"""Every exercise tells its right answer from each mistake that it knows; every one is asked on one page."""

import json
import re
from pathlib import Path

import pytest

from sparselib.experiments.lessons import BOXES, Exercise, check, checking

ROOT = Path(__file__).parents[2]
PAGES = [path for folder in ("book/concepts", "notebooks") for path in sorted((ROOT / folder).glob("*.ipynb"))]
CHAPTERS = [path for path in PAGES if path.parent.name == "concepts" or path.stem == "00_quickstart"]
EXERCISES = checking.exercises()


@pytest.fixture
def toy(monkeypatch):
    exercises = {
        "area": Exercise(
            right=lambda w, h: w * h,
            mistakes={"That is the circumference.": lambda w, h: 2 * (w + h), "That is a sum.": lambda w, h: w + h},
            why="Width times height.",
            cases=[(2.0, 3.0), (1.0, 1.0)],
        ),
        "size": Exercise(right=0.25, mistakes={"That is the density.": 0.75}),
        "order": Exercise(right=["a", "b"], mistakes={"The other way round.": ["b", "a"]}),
    }
    monkeypatch.setattr(checking, "exercises", lambda: exercises)


def test_right_known_and_unknown_answers_are_told_apart(toy):
    assert check("area", lambda w, h: h * w) and "Width times height." in repr(check("area", lambda w, h: h * w))
    assert check("area", lambda w, h: w + h).message == "That is a sum."
    assert check("area", lambda w, h: w).message == "For (2.0, 3.0) it gave 2.0, expected 6.0."
    assert check("size", 0.25) and not check("size", 0.3)
    assert check("size", 0.75).message == "That is the density."
    assert check("order", ["b", "a"]).message == "The other way round." and check("order", ["a", "b"])


def test_whatever_an_answer_does_a_verdict_comes_back(toy):
    assert "A function is asked for, got float" in check("area", 6.0).message
    assert "raised ZeroDivisionError" in check("area", lambda w, h: w / 0).message
    assert "raised TypeError" in check("area", lambda w: w).message
    for strange in (None, "0.25", [0.25, 0.25], {}, object(), float("nan"), True):
        assert not check("size", strange)
    with pytest.raises(ValueError, match="did you mean 'area'"):
        check("aera", 1)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_right_answer_passes_and_each_mistake_is_named(name):
    exercise = EXERCISES[name]
    assert check(name, exercise.right), check(name, exercise.right)
    assert exercise.why
    if callable(exercise.right):
        assert len(exercise.mistakes) >= 3 and len(exercise.cases) >= 2
    for message, wrong in exercise.mistakes.items():
        assert check(name, wrong) == checking.Verdict(False, message)


def test_every_exercise_is_asked_in_one_solution():
    asked = []
    for path in PAGES:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "solution" in cell["metadata"].get("tags", []):
                asked += re.findall(r"check\(\s*\"([\w-]+)\"", "".join(cell["source"]))
    assert sorted(asked) == sorted(EXERCISES)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_and_the_quickstart_have_all_boxes(path):
    text = "\n".join("".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"])
    for kind, least in BOXES.items():
        assert len(re.findall(rf"(?m)^:class: (?:.* )?{kind}\b", text)) >= least, kind


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_prediction_stands_before_the_first_result(path):
    cells = [(c["cell_type"], "".join(c["source"])) for c in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    shows = re.compile(r"run\.(?:show|explorer|table|fold|grouped|say)\(")
    first = next(
        i for i, (kind, text) in enumerate(cells) if kind == "code" and shows.search(text) and 'of=""' not in text
    )
    assert any(":class: predict" in text for _, text in cells[:first])
