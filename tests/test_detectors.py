import copy

import pytest
import torch
import torch.nn.functional as F

from sparselib import data, detectors, masks, models, pruning, sensitivity


def _one_at_a_time(net, x, y, norm):
    """SensNorm by a loop of single-sample backward passes: the definition, spelt out."""
    net = copy.deepcopy(net).eval()
    values = []
    for xi, yi in zip(x, y, strict=True):
        net.zero_grad()
        F.cross_entropy(net(xi[None]), yi[None]).backward()
        saliency = [(masks.original(m).grad * m.weight).detach().flatten() for m in masks.prunable(net).values()]
        values.append(torch.cat(saliency).norm(p=norm))
    return torch.stack(values)


@pytest.mark.parametrize("norm", [1, 2, 5, torch.inf])
def test_sensnorm_equals_single_sample_backward_passes(grouped, norm):
    x = torch.rand(9, 2, 8, 8, dtype=torch.float64)
    y = grouped(x).argmax(1)
    sparse = pruning.prune(grouped, "magnitude", 0.6)
    for net in (grouped, sparse):
        ours = sensitivity.snip_norm(net, x, y, norm=norm)
        torch.testing.assert_close(ours, _one_at_a_time(net, x, y, norm), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name, channels, size", [("resnet8", 1, 28), ("lenet5", 1, 8), ("vgg16", 3, 32)])
def test_sensnorm_on_every_kind_of_network(name, channels, size):
    net = models.build(name, in_channels=channels, num_classes=4, image_size=size, width=4).double()
    x = torch.rand(3, channels, size, size, dtype=torch.float64)
    detector = detectors.build("sensnorm").fit(net)
    predicted = net.eval()(x).argmax(1)
    torch.testing.assert_close(detector.score(x), _one_at_a_time(net, x, predicted, 2), rtol=1e-9, atol=0)


def test_score_depends_on_neither_batch_nor_budget_nor_mode(trained, test):
    x = test.x[:20]
    net = copy.deepcopy(trained)
    detector = detectors.build("sensnorm").fit(net)
    together = detector.score(x)
    net.train()
    torch.testing.assert_close(detector.score(x), together, rtol=1e-6, atol=0)
    assert net.training
    alone = torch.cat([detector.score(xi[None]) for xi in x])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-9)
    tight = sensitivity.snip_norm(net, x, trained(x).argmax(1), budget=1)
    torch.testing.assert_close(tight, together, rtol=1e-5, atol=1e-9)


def test_msp_and_energy_are_their_formulas(trained, test):
    x = test.x[:30]
    z = trained(x).detach()
    p = z.exp() / z.exp().sum(1, keepdim=True)
    torch.testing.assert_close(detectors.build("msp").fit(trained).score(x), -p.max(1).values)
    energy = detectors.build("energy", temperature=2.0).fit(trained)
    torch.testing.assert_close(energy.score(x), -2 * (z / 2).exp().sum(1).log())


def test_higher_is_more_anomalous(trained, test):
    outliers = data.outliers("mixed", test, n=100).x
    for name in detectors.NAMES:
        detector = detectors.build(name).fit(trained)
        assert detector.score(outliers).median() > detector.score(test.x[:100]).median(), name
        assert detector.score(test.x[:0]).shape == (0,)


def test_bad_use_is_named(trained, test):
    with pytest.raises(ValueError, match="unknown detector 'mspp'; did you mean 'msp'"):
        detectors.build("mspp")
    with pytest.raises(ValueError, match="unknown criterion 'magnitude'"):
        detectors.SensNorm(criterion="magnitude")
    with pytest.raises(ValueError, match=r"norm must be in \(0, inf\], got 0"):
        detectors.SensNorm(norm=0)
    with pytest.raises(RuntimeError, match="must be fitted before it scores"):
        detectors.build("energy").score(test.x)
    with pytest.raises(ValueError, match="x must be finite"):
        detectors.build("msp").fit(trained).score(test.x * torch.nan)
    broken = copy.deepcopy(trained)
    with torch.no_grad():
        broken[-1].bias[0] = torch.nan
    with pytest.raises(ValueError, match="logits that are NaN"):
        detectors.build("sensnorm").fit(broken).score(test.x[:3])
