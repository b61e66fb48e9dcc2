import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from sparselib import data


def test_digits_are_scikit_learns_split_without_overlap(train, test):
    assert len(train) + len(test) == len(load_digits().target)
    together = torch.cat([train.x, test.x]).flatten(1).sort(0).values
    assert torch.equal(together, torch.from_numpy(load_digits().data / 16).float().sort(0).values)
    assert torch.bincount(test.y).min() > 50
    assert train.x.min() >= 0 and train.x.max() == 1


def test_limit_is_seeded_and_fingerprint_follows_the_bytes(train):
    a, b, c = (data.load("digits", limit=50, seed=s) for s in (0, 0, 1))
    assert a.fingerprint == b.fingerprint != c.fingerprint
    changed = data.Samples(a.x.clone(), a.y, a.classes, a.name)
    changed.x[0, 0, 0, 0] += 0.5
    assert changed.fingerprint != a.fingerprint
    assert len(data.load("digits", limit=10**6)) == len(train)


def test_only_relabels_and_heldout_is_the_rest(test):
    inside = test.only(["7", "1"])
    assert inside.classes == ("7", "1") and set(inside.y.tolist()) == {0, 1}
    assert torch.equal(inside.x[inside.y == 0], test.x[test.y == 7])
    outside = data.outliers("heldout", inside, n=10**6)
    assert len(outside) == len(test) - len(inside) and (outside.y == -1).all()


def test_split_is_a_partition(train):
    a, b = train.split(0.3, seed=1)
    assert len(a) == round(0.3 * len(train)) and len(a) + len(b) == len(train)
    assert torch.equal(torch.cat([a.x, b.x]).sum((0, 2, 3)).round(), train.x.sum((0, 2, 3)).round())


@pytest.mark.parametrize("name", [*data.SYNTHETIC, "heldout"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_outliers_have_the_shape_and_range_and_follow_the_seed(name, shape):
    y = torch.arange(40) % 4
    like = data.Samples(torch.rand(40, *shape), y, tuple("0123"), "digits")
    made = [data.outliers(name, like, n=7, seed=s) for s in (0, 0, 1)]
    assert made[0].x.shape == (7, *shape) and made[0].x.dtype == torch.float32
    assert made[0].x.min() >= 0 and made[0].x.max() <= 1
    assert torch.equal(made[0].x, made[1].x) and not torch.equal(made[0].x, made[2].x)


def test_synthetic_outliers_do_what_their_name_says(test):
    def rows(samples):
        return {tuple(image.flatten().tolist()) for image in samples.x}

    inverted = data.outliers("inverted", test)
    assert rows(data.Samples(1 - inverted.x, inverted.y, (), "")) == rows(test)
    permuted = data.outliers("permuted", test)
    histograms = {tuple(image.flatten().sort().values.tolist()) for image in test.x}
    assert {tuple(image.flatten().sort().values.tolist()) for image in permuted.x} <= histograms
    assert not rows(permuted) & rows(test)
    two = test.only(["0", "1"])
    means = {tuple(((a + b) / 2).flatten().tolist()) for a in two.x[two.y == 0] for b in two.x[two.y == 1]}
    assert rows(data.outliers("mixed", two, n=30)) <= means


def test_train_and_test_textures_share_no_photograph(test):
    shapes = [data.outliers("textures", test, n=50, split=s).x.flatten(1) for s in ("train", "test")]
    assert torch.cdist(*shapes).min() > 0


def test_other_data_set_is_resized_and_recoloured():
    like = data.Samples(torch.rand(5, 3, 32, 32), torch.zeros(5).long(), ("a",), "colour")
    other = data.outliers("digits", like)
    assert other.x.shape == (5, 3, 32, 32)
    assert torch.equal(other.x[:, 0], other.x[:, 2])


def test_mnist_is_read_from_idx_files(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    labels = np.arange(30, dtype=np.uint8) % 10
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem in ("train", "t10k"):
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 30, 28, 28) + images.tobytes())
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 30) + labels.tobytes())
    samples = data.load("mnist", "test", root=tmp_path)
    assert torch.equal(samples.x, torch.from_numpy(images)[:, None].float() / 255)
    assert samples.y.tolist() == labels.tolist() and len(samples.classes) == 10


def test_svhn_and_folder_agree_on_the_same_images(tmp_path):
    from scipy.io import savemat

    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    savemat(tmp_path / "test_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": np.array([[1], [10], [2], [1]])})
    for i, image in enumerate(images):
        folder = tmp_path / "tree" / "test" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    folder = data.load(f"folder:{tmp_path}/tree", "test")
    assert folder.classes == ("class0", "class1") and folder.y.tolist() == [0, 0, 1, 1]
    assert torch.equal(folder.x, torch.from_numpy(images[[0, 2, 1, 3]]).permute(0, 3, 1, 2).float() / 255)


def test_grey_folder_has_one_channel(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "train" / "a" / "0.png")
    assert data.load(f"folder:{tmp_path}").x.shape == (1, 1, 8, 8)


def test_bad_arguments_are_named(tmp_path, test):
    with pytest.raises(ValueError, match="unknown dataset 'digit'; did you mean 'digits'"):
        data.load("digit")
    with pytest.raises(ValueError, match="unknown split 'validation'"):
        data.load("digits", "validation")
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        data.load("digits", limit=0)
    with pytest.raises(FileNotFoundError, match=rf"'mnist'.*{tmp_path}.*download=True"):
        data.load("mnist", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder .*absent/train"):
        data.load(f"folder:{tmp_path}/absent")
    with pytest.raises(ValueError, match="unknown outliers 'texture'; did you mean 'textures'"):
        data.outliers("texture", test)
    with pytest.raises(ValueError, match="like has all classes"):
        data.outliers("heldout", test)
    with pytest.raises(ValueError, match="another data set than like"):
        data.outliers("digits", test)
    with pytest.raises(ValueError, match="like must not be empty"):
        data.outliers("uniform", test.take(slice(0, 0)))
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "a" / "0.png")
    Image.new("RGB", (8, 9)).save(tmp_path / "train" / "a" / "1.png")
    with pytest.raises(ValueError, match=r"one size: .*1\.png is \(9, 8\)"):
        data.load(f"folder:{tmp_path}")
    (tmp_path / "train" / "a" / "1.png").write_bytes(gzip.compress(b"no image"))
    with pytest.raises(ValueError, match=r"cannot read the image .*1\.png"):
        data.load(f"folder:{tmp_path}")


def test_damaged_files_are_told_also_when_they_might_be_downloaded(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{stem}-ubyte").write_text("version https://git-lfs.github.com/spec/v1", encoding="utf-8")
    for download in (False, True):  # torchvision takes what is there
        with pytest.raises(FileNotFoundError, match="files are missing or damaged.*remove what is damaged"):
            data.load("mnist", root=tmp_path, download=download)


@pytest.mark.network
def test_download(tmp_path):
    assert len(data.load("mnist", "test", root=tmp_path, download=True)) == 10_000
