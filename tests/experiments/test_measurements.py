"""Network and measurement steps against what the library says directly."""

import pytest
import torch

from sparselib import data, pruning, training
from sparselib.detection import detectors, metrics
from sparselib.experiments import fields, measurements
from sparselib.experiments.measurements import Attacked, AutoAttacked, Certified, Detection, Ensembled, Scored, Shifted
from sparselib.experiments.networks import Data, Masked, Pruned, Scratch, Shrunk, Trained, inliers
from sparselib.experiments.sparsity import weights
from sparselib.pruning import masks
from sparselib.robustness import attacks, ensembles, shifts

DATA = Data(name="digits", held_out=("8", "9"), train_limit=300, test_limit=120)


def _trained(**changed):
    return Trained(**{"data": DATA, "network": "convnet", "width": 6, "epochs": 12, "seed": 0, **changed})


@pytest.fixture(scope="module")
def load():
    """Give the network of a step, computed once."""
    made = {}

    def get(step):
        if step.what not in made:
            made[step.what] = step.compute(get)
        return made[step.what][1].eval()

    get.rows = lambda step: (get(step), made[step.what][0])[1]
    return get


def _values(rows):
    """Return {metric, or (…, metric) where a step's rows have columns of their own: value}."""
    names = [tuple(v for name, v in row.items() if name != "value") for row in rows]
    return {name if len(name) > 1 else name[0]: row["value"] for name, row in zip(names, rows, strict=True)}


def test_networks_say_how_well_they_do_and_how_large_they_are(load):
    step = _trained()
    values = _values(load.rows(step))
    assert values["accuracy"] == training.accuracy(load(step), inliers(DATA, "test")) > 0.5
    assert values["weights"] == weights(step)
    sparse = Pruned(dense=step, criterion="magnitude", sparsity=0.75, epochs=1)
    values = _values(load.rows(sparse))
    assert values["achieved"] == pytest.approx(0.75, abs=1e-3)
    assert values["weights"] == round(0.25 * weights(step))


def test_training_differs_as_asked():
    noisy = _trained(label_noise=0.4)
    labels, right = noisy.samples().y, inliers(DATA, "train").y
    assert 0.25 < (labels != right).double().mean() < 0.45, "an eighth of the drawn labels is right by chance"
    assert torch.equal(noisy.samples().x, inliers(DATA, "train").x)
    options = _trained(adversarial=0.1, noise=0.2).options()
    assert options["adversarial"].eps == 0.1 and options["noise"] == 0.2
    assert _trained().options()["adversarial"] is None


def test_standard_training_does_not_depend_on_the_code_of_attacks():
    assert not any("attacks" in name for name in _trained().code())
    assert any("attacks" in name for name in _trained(adversarial=0.1).code())


def test_detecting_outliers_does_not_depend_on_the_code_of_attacks():
    codes = {a: Detection(model=_trained(), detector="msp", anomaly=a).code() for a in ("textures", "pgd:0.1")}
    reached = {a: any("attacks" in name for name in code) for a, code in codes.items()}
    assert reached == {"textures": False, "pgd:0.1": True}
    assert "sparselib.data._textures" in codes["textures"] and "sparselib.data._uniform" not in codes["textures"]


