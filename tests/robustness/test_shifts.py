import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_images

from sparselib import seeds
from sparselib.robustness import shifts

DETERMINISTIC = {*("defocus_blur", "zoom_blur", "brightness", "contrast", "jpeg", "stripe")}
each_kind = pytest.mark.parametrize("kind", shifts.KINDS)


def _photos(n, size):
    """Crops of scikit-learn's two sample photographs, four photograph pixels to one (one at size 224)."""
    rng = np.random.default_rng(0)
    zoom = 4 if size < 100 else 1
    crops = []
    for i in range(n):
        photo = load_sample_images().images[i % 2] / 255
        top, left = (rng.integers(extent - size * zoom + 1) for extent in photo.shape[:2])
        crop = photo[top : top + size * zoom, left : left + size * zoom]
        crops.append(crop.reshape(size, zoom, size, zoom, 3).mean((1, 3)).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(crops)).float()


def _smooth(n, size, sigma):
    """Random smooth grey images that span [0, 1]."""
    x = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((n, 1, size, size)), (0, 0, sigma, sigma))
    x -= x.min((2, 3), keepdims=True)
    return torch.from_numpy(x / x.max((2, 3), keepdims=True)).float()


@pytest.fixture(scope="module")
def pictures(test):
    return {"digits": test.x[:48], "smooth": _smooth(20, 28, 2), "photos": _photos(10, 32)}


def _distance(x, shifted):
    return (shifted - x).flatten(1).norm(dim=1)


def _grey(value, *shape):
    return torch.full(shape, value, dtype=torch.float64)


def _ramp(n):
    """(1, 1, n, n) with distinct values everywhere."""
    return torch.linspace(0.2, 0.9, n * n, dtype=torch.float64).view(1, 1, n, n)


# --- what all kinds promise ---


@each_kind
def test_distance_to_the_clean_image_grows_strictly_with_severity(kind, pictures):
    for name, x in pictures.items():
        shifted = [shifts.corrupt(x, kind, severity) for severity in (1, 2, 3, 4, 5)]
        distances = [0.0, *(_distance(x, s).mean().item() for s in shifted)]
        assert all(a < b for a, b in zip(distances, distances[1:], strict=False)), (name, distances)
        assert all(s.min() >= 0 and s.max() <= 1 and s.shape == x.shape for s in shifted)
        # At severity 1 most of the image is left, at severity 5 something.
        assert distances[1] < 0.6 * _distance(x, torch.zeros_like(x)).mean()
        assert shifted[-1].flatten(1).std(1).mean() > 0.01


