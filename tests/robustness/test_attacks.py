import copy
import random
import sys
from functools import partial

import eagerpy
import foolbox
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foolbox import attacks as oracle
from torch import nn

from sparselib import data, models, training
from sparselib.robustness import attacks, autoattack, sanity

FOOLBOX_FGSM = {"linf": oracle.LinfFastGradientAttack, "l2": oracle.L2FastGradientAttack}
FOOLBOX_PGD = {"linf": oracle.LinfProjectedGradientDescentAttack, "l2": oracle.L2ProjectedGradientDescentAttack}
EPS = {"linf": 0.1, "l2": 0.8}


@pytest.fixture(scope="module")
def victim(trained):
    import copy

    return copy.deepcopy(trained).double()


@pytest.fixture(scope="module")
def inputs(test):
    return test.x[:64].double(), test.y[:64]


def _foolbox(attack, net, x, y, eps, targeted):
    wrapped = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    criterion = foolbox.criteria.TargetedMisclassification(y) if targeted else foolbox.criteria.Misclassification(y)
    return attack.run(wrapped, x, criterion, epsilon=eps)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_fgsm_equals_foolbox(victim, inputs, norm):
    x, y = inputs
    theirs = _foolbox(FOOLBOX_FGSM[norm](random_start=False), victim, x, y, EPS[norm], False)
    torch.testing.assert_close(attacks.fgsm(victim, x, y, EPS[norm], norm=norm), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", attacks.NORMS)
def test_pgd_without_random_start_equals_foolbox(victim, inputs, norm, targeted):
    x, y = inputs
    y = (y + 1) % 10 if targeted else y
    theirs = _foolbox(
        FOOLBOX_PGD[norm](steps=7, abs_stepsize=EPS[norm] / 3, random_start=False), victim, x, y, EPS[norm], targeted
    )
    ours = attacks.pgd(
        victim, x, y, EPS[norm], norm=norm, steps=7, step_size=EPS[norm] / 3, random_start=False, targeted=targeted
    )
    torch.testing.assert_close(ours, eagerpy.astensor(theirs).raw, rtol=0, atol=1e-6)


def _distance(a, b, norm):
    return (a - b).flatten(1).norm(dim=1, p=torch.inf if norm == "linf" else 2)


@pytest.mark.parametrize("loss", attacks.LOSSES)
@pytest.mark.parametrize("norm", attacks.NORMS)
def test_random_start_stays_in_the_ball_and_restarts_never_weaken(victim, inputs, norm, loss):
    x, y = inputs
    eps = EPS[norm] / 3
    right = []
    for restarts in (1, 4):
        adversarial = attacks.pgd(victim, x, y, eps, norm=norm, steps=5, restarts=restarts, loss=loss, seed=1)
        assert adversarial.min() >= 0 and adversarial.max() <= 1
        assert _distance(adversarial, x, norm).max() <= eps * (1 + 1e-9)
        right.append(training.logits(victim, adversarial).argmax(1) == y)
    assert not (right[1] & ~right[0]).any(), "what one restart broke, four break as well"
    assert right[1].sum() < (training.logits(victim, x).argmax(1) == y).sum()


def test_margin_loss_is_the_gap_to_the_best_other_class():
    logits = torch.tensor([[2.0, 5.0, 1.0], [0.0, -1.0, 3.0]])
    y = torch.tensor([1, 0])
    assert attacks.losses(logits, y, "margin", False).tolist() == [-3.0, 3.0]
    assert attacks.losses(logits, y, "margin", True).tolist() == [3.0, -3.0]


def test_l2_start_is_uniform_in_the_ball():
    from sparselib import seeds

    start = attacks.random_in_ball(torch.zeros(20000, 1, 1, 2), 2.0, "l2", seeds.generator(0, "t"))
    radius = start.flatten(1).norm(dim=1)
    assert radius.max() <= 2
    assert abs((radius <= 1).float().mean() - 0.25) < 0.02  # area grows with r²


def test_l2_steps_have_their_length_however_small_the_gradient(trained, test):
    """Of a network that hardly answers: the squares of the gradients are 0 in float32."""
    x, y = test.x[:100], test.y[:100]
    net = Around(trained, lambda inner, x: 1e-25 * inner(x))
    gradient = attacks.input_gradient(*attacks.forward(net, x), y, "ce", False)
    assert (gradient.flatten(1).abs().amax(1) < 1e-10).any()
    lengths = _distance(attacks.steepest(gradient, "l2"), torch.zeros_like(x), "l2")
    assert ((lengths - 1).abs() < 1e-6).logical_or(gradient.flatten(1).abs().amax(1) == 0).all()
    assert _distance(attacks.fgsm(net, x, y, 0.5, norm="l2"), x, "l2").max() <= 0.5 * (1 + 1e-6)
    in_float64 = attacks.steepest(gradient.double(), "l2").float()
    torch.testing.assert_close(attacks.steepest(gradient, "l2"), in_float64, rtol=1e-4, atol=1e-6)


def test_eps_zero_returns_the_input_and_the_model_is_left_alone(trained, test):
    import copy

    net = copy.deepcopy(trained).train()
    x, y = test.x[:8], test.y[:8]
    statistics = {n: b.clone() for n, b in net.named_buffers()}
    assert torch.equal(attacks.pgd(net, x, y, 0.0), x)
    attacks.fgsm(net, x, y, 0.1)
    assert net.training and all(p.grad is None for p in net.parameters())
    assert all(torch.equal(b, statistics[n]) for n, b in net.named_buffers())
    state = torch.random.get_rng_state()
    first = attacks.pgd(net, x, y, 0.1, seed=4)
    assert torch.equal(first, attacks.pgd(net, x, y, 0.1, seed=4)) and torch.equal(torch.random.get_rng_state(), state)


def _right(net, x, y):
    return training.logits(net, x).argmax(1) == y


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", attacks.NORMS)
def test_early_stop_keeps_the_first_adversarial_point_of_the_same_climb(victim, inputs, norm, targeted):
    x, y = inputs
    y = (y + 1) % 10 if targeted else y
    step = {"norm": norm, "step_size": EPS[norm] / 8, "random_start": False, "targeted": targeted}
    expected, open_ = x.clone(), torch.ones(len(x), dtype=torch.bool)
    for steps in range(11):  # oracle: stop the plain attack after 0, 1, … 10 steps
        point = attacks.pgd(victim, x, y, EPS[norm], steps=steps, **step) if steps else x
        expected[open_] = point[open_]
        open_ &= _right(victim, point, y) != targeted
    assert 0 < open_.sum() < len(x) - 10
    stopped = attacks.pgd(victim, x, y, EPS[norm], steps=10, early_stop=True, **step)
    torch.testing.assert_close(stopped, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_early_stop_does_not_look_at_the_other_samples(victim, inputs, test, norm):
    x, y = inputs
    settings = {"norm": norm, "steps": 6, "restarts": 3, "early_stop": True, "seed": 2}
    together = attacks.pgd(victim, x, y, EPS[norm] * 0.8, **settings)
    others, labels = test.x[100:164].double(), test.y[100:164].clone()
    others[::3], labels[::3] = x[::3], y[::3]
    mixed = attacks.pgd(victim, others, labels, EPS[norm] * 0.8, **settings)
    torch.testing.assert_close(mixed[::3], together[::3], rtol=0, atol=1e-9)
    assert (_right(victim, together, y) & ~_right(victim, x, y)).sum() == 0


def test_early_stop_spends_passes_on_the_unfinished_only(victim, inputs):
    x, y = inputs
    sizes = []
    handle = victim.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    once = attacks.pgd(victim, x, y, 0.1, steps=8, early_stop=True)
    single = list(sizes)
    sizes.clear()
    thrice = attacks.pgd(victim, x, y, 0.1, steps=8, restarts=3, early_stop=True)
    handle.remove()
    broken = ~_right(victim, once, y)
    assert single[0] == len(x) and sorted(single, reverse=True) == single and single[-1] < len(x) / 2
    assert sizes[:8] == single and max(sizes[9:]) <= int((~broken).sum())  # one more pass tells who is left
    assert torch.equal(thrice[broken], once[broken])
    assert not (_right(victim, thrice, y) & broken).any()
    assert _right(victim, thrice, y).sum() < (~broken).sum(), "restarts start elsewhere"


def _foolbox_style(attack, model, x, y, eps):
    return attack.run(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilon=eps)


def test_a_harness_that_calls_model_x_y_takes_either_library(victim, inputs):
    """RobustBench's and most papers' evaluation loops take any callable (model, x, y) -> adversarial x."""

    def robust_accuracy(model, x, y, attack, batch_size=24):
        right = 0
        for xs, ys in zip(x.split(batch_size), y.split(batch_size), strict=True):
            right += int((model(attack(model, xs, ys)).argmax(1) == ys).sum())
        return right / len(x)

    x, y = inputs
    theirs = oracle.LinfProjectedGradientDescentAttack(steps=5, abs_stepsize=0.03, random_start=False)
    pairs = [
        (partial(attacks.fgsm, eps=0.1), partial(_foolbox_style, oracle.FGSM(), eps=0.1)),
        (
            partial(attacks.pgd, eps=0.1, steps=5, step_size=0.03, random_start=False),
            partial(_foolbox_style, theirs, eps=0.1),
        ),
    ]
    results = [[robust_accuracy(victim, x, y, attack) for attack in pair] for pair in pairs]
    assert results[0][0] == results[0][1] > results[1][0] == results[1][1] > 0


class Around(nn.Module):
    """A network with something done to its input or output."""

    def __init__(self, net, function):
        super().__init__()
        self.net, self.function = net, function

    def forward(self, x):
        return self.function(self.net, x)


class _Backwards(torch.autograd.Function):
    """The identity, with the gradient's sign turned round."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return -gradient


MASKED = {
    "saturated": lambda net, x: 1e4 * net(x),
    "quantised": lambda net, x: net((8 * x).round() / 8),
    "detached": lambda net, x: net((8 * x).to(torch.uint8).to(x) / 8),
    "backwards": lambda net, x: net(_Backwards.apply(x)),
    "random": lambda net, x: net(x + 0.5 * torch.randn_like(x)),
}
DEAD = {"the largest eps leaves nothing", "white-box at least as strong as noise", "gradients are not zero"}


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_an_honest_network_is_sane(trained, test, norm):
    samples = test.take(slice(0, 200))
    report = sanity.check(trained, samples, eps=EPS[norm] * 0.5, norm=norm)
    assert report.passed and report.failed == () and len(report.checks) == 7, str(report)
    numbers = {check.name: check.numbers for check in report.checks}
    assert numbers["eps 0 equals clean"]["clean"] == training.accuracy(trained, samples)
    ours = attacks.pgd(trained, samples.x, samples.y, EPS[norm] * 0.5, norm=norm, steps=20)
    accuracy = _right(trained, ours, samples.y).double().mean().item()
    assert numbers["cross-entropy and margin agree"]["ce"] == accuracy
    assert list(numbers["accuracy falls with eps"].values()) == sorted(
        numbers["accuracy falls with eps"].values(), reverse=True
    )
    assert str(report).count("passed") == 7 and "FAILED" not in str(report)


@pytest.mark.parametrize(
    ("mask", "failures"),
    [
        ("quantised", DEAD),
        ("detached", DEAD),
        ("backwards", {"white-box at least as strong as noise", "the largest eps leaves nothing"}),
    ],
)
def test_masked_gradients_are_reported(trained, test, mask, failures):
    report = sanity.check(Around(trained, MASKED[mask]), test.take(slice(0, 120)), eps=0.1)
    assert not report.passed and failures <= set(report.failed), str(report)
    assert str(report).count("FAILED") == len(report.failed)
    if mask != "backwards":
        assert set(report.failed) == failures, str(report)


@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize("targeted", [False, True])
def test_a_network_so_sure_that_its_loss_is_0_is_attacked_like_any_other(trained, test, norm, targeted):
    x, y = test.x[:60], test.y[:60]
    net, double = Around(trained, MASKED["saturated"]), copy.deepcopy(trained).double()
    leaf, logits = attacks.forward(net, x)
    plain = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), leaf)[0]
    assert (plain == 0).flatten(1).all(1).float().mean() > 0.9
    # Where one other class holds all that is left of the probability, its margin is what rises.
    leaf, logits = attacks.forward(double, x.double())
    others = logits.detach().scatter(1, y[:, None], -torch.inf).argmax(1)
    gap = (logits.gather(1, others[:, None]) - logits.gather(1, y[:, None])).sum()
    expected = torch.autograd.grad(-gap if targeted else gap, leaf)[0]
    found = attacks.input_gradient(*attacks.forward(net, x), y, "ce", targeted).double()
    cosine = F.cosine_similarity(found.flatten(1), expected.flatten(1))
    assert (cosine > 1 - 1e-6).double().mean() > 0.9  # two others may be level
    report = sanity.check(net, test.take(slice(0, 60)), eps=EPS[norm] * 0.5, norm=norm)
    assert report.passed, str(report)
    [numbers] = [c.numbers for c in report.checks if c.name == "gradients are not zero"]
    assert numbers["of a saturated cross-entropy"] > 0.9 and numbers["share of samples without gradient"] == 0


def test_what_is_climbed_is_the_cross_entropy_on_another_scale():
    torch.manual_seed(0)
    logits, y = (3 * torch.randn(50, 6, dtype=torch.float64)).requires_grad_(), torch.arange(50) % 6
    climbed = attacks.losses(logits, y, "ce", False)
    expected = F.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(F.softplus(climbed), expected, rtol=1e-12, atol=1e-14)
    [direction], [gradient] = (torch.autograd.grad(loss.sum(), logits) for loss in (climbed, expected))
    missing = 1 - logits.softmax(1).gather(1, y[:, None])  # 1 − p_y, the factor that vanishes
    torch.testing.assert_close(gradient, missing * direction, rtol=1e-10, atol=1e-14)


def test_a_random_network_is_not_clean_at_eps_zero(trained, test):
    torch.manual_seed(0)  # its noise comes from the global generator
    report = sanity.check(Around(trained, MASKED["random"]), test.take(slice(0, 80)), eps=0.1)
    assert "eps 0 equals clean" in report.failed


def test_transfer_exposes_a_mask_and_clears_an_honest_network(trained, test):
    samples = test.take(slice(0, 120))
    name = "white-box at least as strong as transfer"
    masked = sanity.check(Around(trained, MASKED["quantised"]), samples, eps=0.1, transfer_from=trained)
    assert name in masked.failed
    other = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=8, seed=1)
    honest = sanity.check(trained, samples, eps=0.1, transfer_from=other)
    assert name in {check.name for check in honest.checks} and honest.passed, str(honest)


def test_sanity_refuses_what_it_cannot_judge(trained, test):
    with pytest.raises(ValueError, match="samples must not be empty"):
        sanity.check(trained, test.take(slice(0, 0)), eps=0.1)
    with pytest.raises(ValueError, match=r"eps must be in \(0, inf\], got 0"):
        sanity.check(trained, test, eps=0)
    with pytest.raises(ValueError, match="unknown norm 'l1'"):
        sanity.check(trained, test, eps=0.1, norm="l1")
    with pytest.raises(ValueError, match="samples.y must be non-negative class labels, got -1"):
        sanity.check(trained, data.outliers("uniform", test, n=4))


def test_sanity_without_a_radius_takes_the_usual_one(trained, test):
    few = test.take(slice(0, 40))
    assert sanity.check(trained, few) == sanity.check(trained, few, eps=8 / 255)
    assert sanity.check(trained, few, norm="l2") == sanity.check(trained, few, eps=0.5, norm="l2")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(autoattack, "STEPS", 12)
    monkeypatch.setattr(autoattack, "RESTARTS", 2)
    monkeypatch.setattr(autoattack, "QUERIES", 150)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_autoattack_is_strong_seeded_and_stays_in_the_ball(quick, trained, test, norm):
    import copy

    net = copy.deepcopy(trained).train()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    net[1].weight.requires_grad_(False)
    kept = [(t.clone(), t.requires_grad) for t in (*net.parameters(), *net.buffers())]
    x, y = test.x[:40], test.y[:40].clone()
    y[:3] = (y[:3] + 1) % 10  # wrong before any attack
    eps = EPS[norm] * 0.75

    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002

    before = states()
    adversarial = attacks.autoattack(net, x, y, eps, norm=norm)
    assert states() == before
    assert net.training and all(m.training for m in net.modules())
    after = [*net.parameters(), *net.buffers()]
    assert all(torch.equal(t, old) and t.requires_grad == flag for t, (old, flag) in zip(after, kept, strict=True))
    assert all((p.grad == 1).all() for p in net.parameters())

    assert torch.equal(adversarial, attacks.autoattack(net, x, y, eps, norm=norm))
    assert not torch.equal(adversarial, attacks.autoattack(net, x, y, eps, norm=norm, seed=1))
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    assert _distance(adversarial, x, norm).max() <= eps * (1 + 1e-6)
    clean, robust = _right(net, x, y), _right(net, adversarial, y)
    assert torch.equal(adversarial[~clean], x[~clean]) and not (robust & ~clean).any()
    assert torch.equal(adversarial[robust], x[robust]), "what holds is given back as it was"
    for loss in attacks.LOSSES:
        pgd = attacks.pgd(net, x, y, eps, norm=norm, steps=10, loss=loss)
        assert robust.sum() <= _right(net, pgd, y).sum()
    assert robust.sum() < clean.sum() - 10


def test_autoattack_sees_through_masks_that_stop_pgd(quick, trained, test):
    x, y = test.x[:40], test.y[:40]
    for mask in ("quantised", "detached"):  # broken by Square
        net = Around(trained, MASKED[mask])
        pgd, strong = (_right(net, a(net, x, y, 0.15), y).sum() for a in (attacks.pgd, attacks.autoattack))
        assert strong <= pgd - 10, mask
    # The scale does not matter to the difference of logits ratio, nor to the margin.
    net = Around(trained, MASKED["saturated"])
    margin = _right(net, attacks.pgd(net, x, y, 0.1, loss="margin"), y).sum()
    assert _right(net, attacks.autoattack(net, x, y, 0.1), y).sum() <= margin


def test_autoattack_takes_a_network_that_returns_probabilities(quick, trained, test):
    x, y = test.x[:20], test.y[:20]
    net = Around(trained, lambda inner, x: inner(x).softmax(1))
    assert _right(net, attacks.autoattack(net, x, y, 0.15), y).sum() <= 5


def test_autoattack_takes_two_classes_float64_and_channels(quick):
    torch.manual_seed(0)
    for classes, shape in ((2, (1, 8, 8)), (3, (3, 12, 10))):
        net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes)).double()
        x = torch.rand(12, *shape, dtype=torch.float64) * 0.8 + 0.1
        y = net(x).argmax(1)
        margin = net(x).detach().topk(2).values.diff().abs().squeeze(1)
        largest = (net[1].weight[:, None] - net[1].weight).abs().sum(2).max()
        safe = (margin.min() / largest).item() * 0.9  # a linear network: no point closer than this can be adversarial
        assert torch.equal(attacks.autoattack(net, x, y, safe), x)
        broken = attacks.autoattack(net, x, y, 0.1)
        assert broken.dtype == torch.float64 and _distance(broken, x, "linf").max() <= 0.1 + 1e-9
        if classes == 2:  # exact: the L1 norm of the difference of the weights times eps, away from the clipping
            exact = margin <= 0.1 * (net[1].weight[0] - net[1].weight[1]).abs().sum()
            assert torch.equal(_right(net, broken, y), ~exact)


def test_autoattack_says_when_square_does_not_fit(quick):
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
    x = torch.rand(4, 1, 3, 3)
    with pytest.warns(UserWarning, match="without Square: in l2 it does not fit images of 3×3"):
        attacks.autoattack(net, x, net(x).argmax(1), 0.1, norm="l2")


def test_autoattack_names_what_is_missing(monkeypatch, trained, test):
    x, y = test.x[:4], test.y[:4]
    monkeypatch.setitem(sys.modules, "art.attacks.evasion", None)
    with pytest.raises(ImportError, match="needs the package adversarial-robustness-toolbox"):
        attacks.autoattack(trained, x, y, 0.1)
    with pytest.raises(ValueError, match="below the number of classes, 10, got 10"):
        attacks.autoattack(trained, x, y * 0 + 10, 0.1)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        attacks.autoattack(trained, x, y, 0.1, batch_size=0)
    assert torch.equal(attacks.autoattack(trained, x, y, 0.0), x)


def test_empty_batch_gives_empty_result(trained, test):
    for attack in (attacks.fgsm, attacks.pgd, attacks.autoattack, partial(attacks.pgd, restarts=2, early_stop=True)):
        assert attack(trained, test.x[:0], test.y[:0], 0.1).shape == (0, 1, 8, 8)


def test_bad_arguments_are_named(trained, test):
    x, y = test.x[:4], test.y[:4]
    bad = [
        (ValueError, r"eps must be in \[0, inf\], got -0.1", lambda: attacks.fgsm(trained, x, y, -0.1)),
        (ValueError, "unknown norm 'l3'", lambda: attacks.pgd(trained, x, y, 0.1, norm="l3")),
        (ValueError, "unknown loss 'cw'", lambda: attacks.pgd(trained, x, y, 0.1, loss="cw")),
        (ValueError, r"x must lie in \[0, 1\], got values in \[0, 2\]", lambda: attacks.fgsm(trained, 2 * x, y, 0.1)),
        (ValueError, "x must be finite", lambda: attacks.fgsm(trained, x / 0 * 0, y, 0.1)),
        (ValueError, r"y must have shape \(4,\)", lambda: attacks.fgsm(trained, x, y[:2], 0.1)),
        (TypeError, "y must be an int64 tensor", lambda: attacks.fgsm(trained, x, y.float(), 0.1)),
        (ValueError, "below the number of classes, 10, got 10", lambda: attacks.pgd(trained, x, y * 0 + 10, 0.1)),
        (ValueError, "steps must be at least 1, got 0", lambda: attacks.pgd(trained, x, y, 0.1, steps=0)),
        (TypeError, "eps must be a number, got '0.1'", lambda: attacks.pgd(trained, x, y, "0.1")),
        (ValueError, "shape", lambda: attacks.fgsm(trained, x[0], y[:1], 0.1)),
        (
            ValueError,
            r"x must have shape \(N, 1, H, W\), got \(4, 3, 8, 8\)",
            lambda: attacks.fgsm(trained, x.repeat(1, 3, 1, 1), y, 0.1),
        ),
    ]
    kinked = Around(trained, lambda net, z: net(z) + 0 * (z - z).sqrt().flatten(1).sum(1, keepdim=True))
    bad.append((ValueError, "gradient that is NaN", lambda: attacks.fgsm(kinked, x, y, 0.1)))
    elsewhere = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10, device="meta"))
    sure = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1))
    broken = Around(trained, lambda net, x: net(x) * torch.nan)
    for attack in (attacks.fgsm, attacks.pgd, attacks.autoattack):
        bad += [
            (ValueError, "x must be on the device of the model, meta, got cpu", partial(attack, elsewhere, x, y, 0.1)),
            (ValueError, "model must have at least 2 classes, got 1", partial(attack, sure, x, y * 0, 0.1)),
            (ValueError, "logits that are NaN or infinite", partial(attack, broken, x, y, 0.1)),
            (ValueError, r"x must lie in \[0, 1\]", partial(attack, trained, x - 1, y, 0.1)),
        ]
    for kind, message, call in bad:
        with pytest.raises(kind, match=message):
            call()
    assert models.device_of(trained).type == "cpu"


@pytest.mark.parametrize("attack", [attacks.fgsm, partial(attacks.pgd, steps=2), partial(attacks.pgd, restarts=2)])
def test_memory_does_not_grow_with_the_number_of_inputs(trained, test, monkeypatch, attack):
    x, y = test.x[:50], test.y[:50]
    whole, sizes = attack(trained, x, y, 0.1), []
    monkeypatch.setattr(attacks, "PART", 8)
    watched = Around(trained, lambda net, x: (sizes.append(len(x)), net(x))[1])
    torch.testing.assert_close(attack(watched, x, y, 0.1), whole, atol=0.2, rtol=0)  # signs of gradients near 0
    assert max(sizes) == 8


def test_scalars_of_numpy_and_torch_are_numbers(trained, test):
    x, y = test.x[:5], test.y[:5]
    for eps in (np.float32(0.125), np.float64(0.125), torch.tensor(0.125)):
        assert torch.equal(attacks.fgsm(trained, x, y, eps), attacks.fgsm(trained, x, y, 0.125))
    assert torch.equal(attacks.pgd(trained, x, y, 0.1, steps=np.int64(2)), attacks.pgd(trained, x, y, 0.1, steps=2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_precisions_whose_steps_are_coarser_than_eps_are_refused(trained, test, dtype):
    with pytest.raises(TypeError, match="float32 or float64"):
        attacks.pgd(copy.deepcopy(trained).to(dtype), test.x[:4].to(dtype), test.y[:4], 0.03)
    with pytest.raises(ValueError, match="dtype of the model, torch.float32, got torch.float64"):
        attacks.pgd(trained, test.x[:4].double(), test.y[:4], 0.03)
