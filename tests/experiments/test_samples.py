"""Which images a seed trains and tests on."""

import pytest
import torch
from PIL import Image

from sparselib import data
from sparselib.experiments import samples
from sparselib.experiments.samples import Data, family, fingerprint, inliers, outliers, pools, shifted, some, strength

HELD_OUT = ("8", "9")


def _data(seed=0, **changed):
    return Data(**{"name": "digits", "held_out": HELD_OUT, "seed": seed, **changed})


def _images(found):
    """The images as a set of bytes; digits has no two that are equal among the classes in use."""
    return {image.numpy().tobytes() for image in found.x}


def _official(tmp_path, n=30):
    """A folder with a train and a test split of its own: every image is another grey."""
    grey = iter(range(256))
    for split, count in (("train", n), ("test", n // 3)):
        for name in ("one", "two"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("L", (4, 4), next(grey)).save(folder / f"{i}.png")
    return f"folder:{tmp_path}"


def test_all_images_of_digits_are_for_training_tests_or_choices():
    everything = [data.load("digits", split) for split in data.SPLITS]
    classes = [c for c in everything[0].classes if c not in HELD_OUT]
    known = [part.only(classes) for part in everything]
    train, test = (inliers(_data(), split) for split in data.SPLITS)
    choices = inliers(_data(held_back=True), "test")
    assert len(train) + len(test) + len(choices) == sum(map(len, known))
    assert _images(train) | _images(test) | _images(choices) == _images(known[0]) | _images(known[1])
    assert len(choices) == pytest.approx(0.1 * sum(map(len, known)), abs=1)
    assert len(train) == pytest.approx(2 * len(test), abs=2)
    assert train.classes == test.classes == tuple(classes)


def test_a_seed_decides_which_images_are_for_training_and_for_tests():
    parts = {seed: [_images(inliers(_data(seed), split)) for split in data.SPLITS] for seed in range(3)}
    choices = _images(inliers(_data(7, held_back=True), "test"))
    assert len({fingerprint(_data(seed), "train") for seed in range(3)}) == 3
    assert len({fingerprint(_data(seed), "test") for seed in range(3)}) == 3
    for train, test in parts.values():
        assert not train & test
        assert not choices & (train | test), "what choices are made by is in no seed's figures"
    everything = set().union(*parts[0])
    assert all(train | test == everything for train, test in parts.values())
    assert len(parts[0][1] & parts[1][1]) < 0.6 * len(parts[0][1]), "a third, by chance"


def test_a_seed_has_the_same_images_again():
    before = fingerprint(_data(1), "train"), inliers(_data(1), "test").fingerprint
    for cache in (pools, inliers, fingerprint):
        cache.cache_clear()
    assert before == (fingerprint(_data(1), "train"), inliers(_data(1), "test").fingerprint)
    held = [inliers(_data(seed, held_back=True), "test").fingerprint for seed in (0, 1)]
    assert held[0] == held[1] and fingerprint(_data(1, held_back=True), "train") == before[0]


def test_limits_take_some_of_them_by_the_seed():
    for split, name in (("train", "train_limit"), ("test", "test_limit")):
        few = [inliers(_data(seed, **{name: 101}), split) for seed in (0, 1)]
        assert [len(part) for part in few] == [101, 101]
        assert _images(few[0]) <= _images(inliers(_data(0), split))
        assert _images(few[0]) != _images(few[1])
        assert len(inliers(_data(**{name: 10**6}), split)) == len(inliers(_data(), split)), "no more than there are"


def test_an_official_test_set_stays_for_tests(tmp_path):
    name = _official(tmp_path)
    official = {split: _images(data.load(name, split)) for split in data.SPLITS}
    for seed in range(3):
        own = Data(name=name, train_limit=20, test_limit=10, seed=seed)
        train, test = inliers(own, "train"), inliers(own, "test")
        choices = inliers(Data(name=name, seed=seed, held_back=True), "test")
        assert _images(train) <= official["train"] - _images(choices) and _images(test) <= official["test"]
        assert _images(choices) <= official["train"] and len(choices) == 6
    whole = [inliers(Data(name=name, seed=seed), "test").fingerprint for seed in (0, 1)]
    assert whole[0] == whole[1] == data.load(name, "test").fingerprint
    subsets = {fingerprint(Data(name=name, train_limit=20, seed=seed), "train") for seed in range(3)}
    assert len(subsets) == 3


def test_unknown_classes_cannot_be_held_out():
    with pytest.raises(ValueError, match="unknown held_out class 'eight'"):
        inliers(_data(held_out=("eight",)), "test")


def test_held_out_classes_are_outliers_that_nothing_was_trained_on():
    found = outliers(_data(2), "heldout")
    unknown = data.load("digits", "test").only(HELD_OUT)
    assert _images(found) <= _images(unknown) and len(found) == len(unknown)
    assert found.y.unique().tolist() == [-1]
    assert not _images(found) & _images(inliers(_data(2), "train"))


def test_outliers_are_as_many_as_test_images_and_differ_by_seed():
    one, two = (outliers(_data(seed, test_limit=50), "textures") for seed in (0, 1))
    assert len(one) == len(two) == 50 and one.fingerprint != two.fingerprint
    expected = data.outliers("textures", inliers(_data(1, test_limit=50), "test"), n=50, seed=1)
    assert two.fingerprint == expected.fingerprint


def test_shifts_are_of_the_test_images():
    test, found = inliers(_data(), "test"), shifted(_data(), "contrast", 3)
    assert torch.equal(found.y, test.y) and found.x.shape == test.x.shape
    assert torch.equal(found.x, samples.shifts.corrupt(test.x, "contrast", 3))


def test_some_are_equally_many_of_each_class():
    assert some(_data(), 40).y.bincount().tolist() == [5] * 8
    assert _images(some(_data(), 40)) <= _images(inliers(_data(), "test"))
    assert some(_data(), None) is inliers(_data(), "test")


@pytest.mark.parametrize(
    "name, parts", [("rotate:4", ("rotate", "4")), ("textures", ("textures", "")), ("folder:/a:b", ("folder", "/a:b"))]
)
def test_a_name_has_a_head_and_perhaps_a_strength(name, parts):
    assert strength(name) == parts


def test_families_of_anomalies():
    expected = {
        "pgd:0.1": "attacks", "fog:3": "shifts", "heldout": "near", "mixed": "near", "cifar100": "near",
        "folder:/tmp/x": "near", "textures": "far", "uniform": "far", "mnist": "far",
    }  # fmt: skip
    assert {name: family(name) for name in expected} == expected


@pytest.mark.parametrize(
    "name, message",
    [
        ("pgd:2", "the radius of pgd:<eps> must be in"),
        ("pgd:much", "pgd:much"),
        ("pgd", "needs a strength: pgd:0.1"),
        ("fog", "needs a strength: fog:3"),
        ("fog:7", "severity must be in 1..5, got '7'"),
        ("textrues", "did you mean 'textures'"),
    ],
)
def test_misnamed_anomalies_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        family(name)
