"""One dictionary: what arms, criteria, detectors, attacks, shifts, anomalies and measures are called among people.

Figures, tables and prose take their names from here, so that a thing has one name everywhere.
"""

import re
from functools import cache
from pathlib import Path

import pandas as pd

from sparselib.experiments.fields import detector as read_detector
from sparselib.experiments.fields import recipe as read_recipe
from sparselib.experiments.samples import strength

CRITERIA = {
    "random": "random", "magnitude": "magnitude", "snip": "SNIP", "grasp": "GraSP", "crop": "CroP",
    "synflow": "SynFlow", "snap": "SNAP",
}  # fmt: skip
WHEN = {
    "before": "before training", "early": "early in training", "gradual": "gradually", "after": "after training",
    "tickets": "lottery ticket",
}  # fmt: skip
ARMS = {
    "dense": "dense", "unpruned": "unpruned, in the same phases", "sparse": "sparse",
    "fewer epochs": "dense, fewer epochs", "weight decay": "dense, weight decay", "narrow": "dense, narrow",
    "clean": "mask learnt on clean images", "adversarial": "mask learnt on attacked images",
    "shift": "mask learnt on noisy images", "outlier": "mask learnt on outliers",
    "magnitude": "mask of the largest weights", "random": "random mask", "shrunk": "shrunk",
    "scratch": "from scratch", "start": "dense, to be pruned", "pruned": "pruned units",
    "scales": "batch-norm learnt, no mask",
}  # fmt: skip
STATES = {  # said where not the usual
    "batch_norm": {"restated": "batch-norm restated"}, "base": {"untrained": "weights untrained"},
}  # fmt: skip
PARTNERS = {"unpruned": "left unpruned", "dense": "dense"}  # of what is pruned
ENDPOINTS = {  # what is compared, and in which number
    "width": "{own} minus {other}: accuracy under the strongest attack, over all radii",
    "size": "wide and pruned minus narrow, as many weights in both: accuracy under the strongest attack, over all "
    "radii",
    "outliers": "{own} minus {other}: AUROC of {detector} on near and far outliers",
    "anomalies": "{own} minus {other}: anomalies right or rejected, by {detector}",
    "masks": "{own} minus whole network: attacked images right or rejected, by {detector}",
    "cost": "ensemble of shrunk networks: least cost at which neither accuracy nor near AUROC is {delta:g} "
    "points below the dense ensemble's",
    "detectors": "{own} minus {other}: AUROC on near outliers, {arm} networks",
}  # fmt: skip
DETECTORS = {
    "msp": "MSP", "maxlogit": "max logit", "entropy": "entropy", "energy": "energy", "odin": "ODIN",
    "mahalanobis": "Mahalanobis", "relative_mahalanobis": "relative Mahalanobis", "knn": "KNN", "vim": "ViM",
    "react": "ReAct", "dice": "DICE", "ash": "ASH", "gradnorm": "GradNorm", "sensnorm": "SensNorm",
    "profile": "sensitivity profile", "disagreement": "disagreement", "sensnorm-ayle": "SensNorm (authors’)",
    "feature_norm": "feature norm",
}  # fmt: skip
OPTIONS = {
    "layers": {"all": "all layers", "last": "last layer"}, "norm": {"inf": "q = ∞"},
    "aggregate": {"mean": "mean over layers", "all": "one norm"},
    "target": {"logit": "logit loss", "uniform": "uniform target", "predicted": "predicted label"},
    "criterion": CRITERIA, "reference": {"train": "from the training mean"},
    "standardise": {"true": "standardised"}, "per_loss": {"true": "over the loss"},
}  # fmt: skip
OTHERWISE = {"norm": "q = {}", "views": "{} views"}  # options whose values are numbers
ATTACKS = {"fgsm": "FGSM", "pgd": "PGD", "multitargeted": "PGD to each class", "autoattack": "AutoAttack"}
NORMS = {"linf": "L∞", "l2": "L2"}
FAMILIES = {"near": "near outliers", "far": "far outliers"}
ABOUT = FAMILIES | {"outliers": "near and far outliers"}
MEASURES = ABOUT | {
    f"{name}, {about}": f"{name}, {told}" for name in DETECTORS.values() for about, told in ABOUT.items()
}
ANOMALIES = {
    "heldout": "held-out classes", "mixed": "mixed images", "textures": "textures", "uniform": "uniform noise",
    "gaussian": "Gaussian noise images", "inverted": "inverted images", "permuted": "permuted pixels",
    "gaussian_noise": "Gaussian noise", "shot_noise": "shot noise", "impulse_noise": "impulse noise",
    "defocus_blur": "defocus", "motion_blur": "motion blur", "zoom_blur": "zoom blur", "rotate": "rotation",
    "translate": "translation", "jpeg": "JPEG", "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn": "SVHN", "digits": "digits",
}  # fmt: skip
FOLDERS = {"cifar10": "CIFAR-10 (JPEG)", "tiny-imagenet": "Tiny ImageNet"}  # by the last part of their path
NETWORKS = {
    "convnet": "small CNN", "lenet5": "LeNet-5", "resnet8": "ResNet-8", "resnet18": "ResNet-18",
    "vgg16": "VGG-16", "sparselib.others:ccexam_mnist": "small CNN of the package ccexam",
}  # fmt: skip
COLUMNS = {"eps": "radius ε"}
METRICS = {"auroc": "AUROC", "aupr_ood": "AUPR", "fpr95_ood": "FPR95", "ror": "right or rejected"}
EVASION = {"ror": "right or rejected, adaptive attack", "ror_plain": "right or rejected, PGD"}
BESIDE = {"accuracy": "AutoAttack", "accuracy_pgd": "PGD on the same images", "accuracy_each": "PGD to each class"}
TOLD = {  # so that more is better everywhere
    "auroc": "", "aupr_ood": ", AUPR", "fpr95_ood": ", 100 − FPR95", "ror": ", right or rejected",
}  # fmt: skip
ACCURACIES = {"accuracy": "right", "certified": "right and certified"}
QUESTIONS = {"first": "standard", "smoothing": "trained on noise", "adversarial": "adversarial training"}
COSTS = {  # unit, and its name
    "params": (1, "weights and biases"), "macs": (1e-6, "million multiplications an image"),
    "time": (1e6, "µs an image"), "peak_bytes": (1e-6, "MB of activations a batch"),
}  # fmt: skip


