import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_images

from sparselib import data, seeds
from sparselib.robustness import shifts

DETERMINISTIC = {*("defocus_blur", "zoom_blur", "brightness", "contrast", "jpeg", "scale", "stripe", "canny_edges")}
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


def test_families_are_a_partition_of_the_kinds():
    assert sorted(k for family in shifts.FAMILIES.values() for k in family) == sorted(shifts.KINDS)
    assert len(set(shifts.KINDS)) == len(shifts.KINDS) >= 16


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


SCALED = ["motion_blur", "zoom_blur", "pixelate", "rotate", "shear", "scale", "translate", "stripe", "canny_edges"]


@pytest.mark.parametrize("kind", [*SCALED, "defocus_blur", "spatter", "dotted_line", "zigzag"])
def test_same_picture_is_changed_alike_at_two_sizes(kind):
    large = _smooth(16, 64, 10).double()
    small = torch.nn.functional.avg_pool2d(large, 2)
    change = [_distance(x, shifts.corrupt(x, kind, 5)).mean() / x.shape[2] for x in (small, large)]
    assert change[1] / change[0] == pytest.approx(1, abs=0.6 if kind in ("pixelate", "canny_edges") else 0.3)


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


def test_spatter_covers_its_share_with_mud_and_spreads_with_severity():
    for white, mud in ((_grey(1.0, 3, 1, 40, 40), [63]), (_grey(1.0, 3, 3, 40, 40), [63, 42, 20])):
        covered = [shifts.corrupt(white, "spatter", severity) for severity in (1, 2, 3, 4, 5)]
        for x, share in zip(covered, (0.05, 0.1, 0.15, 0.2, 0.3), strict=True):
            spots = x[:, 0] < 1
            assert torch.allclose(spots.double().mean((1, 2)), torch.tensor(share).double(), atol=1 / 1600)
            assert (x.permute(0, 2, 3, 1)[spots] * 255).round().unique(dim=0).tolist() == [mud]
        assert all((a[b == 1] == 1).all() for a, b in zip(covered, covered[1:], strict=False))


def test_blobs_of_mud_grow_with_the_image():
    blobs = [
        sum(ndimage.label(image[0] < 1)[1] for image in shifts.corrupt(_grey(1.0, 6, 1, n, n), "spatter", 3).numpy())
        for n in (24, 72)
    ]
    assert blobs[1] == pytest.approx(blobs[0], rel=0.3)


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


def test_shear_of_severity_5_slides_each_row_by_its_distance_to_the_middle():
    x = _ramp(9)
    sheared = shifts.corrupt(x.repeat(8, 1, 1, 1), "shear", 5)[:, 0]
    padded = torch.nn.functional.pad(x[0, 0], (4, 4))  # black
    to_left, to_right = (
        torch.stack([row[4 + side * (r - 4) :][:9] for r, row in enumerate(padded)]) for side in (1, -1)
    )
    assert {tuple(torch.isclose(image, side).all().item() for side in (to_left, to_right)) for image in sheared} == {
        (True, False),
        (False, True),
    }


def test_scale_of_severity_5_takes_every_second_pixel():
    x = _ramp(17)
    shrunk = shifts.corrupt(x, "scale", 5)
    torch.testing.assert_close(shrunk[..., 4:13, 4:13], x[..., ::2, ::2])
    outside = shrunk.clone()
    outside[..., 4:13, 4:13] = 0
    assert outside[..., 3:14, 3:14].max() <= 0.5 and outside[..., :3, :].max() == outside[..., 14:].max() == 0


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


