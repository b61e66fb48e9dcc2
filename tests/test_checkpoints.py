import os

import pytest
import torch
from safetensors.torch import save
from torch import nn

from sparselib import checkpoints, models, pruning, vision
from sparselib.pruning import masks


def _net():
    return models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=6)


def test_damaged_checkpoint_is_told(tmp_path):
    path = tmp_path / "net.safetensors"
    checkpoints.save_model(_net(), path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\x80\x04pickle"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or not a network of sparselib"):
            checkpoints.load_model(path)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_foreign_networks_return_masked_and_shrunk_as_they_were(name, tmp_path):
    def make():
        return getattr(vision.torchvision().models, name)(num_classes=5).eval()

    x, path, blank = torch.rand(2, 3, 64, 64), tmp_path / "net.safetensors", make()
    before = {name: tensor.clone() for name, tensor in blank.state_dict().items()}
    masked = pruning.prune(make(), "magnitude", 0.5).eval()
    small = pruning.shrink(pruning.prune(make(), "random", 0.5, x, structured=True), x)
    for net in (masked, small.eval(), pruning.prune(small, "magnitude", 0.3).eval()):
        checkpoints.save_model(net, path)
        for into in (make, blank):
            loaded = checkpoints.load_model(path, into=into)
            assert torch.equal(loaded(x), net(x)) and pruning.sparsity(loaded) == pruning.sparsity(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in blank.state_dict().items())
    with pytest.raises(ValueError, match="is not of models.build: give a network of its class, .* as `into`"):
        checkpoints.load_model(path)
    with pytest.raises(ValueError, match="does not hold a network of this version"):
        checkpoints.load_model(path, into=_net)


def test_shared_weights_and_single_layers_come_back(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x).relu())

    for make in (Tied, lambda: nn.Linear(6, 3)):
        net, x = pruning.prune(make(), "random", 0.5), torch.rand(4, 6)
        checkpoints.save_model(net, tmp_path / "net")
        loaded = checkpoints.load_model(tmp_path / "net", into=make)
        assert torch.equal(loaded(x), net(x)) and pruning.sparsity(loaded) == 0.5
        assert len(masks.distinct(loaded)) == 1


@pytest.mark.parametrize(
    "header", ["[]", "3", "null", '{"spec": 3, "sizes": {}}', '{"spec": {}, "sizes": 3}', "[" * 10**5]
)
def test_a_header_of_anything_else_is_told(tmp_path, header):
    path = tmp_path / "net.safetensors"
    path.write_bytes(save({"a": torch.zeros(1)}, metadata={"network": header}))
    with pytest.raises(ValueError, match="net.safetensors (is damaged or not a|does not hold a) network of"):
        checkpoints.load_model(path)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")
def test_what_is_no_regular_file_is_told_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, told in (
        (tmp_path / "fifo", "not a regular"),
        ("/dev/zero", "not a regular"),
        (tmp_path, "not a regular"),
    ):
        with pytest.raises(OSError, match=told):
            checkpoints.load_model(path)
        with pytest.raises(OSError, match=told):
            checkpoints.read_bytes(path)
    (tmp_path / "file").write_bytes(b"123")
    assert checkpoints.read_bytes(tmp_path / "file", most=3) == b"123"
    with pytest.raises(OSError, match="3 bytes, at most 2 are read"):
        checkpoints.read_bytes(tmp_path / "file", most=2)
    with pytest.raises(FileNotFoundError):
        checkpoints.read_bytes(tmp_path / "none")
