"""Claim C2, figure 3: masks over frozen trained weights, by what they are learnt for, and controls."""

from itertools import product
from typing import ClassVar

from pydantic import Field, model_validator

from sparselib.experiments import fields
from sparselib.experiments.fields import Figure
from sparselib.experiments.findings import Comparison
from sparselib.experiments.measurements import Attacked, Shifted
from sparselib.experiments.networks import Masked


def networks(p, seed):
    """The dense network of one seed, masks learnt over its weights, the controls."""
    dense, blank = p.trained(seed), p.trained(seed, epochs=0)
    plain = {"learnt": False, "base": "trained", "batch_norm": "frozen"}
    yield {**plain, "arm": "dense"}, dense
    for sparsity in filter(None, p.mask_sparsities):
        for arm in p.objectives:
            yield {**plain, "learnt": True, "arm": arm}, p.mask(dense, arm, sparsity)
        for arm, state in product(("magnitude", "random"), ("frozen", "restated")):
            net = p.unlearnt(dense, arm, sparsity, batch_norm=state)
            yield {**plain, "batch_norm": state, "arm": arm}, net
    # Restated: the statistics of an untrained network say nothing.
    arm = "adversarial" if "adversarial" in p.objectives else p.objectives[0]
    restated = {"learnt": True, "batch_norm": "restated", "arm": arm}
    for base, start in (("trained", dense), ("untrained", blank)):
        net = p.mask(start, arm, max(p.mask_sparsities), batch_norm="restated")
        yield {**restated, "base": base}, net


def measured(p, role, net):
    """What is measured of each: accuracy clean, attacked, shifted; detection."""
    yield role, net
    attack = {"eps": p.eps, "steps": p.attack_steps, "limit": p.attack_samples}
    yield role, Attacked(model=net, attack="pgd", **attack)
    for kind in p.shifts:
        yield role, Shifted(model=net, kind=kind, severity=p.severity)
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
    eps: fields.Positive = Field(description="radius of the attacks in L∞, in learning and test")
    noise: fields.Positive = Field(description="deviation of the noise of the objective shift")
    outliers: fields.Synthetic = Field(description="outliers of the objective outlier, not tested on")
    shifts: fields.Shifts
    severity: fields.Severity
    detectors: fields.Detectors = Field(description="detectors, with options if any")
    anomalies: fields.Anomalies = Field(description="pgd:<eps>, <shift>:<severity>, or outliers")
    attack_steps: fields.AttackSteps
    attack_samples: fields.AttackSamples

    networks, measured = networks, measured

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
            sparsity=sparsity, eps=self.eps, noise=self.noise, **changed,
        )  # fmt: skip

    def unlearnt(self, dense, how, sparsity, **changed):
        """Return the control by a mask that is not learnt: the largest weights ("magnitude"), or random ones."""
        init = {"magnitude": "hydra", "random": "edge-popup"}[how]
        return Masked(dense=dense, epochs=0, init=init, sparsity=sparsity, **changed)

    def comparisons(self):
        """Yield what is compared for the claim; masks under restated statistics are a question of their own.

        There, something else than the mask was fitted.
        """
        for state, said in (("frozen", ""), ("restated", ", statistics restated")):
            of = {"learnt": True, "base": "trained", "batch_norm": state}
            yield Comparison("C2", f"learnt masks{said}, against dense", of, {"arm": "dense"})
            largest = {"arm": "magnitude", "batch_norm": state}
            yield Comparison("C2", f"learnt masks{said}, against the largest weights", of, largest, match=("sparsity",))

    def pretraining(self):
        """Yield a control of the claim: masks over trained weights against those over untrained ones."""
        of, blank = ({"learnt": True, "base": w, "batch_norm": "restated"} for w in ("trained", "untrained"))
        yield Comparison("C2", "trained against untrained weights", of, blank, match=("arm", "sparsity"))
