"""Network and measurement steps against what the library says directly."""

import pytest
import torch

from sparselib import data, models, pruning, seeds, training
from sparselib.detection import detectors, metrics
from sparselib.experiments import fields, measurements
from sparselib.experiments.measurements import (
    Attacked,
    AutoAttacked,
    Certified,
    Detection,
    Ensembled,
    Evaded,
    Multitargeted,
    Scored,
    Shifted,
)
from sparselib.experiments.networks import Masked, Pruned, Refitted, Scratch, Shrunk, Trained
from sparselib.experiments.samples import Data, inliers, outliers, some
from sparselib.experiments.sparsity import weights
from sparselib.models import batch_norms
from sparselib.pruning import costs, masks, schedules, subnetworks
from sparselib.robustness import attacks, certify, ensembles, objectives, shifts

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


HOW = {"batch_size": 32, "weight_decay": 0.01}  # of training, another than the usual
UNUSUAL = _trained(seed=3, epochs=2, **HOW)
HOW |= {"seed": 3, "progress": False}


def _same(step, load, expected):
    """Whether the network of a step is this one, bit for bit."""
    found, expected = step.compute(load)[1].state_dict(), expected.state_dict()
    return found.keys() == expected.keys() and all(torch.equal(t, expected[name]) for name, t in found.items())


def test_a_trained_network_is_its_fields_written_down(load):
    changed = {"adversarial": 0.05, "noise": 0.2, "augment": "crop", "lr": 1e-2, "label_noise": 0.3}
    step = UNUSUAL.model_copy(update=changed)
    x = inliers(DATA, "train").x
    shape = {"in_channels": 1, "num_classes": 8, "image_size": 8, "width": 6}
    net = models.build("convnet", **shape, mean=x.mean().item(), std=x.std().item(), seed=3)
    options = {"adversarial": objectives.Adversarial(0.05), "noise": 0.2, "augment": "crop", "lr": 1e-2}
    training.fit(net, step.samples(), epochs=2, **options, **HOW)
    assert _same(step, load, net)


@pytest.mark.parametrize("structured", [False, True])
def test_a_pruned_network_is_its_fields_written_down(load, structured):
    dense = UNUSUAL.model_copy(update={"lr": 1e-2, "label_noise": 0.3})
    cut = {"structured": structured, "scope": "layer", "rounds": 2}
    after, before = (
        Pruned(dense=dense, criterion="snip", sparsity=0.6, when=when, epochs=3, lr=4e-4, **cut)
        for when in ("after", "before")
    )
    expected = schedules.finetuned(load(dense), dense.samples(), "snip", 0.6, epochs=3, lr=4e-4, **cut, **HOW)
    assert _same(after, load, expected)
    phases = {"when": "before", "epochs": 2, "finetune_epochs": 3, "lr": 1e-2}
    assert _same(
        before, load, schedules.train_sparse(dense.initial(), dense.samples(), "snip", 0.6, **phases, **cut, **HOW)
    )


def test_a_network_from_scratch_trains_as_long_as_the_shrunk_one_did(load):
    dense = UNUSUAL.model_copy(update={"lr": 1e-2, "label_noise": 0.3})
    units = Pruned(dense=dense, criterion="magnitude", sparsity=0.6, structured=True, epochs=3)
    step = Scratch(shrunk=Shrunk(pruned=units))
    net = masks.bare(load(step.shrunk))
    with seeds.isolated(3, "scratch"):
        for module in net.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    training.fit(net, dense.samples(), epochs=2 + 3, lr=1e-2, **HOW)
    assert _same(step, load, net)


