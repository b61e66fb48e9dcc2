"""Claim C2, figure 3: masks over frozen trained weights, by what they are learnt for, and controls."""

from dataclasses import replace
from itertools import product
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from sparselib import models
from sparselib.experiments import fields, words
from sparselib.experiments.fields import Figure, detector, shift
from sparselib.experiments.findings import Comparison, compare, endpoint
from sparselib.experiments.measurements import Attacked, Evaded, Shifted
from sparselib.experiments.networks import Masked, Refitted


def networks(p, seed):
    """The dense network of one seed, masks learnt over its weights, the controls."""
    dense, blank = p.trained(seed), p.trained(seed, epochs=0, weights=None)
    plain = {"learnt": False, "base": "trained", "batch_norm": "frozen"}
    learnt, restated = {**plain, "learnt": True}, {**plain, "batch_norm": "restated"}
    yield {**plain, "arm": "dense"}, dense
    for sparsity, arm in product(filter(None, p.mask_sparsities), p.objectives):
        yield {**learnt, "arm": arm}, p.mask(dense, arm, sparsity)
    for sparsity, arm in product(filter(None, p.mask_sparsities), p.controls):
        net = p.unlearnt(dense, arm, sparsity, batch_norm="restated")
        yield {**restated, "arm": arm}, net
    # Restated: the statistics of an untrained network say nothing.
    start = {"sparsity": p.mask_sparsities[0], "batch_norm": "restated"}
    for base, net in (("trained", dense), ("untrained", blank)):
        role = {**restated, "learnt": True, "base": base, "arm": "adversarial"}
        yield role, p.mask(net, "adversarial", **start)
    for net in p.refitted(dense):  # the same budget, spent on batch-norm alone
        yield {**plain, "batch_norm": "learnt", "arm": "scales"}, net


def measured(p, role, net):
    """What is measured of each: accuracy clean, attacked, shifted; detection."""
    yield role, net
    few = {"model": net, "eps": p.eps, "limit": p.attack_samples}
    yield role, Attacked(attack="pgd", **p.pgd(), **few)
    for text in p.evaded:
        name, options = detector(text)
        attack = {"detector": name, "options": options, "steps": p.attack_steps}
        yield role, Evaded(**attack, **few)
    for kind, severity in map(shift, p.shifts):
        yield role, Shifted(model=net, kind=kind, severity=severity)
    for name, anomaly in product(p.detectors, p.anomalies):
        yield role, p.detection(net, name, anomaly)