def arm(name: str) -> str:
    """Return what an arm is called: "magnitude, after training, units" for the recipe "magnitude after units"."""
    if name in ARMS or name in WHEN:
        return ARMS.get(name) or WHEN[name]
    criterion, when, structured = read_recipe(name)
    said = f"{CRITERIA.get(criterion, criterion)}, {WHEN.get(when, when)}"
    return said + (", units" if structured else "")


def pruned(recipe: str, sparsity: float) -> str:
    """Return a recipe as part of a sentence: "pruned after training by magnitude (sparsity 0.8)"."""
    criterion, when, structured = read_recipe(recipe)
    how = "made a lottery ticket" if when == "tickets" else f"pruned {WHEN.get(when, when)}"
    units = ", in units" if structured else ""
    return f"{how} by {CRITERIA.get(criterion, criterion)}{units} (sparsity {sparsity:g})"


def measure(name: str) -> str:
    """Return what a measure of `findings.measures` is called in titles: "MSP, near" is "MSP, near outliers"."""
    return MEASURES.get(name) or re.sub(r", (near|far)$", r", \1 outliers", name)


def network(row) -> str:
    """Return what a network is called within its question, from the columns of its row: arm, sparsity, states."""
    said = [arm(row["arm"])]
    said += [names[row[column]] for column, names in STATES.items() if row.get(column) in names]
    return ", ".join(said)


