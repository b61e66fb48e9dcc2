"""Claim C1, figures 1 and 2: one grid of networks, dense and sparse; under attack and shifts, and as detectors."""

from itertools import product
from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from sparselib.experiments import fields, words
from sparselib.experiments.fields import Figure, recipe, shift
from sparselib.experiments.findings import AREA, STRONGEST, Comparison
from sparselib.experiments.measurements import Attacked, AutoAttacked, Multitargeted, Shifted
from sparselib.pruning import masks

# Of the networks trained on noisy labels; the best of them counts.
CONTROLS = ("dense", "unpruned", "fewer epochs", "weight decay", "narrow")


def weights(trained):
    """Return how many prunable weights the dense network of a `Trained` has."""
    return sum(layer.weight.numel() for layer in masks.prunable(fields.untrained(trained)).values())


def networks(p, seed):
    """Every network of one seed: the question that it answers, its arm, and itself."""
    start = p.trained(seed)  # what is pruned and then trained on
    yield {"question": "width", "arm": "dense"}, p.dense(seed)
    yield {"question": "width", "arm": "unpruned"}, p.unpruned(start)
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
    for radius in p.radii():
        yield role, Attacked(attack="pgd", **p.pgd(), **radius, **few)
    for kind, severity in map(shift, p.shifts):
        yield role, Shifted(model=net, kind=kind, severity=severity)
    for eps in p.eps_linf if p.decides(role, net) else ():
        yield role, Multitargeted(eps=eps, **p.pgd(), **few)
    if p.looked_at_closely(role, net):
        yield from closer(p, {**role, "question": "radius"}, net)


