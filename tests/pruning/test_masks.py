import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as torch_prune

from sparselib import data, models, pruning, training
from sparselib.pruning import costs, criteria, masks, subnetworks


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(self.b(self.a(x.flatten(1)).relu()).relu())


def _plain():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()


FOREIGN = {
    "torch.nn.utils.prune": (lambda layer: torch_prune.l1_unstructured(layer, "weight", 0.5), "prune.remove"),
    "bias pruned": (lambda layer: torch_prune.l1_unstructured(layer, "bias", 0.5), "prune.remove"),
    "old spectral": (nn.utils.spectral_norm, "remove_spectral_norm"),
    "weight norm": (parametrizations.weight_norm, "by _WeightNorm: call .*remove_parametrizations"),
    "spectral norm": (parametrizations.spectral_norm, "remove_parametrizations"),
    "bias": (lambda layer: parametrize.register_parametrization(layer, "bias", nn.ReLU()), "is computed by ReLU"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_weights_that_something_else_computes_are_named_with_the_remedy(kind):
    net, x = _plain(), torch.rand(4, 1, 8, 8)
    change, remedy = FOREIGN[kind]
    change(net[0])
    calls = [lambda c=c: criteria.saliency(net, c, x, torch.arange(4)) for c in criteria.NAMES]
    calls += [lambda: pruning.prune(net, "magnitude", 0.5), lambda: pruning.sparsity(net), lambda: masks.bare(net)]
    for call in calls:
        with pytest.raises(ValueError, match=rf"^0\.(weight|bias) .*{remedy}"):
            call()
    assert costs.cost(net, x, repeats=1).macs == 4 * (4 * 36 * 9 + 144 * 10)


def test_lazy_layers_are_named_until_they_have_a_shape():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    with pytest.raises(ValueError, match="1.weight has no shape yet: run the network once"):
        pruning.prune(net, "magnitude", 0.5)
    net(torch.rand(1, 1, 8, 8))
    assert pruning.sparsity(pruning.prune(net, "magnitude", 0.5)) == 0.5


def test_shared_weights_stay_shared_and_count_once():
    net, train = Tied(), data.load("digits", limit=100)

    def is_tied(model):
        return masks.original(model.a) is masks.original(model.b) and torch.equal(model.a.weight, model.b.weight)

    for criterion in criteria.NAMES:
        sparse = pruning.prune(net, criterion, 0.5, train.x, train.y)
        assert is_tied(sparse) and is_tied(masks.bare(sparse)) and is_tied(pickle.loads(pickle.dumps(sparse)))
        assert pruning.sparsity(sparse) == 0.5
        cost = costs.cost(sparse, train.x[:1], repeats=1)
        biases = 64 + 64 + 10
        assert cost.params == 64 * 64 + 64 * 10 + biases and cost.nonzero == (64 * 64 + 64 * 10) // 2 + biases
    training.fit(sparse, train, epochs=1, progress=False)
    assert is_tied(sparse) and is_tied(pruning.shrink(sparse, train.x))
    found = subnetworks.search(net, train, 0.5, epochs=1, keep_ends=False, progress=False)
    assert is_tied(found) and pruning.sparsity(found) == pytest.approx(0.5, abs=1e-3)


def test_masked_networks_travel_by_pickle_also_to_a_fresh_process(tmp_path):
    net = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=6)
    sparse, x = pruning.prune(net, "magnitude", 0.8).eval(), torch.rand(3, 1, 8, 8)
    for other in (pickle.loads(pickle.dumps(sparse)), copy.deepcopy(pickle.loads(pickle.dumps(sparse)))):
        assert torch.equal(other(x), sparse(x)) and pruning.sparsity(other) == pruning.sparsity(sparse)
        assert [n for n, _ in other.named_parameters()] == [n for n, _ in sparse.named_parameters()]
        training.fit(other, data.load("digits", limit=64), epochs=1, progress=False)
        assert (
            pruning.sparsity(other) == pruning.sparsity(sparse) and not other[1].weight[~masks.mask_of(other[1])].any()
        )
    path = tmp_path / "net.pt"
    torch.save((sparse, x, sparse(x).detach()), path)
    code = "import sys, torch; n, x, z = torch.load(sys.argv[1], weights_only=False); assert (n(x) == z).all()"
    subprocess.run([sys.executable, "-c", code, path], check=True)


def test_the_state_of_a_bare_network_fits_a_fresh_one():
    sparse, fresh, x = pruning.prune(_plain(), "magnitude", 0.5), _plain(), torch.rand(3, 1, 8, 8)
    fresh.load_state_dict(masks.bare(sparse).state_dict())
    assert torch.equal(fresh(x), sparse(x))
