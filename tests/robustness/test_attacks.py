import copy
from functools import partial

import eagerpy
import foolbox
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foolbox import attacks as oracle
from masking import EPS, Around, distance, right
from torch import nn

from sparselib import models, training
from sparselib.robustness import attacks, certify, sanity
from sparselib.robustness.ensembles import Ensemble

FOOLBOX_FGSM = {"linf": oracle.LinfFastGradientAttack, "l2": oracle.L2FastGradientAttack}
STEP = {"linf": EPS["linf"] / 3, "l2": EPS["l2"] * 1.5}  # wide enough that climbs overshoot
FOOLBOX_PGD = {"linf": oracle.LinfProjectedGradientDescentAttack, "l2": oracle.L2ProjectedGradientDescentAttack}


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


def _foolbox_climb(victim, x, y, norm, targeted, steps):
    """The points of foolbox's PGD without random start after 0, 1, … steps: it returns the last one, as others do."""
    points = [x]
    for count in range(1, steps + 1):
        attack = FOOLBOX_PGD[norm](steps=count, abs_stepsize=STEP[norm], random_start=False)
        points.append(eagerpy.astensor(_foolbox(attack, victim, x, y, EPS[norm], targeted)).raw)
    return points


def _strongest(net, points, y, loss="ce", targeted=False):
    """Of several points per input, by a loop: a success before a failure, then the highest loss. Also, which one."""
    chosen, places = [], []
    for i, label in enumerate(y.tolist()):
        ranks = []
        for point in points:
            z = net(point[i : i + 1]).detach()[0]
            others = torch.cat([z[:label], z[label + 1 :]])
            rise = (float(others.logsumexp(0) if loss == "ce" else others.max()) - float(z[label])) * (-1) ** targeted
            ranks.append(((int(z.argmax()) == label) == targeted, rise))
        places.append(ranks.index(max(ranks)))
        chosen.append(points[places[-1]][i])
    return torch.stack(chosen), torch.tensor(places)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", attacks.NORMS)
def test_pgd_without_random_start_is_the_strongest_point_of_foolboxs_climb(victim, inputs, norm, targeted):
    x, y = inputs
    y = (y + 1) % 10 if targeted else y
    points = _foolbox_climb(victim, x, y, norm, targeted, 7)
    expected, places = _strongest(victim, points, y, targeted=targeted)
    assert (places == 7).any() and (places < 7).any(), "both happen, or the test tells nothing"
    ours = attacks.pgd(
        victim, x, y, EPS[norm], norm=norm, steps=7, step_size=STEP[norm], random_start=False, targeted=targeted
    )
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_the_start_and_the_end_of_a_climb_count(victim, inputs):
    """A step that goes too far keeps the start where that is better; one that goes well keeps the end."""
    x, y = inputs
    one = {"steps": 1, "random_start": False, "loss": "margin"}
    far, near = (attacks.pgd(victim, x, y, 1.0, step_size=size, **one) for size in (1.0, 0.01))
    ends = [(x + size * _sign(victim, x, y)).clamp(0, 1) for size in (1.0, 0.01)]
    for ours, end in zip((far, near), ends, strict=True):
        expected, places = _strongest(victim, [x, end], y, "margin")
        assert (places == 1).any()
        assert torch.equal(ours, expected)
    assert (far == x).flatten(1).all(1).any()


def _sign(net, x, y):
    x = x.clone().requires_grad_()
    z = net(x)
    at = z.gather(1, y[:, None])
    rise = z.scatter(1, y[:, None], -torch.inf).amax(1) - at.squeeze(1)
    return torch.autograd.grad(rise.sum(), x)[0].sign()


def test_a_climb_costs_its_steps_and_one_pass_forward(victim, inputs):
    x, y = inputs
    passes = []
    net = Around(victim, lambda inner, x: (passes.append(x.requires_grad), inner(x))[1])
    for restarts, loss, runs in ((1, "ce", 1), (3, "margin", 3), (2, "both", 4)):
        passes.clear()
        attacks.pgd(net, x, y, 0.1, steps=6, restarts=restarts, loss=loss)
        assert passes == ([True] * 6 + [False]) * runs


@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize("early_stop", [False, True])
def test_both_losses_break_what_either_breaks_and_keep_the_larger_margin(trained, test, norm, early_stop):
    net, x, y = Around(trained, lambda inner, x: 0.1 * inner(x)), test.x[:200], test.y[:200]  # unsure: losses differ
    options = {"norm": norm, "steps": 5, "seed": 3, "restarts": 2, "early_stop": early_stop}
    eps = EPS[norm] * 0.7
    found = {loss: attacks.pgd(net, x, y, eps, loss=loss, **options) for loss in ("ce", "margin", "both")}
    broken = {loss: ~right(net, point, y) for loss, point in found.items()}
    assert torch.equal(broken["both"], broken["ce"] | broken["margin"])
    margin = {k: attacks.losses(training.logits(net, p).double(), y, "margin") for k, p in found.items()}
    if not early_stop:  # the margin climb passes, and keeps, at least what it keeps alone
        assert (margin["both"] >= margin["margin"].maximum(margin["ce"])).all()
        assert (margin["both"] > margin["margin"]).any() and (margin["both"] > margin["ce"]).any()


