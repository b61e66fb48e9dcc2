import copy

import pytest
import torch
import torch.nn.functional as F
from masking import EPS, MASKED, Around, right

from sparselib import data, models, seeds, training
from sparselib.robustness import attacks, sanity

DEAD = {"the largest eps leaves nothing", "white-box at least as strong as noise", "gradients are not zero"}


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_an_honest_network_is_sane(trained, test, norm):
    samples = test.take(slice(0, 200))
    report = sanity.check(trained, samples, eps=EPS[norm] * 0.5, norm=norm)
    assert report.passed and report.failed == () and len(report.checks) == 7, str(report)
    numbers = {check.name: check.numbers for check in report.checks}
    assert numbers["eps 0 equals clean"]["clean"] == training.accuracy(trained, samples)
    ours = attacks.pgd(trained, samples.x, samples.y, EPS[norm] * 0.5, norm=norm, steps=20)
    accuracy = right(trained, ours, samples.y).double().mean().item()
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


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_every_number_of_a_report_is_what_its_name_says(trained, test, norm):
    net, few, eps, seed = copy.deepcopy(trained).double(), test.take(slice(0, 50)), EPS[norm] * 2, 3
    few = data.Samples(few.x.double(), few.y, few.classes, few.name)
    x, y = few.x, few.y

    def pgd(radius, loss="ce", against=net):
        found = attacks.pgd(against, x, y, radius, norm=norm, steps=20, loss=loss, seed=seed)
        return right(net, found, y).double().mean().item()

    clean, white, whole = training.accuracy(net, few), pgd(eps), 1.0 if norm == "linf" else 8.0
    fgsm = right(net, attacks.fgsm(net, x, y, eps, norm=norm), y).double().mean().item()
    curve = {f"eps {r:.3g}": pgd(r) if r else clean for r in (0, eps / 4, eps / 2, eps, 2 * eps)}
    rng, standing = seeds.generator(seed, "sanity noise"), torch.ones(50, dtype=torch.bool)
    for _ in range(100):
        noise = torch.randn(x.shape, generator=rng).double()
        noise = noise.sign() if norm == "linf" else noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        standing &= right(net, (x + eps * noise).clamp(0, 1), y)
    noise = standing.double().mean().item()
    assert white < fgsm and noise < clean and len(set(curve.values())) > 2, "numbers that tell them apart"
    expected = {
        "eps 0 equals clean": {"clean": clean, "fgsm": clean, "pgd": clean},
        "accuracy falls with eps": curve,
        "PGD at least as strong as FGSM": {"fgsm": fgsm, "pgd": white},
        "the largest eps leaves nothing": {f"eps {whole:.3g}": pgd(whole)},
        "white-box at least as strong as noise": {"noise": noise, "pgd": white},
        "gradients are not zero": {"share of samples without gradient": 0, "of a saturated cross-entropy": 0},
        "cross-entropy and margin agree": {"ce": white, "margin": pgd(eps, "margin")},
    }
    report = sanity.check(net, few, eps=eps, norm=norm, seed=seed)
    assert {check.name: check.numbers for check in report.checks} == expected and report.passed
    other = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=8, seed=1).double()
    training.fit(other, few, epochs=5, progress=False)
    [transfer] = [
        check.numbers
        for check in sanity.check(net, few, eps=eps, norm=norm, seed=seed, transfer_from=other).checks
        if "transfer" in check.name
    ]
    assert transfer == {"transfer": pgd(eps, against=other), "pgd": white} and transfer["transfer"] < clean


def test_samples_without_gradient_and_without_loss_are_counted(trained, test):
    """Of a third of the inputs the gradient is stopped, and the logits are a thousand times as large."""
    few = test.take(slice(0, 300))  # in two batches
    level = few.x.mean((1, 2, 3))
    stopped = level > level.quantile(2 / 3)

    def part(inner, x):
        z, dead = inner(x), x.mean((1, 2, 3)) > level.quantile(2 / 3)
        return torch.where(dead[:, None], 1000 * z.detach(), z)

    net = Around(trained, part)
    numbers = sanity.check(net, few, eps=0.01).checks[5].numbers
    assert numbers["share of samples without gradient"] == stopped.sum().item() / 300
    zero = F.cross_entropy(net(few.x), few.y, reduction="none") == 0
    assert numbers["of a saturated cross-entropy"] == zero.sum().item() / 300
    assert 0.2 < zero.float().mean() < 0.4


def test_losses_that_lead_to_accuracies_apart_by_more_than_a_twentieth_are_reported(trained, test):
    """The soft maximum of the other logits follows an eleventh one that is never the highest; the hard one does not."""
    few = test.take(slice(0, 60))

    def lured(inner, x):
        z = inner(x)
        top = z.detach().topk(2, 1).values[:, 1:]
        lure = top - 1e-3 - 100 * x.flatten(1).mean(1, keepdim=True)
        return torch.cat([z, (lure - lure.detach()) + top - 1e-3], 1)

    report = sanity.check(Around(trained, lured), few, eps=0.1)
    numbers = report.checks[6].numbers
    assert report.checks[6].passed is (abs(numbers["ce"] - numbers["margin"]) <= 0.05)
    assert not report.checks[6].passed, numbers
