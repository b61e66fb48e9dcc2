"""Claim C1, figures 1 and 2: one grid of networks, dense and sparse; under attack and shifts, and as detectors."""

from functools import cache
from itertools import product
from typing import Annotated, ClassVar

from pydantic import Field, StrictInt

from sparselib.experiments import fields, words
from sparselib.experiments.fields import Figure
from sparselib.experiments.findings import Comparison
from sparselib.experiments.measurements import Attacked, AutoAttacked, Shifted
from sparselib.pruning import masks

CONTROLS = ("dense", "fewer epochs", "weight decay", "narrow")  # of the networks trained on noisy labels


@cache
def weights(trained):
    """Return how many prunable weights the dense network of a `Trained` has."""
    return sum(layer.weight.numel() for layer in masks.prunable(trained.initial()).values())


def networks(p, seed):
    """Every network of one seed: the question that it answers, its arm, and itself."""
    start = p.trained(seed)  # what is pruned and then trained on
    yield {"question": "width", "arm": "dense"}, p.dense(seed)
    for how, sparsity in product(p.recipes, filter(None, p.sparsities)):
        yield {"question": "width", "arm": how}, p.pruned(start, how, sparsity)
    for size, arm, net in p.same_size(seed):
        yield {"question": "size", "size": size, "arm": arm}, net
    for arm, net in p.noisy_labels(seed):
        yield {"question": "noise", "arm": arm}, net


def disturbed(p, role, net):
    """What is measured of each: accuracy clean, under attacks, under shifts."""
    yield role, net
    few = {"model": net, "limit": p.attack_samples}
    for eps in p.eps_linf:
        yield role, Attacked(attack="fgsm", eps=eps, **few)
    for radius in p.radii():
        yield role, Attacked(attack="pgd", steps=p.attack_steps, **radius, **few)
    for kind in p.shifts:
        yield role, Shifted(model=net, kind=kind, severity=p.severity)
    if p.looked_at_closely(role, net):
        yield from closer(p, {**role, "question": "radius"}, net)


def closer(p, role, net):
    """The closer look at two networks a seed: over the radius, and AutoAttack."""
    few = {"model": net, "limit": p.attack_samples}
    yield role, net
    for eps in p.curve_linf:
        yield role, Attacked(attack="fgsm", eps=eps, **few)
        yield role, Attacked(attack="pgd", eps=eps, steps=p.attack_steps, **few)
    for eps in p.curve_l2:
        pgd = {"attack": "pgd", "norm": "l2", "eps": eps, "steps": p.attack_steps}
        yield role, Attacked(**pgd, **few)
    if p.autoattack_samples:
        fewer = {"eps": p.autoattack_eps, "limit": p.autoattack_samples}
        yield role, AutoAttacked(model=net, steps=p.attack_steps, **fewer)


def scored(p, role, net):
    """What is measured of each: how well each detector tells each anomaly."""
    yield role, net
    for name, anomaly in product(p.detectors, p.anomalies):
        yield role, p.detection(net, name, anomaly)