@each_kind
def test_image_depends_on_itself_its_index_and_the_seed_alone(kind, monkeypatch):
    x = torch.rand(5, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    whole = shifts.corrupt(x, kind, 3)
    assert torch.equal(whole, shifts.corrupt(x, kind, 3))
    for n in (1, 4):
        assert torch.equal(whole[:n], shifts.corrupt(x[:n], kind, 3))
    others = x.clone()
    others[[0, 1, 2, 4]] = 1 - others[[0, 1, 2, 4]]
    assert torch.equal(whole[3], shifts.corrupt(others, kind, 3)[3])
    monkeypatch.setattr(shifts, "VALUES_AT_ONCE", 800)  # two images at once
    assert torch.equal(whole, shifts.corrupt(x, kind, 3))
    same = x[:1].repeat(8, 1, 1, 1)
    draws = len(shifts.corrupt(same, kind, 5).unique(dim=0))
    assert draws == 1 if kind in DETERMINISTIC else draws > 1
    assert torch.equal(shifts.corrupt(same, kind, 5, seed=1), shifts.corrupt(same, kind, 5)) == (kind in DETERMINISTIC)


@each_kind
def test_caller_is_left_as_found(kind):
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    before, numpy_state, torch_state = x.detach().clone(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    shifted = shifts.corrupt(x, kind, 2)
    assert torch.equal(x, before) and not shifted.requires_grad and shifted.dtype == torch.float64
    shifted.fill_(0)
    assert torch.equal(x, before)  # no shared memory
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002
    half = shifts.corrupt(before.half(), kind, 2)
    assert half.dtype == torch.float16 and half.min() >= 0 and half.max() <= 1
    turned = before.transpose(2, 3)  # not contiguous
    assert torch.equal(shifts.corrupt(turned, kind, 2), shifts.corrupt(turned.contiguous(), kind, 2))


@each_kind
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_empty_batch_gives_empty_result(kind, shape):
    assert shifts.corrupt(torch.zeros(0, *shape), kind, 1).shape == (0, *shape)


@each_kind
def test_large_colour_image(kind):
    x = _photos(1, 224)
    mild, strong = (shifts.corrupt(x, kind, severity) for severity in (1, 5))
    assert 0 < _distance(x, mild) < _distance(x, strong)
    assert strong.min() >= 0 and strong.max() <= 1 and strong.std() > 0.01


SCALED = ["motion_blur", "zoom_blur", "pixelate", "rotate", "translate", "stripe"]


@pytest.mark.parametrize("kind", [*SCALED, "defocus_blur"])
def test_same_picture_is_changed_alike_at_two_sizes(kind):
    large = _smooth(16, 64, 10).double()
    small = torch.nn.functional.avg_pool2d(large, 2)
    change = [_distance(x, shifts.corrupt(x, kind, 5)).mean() / x.shape[2] for x in (small, large)]
    assert change[1] / change[0] == pytest.approx(1, abs=0.6 if kind == "pixelate" else 0.3)


@pytest.mark.parametrize("kind", ["defocus_blur", "motion_blur", "zoom_blur", "contrast", "pixelate"])
@pytest.mark.parametrize("size", [8, 28, 70])
def test_flat_image_stays(kind, size):
    flat = _grey(0.3, 2, 3, size, size)
    for severity in (1, 5):
        torch.testing.assert_close(shifts.corrupt(flat, kind, severity), flat, rtol=0, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["gaussian_noise", "motion_blur", "jpeg"])
def test_device_does_not_change_the_bytes(kind):
    x = _photos(3, 32)
    shifted = shifts.corrupt(x.cuda(), kind, 4)
    assert shifted.is_cuda and torch.equal(shifted.cpu(), shifts.corrupt(x, kind, 4))


# --- closed forms and oracles ---


@pytest.mark.parametrize(("severity", "sigma"), list(enumerate([0.04, 0.06, 0.08, 0.09, 0.10], 1)))
def test_gaussian_noise_has_its_sigma_and_one_draw_for_all_severities(severity, sigma):
    flat = _grey(0.5, 10, 3, 32, 32)
    noise = shifts.corrupt(flat, "gaussian_noise", severity) - flat
    assert noise.std().item() == pytest.approx(sigma, rel=0.01) and abs(noise.mean().item()) < 1e-3
    first = seeds.numpy_generator(0, "shift", "gaussian_noise", 0).standard_normal((3, 32, 32))
    np.testing.assert_allclose(noise[0].numpy(), sigma * first.clip(-0.5 / sigma, 0.5 / sigma), atol=1e-12)


@pytest.mark.parametrize(("severity", "photons"), list(enumerate([500, 250, 100, 75, 50], 1)))
def test_shot_noise_has_the_moments_of_a_poisson(severity, photons):
    shifted = shifts.corrupt(_grey(0.4, 30, 1, 32, 32), "shot_noise", severity)
    assert shifted.mean().item() == pytest.approx(0.4, rel=0.005)
    assert shifted.var().item() == pytest.approx(0.4 / photons, rel=0.05)
    assert torch.allclose(shifted * photons, (shifted * photons).round(), atol=1e-9)


def test_impulse_noise_hits_its_share_and_keeps_the_hits_of_lower_severities():
    flat = _grey(0.5, 10, 3, 32, 32)
    shifted = [shifts.corrupt(flat, "impulse_noise", severity) for severity in (1, 2, 3, 4, 5)]
    for x, share in zip(shifted, (0.01, 0.02, 0.03, 0.05, 0.07), strict=True):
        assert (x == 0).double().mean().item() == pytest.approx(share / 2, rel=0.2)
        assert (x == 1).double().mean().item() == pytest.approx(share / 2, rel=0.2)
        assert ((x == 0) | (x == 0.5) | (x == 1)).all()
    for weak, strong in zip(shifted, shifted[1:], strict=False):
        assert torch.equal(weak[weak != 0.5], strong[weak != 0.5])


def test_defocus_blur_is_the_benchmarks_disk_at_its_size():
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    box = ndimage.uniform_filter(x.numpy(), (1, 1, 3, 3), mode="mirror")  # a disk of radius 1.5 has all nine pixels
    np.testing.assert_allclose(shifts.corrupt(x, "defocus_blur", 5).numpy(), box, atol=1e-12)
    dot = _grey(0.0, 1, 1, 33, 33)
    dot[..., 16, 16] = 1
    plus = shifts.corrupt(dot, "defocus_blur", 4)  # radius 1: five pixels of a fifth each, at 33/32 of the distance
    assert plus[..., 16, 16].item() == pytest.approx(0.2, abs=1e-4)
    assert plus.sum().item() == pytest.approx(1)
    assert torch.equal(plus, plus.flip(2)) and torch.allclose(plus, plus.transpose(2, 3), atol=1e-15)


@pytest.mark.parametrize(("size", "severity", "sigma"), [(32, 1, 1), (32, 5, 2.5), (64, 2, 3), (16, 5, 1.25)])
def test_motion_blur_trails_half_a_gaussian_within_45_degrees(size, severity, sigma):
    dots = _grey(0.0, 12, 1, size, size)
    dots[..., size // 2, size // 2] = 1
    blurred = shifts.corrupt(dots, "motion_blur", severity).squeeze(1)
    assert torch.allclose(blurred.sum((1, 2)), torch.ones(12).double())
    where = torch.arange(size).double() - size // 2
    down, right = (blurred.sum(2) * where).sum(1), (blurred.sum(1) * where).sum(1)  # the centre of mass
    step = min(size / 32, 1)  # between the taps
    trail = np.arange(0, 4 * sigma, step)
    weights = np.exp(-((trail / sigma) ** 2) / 2)
    np.testing.assert_allclose(torch.hypot(down, right).numpy(), (trail * weights).sum() / weights.sum(), rtol=1e-6)
    angle = torch.atan2(down, right.abs())
    assert angle.abs().max() <= math.pi / 4 and angle.max() > 0.2 and angle.min() < -0.2
    assert (right > 0).all() or (right < 0).all()


def test_zoom_blur_flattens_a_ramp_by_the_mean_of_the_factors():
    column = torch.arange(33).double() - 16
    ramp = (0.5 + column / 64).expand(1, 1, 33, 33)
    for severity, last in enumerate((1.06, 1.11, 1.16, 1.21, 1.26), 1):
        factors = np.linspace(1, last, round((last - 1) / 0.01) + 1)
        slope = (1 + (1 / factors).sum()) / (len(factors) + 1)
        expected = 0.5 + slope * (ramp - 0.5)
        torch.testing.assert_close(shifts.corrupt(ramp, "zoom_blur", severity), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("severity", "amount"), list(enumerate([0.2, 0.5, 0.75, 1, 1.5], 1)))
def test_fog_spans_its_range_and_is_the_same_for_all_channels(severity, amount):
    fogged = shifts.corrupt(_grey(1.0, 3, 3, 28, 40), "fog", severity)
    fog = (fogged * (1 + amount) - 1) / amount
    for image in fog:
        assert image.min().item() == pytest.approx(0, abs=1e-12) and image.max().item() == pytest.approx(1)
    assert torch.equal(fogged[:, 0], fogged[:, 2]) and not torch.allclose(fog[0], fog[1], atol=0.1)
    along = (fog[..., 1:] - fog[..., :-1]).abs().mean()
    apart = (fog[..., 20:] - fog[..., :-20]).abs().mean()
    assert along < apart / 2  # neighbours are alike


@pytest.mark.parametrize(("severity", "amount"), list(enumerate([0.05, 0.1, 0.15, 0.2, 0.3], 1)))
def test_brightness_is_added_to_the_value_of_hsv(severity, amount):
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    x[0, :, 0, 0] = 0
    brighter = shifts.corrupt(x, "brightness", severity)
    for before, after in zip(x.permute(0, 2, 3, 1).reshape(-1, 3), brighter.permute(0, 2, 3, 1).reshape(-1, 3)):  # noqa: B905
        hue, saturation, value = colorsys.rgb_to_hsv(*before.tolist())
        expected = colorsys.hsv_to_rgb(hue, saturation, min(value + amount, 1))
        assert after.tolist() == pytest.approx(expected, abs=1e-12)
    grey = x[:, :1]
    torch.testing.assert_close(shifts.corrupt(grey, "brightness", severity), (grey + amount).clamp(max=1))


@pytest.mark.parametrize(("severity", "factor"), list(enumerate([0.75, 0.5, 0.4, 0.3, 0.15], 1)))
def test_contrast_shrinks_towards_the_mean_of_each_channel(severity, factor):
    x = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    mean = x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(shifts.corrupt(x, "contrast", severity), factor * x + (1 - factor) * mean)


@pytest.mark.parametrize(("severity", "share"), list(enumerate([0.95, 0.9, 0.85, 0.75, 0.65], 1)))
def test_pixelate_paints_cells_with_their_mean(severity, share):
    x = torch.rand(120, 1, 8, 32, dtype=torch.float64)
    blocky = shifts.corrupt(x, "pixelate", severity)
    torch.testing.assert_close(blocky, shifts.corrupt(blocky, "pixelate", severity))  # the same cells once more
    torch.testing.assert_close(blocky.mean((2, 3)), x.mean((2, 3)))
    shared = torch.isclose(blocky[..., 1:], blocky[..., :-1]).all(2).double()  # (N, 1, W − 1): neighbours in one cell
    assert shared.mean().item() == pytest.approx(1 - share, abs=0.01)
    assert abs(shared.mean((0, 1)) - (1 - share)).max() < 0.12  # wherever they lie
    assert shared.sum(2).max() - shared.sum(2).min() <= 1


@pytest.mark.parametrize(("severity", "quality"), list(enumerate([80, 65, 58, 50, 40], 1)))
def test_jpeg_is_pillows(severity, quality):
    for x in (_photos(2, 32), _smooth(2, 28, 2)):
        shifted = shifts.corrupt(x, "jpeg", severity)
        for before, after in zip((x.double() * 255).round().byte().permute(0, 2, 3, 1).numpy(), shifted, strict=True):
            file = io.BytesIO()
            Image.fromarray(before.squeeze()).save(file, format="jpeg", quality=quality)
            decoded = torch.from_numpy(np.array(Image.open(file))).view(before.shape).permute(2, 0, 1)
            assert torch.equal((after * 255).round().byte(), decoded)


@pytest.mark.parametrize(("severity", "angle"), list(enumerate([0.15, 0.3, 0.45, 0.6, 0.75], 1)))
def test_rotation_is_pillows_and_keeps_the_centre(severity, angle):
    x = _smooth(1, 33, 3).double().repeat(6, 1, 1, 1)
    turned = shifts.corrupt(x, "rotate", severity)
    assert torch.allclose(turned[..., 16, 16], x[..., 16, 16])
    image = Image.fromarray(x[0, 0].float().numpy())
    inside = np.hypot(*(np.indices((33, 33)) - 16)) < 15
    sides = set()
    for result in turned[:, 0].numpy():
        errors = [
            np.abs(result - np.array(image.rotate(side * math.degrees(angle), Image.Resampling.BILINEAR)))[inside].max()
            for side in (-1, 1)
        ]
        assert min(errors) < 1e-4
        sides.add(int(np.argmin(errors)))
    assert sides == {0, 1}
    assert (turned[..., 0, 0] == 0).all()  # black comes in at the corners


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_translate_moves_pixels_of_a_28_wide_image_by_severity(severity):
    x, s = _ramp(28), severity
    moved = shifts.corrupt(x.repeat(20, 1, 1, 1), "translate", severity)
    black = torch.nn.functional.pad(x, (s, s, s, s))
    expected = [black[..., i : i + 28, j : j + 28] for i in (0, 2 * s) for j in (0, 2 * s)]
    found = [[torch.allclose(image, e[0], atol=1e-12) for e in expected] for image in moved]
    assert all(sum(row) == 1 for row in found) and all(any(column) for column in zip(*found, strict=True))


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_stripe_inverts_the_edges_up_to_a_quarter_each(severity):
    x = torch.rand(2, 1, 9, 20, dtype=torch.float64)
    expected, s = x.clone(), severity
    expected[..., :s], expected[..., -s:] = 1 - x[..., :s], 1 - x[..., -s:]
    torch.testing.assert_close(shifts.corrupt(x, "stripe", severity), expected)


# --- bad input ---


def test_bad_arguments_are_named():
    x = torch.rand(2, 1, 8, 8)
    with pytest.raises(ValueError, match="unknown kind 'gausian_noise'; did you mean 'gaussian_noise'"):
        shifts.corrupt(x, "gausian_noise", 1)
    for severity in (0, 6):
        with pytest.raises(ValueError, match=f"severity must be in 1..5, got {severity}"):
            shifts.corrupt(x, "fog", severity)
    for severity in (1.0, True, "1", None):
        with pytest.raises(TypeError, match="severity must be an int"):
            shifts.corrupt(x, "fog", severity)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        shifts.corrupt(x, "contrast", 1, seed=-1)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="x must be finite"):
            shifts.corrupt(torch.full((1, 1, 8, 8), bad), "contrast", 1)
    for bad in (x * 255, x - 1):
        with pytest.raises(ValueError, match=r"x must lie in \[0, 1\]"):
            shifts.corrupt(bad, "contrast", 1)
    for bad in (x.numpy(), (x * 255).byte()):
        with pytest.raises(TypeError, match="x must be (a floating point tensor|of type Tensor)"):
            shifts.corrupt(bad, "contrast", 1)
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\)"):
        shifts.corrupt(x[0], "contrast", 1)
    for shape in ((1, 2, 8, 8), (1, 1, 7, 8), (0, 1, 8, 7)):
        with pytest.raises(ValueError, match="1 or 3 channels and at least 8×8"):
            shifts.corrupt(torch.zeros(shape), "contrast", 1)


def test_memory_beside_input_and_result_does_not_grow(monkeypatch):
    import tracemalloc

    monkeypatch.setattr(shifts, "VALUES_AT_ONCE", 64)
    peaks = []
    for n in (8, 64):
        x = torch.rand(n, 1, 8, 8)
        shifts.corrupt(x[:1], "contrast", 3)
        tracemalloc.start()  # counts what NumPy takes; the input and the result are torch's
        shifts.corrupt(x, "contrast", 3)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
