"""PGD-20 against foolbox and the Adversarial Robustness Toolbox, on the CPU or on CUDA where there is one.

    python benchmarks/attacks.py [repeats, default 9]

Same network, batch, steps and step size, no random start. The libraries take turns within each repeat, so that a busy
machine slows all alike; the table gives medians in milliseconds per image, of early stopping the speed-up over our
plain PGD, and the accuracies that are left. The networks are trained on the digits (enlarged to 28×28 for resnet8).
Targets: no slower than either library (ratio at most 1); early stopping at least 1.5 times as fast where the network is
not robust, here: where PGD leaves less than 5 %.
"""

import os
import platform
import statistics
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads on shared cores would be measured, not the code

import foolbox
import numpy as np
import torch
import torch.nn.functional as F
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier

from sparselib import data, models, training
from sparselib.robustness import attacks

BATCH, STEPS = 128, 20
NETWORKS = {"convnet": (8, 16, 10), "resnet8": (28, None, 3)}  # image size, width, epochs of training
BALLS = {
    "convnet": (("linf", 0.1), ("linf", 0.15), ("linf", 0.3), ("l2", 1.0)),
    "resnet8": (("linf", 0.1), ("linf", 0.3), ("l2", 2.0)),
}


def prepared(name, device):
    """Return a trained network and a batch of images that it has not seen."""
    size, width, epochs = NETWORKS[name]
    net = models.build(name, in_channels=1, num_classes=10, image_size=size, width=width, mean=0.3, std=0.4).to(device)
    train, test = data.load("digits"), data.load("digits", "test", limit=BATCH)
    if size != 8:
        train, test = (
            data.Samples(F.interpolate(s.x, size=size, mode="bilinear"), s.y, s.classes, s.name) for s in (train, test)
        )
    training.fit(net, train, epochs=epochs, progress=False)
    return net.eval(), test.x.to(device), test.y.to(device)


def contenders(net, x, y, norm, eps):
    """Return {name: a call that returns adversarial points}."""
    step = 2.5 * eps / STEPS
    peer = foolbox.attacks.LinfProjectedGradientDescentAttack if norm == "linf" else foolbox.attacks.L2PGD
    peer = peer(steps=STEPS, abs_stepsize=step, random_start=False)
    wrapped = foolbox.PyTorchModel(net, bounds=(0, 1), device=x.device)
    toolbox = PyTorchClassifier(
        net, torch.nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0),
        device_type="gpu" if x.is_cuda else "cpu",
    )  # fmt: skip
    order = np.inf if norm == "linf" else 2
    settings = {"eps_step": step, "max_iter": STEPS, "num_random_init": 0, "batch_size": len(x), "verbose": False}
    theirs = ProjectedGradientDescent(toolbox, norm=order, eps=eps, **settings)
    images, labels = x.cpu().numpy(), y.cpu().numpy()

    def ours(early_stop=False):
        return attacks.pgd(net, x, y, eps, norm=norm, steps=STEPS, random_start=False, early_stop=early_stop)

    return {
        "sparselib": ours,
        "foolbox": lambda: peer.run(wrapped, x, y, epsilon=eps),
        "ART": lambda: torch.from_numpy(theirs.generate(images, labels)).to(x.device),
        "early stop": lambda: ours(early_stop=True),
    }


def milliseconds(call, device):
    started = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - started) / BATCH


def main(repeats):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"PGD-{STEPS}, batch {BATCH}, {repeats} repeats, {device}, {torch.get_num_threads()} threads, ", end="")
    print(f"{platform.machine()}, torch {torch.__version__}, foolbox {foolbox.__version__}\n")
    print("| network | ball | sparselib | foolbox | ART | ratio to the faster | early stop | accuracy left (each) |")
    print("|---|---|---|---|---|---|---|---|")
    misses = []
    for name, balls in BALLS.items():
        net, x, y = prepared(name, device)
        for norm, eps in balls:
            calls = contenders(net, x, y, norm, eps)
            left = {  # warms up as well
                library: (training.logits(net, call()).argmax(1) == y).float().mean().item()
                for library, call in calls.items()
            }
            times = {library: [] for library in calls}
            for _ in range(repeats):
                for library, call in calls.items():
                    times[library].append(milliseconds(call, device))
            median = {library: statistics.median(values) for library, values in times.items()}
            ratio = median["sparselib"] / min(median["foolbox"], median["ART"])
            gain = median["sparselib"] / median["early stop"]
            row = f"{name} {x.shape[-1]}×{x.shape[-1]} | {norm} {eps}"
            speeds = " | ".join(f"{median[library]:.2f}" for library in ("sparselib", "foolbox", "ART"))
            accuracies = ", ".join(f"{left[library]:.2f}" for library in ("sparselib", "foolbox", "ART"))
            print(f"| {row} | {speeds} | {ratio:.2f} | {gain:.1f} × | {accuracies} |", flush=True)
            if ratio > 1:
                misses.append(f"{row}: takes {ratio:.2f} of the time of the faster library")
            if gain < 1.5 and left["sparselib"] < 0.05:
                misses.append(f"{row}: early stopping only {gain:.2f} times as fast")
            if left["early stop"] > left["sparselib"]:
                misses.append(f"{row}: early stopping breaks fewer inputs")
    print("\nMisses: " + ("; ".join(misses) if misses else "none"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