class Subnetworks(Figure):
    """Masks over frozen trained weights, by what they are learnt for."""

    number, notebook, claim = 3, "03_subnetworks_without_training", "C2"
    blocks: ClassVar[tuple[str, ...]] = ("subnetworks",)

    seeds: fields.Seeds
    mask_sparsities: fields.SomeSparsities = Field(description="fractions of weights that the masks remove")
    mask_epochs: fields.Count = Field(description="epochs of learning a mask")
    mask_lr: fields.Positive = Field(description="learning rate of the scores behind a mask")
    objectives: fields.Objectives = Field(description="what masks are learnt for")
    controls: fields.Controls = Field(description="masks that are not learnt: magnitude, random")
    mask_eps: fields.Positive = Field(description="radius of the attacks in L∞ in learning a mask")
    eps: fields.Positive = Field(description="radius of the attacks in L∞ in the test")
    noise: fields.Positive = Field(description="deviation of the noise of the objective shift")
    outliers: fields.Synthetic = Field(description="outliers of the objective outlier, not tested on")
    shifts: fields.Shifts
    detectors: fields.Detectors = Field(description="detectors, with options if any")
    anomalies: fields.Anomalies = Field(description="pgd:<eps>, <shift>:<severity>, or outliers")
    evaded: fields.Attackable = Field(description="detectors that an adaptive attack evades")
    attack_steps: fields.AttackSteps
    attack_restarts: fields.AttackRestarts
    attack_samples: fields.AttackSamples

    networks, measured = networks, measured

    @field_validator("objectives")
    @classmethod
    def _with_attacks(cls, names):
        return fields.holding("adversarial", names, "which the claim's endpoint is about")

    @model_validator(mode="after")
    def _outliers_unseen(self):
        if self.outliers in self.anomalies:
            raise ValueError(f"outliers must not be among the anomalies that are tested on, got {self.outliers!r}")
        return self

    def mask(self, dense, objective, sparsity, **changed):
        """Return the subnetwork of `dense` by a mask that is learnt for an objective."""
        kind = self.outliers if objective == "outlier" else None
        return Masked(
            dense=dense, objective=objective, outliers=kind, epochs=self.mask_epochs, lr=self.mask_lr,
            sparsity=sparsity, eps=self.mask_eps, noise=self.noise, **changed,
        )  # fmt: skip

    def unlearnt(self, dense, how, sparsity, **changed):
        """Return the control by a mask that is not learnt: the largest weights ("magnitude"), or random ones."""
        init = {"magnitude": "hydra", "random": "edge-popup"}[how]
        return Masked(dense=dense, epochs=0, init=init, sparsity=sparsity, **changed)

    def refitted(self, dense):
        """Yield the control whose batch-norm is learnt as a mask would be, where there is batch-norm."""
        if any(layer.affine for layer in models.batch_norms(fields.untrained(dense))):
            own = {"objective": "adversarial", "eps": self.mask_eps}
            yield Refitted(dense=dense, **own, epochs=self.mask_epochs, lr=self.mask_lr)

    def shown(self):
        """Return the measures whose differences are drawn."""
        attacked = words.attack("pgd", "linf", self.eps)
        return "clean", attacked, f"{words.detector(self.evaded[0])}, {words.EVASION['ror']}"

    def primary(self):
        """Yield the endpoint: right or rejected under attack, learnt at the first sparsity − the dense network."""
        of = {"learnt": True, "base": "trained", "batch_norm": "frozen", "arm": "adversarial"}
        at, name, measure = self.mask_sparsities[0], words.detector(self.evaded[0]), self.shown()[-1]
        own = f"{words.arm('adversarial')} (sparsity {at:g})"
        told = words.ENDPOINTS["masks"].format(own=own, detector=name)
        yield Comparison("C2", told, {**of, "sparsity": at}, {"arm": "dense"}, measures=(measure,), primary=True)

    def endpoints(self, rows, delta):
        """Return the endpoint, and beside its number what the control gains that removes no weight."""
        control = Comparison("C2", "", {"arm": "scales"}, {"arm": "dense"}, measures=(self.shown()[-1],))
        found = compare([*self.primary(), control], rows, delta=delta)
        gained = [f.contrast for f in found if f.comparison is control]
        told = f"; batch-norm learnt instead: {gained[0]}" if gained else "; there is no batch-norm to learn instead"
        ends = [endpoint(f) for f in found if f.comparison.primary]
        return [replace(end, number=end.number + told) for end in ends]

    def comparisons(self):
        """Yield what is compared: learnt masks and the controls, each with the dense network; the pre-training."""
        learnt = {"learnt": True, "base": "trained"}
        for state, said in (("frozen", ""), ("restated", ", statistics restated")):
            yield Comparison("C2", f"learnt masks{said}", {**learnt, "batch_norm": state}, {"arm": "dense"})
            own = {"learnt": False, "arm": tuple(self.controls), "batch_norm": state}
            yield Comparison("C2", f"masks that are not learnt{said}", own, {"arm": "dense"})
        yield Comparison("C2", "batch-norm learnt instead", {"arm": "scales"}, {"arm": "dense"})
        of, blank = ({"learnt": True, "base": w, "batch_norm": "restated"} for w in ("trained", "untrained"))
        yield Comparison("C2, pre-training", "trained against untrained weights", of, blank, match=("arm", "sparsity"))


def own_networks(p, seed):
    """The network that is asked, masks learnt over its weights, the controls."""
    at, dense = p.mask_sparsities[0], p.trained(seed)
    plain = {"learnt": False, "base": "trained", "batch_norm": "frozen"}
    yield {**plain, "arm": "dense"}, dense
    for arm in p.objectives:
        yield {**plain, "learnt": True, "arm": arm}, p.mask(dense, arm, at)
    for arm, state in product(p.controls, ("frozen", "restated")):
        net = p.unlearnt(dense, arm, at, batch_norm=state)
        yield {**plain, "batch_norm": state, "arm": arm}, net
    for net in p.refitted(dense):  # the same budget, spent on batch-norm alone
        yield {**plain, "batch_norm": "learnt", "arm": "scales"}, net


class Pretrained(Subnetworks):
    """The question of C2, asked of a network that was trained by others."""

    number, notebook = 7, "07_a_network_of_others"
    blocks: ClassVar[tuple[str, ...]] = ("subnetworks", "pretrained")

    networks = own_networks