@pytest.mark.parametrize("loss", attacks.LOSSES)
@pytest.mark.parametrize("norm", attacks.NORMS)
def test_random_start_stays_in_the_ball_and_restarts_never_weaken(victim, inputs, norm, loss):
    x, y = inputs
    eps = EPS[norm] / 3
    right = []
    for restarts in (1, 4):
        adversarial = attacks.pgd(victim, x, y, eps, norm=norm, steps=5, restarts=restarts, loss=loss, seed=1)
        assert adversarial.min() >= 0 and adversarial.max() <= 1
        assert distance(adversarial, x, norm).max() <= eps * (1 + 1e-9)
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
    lengths = distance(attacks.steepest(gradient, "l2"), torch.zeros_like(x), "l2")
    assert ((lengths - 1).abs() < 1e-6).logical_or(gradient.flatten(1).abs().amax(1) == 0).all()
    assert distance(attacks.fgsm(net, x, y, 0.5, norm="l2"), x, "l2").max() <= 0.5 * (1 + 1e-6)
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


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", attacks.NORMS)
def test_early_stop_keeps_the_first_adversarial_point_of_the_same_climb(victim, inputs, norm, targeted):
    x, y = inputs
    y = (y + 1) % 10 if targeted else y
    step = {"norm": norm, "step_size": EPS[norm] / 8, "random_start": False, "targeted": targeted}
    points, here = [x], x
    for _ in range(10):  # oracle: the climb by hand
        gradient = attacks.input_gradient(*attacks.forward(victim, here), y, "ce", targeted)
        ahead = here + step["step_size"] * attacks.steepest(gradient, norm) - x
        here = (x + attacks.projected(ahead, EPS[norm], norm)).clamp(0, 1)
        points.append(here)
    expected, _ = _strongest(victim, points, y, targeted=targeted)
    broken = torch.zeros(len(x), dtype=torch.bool)
    for point in points:
        now = (right(victim, point, y) == targeted) & ~broken
        expected[now] = point[now]
        broken |= now
    assert 10 < broken.sum() < len(x)
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
    assert (right(victim, together, y) & ~right(victim, x, y)).sum() == 0


def test_early_stop_spends_passes_on_the_unfinished_only(victim, inputs):
    x, y = inputs
    sizes = []
    handle = victim.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    once = attacks.pgd(victim, x, y, 0.1, steps=8, early_stop=True)
    single = list(sizes)
    sizes.clear()
    thrice = attacks.pgd(victim, x, y, 0.1, steps=8, restarts=3, early_stop=True)
    handle.remove()
    broken = ~right(victim, once, y)
    assert single[0] == len(x) and sorted(single, reverse=True) == single and single[-1] < len(x) / 2
    assert sizes[: len(single)] == single and max(sizes[len(single) :]) <= int((~broken).sum())
    assert torch.equal(thrice[broken], once[broken])
    assert not (right(victim, thrice, y) & broken).any()
    assert right(victim, thrice, y).sum() < (~broken).sum(), "restarts start elsewhere"


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
    assert results[0][0] == results[0][1] > results[1][1] >= results[1][0] > 0  # theirs is the last point, not the best


def test_what_is_climbed_is_the_cross_entropy_on_another_scale():
    torch.manual_seed(0)
    logits, y = (3 * torch.randn(50, 6, dtype=torch.float64)).requires_grad_(), torch.arange(50) % 6
    climbed = attacks.losses(logits, y, "ce", False)
    expected = F.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(F.softplus(climbed), expected, rtol=1e-12, atol=1e-14)
    [direction], [gradient] = (torch.autograd.grad(loss.sum(), logits) for loss in (climbed, expected))
    missing = 1 - logits.softmax(1).gather(1, y[:, None])  # 1 − p_y, the factor that vanishes
    torch.testing.assert_close(gradient, missing * direction, rtol=1e-10, atol=1e-14)


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


WRAPPED = {
    "scripted": torch.jit.script,
    "compiled": partial(torch.compile, backend="eager"),
    "parallel": nn.DataParallel,
    "traced by fx": torch.fx.symbolic_trace,
}


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrapped_networks_give_the_same_and_are_left_as_found(test, wrapper):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).train()
    plain[0].weight.requires_grad_(False)
    net = WRAPPED[wrapper](copy.deepcopy(plain))
    samples = test.take(slice(0, 12))
    x, y = samples.x, samples.y

    def state():
        return [p.requires_grad for p in net.parameters()], [m.training for m in net.modules()], net.state_dict()

    before = copy.deepcopy(state())
    for attack in (attacks.fgsm, partial(attacks.pgd, steps=2, restarts=2)):
        torch.testing.assert_close(attack(net, x, y, 0.1), attack(plain, x, y, 0.1), rtol=0, atol=1e-6)
    ours, theirs = (certify.certify(one, x[:2], 0.2, n=100) for one in (net, plain))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    torch.testing.assert_close(Ensemble([net, plain]).disagreement(x), torch.zeros(12), rtol=0, atol=1e-6)
    assert training.accuracy(net, samples) == training.accuracy(plain, samples)
    assert (
        sanity.check(net, samples, eps=0.1).checks[0].numbers == sanity.check(plain, samples, eps=0.1).checks[0].numbers
    )
    after = state()
    assert after[:2] == before[:2] and all(torch.equal(t, before[2][key]) for key, t in after[2].items())


