"""Choose how strong attacks and shifts are, for one profile: on held-back data, with seeds that no figure uses.

    python benchmarks/choose_strengths.py digits

The rule: the dense network decides. Three radii in L∞ are where it keeps about 70, 40 and 15 % of the images right
under PGD, by linear interpolation over a grid of radii, means over three seeds (of cifar10, one: time); so are those in
L2. A shift has the highest severity at which it keeps between 50 and 90 % (else the one nearest to 70 %). Written to
results/<profile>/choices.csv, which the profile reads; `ends` says what was kept.
"""

import csv
import sys

import numpy as np

from sparselib import experiments, training
from sparselib.experiments.measurements import STEP
from sparselib.experiments.samples import inliers, some
from sparselib.repro import parameters as typed
from sparselib.repro import project
from sparselib.robustness import attacks, shifts

SEEDS = {"digits": (200, 201, 202), "mnist": (200, 201, 202), "cifar10": (200,)}
WANTED = (0.70, 0.40, 0.15)
GRIDS = {  # times the smallest radius, which is a twentieth of the largest
    "linf": {"digits": 0.3, "mnist": 0.3, "cifar10": 8 / 255},
    "l2": {"digits": 2.0, "mnist": 4.0, "cifar10": 1.0},
}
SAMPLES = 200


def held_back(made):
    """Return the step of a dense network as it stands on the held-back data, and its network, trained."""
    made = made.model_copy(update={"data": made.data.model_copy(update={"held_back": True})})
    net = made.initial()
    training.fit(net, made.samples(), epochs=made.epochs, lr=made.lr, seed=made.seed, **made.options())
    return made, net


def withstood(net, few, eps, norm, seed):
    """Return the share of samples that stays right under PGD."""
    usual = {"norm": norm, "loss": "both", "steps": 20, "early_stop": True, "seed": seed}
    x = attacks.pgd(net, few.x, few.y, float(eps), step_size=STEP * float(eps), **usual)
    return (training.logits(net, x).argmax(1) == few.y).double().mean().item()


def main(profile):
    p = typed.resolve(typed.find(experiments.PAGES, 0), {"profile": profile, "eps": 0.1})
    grid = experiments.PROFILES[profile]["grid"]
    epochs = p.epochs + grid["finetune_epochs"]
    kept = {norm: [] for norm in GRIDS}
    under = {kind: [] for kind in shifts.SHIFTS.own}
    for seed in SEEDS[profile]:
        made, net = held_back(p.trained(seed, epochs=epochs))
        test, few = inliers(made.data, "test"), some(made.data, SAMPLES)
        print(f"seed {seed}: clean {training.accuracy(net, test):.3f} of {len(test)} held-back images", flush=True)
        for norm, largest in GRIDS.items():
            found = [training.accuracy(net, few)]
            for eps in largest[profile] * np.arange(1, 21) / 20:
                found.append(withstood(net, few, eps, norm, seed))
                if found[-1] < 0.01:
                    break
            kept[norm].append(found + [0.0] * (21 - len(found)))
        for kind in under:
            under[kind].append(
                [
                    (training.logits(net, shifts.corrupt(few.x, kind, s)).argmax(1) == few.y).double().mean().item()
                    for s in range(1, 6)
                ]
            )
    lines = [("profile", profile)]
    for norm, largest in GRIDS.items():
        mean = np.mean(kept[norm], axis=0)
        radii = np.interp([-w for w in WANTED], -mean, largest[profile] * np.arange(21) / 20)
        radii = [float(f"{r:.2g}") for r in radii]
        lines.append((f"eps_{norm}", radii))
        print(norm, radii, [round(float(np.interp(r, largest[profile] * np.arange(21) / 20, mean)), 3) for r in radii])
        if norm == "linf":
            lines += [("pgd", radii[1]), ("eps", radii[1]), ("autoattack_eps", radii[1])]
    for kind, found in under.items():
        mean = np.mean(found, axis=0)
        within = [s for s in range(5) if 0.5 <= mean[s] <= 0.9]
        severity = max(within) if within else 4 - int(np.abs(mean - 0.7)[::-1].argmin())
        lines.append((kind, severity + 1))
        print(kind, severity + 1, mean.round(3).tolist())
    path = project.results_folder() / profile / "choices.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "value"))
        writer.writerows(lines)
    print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