def closer(p, role, net):
    """The closer look at three networks a seed: over the radius, and AutoAttack."""
    few = {"model": net, "limit": p.attack_samples}
    yield role, net
    for eps in p.curve_linf:
        yield role, Attacked(attack="fgsm", eps=eps, **few)
        yield role, Attacked(attack="pgd", eps=eps, **p.pgd(), **few)
    for eps in p.curve_l2:
        yield role, Attacked(attack="pgd", norm="l2", eps=eps, **p.pgd(), **few)
    if p.autoattack_samples and net.seed < p.autoattack_seeds and role["arm"] != "dense":
        fewer = {"eps": p.autoattack_eps, "limit": p.autoattack_samples}
        yield role, AutoAttacked(model=net, **p.pgd(), **fewer)


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
    headline_sparsity: fields.Share = Field(description="the first recipe at this is the claim's endpoint")
    rounds: fields.Rounds
    finetune_epochs: fields.Finetuning
    wide_width: fields.OwnWidth = Field(description="same size: width of what is pruned to narrow sizes")
    narrow_widths: fields.SomeWidths = Field(description="same size: widths of the dense networks")
    label_noise: fields.Share = Field(description="noisy labels: share of training labels drawn anew")
    noisy_width: fields.OwnWidth = Field(description="noisy labels: width")
    noisy_epochs: Annotated[fields.Epochs, Field(ge=2)] = Field(description="noisy labels: training epochs")
    noisy_recipes: fields.SomeRecipes = Field(description="noisy labels; none: no such question")
    noisy_sparsities: fields.SomeSparsities = Field(description="noisy labels: weights removed")

    networks = networks

    @model_validator(mode="after")
    def _headline_among_the_sparsities(self):
        if self.headline_sparsity not in self.sparsities:
            raise ValueError(f"headline_sparsity must be among {self.sparsities}, got {self.headline_sparsity}")
        return self

    def dense(self, seed, **changed):
        """Return a dense network that trains in one phase, as long as a sparse one before and after pruning."""
        return self.trained(seed, epochs=self.epochs + self.finetune_epochs, **changed)

    def same_size(self, seed):
        """Yield (weights, arm, network): narrow networks, in one phase and in two, a wide one pruned to their sizes."""
        wide = self.trained(seed, width=self.wide_width)
        for width in self.narrow_widths:
            narrow, how = self.trained(seed, width=width), "magnitude after"
            size = weights(narrow)
            if size < weights(wide):
                yield size, "dense", self.dense(seed, width=width)
                yield size, "unpruned", self.unpruned(narrow)
                yield size, how, self.pruned(wide, how, 1 - size / weights(wide))
        yield weights(wide), "dense", self.dense(seed, width=self.wide_width)
        yield weights(wide), "unpruned", self.unpruned(wide)

    def noisy_labels(self, seed):
        """Yield (arm, network), all trained on noisy labels and equally long: the controls, the sparse ones."""
        if not self.noisy_recipes:
            return
        usual, quarter = {"width": self.noisy_width, "label_noise": self.label_noise}, max(1, self.noisy_width // 4)
        yield "dense", self.trained(seed, epochs=self.noisy_epochs, **usual)
        yield "fewer epochs", self.trained(seed, epochs=max(1, self.noisy_epochs // 4), **usual)
        yield "weight decay", self.trained(seed, epochs=self.noisy_epochs, weight_decay=0.01, **usual)
        yield "narrow", self.trained(seed, epochs=self.noisy_epochs, **{**usual, "width": quarter})
        after = self.noisy_epochs // 3
        start = self.trained(seed, epochs=self.noisy_epochs - after, **usual)
        yield "unpruned", self.unpruned(start, epochs=after)
        for how, sparsity in product(self.noisy_recipes, filter(None, self.noisy_sparsities)):
            yield how, self.pruned(start, how, sparsity, epochs=after)

    def headline(self):
        """Return what the claim's endpoint compares at the same width: words for both sides, and their columns."""
        own, other, at = self.recipes[0], partner(self.recipes[0]), self.headline_sparsity
        of = {"question": "width", "arm": own, "sparsity": at}
        told = {"own": words.pruned(own, at), "other": words.PARTNERS[other]}
        return told, of, {"question": "width", "arm": other}

    def comparisons(self):
        """Yield what is compared: arms with the unpruned network in the same phases, and under noisy labels."""
        for control in ("dense", "unpruned"):
            own = tuple(how for how in self.recipes if partner(how) == control)
            of, against = {"question": "width", "arm": own}, {"question": "width", "arm": control}
            yield Comparison("C1a", f"same width, against {words.ARMS[control]}", of, against)
        for control in ("unpruned", "dense"):
            of, against = {"question": "size", "arm": "magnitude after"}, {"question": "size", "arm": control}
            told = f"same size, against narrow, {words.ARMS[control]}"
            yield Comparison("C1b", told, of, against, match=("size",))
        of, against = ({"question": "noise", "arm": arms} for arms in (tuple(self.noisy_recipes), CONTROLS))
        yield Comparison("C1", "noisy labels, against the best control", of, against, best=True)


def partner(how):
    """Return the arm that trains in the phases of a recipe, and is not pruned."""
    return "unpruned" if recipe(how).when == "after" else "dense"


class Robustness(SparsityGrid):
    """Clean, attacked and shifted accuracy against sparsity."""

    number, notebook = 1, "01_sparsity_and_robustness"
    blocks: ClassVar[tuple[str, ...]] = ("grid", "robustness")

    eps_linf: fields.Radii = Field(description="radii of the attacks in L∞, in pixel units")
    eps_l2: fields.SomeRadii = Field(description="radii of the attacks in L2, if any")
    curve_linf: fields.Radii = Field(description="a closer look: in L∞")
    curve_l2: fields.Radii = Field(description="a closer look: in L2")
    attack_steps: fields.AttackSteps
    attack_restarts: fields.AttackRestarts
    attack_samples: fields.AttackSamples
    autoattack_eps: fields.Positive = Field(description="radius of AutoAttack, in L∞")
    autoattack_samples: fields.Limit = Field(description="AutoAttack this many test images; 0: none")
    autoattack_seeds: fields.Limit = Field(description="and only the networks of so many seeds")
    shifts: fields.Shifts

    measured = disturbed

    def radii(self):
        """Return {"norm": …, "eps": …} of all attacks by PGD."""
        found = {"linf": self.eps_linf, "l2": self.eps_l2}
        return [{"norm": norm, "eps": eps} for norm in found for eps in found[norm]]

    def looked_at_closely(self, role, net):
        """Return whether the network is one of the three of the closer look."""
        sparse = role["arm"] == self.recipes[0] and net.columns()["sparsity"] == self.headline_sparsity
        return role["question"] == "width" and (role["arm"] in ("dense", "unpruned") or sparse)

    def decides(self, role, net):
        """Return whether the network is one that an endpoint compares."""

        def told(name):
            return net.columns()["sparsity"] if name == "sparsity" else role.get(name)

        # The sparsity stands last in a side, and is asked for only where all else fits: it takes longest.
        sides = [side for c in self.primary() for side in (c.of, c.control)]
        return any(all(told(name) == value for name, value in side.items()) for side in sides)

    def shown(self):
        """Return the measures whose differences are drawn."""
        return "clean", AREA, "shifts, mean"

    def primary(self):
        """Yield the endpoints: the area under the accuracy over the radius, at the same width and at the same size."""
        told, of, control = self.headline()
        told = words.ENDPOINTS["width"].format(**told)
        yield Comparison("C1a", told, of, control, measures=(STRONGEST,), primary=True)
        of, control = ({"question": "size", "arm": arm} for arm in ("magnitude after", "unpruned"))
        told = words.ENDPOINTS["size"]
        yield Comparison("C1b", told, of, control, measures=(STRONGEST,), match=("size",), primary=True)


class AnomalyDetection(SparsityGrid):
    """AUROC, AUPR and FPR95 against sparsity, for attacks, shifts and outliers."""

    number, notebook = 2, "02_sparsity_and_anomaly_detection"
    blocks: ClassVar[tuple[str, ...]] = ("grid", "detection")

    detectors: fields.Detectors = Field(description="detectors, with options if any")
    anomalies: fields.Anomalies = Field(description="pgd:<eps>, <shift>:<severity>, or outliers")

    measured = scored

    @field_validator("detectors")
    @classmethod
    def _with_msp(cls, names):
        return fields.holding("msp", names)

    def shown(self):
        """Return the measures whose differences are drawn: of MSP, on outliers and on all anomalies."""
        return [f"{words.detector('msp')}, {about}" for about in ("outliers", "all anomalies" + words.TOLD["ror"])]

    def primary(self):
        """Yield the endpoints of MSP: the AUROC on near and far outliers, and what is right or rejected of all."""
        told, of, control = self.headline()
        told["detector"] = words.detector("msp")
        for measure, what in zip(self.shown(), ("outliers", "anomalies"), strict=True):
            question = words.ENDPOINTS[what].format(**told)
            yield Comparison("C1c", question, of, control, measures=(measure,), primary=True)
