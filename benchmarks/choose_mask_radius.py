"""Choose the radius of the attacks that masks are learnt on, for one profile. Written before it was run as a whole.

    python benchmarks/choose_mask_radius.py digits

Run it after choose_strengths.py. Held-back data and seeds that no figure uses; no test image, no anomaly. The dense
network of each seed, and masks over it at the first sparsity of the figure, with frozen statistics, learnt on attacks
of a quarter, a half, three quarters and the whole of the radius of the test.

The rule: of the radii at which the clean accuracy is at most one point below that of the dense network (half of what
the gate allows), the one with the highest accuracy under PGD at the radius of the test; if there is none, the smallest.
They are tried from the smallest on, up to the first that costs more.
Means over three seeds (of mnist and cifar10, one: time). Written to results/<profile>/choices.csv as `mask_eps`;
`digits` has it in its profile.
"""

import csv
import sys

import numpy as np
from choose_strengths import SAMPLES, held_back, withstood

from sparselib import experiments, training
from sparselib.experiments.samples import inliers, some
from sparselib.pruning import subnetworks
from sparselib.repro import parameters as typed
from sparselib.repro import project

SEEDS = {"digits": (200, 201, 202), "mnist": (200,), "cifar10": (200,)}
PARTS = (0.25, 0.5, 0.75, 1.0)
LOST = 0.01  # of clean accuracy, at most


def main(profile):
    page = typed.find(experiments.PAGES, 3)
    p = typed.resolve(page, {"profile": profile, "mask_eps": 1.0})
    nets = {seed: held_back(p.trained(seed)) for seed in SEEDS[profile]}
    sparsity = p.mask_sparsities[0]

    def measured(part=None):
        """Return clean accuracy and that under PGD, means over the seeds, of masks or (None) the dense networks."""
        found = []
        for seed, (made, net) in nets.items():
            if part is not None:
                net = subnetworks.search(
                    net, inliers(made.data, "train"), sparsity, objective="adversarial", eps=part * p.eps,
                    epochs=p.mask_epochs, lr=p.mask_lr, **p.mask(made, "adversarial", sparsity).options(),
                )  # fmt: skip
            test, few = inliers(made.data, "test"), some(made.data, SAMPLES)
            found.append((training.accuracy(net, test), withstood(net, few, p.eps, "linf", seed)))
            name = "dense" if part is None else f"{part:g} of {p.eps:g}"
            print(f"seed {seed}, {name}: clean {found[-1][0]:.3f}, PGD {found[-1][1]:.3f}", flush=True)
        return np.mean(found, axis=0).tolist()

    least = measured()[0] - LOST
    best, most = PARTS[0], -1.0
    for part in PARTS:
        clean, robust = measured(part)
        if clean < least:  # larger radii cost more
            break
        if robust > most:
            best, most = part, robust
    chosen = float(f"{best * p.eps:.2g}")
    print(f"mask_eps {chosen}")
    if profile == "digits":
        return
    path = project.results_folder() / profile / "choices.csv"
    lines = [line for line in csv.reader(path.read_text(encoding="utf-8").splitlines()) if line[0] != "mask_eps"]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([*lines, ("mask_eps", chosen)])
    print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
