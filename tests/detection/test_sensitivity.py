import copy
import gc
import itertools
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sparselib import models, pruning, vision
from sparselib.detection import sensitivity
from sparselib.pruning import masks


class Shared(nn.Module):
    """A convolution called twice, on two sizes, and a linear weight tied to another layer's."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.one, self.two = nn.Linear(12, 12), nn.Linear(12, 12)
        self.two.weight = self.one.weight
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = F.max_pool2d(self.twice(self.stem(x)).tanh(), 2)
        x = F.avg_pool2d(self.twice(x).tanh(), 2).flatten(1)
        return self.head(self.two(self.one(x).tanh()).tanh())


class Dimensions(nn.Module):
    """1-d and 3-d convolutions, paddings of every kind, a linear layer on tokens, a keyword call, an unused layer."""

    def __init__(self):
        super().__init__()
        self.volume = nn.Conv3d(1, 2, (1, 3, 3), padding="same", dilation=(1, 1, 2))
        self.circular = nn.Conv2d(4, 9, 2, padding=(1, 0), padding_mode="circular", stride=(2, 1))
        self.line = nn.Conv1d(9, 6, 4, stride=3, padding=2, groups=3, bias=False)
        self.reflect = nn.Conv1d(6, 6, 4, padding="same", padding_mode="reflect")
        self.tokens = nn.Linear(6, 5)
        self.head = nn.Linear(5, 4)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        x = self.volume(x.unsqueeze(1)).flatten(1, 2).sigmoid()
        x = self.circular(x).flatten(2).sigmoid()
        x = self.reflect(self.line(x).sigmoid())
        return self.head(input=self.tokens(x.transpose(1, 2)).sigmoid().mean(1))


class Odd(nn.Module):
    """Weights that act in other ways than through calls of their layers with one row a sample."""

    def __init__(self):
        super().__init__()
        self.frames = nn.Conv2d(1, 3, 3, stride=2)  # two frames a sample, folded into the batch
        self.function = nn.Linear(27, 8)  # handed to a function
        self.both = nn.Linear(8, 8)  # called, and transposed elsewhere
        self.time_first = nn.Linear(4, 4)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.frames(x.flatten(0, 1).unsqueeze(1)).sigmoid().unflatten(0, (-1, 2)).mean(1).flatten(1)
        x = F.linear(x, self.function.weight, self.function.bias).sigmoid()
        x = (self.both(x).sigmoid() @ self.both.weight).sigmoid()
        x = self.time_first(x.unflatten(1, (2, 4)).transpose(0, 1)).transpose(0, 1).flatten(1).sigmoid()  # (T, N, F)
        return self.head(x)


def _plain():
    return nn.Sequential(
        *(nn.Conv2d(2, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 9, 3, bias=False), nn.ReLU(inplace=True)),
        *(nn.MaxPool2d(2), nn.Conv2d(9, 5, 2), nn.Flatten(), nn.Linear(5, 4)),  # its last map is one position
    )


def _linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 16), nn.Tanh(), nn.Linear(16, 8, bias=False), nn.Linear(8, 4))


def _residual():
    net = models.build("resnet8", in_channels=2, num_classes=4, image_size=8, width=4)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return net


@pytest.fixture
def network(request, grouped):
    """An untrained float64 network by name, from (N, 2, 8, 8) to 4 classes."""
    if request.param.startswith("grouped"):
        net = grouped
    else:
        torch.manual_seed(5)
        net = NETWORKS[request.param.removesuffix(" masked")]().double()
    return pruning.prune(net, "magnitude", 0.6) if request.param.endswith("masked") else net


NETWORKS = {
    "plain": _plain, "linear": _linear, "residual": _residual, "shared": Shared, "dimensions": Dimensions, "odd": Odd,
}  # fmt: skip
ALL = [*NETWORKS, "grouped", "grouped masked", "residual masked"]
NORMS = (1, 2, 5, 2.5, torch.inf)


def _x(n=5, **options):
    return torch.rand(n, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64, **options)


def _loss(z, y, target):
    if target == "uniform":
        return -z.log_softmax(1).mean()
    return F.cross_entropy(z, y) if target == "predicted" else -z[0, y[0]]


def _oracle(net, x, y=None, *, criterion="snip", target="predicted", per_loss=False):
    """Saliencies {name: (N, …)} by autograd, one sample at a time: the definitions, spelt out."""
    net = copy.deepcopy(net).eval()
    layers = {n: net.get_submodule(n.removesuffix(".weight")) for n in sensitivity.names(net)}
    originals = [masks.original(layer) for layer in layers.values()]
    found = {name: [] for name in layers}
    for i in range(len(x)):
        z = net(x[i : i + 1])
        label = z.argmax(1) if y is None else y[i : i + 1]
        loss = _loss(z / 200 if criterion == "grasp" else z, label, target)
        second = criterion in ("crop", "grasp")
        gradients = torch.autograd.grad(loss, originals, create_graph=second, allow_unused=True, materialize_grads=True)
        if second:
            product = sum((g * g.detach()).sum() for g in gradients)
            gradients = torch.autograd.grad(product, originals, allow_unused=True, materialize_grads=True)
        for (name, layer), s in zip(layers.items(), gradients, strict=True):
            s = s if criterion == "gradient" else s * layer.weight
            s = s.flatten(1).sum(1) if criterion == "snap" else s
            found[name].append((s / (loss + 1e-8) if per_loss else s).detach())
    return {name: torch.stack(s) for name, s in found.items()}


def _norms(saliencies, norm):
    return torch.stack([torch.linalg.vector_norm(s.flatten(1), ord=norm, dim=1) for s in saliencies.values()], dim=1)


def _close(ours, oracle, rtol=1e-10):
    torch.testing.assert_close(ours, oracle, rtol=rtol, atol=1e-300)


@pytest.mark.parametrize("network", ALL, indirect=True)
@pytest.mark.parametrize("criterion", sensitivity.CRITERIA)
def test_every_criterion_target_and_norm_equals_autograd_on_single_samples(network, criterion):
    x, labels = _x(), torch.tensor([0, 3, 1, 1, 2])
    for target, y, per_loss in (
        ("predicted", None, False), ("predicted", labels, False), ("logit", None, True), ("logit", labels, True),
        ("logit", labels, False), ("uniform", None, False),
    ):  # fmt: skip
        options = dict(criterion=criterion, target=target, per_loss=per_loss)
        oracle = _oracle(network, x, y, **options)
        for norm in (1, 2, 5, 2.5, torch.inf):
            _close(sensitivity.profile(network, x, y, norm=norm, **options), _norms(oracle, norm))


@pytest.mark.parametrize("network", ALL, indirect=True)
@pytest.mark.parametrize("criterion", ["snip", "snap", "crop"])
def test_moments_and_distances_to_them_equal_autograd_on_single_samples(network, criterion):
    x, y = _x(7), torch.tensor([0, 3, 1, 1, 2, 2, 0])
    mean, std = sensitivity.moments(network, x, y, criterion=criterion, target="logit", per_loss=True)
    oracle = _oracle(network, x, y, criterion=criterion, target="logit", per_loss=True)
    for name, s in oracle.items():
        torch.testing.assert_close(mean[name], s.mean(0), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(std[name], s.std(0, correction=0), rtol=1e-9, atol=1e-12)
    test = _x(3) * 0.9
    oracle = _oracle(network, test, criterion=criterion)
    for norm in (1, 2, torch.inf):
        ours = sensitivity.profile(network, test, criterion=criterion, norm=norm, reference=mean)
        _close(ours, _norms({n: mean[n] - s for n, s in oracle.items()}, norm))
        ours = sensitivity.profile(network, test, criterion=criterion, norm=norm, reference=mean, scale=std)
        scaled = {n: torch.where(std[n] > 0, (mean[n] - s) / std[n], 0) for n, s in oracle.items()}
        _close(ours, _norms(scaled, norm), rtol=1e-9)


@pytest.mark.parametrize("criterion", ["snip", "snap"])
def test_a_layer_that_takes_no_part_is_as_far_as_its_reference(criterion):
    torch.manual_seed(5)
    net, name = Dimensions().double(), "unused.weight"
    reference, _ = sensitivity.moments(net, _x(), criterion=criterion)
    assert (reference[name] == 0).all()
    reference[name] += 2
    ours = sensitivity.profile(net, _x(), criterion=criterion, reference=reference)
    _close(ours[:, sensitivity.names(net).index(name)], reference[name].norm().expand(5))


def test_a_dimension_as_long_as_the_batch_is_not_taken_for_it():
    torch.manual_seed(5)
    net, x = Dimensions().double(), _x(6)  # one of its layers has two time steps, first
    _close(sensitivity.profile(net, x[:2]), sensitivity.profile(net, x)[:2])


@pytest.mark.parametrize("network", ALL, indirect=True)
def test_neither_batch_nor_budget_changes_a_value(network):
    x = _x(6)
    for criterion in sensitivity.CRITERIA:
        together = sensitivity.profile(network, x, criterion=criterion)
        _close(sensitivity.profile(network, x, criterion=criterion, budget=1), together)
        parts = [sensitivity.profile(network, part, criterion=criterion) for part in x.split([1, 2, 3])]
        _close(torch.cat(parts), together)
        mean, std = sensitivity.moments(network, x, criterion=criterion)
        tight = sensitivity.moments(network, x, criterion=criterion, budget=3000)
        for name in mean:
            torch.testing.assert_close((tight[0][name], tight[1][name]), (mean[name], std[name]), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name, channels, size", [("convnet", 1, 8), ("resnet8", 3, 20), ("resnet18", 3, 16)])
def test_float32_on_every_route_is_accurate_and_independent_of_batch_and_budget(name, channels, size):
    # Here small weights go through a grouped convolution, the others through patches in both layouts.
    net = models.build(name, in_channels=channels, num_classes=5, image_size=size, width=16)
    x = torch.rand(6, channels, size, size, generator=torch.Generator().manual_seed(0))
    double = copy.deepcopy(net).double()
    labels = double.eval()(x.double()).argmax(1)
    for criterion, norm in itertools.product(("snip", "snap"), (1, 2, 5)):
        options = dict(criterion=criterion, norm=norm)
        exact = sensitivity.profile(double, x.double(), labels, **options)
        ours = sensitivity.profile(net, x, labels, **options)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=0)
        tight = sensitivity.profile(net, x, labels, **options, budget=2**18)
        torch.testing.assert_close(tight, ours, rtol=1e-6, atol=0)


def test_the_sign_of_the_logit_loss_counts_and_a_logit_of_zero_is_no_error(grouped):
    """θ⊙∇L/(L + 1e-8), L = −z_y: log-derivatives, whose sign is that of θ⊙∇z_y / z_y, of positive and negative z_y."""
    x, weight = _x(2), grouped[8].weight
    options = {"target": "logit", "per_loss": True, "layers": "last"}
    with torch.no_grad():
        h = grouped[:8](x)
        for z in (3.0, -3.0, 0.0, 1e-8):
            grouped[8].bias.copy_(torch.zeros(4))
            grouped[8].bias[1] = z - h[0] @ weight[1]  # so that the first input's logit 1 is z
            label = torch.tensor([1, 1])
            z = grouped(x)[:1, 1]  # as rounded
            mean, _ = sensitivity.moments(grouped, x[:1], label[:1], **options)
            expected = torch.zeros_like(weight)
            expected[1] = -weight[1] * h[0] / (-z + 1e-8)
            torch.testing.assert_close(mean["8.weight"], expected, rtol=1e-9, atol=0)


def test_norms_gather_the_layers(grouped):
    x = _x()
    layers = sensitivity.profile(grouped, x)
    _close(sensitivity.norms(grouped, x), layers.norm(dim=1))
    _close(sensitivity.norms(grouped, x, aggregate="mean"), layers.mean(1))
    names = sensitivity.names(grouped)
    assert names == ["0.weight", "3.weight", "6.weight", "8.weight"]
    _close(sensitivity.profile(grouped, x, layers="last"), layers[:, -1:])
    _close(sensitivity.profile(grouped, x, layers=["6.weight", "0.weight"]), layers[:, [2, 0]])
    y = grouped(x).argmax(1)
    _close(sensitivity.norms(grouped, x, y, norm=1), sensitivity.profile(grouped, x, norm=1).sum(1))


def test_last_layer_gradient_to_uniform_is_gradnorm(grouped):
    """‖h‖₁·‖C·p − 1‖₁ / C (Huang et al. 2021), h the input of the last layer."""
    x = _x()
    h, p = grouped[:-1](x), grouped(x).softmax(1)
    ours = sensitivity.norms(grouped, x, criterion="gradient", target="uniform", norm=1, layers="last")
    _close(ours, h.abs().sum(1) * (4 * p - 1).abs().sum(1) / 4)


def test_calm_saliencies_do_not_underflow():
    net = models.build("convnet", in_channels=1, num_classes=4, image_size=8, width=8)
    with torch.no_grad():
        net[-1].bias[0] += 60  # confident: 1 − p is about exp(−60), whose square float32 cannot hold
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    double = copy.deepcopy(net).double()
    for criterion, norm in (("snip", 2), ("snip", 5), ("snap", 2)):
        exact = sensitivity.profile(double, x.double(), criterion=criterion, norm=norm)
        assert exact.min() > 0 and exact.max() < 1e-25
        ours = sensitivity.profile(net, x, criterion=criterion, norm=norm)
        tolerance = 1e-3 if criterion == "snap" else 1e-4  # its sums over positions cancel, in float32
        torch.testing.assert_close(ours.double(), exact, rtol=tolerance, atol=0)


def test_other_parametrizations_count_as_the_weight_that_they_give(grouped):
    x = _x()
    plain = sensitivity.profile(grouped, x)
    torch.nn.utils.parametrizations.weight_norm(grouped[0])
    prune.identity(grouped[3], "weight")
    _close(sensitivity.profile(grouped, x), plain, rtol=1e-9)
    with pytest.raises(ValueError, match="parametrization that is not a mask: 0.weight, 3.weight"):
        sensitivity.profile(grouped, x, criterion="crop")


HOOKS = (nn.utils.weight_norm, nn.utils.spectral_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.5))


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_that_a_hook_computes_count_as_they_are(grouped, hook):
    x = _x()
    hook(grouped[0])
    before = grouped.eval()[0].weight
    ours = sensitivity.profile(grouped, x)
    assert grouped[0].weight is before
    grouped(x)  # the hook computes the weight that a plain network is given
    plain = nn.Sequential(nn.Conv2d(2, 6, 3, stride=2, padding=1), *list(grouped)[1:])
    plain[0].weight, plain[0].bias = nn.Parameter(grouped[0].weight.detach()), grouped[0].bias
    _close(ours, sensitivity.profile(plain, x), rtol=1e-9)
    with pytest.raises(ValueError, match="not a mask: 0.weight$"):
        sensitivity.profile(grouped, x, criterion="crop")


class Alias(nn.Module):
    """A network with a handle on its last layer: one module under two names."""

    def __init__(self, net):
        super().__init__()
        self.net, self.fc = net, net[-1]

    def forward(self, x):
        return self.net(x)


def test_a_module_of_two_names_counts_once_and_stays_whole(grouped):
    net, parameters = Alias(grouped), list(grouped.parameters())
    _close(sensitivity.profile(net, _x(), criterion="crop"), sensitivity.profile(grouped, _x(), criterion="crop"))
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert net.fc.weight is grouped[-1].weight


class Adapted(nn.Linear):
    """A linear layer with a further matrix (of low rank) beside its weight."""

    def __init__(self, size):
        super().__init__(size, size)
        self.down = nn.Parameter(torch.randn(2, size))

    def forward(self, x):
        return super().forward(x) + x @ self.down.T @ self.down


def test_matrices_that_no_criterion_covers_are_named(grouped):
    x = _x()
    net = nn.Sequential(grouped, Adapted(4)).double()
    with pytest.warns(UserWarning, match="left out: 1.down$"):
        ours = sensitivity.profile(net, x)
    _close(ours, _norms(_oracle(net, x), 2))


def _state(net):
    return (
        [(m.training, dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in net.modules()],
        [(p.requires_grad, p.grad, p._version) for p in net.parameters()], [b._version for b in net.buffers()],
        torch.get_rng_state().tolist(),
    )  # fmt: skip


class _Fails(nn.Module):
    def __init__(self, when):
        super().__init__()
        self.when = when

    def forward(self, x):
        if self.when == "forward":
            raise ArithmeticError("on the way")
        if self.when == "backward":
            x.register_hook(lambda g: 1 / 0)
        return F.dropout(x, 0.5, training=True) if self.when == "random" else x


@pytest.mark.parametrize("when", ["never", "random", "forward", "backward"])
def test_model_and_random_state_are_left_as_found(grouped, when):
    net = nn.Sequential(grouped[:6], _Fails(when), grouped[6:])
    net.train()
    net[0][1].eval()
    net[0][0].weight.requires_grad_(False)
    net[2][0].weight.grad = torch.ones_like(net[2][0].weight)
    before = _state(net)
    for criterion in sensitivity.CRITERIA if when != "random" else ("snip", "snap"):
        try:
            with torch.no_grad():
                sensitivity.norms(net, _x(), criterion=criterion)
        except ArithmeticError:
            assert when in ("forward", "backward")
        else:
            assert when in ("never", "random") or criterion in ("crop", "grasp")
        assert _state(net) == before
    frozen = copy.deepcopy(grouped).requires_grad_(False)
    _close(sensitivity.profile(frozen, _x()), sensitivity.profile(grouped, _x()))


@pytest.mark.filterwarnings("error")
def test_torchvision_networks_go_in_as_they_are():
    tv = vision.torchvision().models
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.manual_seed(0)
    transformer = tv.VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=5)
    nn.init.normal_(transformer.heads.head.weight)  # zeros, as built
    for net in (tv.resnet18(num_classes=5), tv.mobilenet_v3_small(num_classes=5), transformer):
        net = net.double()
        if net is transformer:
            with pytest.warns(UserWarning, match=r"left out: encoder.pos_embedding, .*layer_0.self_attention.in_proj_"):
                ours = sensitivity.profile(net, x)
        else:
            ours = sensitivity.profile(net, x)
        _close(ours, _norms(_oracle(net, x), 2), rtol=1e-9)
        _close(sensitivity.profile(net, x, criterion="snap", layers=sensitivity.names(net)),
               _norms(_oracle(net, x, criterion="snap"), 2), rtol=1e-9)  # fmt: skip
    names = sensitivity.names(transformer)
    attention = "encoder.layers.encoder_layer_0.self_attention.out_proj.weight"  # never called
    assert (ours[:, names.index(attention)] > 0).all()
    crop = sensitivity.profile(transformer, x[:1], criterion="crop", layers=names)
    assert (crop > 0).all()
    with pytest.raises(ValueError, match="operation without a second derivative: .*hardsigmoid"):
        sensitivity.profile(tv.mobilenet_v3_small(num_classes=5).double(), x, criterion="crop")


class _Live(TorchDispatchMode):
    """The bytes of tensors that operations have made and that are still alive, now and at most."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.storages = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        inputs = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in inputs and storage._cdata not in self.storages:
                    self._born(storage._cdata, storage, storage.nbytes())
        return out

    def _born(self, key, storage, size):
        def died(_):
            del self.storages[key]
            self.now -= size

        self.storages[key] = weakref.ref(storage, died)
        self.now += size
        self.peak = max(self.peak, self.now)