def test_restarts_rank_what_a_float32_loss_cannot_tell_apart():
    """Of points that all stand, the one nearest to the boundary is kept, however sure the network is."""
    weight = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]) * 1e4
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    net[1].weight.data.copy_(weight)
    x, y = torch.full((8, 1, 1, 2), 0.5), torch.zeros(8, dtype=torch.int64)
    # A step of 0 leaves every run where it starts: the best start of 1, of 8.
    one, eight = (attacks.pgd(net, x, y, 0.2, steps=1, step_size=0.0, restarts=n).sum((1, 2, 3)) for n in (1, 8))
    assert (eight <= one).all() and (eight < one - 0.05).any()


def test_options_that_are_not_said(victim, inputs):
    x, y = inputs[0][:20], inputs[1][:20]
    said = {"norm": "linf", "steps": 10, "step_size": 2.5 * 0.1 / 10, "restarts": 1, "random_start": True}
    said |= {"targeted": False, "loss": "ce", "early_stop": False, "seed": 0}
    assert torch.equal(attacks.pgd(victim, x, y, 0.1), attacks.pgd(victim, x, y, 0.1, **said))
    assert torch.equal(attacks.fgsm(victim, x, y, 0.1), attacks.fgsm(victim, x, y, 0.1, norm="linf", targeted=False))
    del said["loss"], said["targeted"]

    def score(points):
        return (points - 0.5).square().flatten(1).sum(1)

    said |= {"steps": 40, "step_size": 2.5 * 0.1 / 40, "weights": (0.0, 0.2, 0.5), "scale": score(x).std(correction=0)}
    ours = attacks.adaptive(victim, x, y, 0.1, score, 4.0)
    assert torch.equal(ours, attacks.adaptive(victim, x, y, 0.1, score, 4.0, **{**said, "scale": float(said["scale"])}))


def test_radii_and_steps_beyond_all_images_are_as_good_as_infinite(victim, inputs):
    x, y = inputs[0][:8], inputs[1][:8]
    for norm in attacks.NORMS:
        far, farther = (attacks.pgd(victim, x, y, 1.0, norm=norm, step_size=size, steps=3) for size in (1e6, 1e30))
        assert torch.equal(far, farther)
        far, farther = (attacks.fgsm(victim, x, y, eps, norm=norm) for eps in (1e6, 1e30))
        assert torch.equal(far, farther) and torch.isfinite(far).all()


def test_adaptive_names_what_it_cannot_take(victim, inputs):
    x, y = inputs[0][:4], inputs[1][:4]

    def score(points):
        return points.flatten(1).sum(1)

    attacks.adaptive(victim, x, y, 0.1, score, 0.0, weights=[0], steps=1)
    for changes, kind, message in [
        ({"score": 3}, TypeError, "score must be callable, got int"),
        ({"threshold": -torch.inf}, ValueError, "threshold must be finite"),
        ({"weights": ()}, ValueError, "weights must be at least one number"),
        ({"weights": [-0.5]}, ValueError, r"weights must be in \[0, inf\], got -0.5"),
        ({"scale": 0.0}, ValueError, r"scale must be in \(0, inf\], got 0.0"),
        ({"score": lambda x: x.flatten(1)}, ValueError, r"score must map .* got \(4, 64\) for N = 4"),
        ({"score": lambda x: score(x) * torch.nan}, ValueError, "score must map .* to finite numbers"),
        ({"score": lambda x: [1.0] * len(x)}, ValueError, "got list for N = 4"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"restarts": 0}, ValueError, "restarts must be at least 1, got 0"),
        ({"step_size": -1.0}, ValueError, r"step_size must be in \[0, inf\], got -1.0"),
    ]:
        given = {"score": score, "threshold": 0.0, **changes}
        with pytest.raises(kind, match=message):
            attacks.adaptive(victim, x, y, 0.1, **given)


def test_a_score_that_does_not_vary_has_scale_1(victim, inputs):
    x, y = inputs[0][:8], inputs[1][:8]

    def score(points):
        return 0 * points.flatten(1).sum(1) + 3

    ours, theirs = (attacks.adaptive(victim, x, y, 0.1, score, 4.0, scale=s, steps=3) for s in (None, 1.0))
    assert torch.equal(ours, theirs)
    assert attacks.adaptive(victim, x[:0], y[:0], 0.1, score, 4.0).shape == x[:0].shape