class SparsityGrid(Figure):
    """The networks of claim C1: one width at many sparsities, one size at several widths, noisy labels."""

    claim = "C1"

    seeds: fields.Seeds
    recipes: fields.Recipes = Field(description="same width: criterion, time, units")
    sparsities: fields.SomeSparsities = Field(description="same width: weights removed")
    finetune_epochs: fields.Finetuning
    wide_width: fields.Count = Field(description="same size: width of what is pruned to narrow sizes")
    narrow_widths: list[fields.Count] = Field(description="same size: widths of the dense networks")
    label_noise: fields.Share = Field(description="noisy labels: share of training labels drawn anew")
    noisy_width: fields.Count = Field(description="noisy labels: width")
    noisy_epochs: Annotated[StrictInt, Field(ge=2)] = Field(description="noisy labels: training epochs")
    noisy_recipes: fields.Recipes = Field(description="noisy labels")
    noisy_sparsities: fields.SomeSparsities = Field(description="noisy labels: weights removed")

    networks = networks
    about: ClassVar[dict] = {}  # the rows that count

    def dense(self, seed, **changed):
        """Return a dense network that trains as long as a sparse one, before and after pruning together."""
        return self.trained(seed, epochs=self.epochs + self.finetune_epochs, **changed)

    def same_size(self, seed):
        """Yield (weights, arm, network): narrow dense networks, a wide one pruned to their sizes, and it itself."""
        wide = self.trained(seed, width=self.wide_width)
        for width in self.narrow_widths:
            narrow, how = self.dense(seed, width=width), "magnitude after"
            size = weights(narrow)
            if size < weights(wide):
                yield size, "dense", narrow
                yield size, how, self.pruned(wide, how, 1 - size / weights(wide))
        yield weights(wide), "dense", self.dense(seed, width=self.wide_width)

    def noisy_labels(self, seed):
        """Yield (arm, network), all trained on noisy labels and equally long: dense, the controls, the sparse ones."""
        usual, quarter = {"width": self.noisy_width, "label_noise": self.label_noise}, max(1, self.noisy_width // 4)
        yield "dense", self.trained(seed, epochs=self.noisy_epochs, **usual)
        yield "fewer epochs", self.trained(seed, epochs=max(1, self.noisy_epochs // 4), **usual)
        yield "weight decay", self.trained(seed, epochs=self.noisy_epochs, weight_decay=0.01, **usual)
        yield "narrow", self.trained(seed, epochs=self.noisy_epochs, **{**usual, "width": quarter})
        after = self.noisy_epochs // 3
        start = self.trained(seed, epochs=self.noisy_epochs - after, **usual)
        for how, sparsity in product(self.noisy_recipes, filter(None, self.noisy_sparsities)):
            yield how, self.pruned(start, how, sparsity, epochs=after)

    def comparisons(self):
        """Yield what is compared for the claim, in three questions; the last has four controls."""
        for question in ("width", "size", "noise"):
            yield from self.compared(question)

    def compared(self, question):
        """Yield what is compared in one question."""
        arms, controls, match, told = {
            "width": (self.recipes, ("dense",), (), "same width, against dense"),
            "size": (("magnitude after",), ("dense",), ("size",), "same size, against narrow and dense"),
            "noise": (self.noisy_recipes, CONTROLS, (), "noisy labels, against {}"),
        }[question]
        for control in controls:
            of, against = ({"question": question, **self.about, "arm": arm} for arm in (tuple(arms), control))
            yield Comparison("C1", told.format(words.ARMS[control]), of, against, match=match)


class Robustness(SparsityGrid):
    """Clean, attacked and shifted accuracy against sparsity."""

    number, notebook = 1, "01_sparsity_and_robustness"
    blocks: ClassVar[tuple[str, ...]] = ("grid", "robustness")

    eps_linf: fields.Radii = Field(description="radii of the attacks in L∞, in pixel units")
    eps_l2: fields.Radii = Field(description="radii of the attacks in L2")
    curve_linf: fields.Radii = Field(description="a closer look: in L∞")
    curve_l2: fields.Radii = Field(description="a closer look: in L2")
    attack_steps: fields.AttackSteps
    attack_samples: fields.AttackSamples
    autoattack_eps: fields.Positive = Field(description="radius of AutoAttack, in L∞")
    autoattack_samples: fields.Limit = Field(description="AutoAttack this many test images; 0: none")
    autoattack_sparsity: fields.Share = Field(description="closer look: dense, and the first recipe at this")
    shifts: fields.Shifts
    severity: fields.Severity

    measured = disturbed

    def radii(self):
        """Return {"norm": …, "eps": …} of all attacks by PGD."""
        found = {"linf": self.eps_linf, "l2": self.eps_l2}
        return [{"norm": norm, "eps": eps} for norm in found for eps in found[norm]]

    def looked_at_closely(self, role, net):
        """Return whether the network is one of the two of the closer look."""
        sparse = role["arm"] == self.recipes[0] and net.columns()["sparsity"] == self.autoattack_sparsity
        return role["question"] == "width" and (role["arm"] == "dense" or sparse)


class AnomalyDetection(SparsityGrid):
    """AUROC, AUPR and FPR95 against sparsity, for attacks, shifts and outliers."""

    number, notebook = 2, "02_sparsity_and_anomaly_detection"
    blocks: ClassVar[tuple[str, ...]] = ("grid", "detection")

    detectors: fields.Detectors = Field(description="detectors, with options if any")
    anomalies: fields.Anomalies = Field(description="pgd:<eps>, <shift>:<severity>, or outliers")

    measured = scored
    about = {"task": "anomaly"}