def test_memory_stays_within_the_budget_and_is_given_back():
    net = models.build("resnet18", in_channels=3, num_classes=10, image_size=32, width=16)
    x = torch.rand(24, 3, 32, 32)
    weights = sum(p.nbytes for p in net.parameters())  # 2.7 MB: one sample's gradient, if it were formed
    gc.collect()
    gc.disable()
    try:
        peaks = {}
        for criterion, budget in itertools.product(("snip", "snap"), (4 * 2**20, 16 * 2**20, 64 * 2**20)):
            with _Live() as live:
                sensitivity.norms(net, x, criterion=criterion, budget=budget)
            assert live.now == 0
            peaks[criterion, budget] = live.peak
            assert live.peak < budget + weights, (criterion, budget, live.peak)
        with _Live() as live:
            sensitivity.norms(net, x[:4], criterion="crop", budget=64 * 2**20)
        assert live.now == 0
        assert live.peak < 64 * 2**20
    finally:
        gc.enable()
    assert max(peaks.values()) < len(x) * weights


def test_empty_batch_gives_empty_values(grouped):
    x = _x(0)
    assert sensitivity.profile(grouped, x).shape == (0, 4)
    assert sensitivity.norms(grouped, x, criterion="crop").shape == (0,)
    with pytest.raises(ValueError, match="at least one sample"):
        sensitivity.moments(grouped, x)


