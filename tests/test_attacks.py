import eagerpy
import foolbox
import pytest
import torch
from foolbox import attacks as oracle

from sparselib import attacks, models, training

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
    assert attacks._loss(logits, y, "margin", False).tolist() == [-3.0, 3.0]
    assert attacks._loss(logits, y, "margin", True).tolist() == [3.0, -3.0]


def test_l2_start_is_uniform_in_the_ball():
    from sparselib import seeds

    start = attacks._random_in_ball(torch.zeros(20000, 1, 1, 2), 2.0, "l2", seeds.generator(0, "t"))
    radius = start.flatten(1).norm(dim=1)
    assert radius.max() <= 2
    assert abs((radius <= 1).float().mean() - 0.25) < 0.02  # area grows with r²


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


def test_empty_batch_gives_empty_result(trained, test):
    for attack in (attacks.fgsm, attacks.pgd):
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
    for kind, message, call in bad:
        with pytest.raises(kind, match=message):
            call()
    assert models.device_of(trained).type == "cpu"
