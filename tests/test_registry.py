import pytest
import torch

from sparselib import checks, data, registry
from sparselib.detection import detectors, scoring
from sparselib.pruning import criteria, prune
from sparselib.robustness import shifts


def table(monkeypatch, entries=()):
    monkeypatch.setattr(registry, "entry_points", lambda group: [e for e in entries if e.group == group])
    return registry.Registry("sparselib.colours", {"red": str.upper})


class Entry:
    """An entry point of an installed package."""

    group, value = "sparselib.colours", "their.module:part"

    def __init__(self, name, part):
        self.name, self.part, self.loaded = name, part, 0

    def load(self):
        self.loaded += 1
        if isinstance(self.part, Exception):
            raise self.part
        return self.part


def test_entry_points_are_loaded_once_and_late(monkeypatch):
    entry = Entry("green", str.lower)
    colours = table(monkeypatch, [entry])
    assert colours.own == ("red",) and entry.loaded == 0
    assert colours["green"] is str.lower and list(colours) == ["red", "green"] and entry.loaded == 1
    with pytest.raises(ValueError, match=r"unknown colour 'gren'; did you mean 'green'.*allowed: red, green"):
        checks.choice("colour", "gren", colours)


@pytest.mark.parametrize("name, part", [("blue", ImportError("no module x")), ("red", str.lower), ("blue", 3)])
def test_an_entry_point_that_fails_is_left_out_with_a_warning(monkeypatch, name, part):
    colours = table(monkeypatch, [Entry(name, part)])
    with pytest.warns(UserWarning, match=f"entry point {name} = their.module:part is left out: "):
        assert dict(colours) == {"red": str.upper}


def test_names_belong_to_one_part_and_cells_may_run_again(monkeypatch):
    colours = table(monkeypatch)

    def cell():
        @colours.register("blue")
        def blue(text):
            return text

        return blue

    first, second = cell(), cell()
    assert colours["blue"] is second is not first
    with pytest.raises(ValueError, match="name 'red' of sparselib.colours is taken by .*str.upper"):
        colours.register("red")(str.lower)
    for name in ("", "two words", "a:b", None, 3):
        with pytest.raises(ValueError, match="name must be a word"):
            colours.register(name)
    with pytest.raises(TypeError, match="part 'grey' must be a function or class, got 3"):
        colours.register("grey")(3)


def test_parts_of_others_serve_like_the_librarys_own(trained, test, monkeypatch):
    for tables in (detectors.DETECTORS, data.SYNTHETIC, criteria.CRITERIA, shifts.SHIFTS):
        monkeypatch.setattr(tables, "_parts", dict(tables))

    @detectors.register("brightness")
    class Brightness(scoring.Detector):
        """The mean of the pixels."""

        def _score(self, model, x):
            return x.mean((1, 2, 3))

    @data.register_outliers("black")
    def black(like, n, seed, split):
        return torch.zeros(n, *like.x.shape[1:])

    @data.register_outliers("misshapen")
    def misshapen(like, n, seed, split):
        return torch.zeros(n, 3, 1, 1)

    @criteria.register("smallest")
    def smallest(problem, structured):
        return {name: -score for name, score in criteria.CRITERIA["magnitude"](problem, structured).items()}

    @shifts.register("halved")
    def halved(x, level, rngs):
        return x / 2

    assert torch.equal(detectors.build("brightness").fit(trained).score(test.x), test.x.mean((1, 2, 3)))
    assert data.outliers("black", test, n=3).x.count_nonzero() == 0
    with pytest.raises(ValueError, match=r"outliers 'misshapen' must be 2 images of shape \(1, 8, 8\), got \(2, 3, 1"):
        data.outliers("misshapen", test, n=2)
    weight = prune(trained, "smallest", 0.5, scope="layer")[1].weight
    ranks = trained[1].weight.abs().flatten().argsort()
    assert torch.equal(weight.flatten()[ranks] == 0, torch.arange(len(ranks)) >= len(ranks) // 2)
    assert torch.equal(shifts.corrupt(test.x, "halved", 1), test.x / 2)
    with pytest.raises(ValueError, match="unknown detector 'brightnes'; did you mean 'brightness'"):
        detectors.build("brightnes")
