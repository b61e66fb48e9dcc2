"""Choose the configuration of SensNorm that `detectors.build("sensnorm")` stands for. Written before it was run.

    python benchmarks/choose_sensnorm.py [--seeds 5]

Data: the held-back tenth of the digits, on which no figure trains or tests, as ordinary inputs. Networks: those of
figure 5, dense and sparse, from seeds that no figure uses (200, 201, …). Anomalies of kinds that no figure tests: near,
a class of its own that is kept out of training here ("7") and images whose halves are of two different classes; far,
permuted pixels and Gaussian noise images.

Candidates: the authors' form; the saliencies SNIP, SNAP and CroP of the last layer and of all layers; other norms.

Rule: for each candidate, the mean AUROC over networks and seeds of (near + far) / 2, each the mean of its kinds. The
highest mean wins; among those within 0.2 points of it, the one that comes first below, where simpler ones do.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

from sparselib import data, experiments
from sparselib.detection import detectors, metrics, sensnorm
from sparselib.experiments.samples import Data, inliers, pools
from sparselib.repro import parameters as typed

NEAR, FAR = ("kept out", "halves"), ("permuted", "gaussian")
SAME = 0.2  # points
CANDIDATES = [  # simpler ones first
    *({"criterion": c, "layers": layers} for layers in ("last", "all") for c in ("snip", "snap", "crop")),
    *({"criterion": "snip", "layers": layers, "norm": p} for layers in ("last", "all") for p in (1, 5)),
    {"criterion": "snip", "layers": "all", "aggregate": "mean"},
    {"criterion": "snip", "layers": "all", "target": "logit"},
    {"criterion": "snip", "layers": "all", "reference": "train"},
    "sensnorm-ayle",
]


def halves(like, seed):
    """Return images whose left half is of one image and whose right half is of one of another class."""
    rng = torch.Generator().manual_seed(seed)
    first, second = (torch.randint(len(like), (4 * len(like),), generator=rng) for _ in range(2))
    differ = (like.y[first] != like.y[second]).nonzero().squeeze(1)[: len(like)]
    x, middle = like.x[first[differ]].clone(), like.x.shape[-1] // 2
    x[..., middle:] = like.x[second[differ]][..., middle:]
    return x


def measure(p, seed):
    """Yield (candidate's number, network, kind, AUROC) of one seed."""
    chosen = Data(name="digits", held_out=("7", "8", "9"), seed=seed, held_back=True)
    held = inliers(chosen, "test")
    kinds = {kind: data.outliers(kind, held, seed=seed).x for kind in FAR}
    kinds |= {"halves": halves(held, seed)}
    kinds |= {"kept out": pools("digits", ("8", "9"))[2].only(["7"]).x}
    start = p.trained(seed, data=chosen)
    made = {}

    def load(step):
        if step.key not in made:
            made[step.key] = step.compute(load)[1]
        return made[step.key]

    for name, step in (("dense", p.unpruned(start)), ("sparse", p.pruned(start, p.recipe, p.sparsities[0]))):
        net, train = load(step).eval(), start.samples()
        for number, options in enumerate(CANDIDATES):
            own = detectors.build(options) if isinstance(options, str) else detectors.SensNorm(**options)
            inside = own.fit(net, train).score(held.x)
            for kind, x in kinds.items():
                yield number, name, kind, metrics.auroc(inside, own.score(x))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the table of all candidates there (CSV)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    p = typed.resolve(typed.find(experiments.PAGES, 5), {"profile": "digits"})
    rows = []
    for seed in range(200, 200 + arguments.seeds):
        rows += [(seed, *row) for row in measure(p, seed)]
        print(f"seed {seed} done", flush=True)
    table = pd.DataFrame(rows, columns=["seed", "number", "network", "kind", "auroc"])
    table["auroc"] *= 100
    sides = table.assign(side=table["kind"].isin(NEAR).map({True: "near", False: "far"}))
    means = sides.groupby(["number", "side"])["auroc"].mean().unstack()
    means["mean"] = (means["near"] + means["far"]) / 2
    ranking = pd.DataFrame({"candidate": list(map(str, CANDIDATES))}).join(means)
    if arguments.out:
        ranking.round(3).to_csv(arguments.out, index=False)
    print(ranking.sort_values("mean", ascending=False).round(2).to_string(index=False))
    chosen = ranking[ranking["mean"] >= ranking["mean"].max() - SAME].iloc[0]
    print(f"\nchosen: {chosen.to_dict()}\nin force: {sensnorm.HEADLINE}")


if __name__ == "__main__":
    main()
