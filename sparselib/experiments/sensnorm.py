"""Claim C4, figure 5: SensNorm against its rivals on attacks, shifts and outliers, dense and sparse; its ablation."""

from itertools import product
from typing import ClassVar

from pydantic import Field, field_validator

from sparselib.experiments import fields, words
from sparselib.experiments.fields import Figure
from sparselib.experiments.findings import CHANCE, Comparison

FRESH = 100  # the first of the fresh seeds
CONFIRMED = ("msp", "mahalanobis", "knn", "sensnorm", "profile")  # the detectors that they are scored with


def networks(p, seed):
    """The dense network of one seed, and the sparse ones made from it."""
    dense = p.trained(seed)
    question = "fresh" if seed in p.fresh() else "rivals"
    yield {"question": question, "arm": "dense"}, dense
    for sparsity in filter(None, p.sparsities) if seed not in p.fresh() else ():
        sparse = p.pruned(dense, p.recipe, sparsity)
        yield {"question": "rivals", "arm": "sparse"}, sparse


def measured(p, role, net):
    """What is measured of each: how well each detector tells each anomaly."""
    yield role, net
    fresh, dense = role["question"] == "fresh", role["arm"] == "dense"
    for name, anomaly in product(CONFIRMED if fresh else p.detectors, p.anomalies):
        yield role, p.detection(net, name, anomaly)
    variants = ["sensnorm", *p.ablation] if dense and not fresh else ()
    for name, anomaly in product(variants, p.anomalies):
        yield {**role, "question": "ablation"}, p.detection(net, name, anomaly)


class Sensnorm(Figure):
    """SensNorm against its rivals on attacks, shifts and outliers, dense and sparse; and its ablation."""

    number, notebook, claim = 5, "05_sensnorm", "C4"
    blocks: ClassVar[tuple[str, ...]] = ("sensnorm",)

    seeds: fields.Seeds
    recipe: fields.OneRecipe = Field(description="how the sparse networks are made: <criterion> <when>")
    sparsities: fields.Sparsities = Field(description="fractions of weights removed")
    finetune_epochs: fields.Finetuning
    detectors: fields.Detectors = Field(description="detectors to compare, with options if any")
    anomalies: fields.Anomalies = Field(description="pgd:<eps>, <shift>:<severity>, or outliers")
    ablation: fields.Detectors = Field(description="variants of SensNorm, on the dense networks")
    fresh_seeds: fields.Limit = Field(description="further seeds that confirm the profile; 0: none")

    networks, measured = networks, measured

    @field_validator("detectors")
    @classmethod
    def _with_sensnorm(cls, names):
        if "sensnorm" not in names:
            raise ValueError(f"must hold 'sensnorm', which all others are compared with, got {names}")
        return names

    def fresh(self):
        """Return the further seeds, whose networks nothing was looked at on before."""
        return range(FRESH, FRESH + self.fresh_seeds)

    def computed(self):
        return [*self.seed_list(), *self.fresh()]

    def comparisons(self):
        """Yield what is compared: the claim is about chance ("C4"); the rivals are beyond it ("C4+")."""
        own = {"question": "rivals", "detector": "sensnorm"}
        yield Comparison("C4", "SensNorm against chance", own, CHANCE, name="SensNorm", by="about")
        yield from _against("sensnorm", self.detectors, "rivals")

    def confirmation(self):
        """Yield what is compared on fresh seeds: the sensitivity profile with the other detectors."""
        yield from _against("profile", CONFIRMED, "fresh")


def _against(detector, rivals, question):
    """Yield the comparisons of a detector with others on the same networks."""
    own, name = {"question": question, "detector": detector}, words.detector(detector)
    for rival in rivals:
        if rival != detector:
            told, other = f"{name} against {words.detector(rival)}", {"question": question, "detector": rival}
            yield Comparison("C4+", told, own, other, name=name, by="about", match=("sparsity",))
