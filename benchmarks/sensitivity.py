"""What SensNorm costs, against the ways to get the same number, and against pytorch-ood's GradNorm.

    python benchmarks/sensitivity.py [--repeats 9] [--threads 1] [--networks convnet resnet8 resnet18]

Prints one Markdown table: medians over rounds in which every method runs once, in an order drawn anew each round. The
ratio to one pass is the median of the rounds' ratios; targets are judged by it. Peak memory is what torch's allocator
held beyond the start, in a separate run. Random weights and inputs: the cost does not depend on them.
"""

import argparse
import copy
import random
import statistics
import time

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap
from torch.profiler import ProfilerActivity, profile

from sparselib import models, vision
from sparselib.detection import sensitivity
from sparselib.pruning import masks

# name -> (channels, pixels, batch)
NETWORKS = {"convnet": (1, 8, 64), "resnet8": (1, 28, 64), "resnet18": (3, 32, 16)}
ONE_PASS = "(a) one forward and backward pass, weight gradients of the batch"
LOOP = "(b) SensNorm, a loop over single samples"
NAIVE = "(c) SensNorm, vmap(grad) over all parameters"
GRADNORM = "(d) GradNorm of pytorch-ood, all parameters"
SNIP = "SensNorm, SNIP, p = 2, all weights"
SNAP = "SensNorm by channels, SNAP, p = 2"
NOTE = """
Why targets are missed. Single samples' gradients take as many multiplications as the batch's weight gradient that (a)
sums, in products of one sample each, and are written, multiplied by the weights and read once more. On a network as
small as the convnet the rest is the fixed cost of some hundred small operations, with hooks on the layers and checks
around them. A loop (b) repeats that cost for every sample, which matters little where a sample is much work: on one
thread, (b) then costs only a few times (a), and a quarter of it is less than (a) itself."""


def methods(net, x):
    """Return {name: function} of one network and batch; all but (a) and (d) give one number a sample."""
    y = net(x).argmax(1)
    weights = {name: layer.weight for name, layer in masks.prunable(net).items()}
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    buffers = dict(net.named_buffers())
    vision.torchvision()  # pytorch-ood imports it
    from pytorch_ood.detector import GradNorm

    gradnorm = GradNorm(net)

    def one_pass():
        net.zero_grad()
        F.cross_entropy(net(x), y, reduction="sum").backward()

    def norm(gradients):  # {name: (n, *shape)} -> (n,)
        flat = [(weights[name].detach() * g).flatten(1) for name, g in gradients.items() if name in weights]
        return torch.linalg.vector_norm(torch.cat(flat, dim=1), dim=1)

    def loop():
        values = []
        for xi, yi in zip(x.split(1), y.split(1), strict=True):
            gradients = torch.autograd.grad(F.cross_entropy(net(xi), yi), list(weights.values()))
            values.append(norm({name: g.unsqueeze(0) for name, g in zip(weights, gradients, strict=True)}))
        return torch.cat(values)

    def loss(parameters, xi, yi):
        return F.cross_entropy(functional_call(net, (parameters, buffers), (xi.unsqueeze(0),)), yi.unsqueeze(0))

    return {
        ONE_PASS: one_pass,
        LOOP: loop,
        NAIVE: lambda: norm(vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)),
        GRADNORM: lambda: gradnorm.predict(x),
        SNIP: lambda: sensitivity.norms(net, x),
        SNAP: lambda: sensitivity.norms(net, x, criterion="snap"),
    }


def peak_bytes(function):
    """Return the most bytes that torch's allocator held during the call, beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure(functions, repeats, seed=0):
    """Return {name: [seconds]} of `repeats` rounds, after one that does not count."""
    order, seconds = list(functions), {name: [] for name in functions}
    shuffle = random.Random(seed).shuffle
    for repeat in range(repeats + 1):
        shuffle(order)
        for name in order:
            started = time.perf_counter()
            functions[name]()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds, name, to):
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True))


def verdict(name, seconds, peak):
    """Return what is asked of a method and whether it holds."""
    if name == SNAP:
        targets = {"≤ 1.0 × (a)": ratio(seconds, name, ONE_PASS) <= 1.0}
    elif name == SNIP:
        targets = {
            "≤ 1.3 × (a)": ratio(seconds, name, ONE_PASS) <= 1.3,
            "≤ ¼ × (b)": ratio(seconds, name, LOOP) <= 0.25,
            "< (c)": ratio(seconds, name, NAIVE) < 1,
            "< (d)": ratio(seconds, name, GRADNORM) < 1,
            "memory": peak <= sensitivity.BUDGET,
        }
    else:
        return ""
    met, missed = ([target for target, holds in targets.items() if holds == wanted] for wanted in (True, False))
    return "; ".join(f"{word}: {', '.join(found)}" for word, found in (("met", met), ("missed", missed)) if found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="rounds, at least 1")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; 1 is steadiest on a shared machine")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    arguments = parser.parse_args()
    if arguments.repeats < 1 or arguments.threads < 1:
        parser.error("--repeats and --threads must be at least 1")
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), median of {arguments.repeats} rounds, CPU\n")
    print("| network | batch | method | ms | × (a) | × (b) | peak MiB | targets |")
    print("|---|---|---|--:|--:|--:|--:|---|")
    any_missed = False
    for network in arguments.networks:
        channels, size, batch = NETWORKS[network]
        net = models.build(network, in_channels=channels, num_classes=10, image_size=size).eval()
        x = torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(0))
        functions = methods(net, x)
        exact = methods(copy.deepcopy(net).double(), x.double())[LOOP]()  # long float32 sums are off by up to 1e-3
        torch.testing.assert_close(functions[SNIP]().double(), exact, rtol=1e-5, atol=0)
        seconds = measure(functions, arguments.repeats)
        for name, function in functions.items():
            net.zero_grad()
            peak = peak_bytes(function)
            row = [
                network, f"{batch}×{channels}×{size}×{size}", name, f"{1e3 * statistics.median(seconds[name]):.1f}",
                f"{ratio(seconds, name, ONE_PASS):.2f}", f"{ratio(seconds, name, LOOP):.2f}",
                f"{peak / 2**20:.0f}", verdict(name, seconds, peak),
            ]  # fmt: skip
            print("| " + " | ".join(row) + " |", flush=True)
            any_missed |= "missed" in row[-1]
    if any_missed:
        print(NOTE)


if __name__ == "__main__":
    main()