@pytest.mark.parametrize(("kind", "first", "last"), [("dotted_line", 2, 27), ("zigzag", 2, 25)])
@pytest.mark.parametrize("size", [28, 56])
def test_strokes_cross_the_image_and_gain_opacity_with_severity(kind, first, last, size):
    black, unit = _grey(0.0, 3, 3, size, size), size / 28
    full = shifts.corrupt(black, kind, 5)
    for severity in (1, 2, 3, 4):
        torch.testing.assert_close(shifts.corrupt(black, kind, severity), full * severity / 5)
    assert torch.equal(full[:, 0], full[:, 1])
    ink = full[:, 0].amax(1)  # (6, W): the strongest in each column
    column = torch.arange(size)
    on = (column / (2 * unit)).int() % 2 == 1 if kind == "dotted_line" else torch.ones(size).bool()
    on &= (column >= first * unit) & (column <= size - 1 - (27 - last) * unit)
    assert (ink[:, ~on] == 0).all()
    if kind == "dotted_line":  # straight from edge to edge, so always within the image
        assert (ink[:, on] > 0.7).all()
        for image in full[:, 0]:
            row = image.argmax(0)[on].double().numpy()
            straight = np.polyval(np.polyfit(column[on].numpy(), row, 1), column[on].numpy())
            assert np.abs(row - straight).max() < 1
    else:
        middle = next(image for image in full[:, 0] if (image.amax(0)[on] > 0.7).all())
        row = middle.argmax(0)[on].double().numpy()
        turns = np.diff(np.sign(np.convolve(np.diff(row), np.ones(round(3 * unit)), "valid"))).nonzero()[0]
        assert 4 <= len(turns) <= 12  # half a period is 4 pixels of 28
    white = torch.ones_like(black)
    assert torch.equal(shifts.corrupt(white, kind, 5), white)


def _edge_map(image):
    return shifts.corrupt(image[None, None], "canny_edges", 5)[0, 0]


def test_canny_finds_the_outline_and_fades_to_it():
    square = torch.zeros(28, 28, dtype=torch.float64)
    square[8:20, 8:20] = 1
    edges = _edge_map(square)
    assert set(edges.unique().tolist()) == {0, 1}
    ring = torch.zeros(28, 28).bool()
    ring[7:21, 7:21] = True
    ring[9:19, 9:19] = False
    assert (edges[~ring] == 0).all()
    assert (edges[10:18, 7:9].amax(1) == 1).all() and (edges[19:21, 10:18].amax(0) == 1).all()
    fading = shifts.corrupt(square[None, None], "canny_edges", 2)[0, 0]
    torch.testing.assert_close(fading, 0.6 * square + 0.4 * edges)
    assert _edge_map(torch.full((28, 28), 0.7)).max() == 0


@pytest.mark.parametrize("size", [28, 56])
def test_canny_keeps_weak_edges_only_where_they_join_strong_ones(size):
    # A step of height h, blurred by σ = 1, has a Sobel slope of 4 (Φ(1.5) − Φ(−0.5)) h = 2.5 h; thresholds 0.1, 0.2.
    # At twice the size σ is 2 and the slope is taken over 2 pixels: 8 (Φ(0.75) − Φ(−0.25)) h = 3 h.
    height = torch.linspace(0.2, 0.05, size, dtype=torch.float64)
    half = size // 2

    def along(factor):
        step = torch.zeros(size, size, dtype=torch.float64)
        step[:, half:] = factor * height[:, None]
        return _edge_map(step)[:, half - 1 : half + 1].amax(1)

    assert (along(1) == 1).all()  # the weak end (0.125) hangs on the strong one (0.5)
    assert (along(0.5)[:half] == 1).all() and (along(0.5)[-4:] == 0).all()  # its end is below 0.1
    assert along(0.3).max() == 0  # 0.15 at the strong end: nothing to hang on


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
        with pytest.raises(TypeError, match="x must be a floating point tensor"):
            shifts.corrupt(bad, "contrast", 1)
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\)"):
        shifts.corrupt(x[0], "contrast", 1)
    for shape in ((1, 2, 8, 8), (1, 1, 7, 8), (0, 1, 8, 7)):
        with pytest.raises(ValueError, match="1 or 3 channels and at least 8×8"):
            shifts.corrupt(torch.zeros(shape), "contrast", 1)


# --- the benchmarks' files ---