@pytest.mark.parametrize("options", [
    {"objective": "adversarial", "eps": 0.03}, {"objective": "shift", "noise": 0.3}, {"scope": "global"},
    {"objective": "outlier", "outliers": "permuted"}, {"init": "edge-popup", "batch_norm": "restated"},
], ids=lambda options: next(iter(options.values())))  # fmt: skip
def test_a_mask_is_its_fields_written_down(load, options):
    """Outliers are drawn by the network's seed, from the training half of their kind."""
    train, how = inliers(DATA, "train"), {"batch_size": 32, "seed": 3, "progress": False}
    said = {**options, "epochs": 2, "lr": 0.05}
    step = Masked(dense=UNUSUAL, sparsity=0.5, **said)
    if "outliers" in options:
        said["outliers"] = data.outliers("permuted", train, seed=3, split="train")
    expected = subnetworks.search(load(UNUSUAL), train, 0.5, **said, **how)
    assert _same(step, load, expected)
    first = subnetworks.search(load(UNUSUAL), train, 0.5, **{**said, "epochs": 0}, **how)
    assert not _same(step, load, first), "something was learnt, or the test tells nothing"


def test_refitting_is_its_fields_written_down(load):
    said, train = {"objective": "adversarial", "eps": 0.03, "epochs": 2, "lr": 0.02}, inliers(DATA, "train")
    expected = subnetworks.fit_batch_norm(load(UNUSUAL), train, **said, batch_size=32, seed=3, progress=False)
    assert _same(Refitted(dense=UNUSUAL, **said), load, expected) and not _same(UNUSUAL, load, expected)


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


def test_refitting_changes_batch_norm_alone(load):
    dense = _trained()
    refitted = Refitted(dense=dense, objective="adversarial", eps=0.1, epochs=1)
    before, after = (load(step).state_dict() for step in (dense, refitted))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    kinds, net = batch_norms(load(dense)), load(dense)
    scales = {f"{name}.{p}" for name, m in net.named_modules() if m in kinds for p in ("weight", "bias")}
    assert changed and changed <= scales
    assert refitted.columns()["sparsity"] == 0 and refitted.columns()["when"] == "refitted"


def test_the_unpruned_network_has_all_weights_and_trains_on(load):
    dense = _trained()
    unpruned = Pruned(dense=dense, criterion="magnitude", sparsity=0.0, epochs=1)
    values = _values(load.rows(unpruned))
    assert values["weights"] == weights(dense) and values["achieved"] == 0
    assert not torch.equal(next(load(unpruned).parameters()), next(load(dense).parameters()))
    assert unpruned.columns()["criterion"] is None, "it is named by no criterion"


def test_accuracy_under_attack_counts_what_withstands_both_losses_and_all_restarts(load):
    step, test = _trained(), inliers(DATA, "test")
    clean = training.logits(load(step), test.x).argmax(1) == test.y
    found = {}
    for restarts in (1, 3):
        values = _values(Attacked(model=step, attack="pgd", eps=0.1, steps=5, restarts=restarts).compute(load)[0])
        right = clean.clone()
        for loss in ("ce", "margin"):
            options = {"steps": 5, "step_size": 0.025, "restarts": restarts, "early_stop": True, "seed": 0}
            x = attacks.pgd(load(step), test.x, test.y, 0.1, loss=loss, **options)
            right &= training.logits(load(step), x).argmax(1) == test.y
        assert values["accuracy"] == pytest.approx(right.double().mean().item())
        assert values["accuracy_clean"] == training.accuracy(load(step), test) > values["accuracy"]
        found[restarts] = values["accuracy"]
    assert found[3] <= found[1]


def test_fgsm_is_one_full_step_up_either_loss(load):
    step, test = _trained(), inliers(DATA, "test")
    found = _values(Attacked(model=step, attack="fgsm", eps=0.1).compute(load)[0])["accuracy"]
    right = training.logits(load(step), attacks.fgsm(load(step), test.x, test.y, 0.1)).argmax(1) == test.y
    assert found <= right.double().mean()
    stronger = _values(Attacked(model=step, attack="pgd", eps=0.1, steps=20).compute(load)[0])["accuracy"]
    assert stronger <= found


def test_an_attack_of_no_radius_leaves_the_accuracy_on_the_same_images(load):
    step, few = _trained(), data.balanced(inliers(DATA, "test"), 50, seed=DATA.seed)
    nothing = _values(Attacked(model=step, attack="pgd", eps=0.0, norm="l2", limit=50).compute(load)[0])
    assert nothing["accuracy"] == nothing["accuracy_clean"] == training.accuracy(load(step), few)


