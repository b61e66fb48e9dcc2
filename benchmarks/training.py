"""Images per second of training against a plain PyTorch loop, on one thread of the CPU.

    python benchmarks/training.py [--repeats 7]
    python benchmarks/training.py --accuracy      what is learnt: resnet8 on 5,000 images of MNIST, 3 epochs, 3 seeds

The plain loop: float32, a DataLoader over a TensorDataset, Adam. Ways take turns within each repeat, so that a busy
machine slows all alike; tables give medians. Random images serve for speed. Further tables: the digits network of the
profile "live", with its layout contiguous as found or channels last, and forward passes of `training.logits`.
Targets: `fit` in bfloat16 at least twice as fast as the plain loop on both networks; mean accuracies within 0.5 points.
"""

import argparse
import copy
import os
import platform
import statistics
import time
from contextlib import nullcontext
from functools import partial
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads on shared cores would be measured, not the code

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from sparselib import data, models, pruning, training

NETWORKS = {"resnet8": 16, "resnet18": 16}  # width
BATCH, BATCHES = 128, 5
LR, WEIGHT_DECAY = 2e-3, 5e-5


def plain(net, train, *, epochs=1, batch_size=BATCH, seed=0):
    """Train as one writes it in PyTorch, with the learning rates of `training.fit`."""
    torch.manual_seed(seed)
    loader = DataLoader(TensorDataset(train.x, train.y), batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LR, total_steps=epochs * len(loader), pct_start=0.25, anneal_strategy="linear",
        cycle_momentum=False, div_factor=1e3,
    )  # fmt: skip
    net.train()
    for _ in range(epochs):
        for x, y in loader:
            loss = F.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def fit(net, train, *, epochs=1, batch_size=BATCH, **options):
    training.fit(
        net, train, epochs=epochs, batch_size=batch_size, lr=LR, weight_decay=WEIGHT_DECAY, progress=False, **options
    )


def contiguous(net, train, **options):
    """`fit` without its change of layout."""
    with mock.patch.object(training, "_channels_last", lambda *_: nullcontext(torch.contiguous_format)):
        fit(net, train, **options)


def in_bfloat16(net, train, **options):
    fit(net, train, precision="bfloat16", **options)


def seconds(calls, repeats):
    """Return {name: median seconds of a call}, the calls taking turns; each warms up once."""
    times = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if repeat:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def random_images(count, channels, size):
    x, y = torch.rand(count, channels, size, size), torch.randint(10, (count,))
    return data.Samples(x, y, tuple(map(str, range(10))), "random")


def training_speed(repeats):
    print("| network | plain, images/s | fit float32 | fit bfloat16 | + crop+flip | ratios to plain |")
    print("|---|---|---|---|---|---|")
    train, misses = random_images(BATCH * BATCHES, 3, 32), []
    for name, width in NETWORKS.items():
        dense = models.build(name, in_channels=3, num_classes=10, image_size=32, width=width, mean=0.5, std=0.3)
        for kind, net in ((name, dense), (f"{name}, 90 % masked", pruning.prune(dense, "random", 0.9))):
            calls = {
                "plain": partial(plain, copy.deepcopy(net), train),
                "float32": partial(fit, copy.deepcopy(net), train),
                "bfloat16": partial(in_bfloat16, copy.deepcopy(net), train),
                "augmented": partial(in_bfloat16, copy.deepcopy(net), train, augment="crop+flip"),
            }
            speed = {way: len(train) / took for way, took in seconds(calls, repeats).items()}
            ratios = {way: value / speed["plain"] for way, value in speed.items() if way != "plain"}
            cells = [f"{value:,.0f}" for value in speed.values()]
            cells.append(", ".join(f"{ratio:.2f}" for ratio in ratios.values()))
            print(f"| {kind} {width} | {' | '.join(cells)} |", flush=True)
            if ratios["bfloat16"] < 2:
                misses.append(f"{kind}: fit in bfloat16 is {ratios['bfloat16']:.2f} times as fast as the plain loop")
    return misses


