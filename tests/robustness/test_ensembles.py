import copy
import math

import pytest
import torch
from torch import nn

from sparselib import models, pruning, training
from sparselib.detection import detectors
from sparselib.robustness import attacks, certify
from sparselib.robustness.ensembles import Ensemble


class Fixed(nn.Module):
    """Gives the same logits for every input."""

    def __init__(self, logits):
        super().__init__()
        self.register_buffer("logits", torch.tensor(logits))

    def forward(self, x):
        return self.logits.expand(len(x), -1) + 0 * x.flatten(1)[:, :1]


@pytest.fixture(scope="module")
def mixed(trained):
    """A dense network, a sparse one and one of another architecture, which does not know the digits."""
    lenet = models.build("lenet5", in_channels=1, num_classes=10, image_size=8, seed=3)
    return Ensemble([copy.deepcopy(trained), pruning.prune(trained, "magnitude", 0.7), lenet]).eval()


def test_averages_probabilities(mixed, test):
    x = test.x[:32].double()
    double = copy.deepcopy(mixed).double()
    expected = sum(member(x).softmax(1) for member in double.members) / 3
    torch.testing.assert_close(double(x).exp(), expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(double(x).softmax(1), expected, rtol=1e-12, atol=1e-15)


def test_disagreement_is_the_mutual_information(mixed, test):
    x = test.x[:32].double()
    double = copy.deepcopy(mixed).double()
    p = torch.stack([member(x).softmax(1) for member in double.members])  # (M, N, K)

    def entropy(q):
        return torch.distributions.Categorical(probs=q).entropy()

    expected = entropy(p.mean(0)) - entropy(p).mean(0)
    assert expected.min() > 0.01
    torch.testing.assert_close(double.disagreement(x), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(double.disagreement(x, batch_size=5), expected, rtol=1e-9, atol=1e-12)


def test_rounding_does_not_make_it_negative(trained, test):
    same = Ensemble([trained] * 3).disagreement(test.x)
    assert same.min() >= 0 and same.max() < 1e-5


def test_closed_forms_at_the_extremes():
    x = torch.rand(3, 1, 2, 2)
    split = Ensemble([Fixed([1e4, 0.0, 0.0]), Fixed([0.0, 1e4, 0.0])])
    assert torch.isfinite(split(x)).all()
    torch.testing.assert_close(split(x)[:, :2], torch.full((3, 2), -math.log(2)))
    torch.testing.assert_close(split.disagreement(x), torch.full((3,), math.log(2)))
    for logits in ([1.0, 2.0, -3.0], [1e4, 0.0, -1e4], [0.0, 0.0, 0.0]):
        same = Ensemble([Fixed(logits)] * 4)
        torch.testing.assert_close(same.disagreement(x), torch.zeros(3), rtol=0, atol=1e-6)
        assert same.disagreement(x).min() >= 0
        torch.testing.assert_close(same(x)[0], torch.tensor(logits).log_softmax(0))


def test_one_member_changes_nothing_for_attacks_detectors_and_certificates(trained, test):
    x, y = test.x[:16].double(), test.y[:16]
    alone = copy.deepcopy(trained).double()
    one = Ensemble([alone])
    for loss in attacks.LOSSES:
        ours, theirs = (attacks.pgd(net, x, y, 0.1, loss=loss, steps=5) for net in (one, alone))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    for name in ("msp", "sensnorm"):
        ours, theirs = (detectors.build(name).fit(net).score(x) for net in (one, alone))
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)
    ours, theirs = (certify.certify(net, x[:4], 0.2, n0=20, n=50) for net in (one, alone))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_mixed_members_serve_as_any_model(mixed, test):
    x, y = test.x[:64], test.y[:64]
    clean = (training.logits(mixed, x).argmax(1) == y).double().mean()
    adversarial = attacks.pgd(mixed, x, y, 0.15)
    assert clean > 0.9 and (training.logits(mixed, adversarial).argmax(1) == y).double().mean() < clean - 0.3
    expected = -torch.stack([m(x).softmax(1) for m in mixed.members]).mean(0).amax(1)
    torch.testing.assert_close(detectors.build("msp").fit(mixed).score(x), expected.detach(), rtol=1e-5, atol=1e-6)
    assert detectors.build("sensnorm").fit(mixed).score(x[:8]).min() > 0
    assert (certify.certify(mixed, x[:4], 0.1, n0=20, n=50)[0] >= certify.ABSTAIN).all()


def test_modes_and_random_state_are_left_alone(trained, test):
    members = [copy.deepcopy(trained).train(), copy.deepcopy(trained).eval()]
    statistics = [b.clone() for b in members[0].buffers()]
    ensemble = Ensemble(members)
    state = torch.random.get_rng_state()
    assert not ensemble.disagreement(test.x[:8]).requires_grad
    assert members[0].training and not members[1].training
    assert all(torch.equal(a, b) for a, b in zip(statistics, members[0].buffers(), strict=True))
    assert torch.equal(state, torch.random.get_rng_state())
    assert ensemble.disagreement(test.x[:0]).shape == (0,) and ensemble.eval()(test.x[:0]).shape == (0, 10)


def test_bad_members_are_named(trained, test):
    with pytest.raises(ValueError, match="members must hold at least 1 network, got none"):
        Ensemble([])
    with pytest.raises(TypeError, match=r"members\[1\] must be an nn.Module, got str"):
        Ensemble([trained, "resnet8"])
    other = models.build("convnet", in_channels=1, num_classes=4, image_size=8, width=4)
    with pytest.raises(ValueError, match=r"same K classes, got shapes \[\(2, 10\), \(2, 4\)\]"):
        Ensemble([trained, other])(test.x[:2])
    broken = copy.deepcopy(trained)
    with torch.no_grad():
        broken[-1].bias[0] = math.nan
    with pytest.raises(ValueError, match="logits that are NaN or infinite"):
        Ensemble([trained, broken]).disagreement(test.x[:2])
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        Ensemble([nn.Sequential(nn.Flatten(), nn.Linear(64, 1))] * 2).disagreement(test.x[:2])
    with pytest.raises(ValueError, match=r"members\[1\], must be on the device of the model, meta, got cpu"):
        Ensemble([trained, copy.deepcopy(trained).to("meta")]).disagreement(test.x[:2])
    with pytest.raises(ValueError, match="x must be finite"):
        Ensemble([trained]).disagreement(test.x[:2] * math.nan)