def test_masks_leave_weights_alone_and_shrinking_the_function(load):
    step = _trained()
    masked = Masked(dense=step, sparsity=0.5, objective="clean", epochs=1)
    for name, layer in masks.prunable(load(masked)).items():
        assert torch.equal(masks.original(layer), masks.prunable(load(step))[name].weight)
    assert pruning.sparsity(load(masked)) == pytest.approx(0.5, abs=1e-3)

    units = Pruned(dense=step, criterion="magnitude", sparsity=0.6, structured=True, epochs=1)
    small, x = Shrunk(pruned=units), inliers(DATA, "test").x
    torch.testing.assert_close(training.logits(load(small), x), training.logits(load(units), x), rtol=1e-4, atol=1e-5)
    again = Scratch(shrunk=small)
    shapes = [[tuple(p.shape) for p in load(c).parameters()] for c in (small, again)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(next(load(again).parameters()), next(load(small).parameters()))
    assert sum(p.numel() for p in load(small).parameters()) < sum(p.numel() for p in load(step).parameters())


def test_accuracy_under_attack_counts_what_withstands_both_losses(load):
    step, test = _trained(), inliers(DATA, "test")
    values = _values(Attacked(model=step, attack="pgd", eps=0.1, steps=5).compute(load)[0])
    right = []
    for loss in ("ce", "margin"):
        x = attacks.pgd(load(step), test.x, test.y, 0.1, steps=5, loss=loss, early_stop=True, seed=0)
        right.append(training.logits(load(step), x).argmax(1) == test.y)
    assert values["accuracy_ce"] == right[0].double().mean()
    assert values["accuracy_margin"] == right[1].double().mean()
    assert values["accuracy"] == (right[0] & right[1]).double().mean()
    one_step = _values(Attacked(model=step, attack="fgsm", eps=0.1).compute(load)[0])
    x = attacks.fgsm(load(step), test.x, test.y, 0.1)
    assert one_step["accuracy_ce"] == pytest.approx(
        (training.logits(load(step), x).argmax(1) == test.y).double().mean().item()
    )
    assert one_step["accuracy"] >= values["accuracy"] - 0.02
    nothing = _values(Attacked(model=step, attack="pgd", eps=0.0, norm="l2", limit=50).compute(load)[0])
    few = data.balanced(test, 50)
    assert nothing["accuracy"] == training.accuracy(load(step), few)


def test_autoattack_and_pgd_see_the_same_images(load):
    step = _trained()
    values = _values(AutoAttacked(model=step, eps=0.1, limit=8, steps=10).compute(load)[0])
    strong, usual = (values[m] for m in ("accuracy", "accuracy_pgd"))
    pgd = _values(Attacked(model=step, attack="pgd", eps=0.1, limit=8, steps=10).compute(load)[0])
    assert strong <= usual == pgd["accuracy"]


def test_detectors_are_fitted_with_the_labels_that_the_network_saw(load):
    step = _trained(label_noise=0.4)
    found = Detection(model=step, detector="mahalanobis", anomaly="textures").compute(load)[0][0]["value"]
    test = inliers(DATA, "test")
    outside = data.outliers("textures", test).x
    values = {}
    for name, train in (("noisy", step.samples()), ("right", inliers(DATA, "train"))):
        detector = detectors.build("mahalanobis").fit(load(step), train)
        values[name] = metrics.auroc(detector.score(test.x), detector.score(outside))
    assert found == pytest.approx(values["noisy"], abs=1e-9) and found != values["right"]


def test_shifts_and_detection_equal_what_the_library_says(load):
    step, test = _trained(), inliers(DATA, "test")
    shifted = shifts.corrupt(test.x, "rotate", 4)
    values = _values(Shifted(model=step, kind="rotate", severity=4).compute(load)[0])
    samples = data.Samples(shifted, test.y, test.classes, "x")
    assert values["accuracy"] == training.accuracy(load(step), samples)

    attacked = attacks.pgd(load(step), test.x, test.y, 0.1, steps=measurements.STEPS, seed=0)
    for name, options in (("msp", ()), ("sensnorm", (("layers", "all"), ("norm", 1)))):
        detector = detectors.build(name, **dict(options)).fit(load(step), inliers(DATA, "train"))
        for anomaly, family, x in (
            ("rotate:4", "shifts", shifted),
            ("pgd:0.1", "attacks", attacked),
            ("textures", "outliers", data.outliers("textures", test).x),
        ):
            steps = Detection(model=step, detector=name, options=options, anomaly=anomaly)
            said = " ".join([name, *(f"{k}:{v}" for k, v in options)])
            assert fields.detector(said) == (name, options)
            value = _values(steps.compute(load)[0])["auroc"]
            assert value == pytest.approx(metrics.auroc(detector.score(test.x), detector.score(x)), abs=1e-9)
            assert (steps.columns()["detector"], steps.columns()["family"]) == (said, family)


def test_what_is_kept_for_one_network_is_not_taken_for_another(load):
    first, second = _trained(), _trained(seed=1)
    values = [
        Detection(model=step, detector="msp", anomaly="pgd:0.1").compute(load)[0][0]["value"]
        for step in (first, second, first)
    ]
    assert values[0] == values[2] != values[1]


def test_an_ensemble_of_one_is_the_network_and_costs_add_up(load):
    steps = tuple(_trained(seed=s) for s in (0, 1))
    options = {"eps": 0.05, "anomalies": ("textures", "rotate:3"), "repeats": 1}
    one, two = (_values(Ensembled(members=m, **options).compute(load)[0]) for m in (steps[:1], steps))
    test = inliers(DATA, "test")
    assert one["accuracy"] == training.accuracy(load(steps[0]), test)
    assert two["macs"] == 2 * one["macs"] > 0
    assert two["params"] == 2 * one["params"]
    assert ("disagreement", "rotate:3", "shifts", "auroc") in two and not any("disagreement" in k for k in one)
    net = ensembles.Ensemble([load(c) for c in steps]).eval()
    outside = data.outliers("textures", test).x
    expected = metrics.auroc(net.disagreement(test.x), net.disagreement(outside))
    assert two["disagreement", "textures", "outliers", "auroc"] == pytest.approx(expected, abs=1e-9)


def test_certificates_and_times(load):
    step = _trained()
    values = _values(Certified(model=step, sigma=0.1, radius=0.05, n=50, limit=16).compute(load)[0])
    certified, right = (values[m] for m in ("certified", "accuracy"))
    assert 0 <= certified <= right <= 1 and values["time"] > 0
    assert _values(Scored(model=step, detector="msp", repeats=1).compute(load)[0])["time"] > 0


def test_the_name_of_a_detector_is_the_text_that_asks_for_it():
    for text in ("msp", "sensnorm reference:train standardise:true", "sensnorm norm:inf layers:all per_loss:false"):
        name, options = fields.detector(text)
        step = Detection(model=_trained(), detector=name, options=options, anomaly="textures")
        assert step.columns()["detector"] == text


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
        measurements.family(name)


def test_families_of_anomalies():
    names = ("pgd:0.1", "fog:3", "textures", "mnist", "folder:/tmp/x")
    assert [measurements.family(n) for n in names] == ["attacks", "shifts", "outliers", "outliers", "outliers"]