def sparse(row) -> str:
    """Return `network` with its sparsity, where there is any."""
    return network(row) + (f" {row['sparsity']:g}" if row["sparsity"] else "")


@cache
def detector(text: str) -> str:
    """Return what a detector with its options is called: "SensNorm, all layers, q = 5"."""
    if text == "disagreement":  # of an ensemble
        return DETECTORS[text]
    name, _ = read_detector(text)
    said = [
        OPTIONS.get(key, {}).get(value) or OTHERWISE.get(key, f"{key} {{}}").format(value)
        for key, value in re.findall(r"([^\s:]+):(\S+)", text)
    ]
    return ", ".join([DETECTORS.get(name, name), *said])


def attack(kind: str, norm: str, eps: float | None = None) -> str:
    """Return "PGD, L∞ 0.1"."""
    return f"{ATTACKS[kind]}, {NORMS[norm]}" + ("" if eps is None else f" {eps:.3g}")


def anomaly(name: str) -> str:
    """Return what a kind of anomaly is called, with its strength where it has one."""
    head, rest = strength(name)
    if head == "pgd":
        return f"PGD, ε = {rest}"
    if head == "folder":
        return FOLDERS.get(Path(rest).name, f"images of {rest}")
    return ANOMALIES.get(head, head) + (f", severity {rest}" if rest else "")


def setting(dataset: str, network: str) -> str:
    """Return what rows are of: "MNIST, ResNet-8"; a network of the reader's own by its name."""
    return f"{anomaly(dataset)}, {NETWORKS.get(network, network)}"


def scale(profile: str) -> str:
    """Return what a scale is called, by the data of its profile."""
    return ANOMALIES.get(profile, profile)


def called(column: str, value) -> str:
    """Return what a value in a column of rows is called; what has no other name is called itself."""
    return NAMES[column](value) if column in NAMES else str(value)


NAMES = {
    "arm": arm,
    "detector": detector,
    "anomaly": anomaly,
    "attack": lambda name: ATTACKS.get(name, name),
    "norm": lambda name: NORMS.get(name, name),
    "scale": scale,
    "metric": lambda name: (METRICS | BESIDE).get(name, name),
    "question": lambda name: QUESTIONS.get(name, name),
    "sparsity": lambda s: f"{s:g}" if s else "dense",
    "eps": "{:.3g}".format,
    "family": lambda name: FAMILIES.get(name, name),
    "measure": measure,
}


def sentence(text: str) -> str:
    """Return a text that begins with a capital letter."""
    return text[0].upper() + text[1:]


def chart(table: pd.DataFrame, x: str | None, series: str, panels: str | None, inner: str | None = None) -> str:
    """Return a chart in words: for every panel, scale and series the means; over `x`, that at its two ends."""
    said = []
    groups = [c for c in ("scale", panels) if c and c in table]
    for key, part in table.groupby(groups, sort=False) if groups else [((), table)]:
        values = []
        for kind, own in part.groupby(series, sort=False):
            means = own.groupby(inner or x or series, sort=bool(x))["value"].mean()
            ends = means.iloc[[0, -1]] if x else means
            numbers = (" to " if x else " / ").join(f"{v:.0f}" for v in ends)
            values.append(f"{called(series, kind)} {numbers}")
        where = ", ".join(map(called, groups, key))
        said.append((f"{where}: " if where else "") + ", ".join(values))
    return "; ".join(said)


def differences(table: pd.DataFrame, most: int) -> str:
    """Return the first lines of a forest plot in words: each mean difference and what it comes to."""
    said = []
    for where, *rest, mean, told in table[["scale", "measure", "line", "mean", "told"]].head(most).values.tolist():
        said.append(f"{', '.join(filter(None, (scale(where), *rest)))}: {mean:+.1f}, {told}")
    return "; ".join(said)
