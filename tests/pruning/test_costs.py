import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sparselib import models, pruning
from sparselib.pruning import costs


@pytest.mark.parametrize("name", models.NAMES)
def test_macs_agree_with_torchs_counter(name):
    net = models.build(name, in_channels=3, num_classes=10, image_size=32, width=4).eval()
    x = torch.rand(2, 3, 32, 32)
    small = pruning.shrink(pruning.prune(net, "magnitude", 0.6, structured=True))
    for model in (net, small):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(x)
        cost = costs.cost(model, x, repeats=1)
        assert 2 * cost.macs == counter.get_total_flops()
        assert cost.params == sum(p.numel() for p in model.parameters())


def test_grouped_convolutions_count_their_own_inputs(grouped):
    x = torch.rand(3, 2, 8, 8).double()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        grouped(x)
    assert 2 * costs.cost(grouped, x, repeats=1).macs == counter.get_total_flops()


def test_macs_of_functions_attention_and_transposed_convolutions_are_counted():
    class Mixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up = torch.nn.ConvTranspose2d(3, 8, 2, stride=2)
            layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder = torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.weight = torch.nn.Parameter(torch.rand(5, 8))

        def forward(self, x):
            return torch.nn.functional.linear(self.encoder(self.up(x).flatten(2).transpose(1, 2)).mean(1), self.weight)

    tokens = 4 * 4
    up, projections, attention = 3 * 8 * tokens, 4 * tokens * 8 * 8, 2 * tokens * tokens * 8
    rest = 2 * tokens * 8 * 16 + 8 * 5
    macs = up + projections + attention + rest
    assert costs.cost(Mixed(), torch.rand(3, 3, 2, 2), repeats=1).macs == 3 * macs


def test_recurrent_layers_are_named():
    net = torch.nn.Sequential(torch.nn.Flatten(2), torch.nn.Flatten(0, 1), torch.nn.LSTM(4, 3))
    with pytest.warns(UserWarning, match="macs leave out the recurrent layers 2"):
        costs.cost(net, torch.rand(2, 1, 2, 2), repeats=1)


def test_masked_weights_are_stored_but_zero_and_shrunk_ones_are_gone():
    net = models.build("convnet", in_channels=1, num_classes=10, image_size=8).train()
    x = torch.rand(64, 1, 8, 8)
    dense = costs.cost(net, x, repeats=1)
    masked = pruning.prune(net, "magnitude", 0.75, structured=True)
    thin = costs.cost(masked, x, repeats=1)
    shrunk = costs.cost(pruning.shrink(masked), x, repeats=1)
    assert thin.params == dense.params and thin.macs == dense.macs
    removed = round(pruning.sparsity(masked) * (dense.nonzero - 10 - 2 * 80))
    assert dense.nonzero - thin.nonzero == pytest.approx(removed, rel=0.02)
    assert shrunk.params < 0.4 * dense.params and shrunk.macs < 0.5 * dense.macs
    assert shrunk.peak_bytes < dense.peak_bytes and net.training


def test_peak_bytes_of_a_chain_are_known():
    class Doubled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(4, 2)

        def forward(self, x):
            x = torch.cat([x] * 8, 1)  # eight times the input: the peak, together with the input
            return self.head(x.mean((1, 2)))

    x = torch.rand(10, 1, 16, 4)
    size = x.numel() * 4
    assert costs.cost(Doubled(), x, repeats=1).peak_bytes == pytest.approx(9 * size, rel=0.05)


def test_bad_input_is_named():
    net = models.build("convnet", in_channels=1, num_classes=10, image_size=8)
    with pytest.raises(ValueError, match="at least one input"):
        costs.cost(net, torch.rand(0, 1, 8, 8))
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        costs.cost(net, torch.rand(1, 1, 8, 8), repeats=0)


class Slow(torch.nn.Module):
    """Takes so many seconds in its n-th pass, and counts the passes."""

    def __init__(self, *seconds):
        super().__init__()
        self.seconds, self.passes, self.weight = seconds, 0, torch.nn.Parameter(torch.ones(3, 2))

    def forward(self, x):
        time.sleep(self.seconds[self.passes])
        self.passes += 1
        return x.flatten(1) @ self.weight.T


def test_seconds_are_the_median_after_a_pass_that_warms_up():
    """Two passes count, one warms up, the others are timed."""
    net = Slow(0, 0, 0.9, 0.05, 0.6, 0.1)
    assert 0.1 <= costs.cost(net, torch.rand(1, 1, 1, 2), repeats=3).seconds < 0.4 and net.passes == 6
    net = Slow(0, 0, 0, 0.2)
    assert 0.2 <= costs.cost(net, torch.rand(1, 1, 1, 2), repeats=1).seconds < 0.5 and net.passes == 4
    net = Slow(*[0] * 20)
    costs.cost(net, torch.rand(1, 1, 1, 2))
    assert net.passes == 13


def test_bytes_alive_at_once_in_closed_form():
    x = torch.rand(5, 1, 4, 10)  # 800 bytes

    def grows(x):
        a = torch.cat([x, x])  # 2400 alive
        b = a + 1  # 4000
        del a  # 2400
        return b.view(-1)[:3], b + 1  # 4000: a view holds nothing of its own

    assert costs.peak_bytes(grows, x) == 4000
    assert costs.peak_bytes(lambda x: x.view(-1), x) == 800
    assert costs.peak_bytes(lambda x: [x + 1, (x + 2, x + 3)], x) == 3200
    assert costs.peak_bytes(lambda x: x[:1] + 1, x[:2]) == 800 + 160, "what lies behind a part of a tensor is held"


@pytest.mark.parametrize("fast", [True, False])
def test_costs_are_taken_in_eval_mode_and_leave_settings_as_found(fast):
    before = torch.backends.mha.get_fastpath_enabled()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).train()
    try:
        torch.backends.mha.set_fastpath_enabled(fast)
        costs.cost(net, torch.rand(1, 1, 2, 2), repeats=1)  # one sample has no statistics
        assert torch.backends.mha.get_fastpath_enabled() is fast
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert net.training and net[2].training and not net[2].running_mean.any()
    for example, repeats, message in [
        (torch.rand(0, 1, 2, 2), 1, "example must hold at least one input"),
        (torch.rand(1, 2, 2), 1, r"example must have shape \(N, C, H, W\)"),
        (torch.rand(1, 1, 2, 2), 0, "repeats must be at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            costs.cost(net, example, repeats=repeats)
