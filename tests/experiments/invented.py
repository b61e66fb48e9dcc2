"""Rows whose truth is known."""

import numpy as np
import pandas as pd

from sparselib import experiments
from sparselib.repro import parameters as typed

SEEDS = range(5)
WOBBLE = np.array([0.004, -0.002, 0.001, -0.005, 0.002])  # by seed; of mean 0


def page(number, **values):
    return typed.resolve(typed.find(experiments.PAGES, number), values)


def rows(
    arm, sparsity=0.0, clean=None, *, attacked=None, withstood=None, shifted=None, detected=None, evaded=None, **columns
):
    """Return rows of one network a seed. A value is one number for all seeds, or a list of one for each.

    attacked: {radius: accuracy}, by PGD in L∞; withstood: the same, towards each class, where it differs. shifted:
    {shift: accuracy}. detected: {(detector, metric, family, anomaly): value}. evaded: {(detector, metric): value}.
    """
    made = []
    for seed in columns.pop("seeds", SEEDS):
        network = {"arm": arm, "sparsity": sparsity, "seed": seed, "classes": 8, "structured": False, **columns}
        own = [({"task": "clean", "metric": "accuracy"}, clean)] if clean is not None else []
        for eps, value in (attacked or {}).items():
            for attack, left in (("pgd", value), ("multitargeted", (withstood or {}).get(eps, value))):
                about = {"task": "attack", "attack": attack, "norm": "linf", "eps": eps}
                own += [({**about, "metric": "accuracy"}, left), ({**about, "metric": "accuracy_clean"}, clean)]
        for kind, value in (shifted or {}).items():
            own.append(({"task": "shift", "shift": kind, "severity": 4, "metric": "accuracy"}, value))
        for (detector, metric, family, anomaly), value in (detected or {}).items():
            about = {"task": "anomaly", "detector": detector, "family": family, "anomaly": anomaly, "metric": metric}
            own.append((about, value))
        for (detector, metric), value in (evaded or {}).items():
            about = {"task": "evasion", "attack": "adaptive", "norm": "linf", "eps": 0.1, "detector": detector}
            own.append(({**about, "metric": metric}, value))
        made += [{**network, **about, "value": v[seed] if np.ndim(v) else v} for about, v in own]
    return pd.DataFrame(made)


def together(*parts):
    """Return all rows in one table, in an order that says nothing."""
    return pd.concat(parts, ignore_index=True).sample(frac=1, random_state=0, ignore_index=True)


def ensembles(clean, near, share, *, members=5, attacked=None):
    """Return rows of ensembles: dense, of 90 % right and 80 % AUROC, and shrunk ones by {sparsity: what it has}.

    `attacked`: {arm: what PGD leaves at the radius of figure 4}.
    """

    def one(arm, sparsity, right, auroc, macs):
        detected = {("msp", "auroc", "near", "heldout"): auroc}
        own = {"attacked": {page(4).eps: attacked[arm]}} if attacked else {}
        found = rows(arm, sparsity, right, detected=detected, question="ensemble", members=members, **own)
        cost = rows(arm, sparsity, macs, question="ensemble", members=members).assign(metric="macs")
        return pd.concat([found, cost]).assign(task="ensemble")

    shrunk = [one("shrunk", at, clean[at], near[at], 1e6 * share[at]) for at in share]
    return together(one("dense", 0.0, 0.9, 0.8, 1e6), *shrunk)
