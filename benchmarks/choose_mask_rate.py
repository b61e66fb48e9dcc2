"""Choose the learning rate at which masks are searched for in figure 3. Written before it was run.

    python benchmarks/choose_mask_rate.py digits [--seeds 5] [--out results/digits/mask_rate_choice.csv]

Data: the training split of the profile only, and no anomaly but the synthetic outliers that one objective learns from.
No test image of the same seed is looked at; of digits, where the seed splits the images, some are those of other seeds.
Networks: the dense ones of figure 3, from seeds that no figure uses (200, 201, …), trained on 80 % of that split. Their
masks, with frozen statistics, are searched for on the same 80 % with everything as in the figure but for the rate, at
its highest sparsity; the other 20 %, on which no weight or mask was fitted, judge them.

Rule: every objective (of cifar10 `clean` only) judges the masks learnt for it by its own loss, mean over seeds. The
rates are ranked within each objective; the lowest mean rank wins, of equal ones the smaller rate.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

from sparselib import data, training
from sparselib.experiments.samples import inliers
from sparselib.experiments.subnetworks import Subnetworks
from sparselib.models import evaluating
from sparselib.pruning import subnetworks
from sparselib.repro import parameters

RATES = {"digits": (1e-3, 3e-3, 1e-2, 3e-2), "cifar10": (1e-4, 3e-4, 1e-3, 3e-3)}
OBJECTIVES = {"cifar10": ("clean",)}  # instead of those of the figure: time
PART = 500  # images judged at a time


def measure(p, seed):
    """Yield (objective, rate, loss, accuracy), the last two on images that no weight or mask was fitted to."""
    train, judge = inliers(p.data(seed), "train").split(0.8, seed=seed)
    step = p.trained(seed)
    dense = step.initial()
    training.fit(dense, train, epochs=step.epochs, lr=step.lr, seed=seed, **step.options())
    outliers, unseen = (data.outliers(p.outliers, part, seed=seed, split="train") for part in (train, judge))
    for objective in OBJECTIVES.get(p.profile, p.objectives):
        own_loss = subnetworks.objective_of(objective, unseen, (), p.eps, p.noise)  # a search descends it
        for rate in RATES[p.profile]:
            found = subnetworks.search(
                dense, train, max(p.mask_sparsities), objective=objective, outliers=outliers, eps=p.eps, noise=p.noise,
                epochs=p.mask_epochs, batch_size=p.batch_size, lr=rate, precision=step.precision, seed=seed,
                progress=False,
            )  # fmt: skip
            parts = zip(judge.x.split(PART), judge.y.split(PART), strict=True)
            with evaluating(found):  # without keeping a graph of all images
                losses = [own_loss(found, x, y, seed=seed)[0].item() * len(x) for x, y in parts]
            yield objective, rate, sum(losses) / len(judge), training.accuracy(found, judge)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", choices=sorted(RATES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the means over seeds there (CSV)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    p = parameters.resolve(Subnetworks, {"profile": arguments.profile, "mask_eps": 1.0})
    rows = []
    for seed in range(200, 200 + arguments.seeds):
        rows += [(seed, *row) for row in measure(p, seed)]
        print(f"seed {seed} done", flush=True)
    table = pd.DataFrame(rows, columns=["seed", "objective", "rate", "loss", "accuracy"])
    if arguments.out:
        table.groupby(["objective", "rate"])[["loss", "accuracy"]].mean().round(4).to_csv(arguments.out)
    for column in ("loss", "accuracy"):
        print(f"\n{column}, mean over seeds\n{table.pivot_table(index='rate', columns='objective', values=column)}")
    means = table.groupby(["rate", "objective"])["loss"].mean().unstack()
    ranks = means.rank().mean(axis=1)
    print(f"\nmean rank of the loss\n{ranks}\n\nchosen: {ranks.idxmin():g}\nin force: {p.mask_lr:g}")


if __name__ == "__main__":
    main()