def digits_speed(repeats):
    train = data.load("digits")
    net = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=64, mean=0.3, std=0.4)
    ways = {"plain": plain, "float32 contiguous": contiguous, "float32 channels last": fit, "bfloat16": in_bfloat16}
    calls = {w: partial(f, copy.deepcopy(net), train, batch_size=64) for w, f in ways.items()}
    took = seconds(calls, repeats)
    print(f"\n| convnet 64, {len(train)} digits, batch 64 | seconds per epoch | ratio |\n|---|---|---|")
    for way, value in took.items():
        print(f"| {way} | {value:.2f} | {took['float32 contiguous'] / value:.2f} |", flush=True)


def forward_speed(repeats):
    print("\n| forward, batch 512 | contiguous, ms | channels last | bfloat16 | ratios | largest change of a logit |")
    print("|---|---|---|---|---|---|")
    for name, width, channels, size in (("convnet", 64, 1, 8), ("resnet8", 16, 3, 32), ("resnet18", 16, 3, 32)):
        net = models.build(name, in_channels=channels, num_classes=10, image_size=size, width=width, mean=0.5, std=0.3)
        last: torch.nn.Module = copy.deepcopy(net)
        last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.rand(512, channels, size, size)
        x_last = x.contiguous(memory_format=torch.channels_last)
        calls = {
            "contiguous": partial(training.logits, net, x),
            "last": partial(training.logits, last, x_last),
            "bfloat16": partial(training.logits, training._InBfloat16(last), x_last),
        }
        outputs = {way: call() for way, call in calls.items()}
        took = seconds(calls, repeats)
        cells = [f"{1000 * value:.0f}" for value in took.values()]
        cells.append(", ".join(f"{took['contiguous'] / took[w]:.2f}" for w in ("last", "bfloat16")))
        far = [(outputs[w] - outputs["contiguous"]).abs().max().item() for w in ("last", "bfloat16")]
        cells.append(", ".join(f"{value:.1e}" for value in far) + f" of {outputs['contiguous'].abs().max():.1f}")
        print(f"| {name} {width}, {channels}×{size}×{size} | {' | '.join(cells)} |", flush=True)


def accuracies():
    train, test = data.load("mnist", limit=5000), data.load("mnist", "test")
    shape = {"in_channels": 1, "num_classes": 10, "image_size": 28, "mean": 0.13, "std": 0.31}
    ways, found = {"plain": plain, "fit float32": fit, "fit bfloat16": in_bfloat16}, {}
    print("| MNIST, 5,000 images, resnet8, 3 epochs | seconds | accuracy by seed, % | mean |\n|---|---|---|---|")
    for way, train_by in ways.items():
        started, right = time.perf_counter(), []
        for seed in range(3):
            net = models.build("resnet8", **shape, seed=seed)
            train_by(net, train, epochs=3, seed=seed)
            right.append(100 * training.accuracy(net, test))
        took, found[way] = time.perf_counter() - started, statistics.mean(right)
        print(f"| {way} | {took:.0f} | {', '.join(f'{r:.2f}' for r in right)} | {found[way]:.2f} |", flush=True)
    gaps = {way: found[way] - found["plain"] for way in found}
    return [f"{way}: {gap:+.2f} points to the plain loop" for way, gap in gaps.items() if abs(gap) > 0.5]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--accuracy", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    has = "with" if training.has_bfloat16() else "without"
    print(f"1 thread, {platform.machine()} {has} bfloat16 arithmetic, torch {torch.__version__}\n")
    if arguments.accuracy:
        misses = accuracies()
    else:
        misses = training_speed(arguments.repeats)
        digits_speed(arguments.repeats)
        forward_speed(arguments.repeats)
    print("\nMisses: " + ("; ".join(misses) if misses else "none"))
