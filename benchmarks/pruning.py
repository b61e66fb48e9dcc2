"""What pruning costs: scoring against a training step, training under masks, and the speed of shrunk networks.

    python benchmarks/pruning.py [--repeats 7] [--threads 1]

Everything is timed in one run, the contenders in turn, and medians are compared: ratios mean something on a noisy
machine, seconds do not. Targets stand in the last column.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from sparselib import models, pruning
from sparselib.pruning import costs, criteria


def medians(contenders, repeats):
    """Return {name: median seconds}, the contenders run in turn."""
    seconds = {name: [] for name in contenders}
    for _ in range(repeats + 1):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def show(title, lines):
    print(f"\n## {title}\n\n| what | ratio | target | met |\n|---|---|---|---|")
    for what, ratio, sign, target in lines:
        met = ratio <= target if sign == "≤" else ratio >= target
        print(f"| {what} | {ratio:.2f} | {sign} {target:.2f} | {'yes' if met else 'NO'} |", flush=True)


def scoring(repeats):
    """Each criterion against a forward and backward pass over the same data."""
    lines = []
    for name, channels, size, n in (("convnet", 1, 8, 256), ("resnet8", 1, 28, 64), ("resnet18", 3, 32, 16)):
        net = models.build(name, in_channels=channels, num_classes=10, image_size=size)
        x, y = torch.rand(n, channels, size, size), torch.arange(n) % 10
        parameters = list(net.parameters())
        contenders = {
            "step": lambda net=net, x=x, y=y, p=parameters: torch.autograd.grad(F.cross_entropy(net(x), y), p)
        }
        for criterion in criteria.NAMES:
            contenders[criterion] = lambda c=criterion, net=net, x=x, y=y: criteria.saliency(net, c, x, y)
        found = medians(contenders, repeats)
        for criterion, target in (("snip", 1.5), ("crop", 4.0), ("grasp", 4.0)):
            ratio = found[criterion] / found["step"]
            lines.append((f"{criterion} / forward+backward, {name}, {n} inputs", ratio, "≤", target))
    show("Scoring", lines)


def training(repeats):
    """A training step under masks against one of the dense network: the speed should be at least 0.9 of it."""
    lines = []
    for name, channels, size, n in (("convnet", 1, 8, 64), ("resnet8", 1, 28, 64), ("resnet18", 3, 32, 32)):
        net = models.build(name, in_channels=channels, num_classes=10, image_size=size)
        x, y = torch.rand(n, channels, size, size), torch.arange(n) % 10
        nets = {"dense": net} | {
            kind: pruning.prune(net, "magnitude", 0.8, structured=kind == "units") for kind in ("weights", "units")
        }

        def step(model, optimizer, x=x, y=y):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

        optimizers = {kind: torch.optim.Adam(model.parameters()) for kind, model in nets.items()}
        found = medians({k: lambda k=k, m=nets, o=optimizers: step(m[k], o[k]) for k in nets}, repeats)
        for kind in ("weights", "units"):
            lines.append((f"speed under masks of {kind}, {name}, batch {n}", found["dense"] / found[kind], "≥", 0.9))
    show("Training under masks", lines)


def shrinking(repeats):
    """Forward passes of resnet18, batch 64, with 75 % fewer multiplications."""
    net = models.build("resnet18", in_channels=3, num_classes=10, image_size=32).eval()
    x = torch.rand(64, 3, 32, 32)
    dense = costs.cost(net, x[:1], repeats=1).macs
    low, high, small = 0.5, 0.95, None
    for _ in range(8):  # the sparsity at which three quarters of the multiplications are gone
        middle = (low + high) / 2
        small = pruning.shrink(pruning.prune(net, "random", middle, structured=True, scope="layer"))
        low, high = (middle, high) if costs.cost(small, x[:1], repeats=1).macs > dense / 4 else (low, middle)
    masked = pruning.prune(net, "random", middle, structured=True, scope="layer")
    with torch.no_grad():
        found = medians(
            {n: lambda m=m: m(x) for n, m in {"dense": net, "masked": masked, "small": small}.items()}, repeats
        )
    saved = 1 - costs.cost(small, x[:1], repeats=1).macs / dense
    speed = found["dense"] / found["small"]
    lines = [(f"speed of the shrunk network, {saved:.0%} fewer multiplications", speed, "≥", 2.5)]
    show("Shrinking resnet18, batch 64", lines)
    print(f"\nWithout shrinking, masks alone: {found['dense'] / found['masked']:.2f} × the speed.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), medians of {arguments.repeats}")
    scoring(arguments.repeats)
    training(arguments.repeats)
    shrinking(arguments.repeats)


if __name__ == "__main__":
    main()