@pytest.fixture
def cifar(tmp_path):
    """A folder of CIFAR-10-C's form with 4 images a severity; returns it and the images (5, 4, 32, 32, 3)."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 32, 32, 3), dtype=np.uint8)
    for name in ("fog", "jpeg_compression", "glass_blur"):
        np.save(folder / f"{name}.npy", images.reshape(20, 32, 32, 3))
    np.save(folder / "labels.npy", np.tile(np.array([3, 0, 9, 3], dtype=np.uint8), 5))
    return folder, images


@pytest.fixture
def mnist(tmp_path):
    folder = tmp_path / "mnist_c"
    (folder / "zigzag").mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), dtype=np.uint8)
    np.save(folder / "zigzag" / "test_images.npy", images)
    np.save(folder / "zigzag" / "test_labels.npy", np.array([7, 2, 1, 0, 4, 1]))
    return folder, images


def test_cifar_c_is_read_one_severity_at_a_time(cifar):
    folder, images = cifar
    names = tuple("abcdefghij")
    clean = data.Samples(torch.rand(4, 3, 32, 32), torch.tensor([3, 0, 9, 3]), names, "cifar10")
    for severity in (1, 2, 3, 4, 5):
        samples = shifts.load_folder(folder, "fog", severity, like=clean)
        assert torch.equal(samples.x, torch.from_numpy(images[severity - 1]).permute(0, 3, 1, 2).float() / 255)
        assert samples.y.tolist() == [3, 0, 9, 3] and samples.classes == names
        assert samples.name == f"CIFAR-10-C/fog/{severity}"
    assert shifts.load_folder(str(folder), "jpeg", 2).name == "CIFAR-10-C/jpeg_compression/2"
    assert len(shifts.load_folder(folder, "glass_blur", 1)) == 4  # theirs, not one of ours
    assert samples.x.is_contiguous() and samples.y.dtype == torch.int64 and samples.fingerprint


def test_mnist_c_is_read_and_has_no_severity(mnist):
    folder, images = mnist
    samples = shifts.load_folder(folder, "zigzag")
    assert torch.equal(samples.x, torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    assert samples.y.tolist() == [7, 2, 1, 0, 4, 1] and samples.classes == tuple("01234567")
    assert samples.name == "mnist_c/zigzag"
    with pytest.raises(ValueError, match="severity must be None for MNIST-C.*got 3"):
        shifts.load_folder(folder, "zigzag", 3)


def test_what_is_missing_and_where_it_was_looked_for_is_said(cifar, mnist, tmp_path):
    folder, _ = cifar
    with pytest.raises(FileNotFoundError, match="no folder .*absent"):
        shifts.load_folder(tmp_path / "absent", "fog", 1)
    with pytest.raises(FileNotFoundError, match=r"no frog.npy .*CIFAR-10-C; did you mean 'fog'.*there: fog, glass_bl"):
        shifts.load_folder(folder, "frog", 1)
    with pytest.raises(FileNotFoundError, match=r"no fog.npy \(CIFAR-10-C\) and no fog/test_images.npy.*there: zigzag"):
        shifts.load_folder(mnist[0], "fog")
    with pytest.raises(FileNotFoundError, match="there: neither"):
        shifts.load_folder(tmp_path, "fog")
    with pytest.raises(TypeError, match="severity must be an int, got None"):
        shifts.load_folder(folder, "fog")
    with pytest.raises(ValueError, match=r"severity must be in 1..5, got 6"):
        shifts.load_folder(folder, "fog", 6)
    (folder / "labels.npy").unlink()
    with pytest.raises(FileNotFoundError, match="no file .*labels.npy"):
        shifts.load_folder(folder, "fog", 1)


def test_files_of_another_form_are_refused(cifar, mnist):
    folder, images = cifar
    images = images.reshape(20, 32, 32, 3)
    for bad in (images / 255, images[..., 0], images.transpose(0, 3, 1, 2)):
        np.save(folder / "fog.npy", bad)
        with pytest.raises(ValueError, match=r"fog.npy must be uint8 \(N, H, W, 1 or 3\), got"):
            shifts.load_folder(folder, "fog", 1)
    np.save(folder / "fog.npy", images[:15])
    with pytest.raises(ValueError, match=r"labels.npy must be integers ≥ 0 \(15,\), got uint8 \(20,\)"):
        shifts.load_folder(folder, "fog", 1)
    np.save(folder / "fog.npy", images[:18])
    np.save(folder / "labels.npy", np.zeros(18, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"fog.npy must hold five severities of one length, got 18"):
        shifts.load_folder(folder, "fog", 1)
    np.save(folder / "fog.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"cannot read .*fog.npy"):
        shifts.load_folder(folder, "fog", 1)
    (folder / "fog.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"cannot read .*fog.npy"):
        shifts.load_folder(folder, "fog", 1)
    like = data.Samples(torch.rand(6, 1, 28, 28), torch.arange(6), tuple("012345"), "mnist")
    with pytest.raises(ValueError, match="like must have all classes of the files, 8 at least, got 6"):
        shifts.load_folder(mnist[0], "zigzag", like=like)
    like = data.Samples(torch.rand(6, 1, 8, 8), torch.arange(6), tuple("0123456789"), "digits")
    with pytest.raises(ValueError, match=r"like must have images of shape \(1, 28, 28\), got \(1, 8, 8\)"):
        shifts.load_folder(mnist[0], "zigzag", like=like)