def test_bad_arguments_are_named(grouped):
    x = _x()
    mean, std = sensitivity.moments(grouped, x)
    for error, message, options in (
        (ValueError, "unknown criterion 'snipp'; did you mean 'snip'", dict(criterion="snipp")),
        (ValueError, "unknown target 'predict'", dict(target="predict")),
        (ValueError, r"norm must be in \(0, inf\], got 0", dict(norm=0)),
        (ValueError, "unknown layers 'first'.*or a list of weight names", dict(layers="first")),
        (ValueError, "unknown layer '3' .allowed: 0.weight, 3.weight", dict(layers=["3"])),
        (ValueError, "a list of at least one weight name, got ", dict(layers=[])),
        (ValueError, "each weight once, got '0.weight' twice", dict(layers=["0.weight", "3.weight", "0.weight"])),
        (ValueError, "budget must be at least 1, got 0", dict(budget=0)),
        (ValueError, "scale needs a reference", dict(scale=std)),
        (ValueError, "per_loss needs target='logit', got target='predicted'", dict(per_loss=True)),
        (ValueError, "per_loss needs target='logit', got target='uniform'", dict(per_loss=True, target="uniform")),
        (ValueError, "reference must have an entry for every weight, got none for '0.weight'", dict(reference={})),
        (ValueError, r"scale\['0.weight'\] must have shape", dict(reference=mean, scale=mean | {"0.weight": x})),
        (ValueError, "must be finite", dict(reference=mean | {"0.weight": mean["0.weight"] * torch.nan})),
        (ValueError, "x must be finite", dict(x=x * torch.nan)),
        (ValueError, "below the number of classes, 4, got 4", dict(y=torch.full((5,), 4))),
        (ValueError, "y must ", dict(y=torch.zeros(4, dtype=torch.int64))),
    ):
        with pytest.raises(error, match=message):
            sensitivity.profile(grouped, options.pop("x", x), options.pop("y", None), **options)
    with pytest.raises(ValueError, match="per_loss needs target='logit'"):
        sensitivity.moments(grouped, x, per_loss=True)
    with pytest.raises(ValueError, match="unknown aggregate 'sum'"):
        sensitivity.norms(grouped, x, aggregate="sum")
    grouped[8].weight.data[0, 0] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinite"):
        sensitivity.norms(grouped, x)
    dependent = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Linear(128, 4)).double()
    with pytest.raises(ValueError, match="samples are not independent: '0'"):
        sensitivity.norms(dependent, x)


@pytest.mark.gpu
@pytest.mark.parametrize("criterion", sensitivity.CRITERIA)
def test_the_same_on_a_gpu(grouped, criterion):
    x = _x()
    ours = sensitivity.profile(copy.deepcopy(grouped).cuda(), x.cuda(), criterion=criterion)
    _close(ours.cpu(), sensitivity.profile(grouped, x, criterion=criterion), rtol=1e-8)