def test_right_or_rejected_is_counted_one_by_one(load):
    """At the threshold that 5 % of the clean test images exceed."""
    step, test = _trained(), inliers(DATA, "test")
    detector = detectors.build("msp").fit(load(step), inliers(DATA, "train"))
    inside = sorted(detector.score(test.x).tolist())
    limit = inside[-1 - int(0.05 * len(inside))]
    assert sum(score > limit for score in inside) <= 0.05 * len(inside)
    turned = shifts.corrupt(test.x, "rotate", 4)
    for anomaly, x, y in (("rotate:4", turned, test.y), ("textures", outliers(DATA, "textures").x, None)):
        values = _values(Detection(model=step, detector="msp", anomaly=anomaly).compute(load)[0])
        predicted, stands, right = training.logits(load(step), x).argmax(1), 0, 0
        for i, score in enumerate(detector.score(x).tolist()):
            correct = y is not None and bool(predicted[i] == y[i])
            right += correct
            stands += correct or score > limit
        assert values["ror"] == pytest.approx(stands / len(x)) and values["right"] == pytest.approx(right / len(x))


def test_an_attack_that_knows_the_detector_is_no_weaker(load):
    step, test = _trained(), inliers(DATA, "test")
    values = _values(Evaded(model=step, detector="msp", eps=0.1, steps=10).compute(load)[0])
    assert values["ror"] < values["ror_plain"]
    blind = _values(Evaded(model=step, detector="msp", eps=0.0, steps=1).compute(load)[0])
    detector = detectors.build("msp").fit(load(step), inliers(DATA, "train"))
    limit = metrics.threshold(detector.score(test.x), 0.05)
    right = training.logits(load(step), test.x).argmax(1) == test.y
    stands = (right | (detector.score(test.x) > limit)).double().mean()
    assert blind["ror"] == blind["ror_plain"] == pytest.approx(stands.item())


def test_an_attack_that_knows_the_detector_is_its_fields_written_down(load):
    step, few = _trained(seed=3), some(DATA, 60)
    detector = detectors.build("mahalanobis").fit(load(step), inliers(DATA, "train"))
    limit = metrics.threshold(detector.score(inliers(DATA, "test").x), 0.05)
    usual = {"steps": 8, "step_size": 0.25 * 0.1, "seed": 3}
    evading = {**usual, "weights": (0.3, 2.0), "early_stop": True}
    attacked = {
        "ror": attacks.adaptive(load(step), few.x, few.y, 0.1, detector.differentiable, limit, **evading),
        "ror_plain": attacks.pgd(load(step), few.x, few.y, 0.1, loss="margin", **usual),
    }
    said = {"detector": "mahalanobis", "eps": 0.1, "steps": 8, "weights": (0.3, 2.0), "limit": 60}
    values = _values(Evaded(model=step, **said).compute(load)[0])
    for name, x in attacked.items():
        stands = (training.logits(load(step), x).argmax(1) == few.y) | (detector.score(x) > limit)
        assert values[name] == pytest.approx(stands.double().mean().item()), name


def test_what_pgd_leaves_is_attacked_towards_every_class(load):
    step, test, limit = _trained(), some(DATA, 60), {"eps": 0.12, "limit": 60, "steps": 5, "restarts": 1}
    usual = _values(Attacked(model=step, attack="pgd", **limit).compute(load)[0])
    each = _values(Multitargeted(model=step, towards=2, **limit).compute(load)[0])
    assert each["accuracy_clean"] == usual["accuracy_clean"] and each["accuracy"] < usual["accuracy"]
    net, options = load(step), {"steps": 5, "step_size": 0.25 * 0.12, "seed": 0}
    x = attacks.pgd(net, test.x, test.y, 0.12, loss="both", early_stop=True, **options)
    left = training.logits(net, x).argmax(1) == test.y
    x = attacks.multitargeted(net, test.x[left], test.y[left], 0.12, restarts=2, **options)
    stands = (training.logits(net, x).argmax(1) == test.y[left]).sum() / len(test)
    assert each["accuracy"] == pytest.approx(stands.item())
    assert Multitargeted(model=step, **limit).columns()["attack"] == "multitargeted"


def test_autoattack_and_pgd_see_the_same_images(load):
    step = _trained()
    values = _values(AutoAttacked(model=step, eps=0.1, limit=8, steps=10, restarts=1).compute(load)[0])
    strong, usual = (values[m] for m in ("accuracy", "accuracy_pgd"))
    pgd = _values(Attacked(model=step, attack="pgd", eps=0.1, limit=8, steps=10, restarts=1).compute(load)[0])
    assert strong <= usual == pgd["accuracy"]


def test_detectors_are_fitted_with_the_labels_that_the_network_saw(load):
    step = _trained(label_noise=0.4)
    found = Detection(model=step, detector="mahalanobis", anomaly="textures").compute(load)[0][0]["value"]
    test = inliers(DATA, "test")
    outside = outliers(DATA, "textures").x
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
            ("textures", "far", outliers(DATA, "textures").x),
        ):
            steps = Detection(model=step, detector=name, options=options, anomaly=anomaly)
            said = " ".join([name, *(f"{k}:{v}" for k, v in options)])
            assert fields.detector(said) == (name, options)
            values, scores = _values(steps.compute(load)[0]), (detector.score(test.x), detector.score(x))
            assert values["auroc"] == pytest.approx(metrics.auroc(*scores), abs=1e-9)
            assert values["aupr_ood"] == pytest.approx(metrics.aupr(*scores, positive="ood"), abs=1e-9)
            assert values["fpr95_ood"] == pytest.approx(metrics.fpr_at_95_tpr(*scores, positive="ood"), abs=1e-9)
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
    outside = outliers(DATA, "textures").x
    expected = metrics.auroc(net.disagreement(test.x), net.disagreement(outside))
    assert two["disagreement", "textures", "far", "auroc"] == pytest.approx(expected, abs=1e-9)
    sure = [net(x).softmax(1).amax(1).detach() for x in (test.x, outside)]
    assert two["msp", "textures", "far", "auroc"] == pytest.approx(metrics.auroc(-sure[0], -sure[1]), abs=1e-9)
    how = {"steps": measurements.STEPS, "step_size": 0.25 * 0.05, "seed": 0}
    attacked = attacks.pgd(net, test.x, test.y, 0.05, loss="both", early_stop=True, **how)
    withstood = (training.logits(net, attacked).argmax(1) == test.y).double().mean().item()
    assert two["pgd", "linf", 0.05, "accuracy"] == pytest.approx(withstood) and withstood < two["accuracy"]
    assert two["peak_bytes"] == one["peak_bytes"], "one member after the other"


def test_certificates_and_times(load):
    step, few = _trained(seed=3), some(DATA, 16)
    said = {"sigma": 0.2, "n": 150}
    predicted, radius = certify.certify(load(step), few.x, **said, n0=100, seed=3)
    right, middle = predicted == few.y, float(radius[predicted == few.y].median())
    values = _values(Certified(model=step, radius=middle, limit=16, **said).compute(load)[0])
    certified = (right & (radius >= middle)).double().mean().item()
    assert values["accuracy"] == pytest.approx(right.double().mean().item()) and values["accuracy"] > certified
    assert values["certified"] == pytest.approx(certified) and certified > 0
    assert values["abstained"] == pytest.approx((predicted == -1).double().mean().item())
    assert values["macs"] == (100 + 150) * costs.cost(load(step), few.x[:1], repeats=1).macs and values["time"] > 0
    assert _values(Scored(model=step, detector="msp", repeats=1).compute(load)[0])["time"] > 0


def test_the_name_of_a_detector_is_the_text_that_asks_for_it():
    for text in ("msp", "sensnorm reference:train standardise:true", "sensnorm norm:inf layers:all per_loss:false"):
        name, options = fields.detector(text)
        step = Detection(model=_trained(), detector=name, options=options, anomaly="textures")
        assert step.columns()["detector"] == text


def test_an_untrained_network_is_made_once_for_all_seeds():
    net = fields.untrained(_trained())
    assert fields.untrained(_trained(seed=3, data=DATA.model_copy(update={"seed": 3}))) is net
    assert fields.untrained(_trained(width=5)) is not net
    assert [w.shape for w in net.parameters()] == [w.shape for w in _trained(seed=3).initial().parameters()]
