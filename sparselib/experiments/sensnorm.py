"""Claim C4, figure 5: SensNorm against its rivals on attacks, shifts and outliers, dense and sparse; its ablation."""

from itertools import product
from typing import ClassVar

from pydantic import Field, field_validator

from sparselib.experiments import fields, words
from sparselib.experiments.fields import Figure
from sparselib.experiments.findings import Comparison

AUTHORS = "sensnorm-ayle"  # SensNorm in the authors' form


def networks(p, seed):
    """The dense network of one seed, in two phases, and the sparse ones."""
    start = p.trained(seed)
    yield {"arm": "dense"}, p.unpruned(start)
    for sparsity in filter(None, p.sparsities):
        yield {"arm": "sparse"}, p.pruned(start, p.recipe, sparsity)


def measured(p, role, net):
    """What is measured of each: how well each detector tells each anomaly."""
    rivals, family = ({**role, "question": name} for name in ("rivals", "family"))
    yield rivals, net
    for name, anomaly in product(p.detectors, p.anomalies):
        yield rivals, p.detection(net, name, anomaly)
    if role["arm"] == "dense":
        variants = ["sensnorm", "sensnorm-ayle", *p.ablation]
        for name, anomaly in product(variants, p.anomalies):
            yield family, p.detection(net, name, anomaly)


class Sensnorm(Figure):
    """SensNorm against its rivals on attacks, shifts and outliers, dense and sparse; and its family."""

    number, notebook, claim = 5, "05_sensnorm", "C4"
    blocks: ClassVar[tuple[str, ...]] = ("sensnorm",)

    seeds: fields.Seeds
    recipe: fields.OneRecipe = Field(description="how the sparse networks are made: <criterion> <when>")
    sparsities: fields.SomeSparsities = Field(description="fractions of weights removed; the first: the endpoint's")
    rounds: fields.Rounds
    finetune_epochs: fields.Finetuning
    detectors: fields.Detectors = Field(description="detectors to compare, with options if any")
    anomalies: fields.Anomalies = Field(description="pgd:<eps>, <shift>:<severity>, or outliers")
    ablation: fields.Detectors = Field(description="variants of SensNorm, on the dense networks")

    networks, measured = networks, measured

    @field_validator("detectors")
    @classmethod
    def _with_the_compared(cls, names):
        for name in ("msp", "sensnorm", AUTHORS):
            fields.holding(name, names)
        return names

    def shown(self):
        """Return the families of anomalies on which differences are drawn."""
        return "near", "far", "attacks", "shifts"

    def primary(self):
        """Yield the endpoints: the AUROC on near outliers, SensNorm in the authors' form − MSP, dense and sparse."""
        for arm, at in (("dense", 0.0), ("sparse", next(filter(None, self.sparsities)))):
            where = {"question": "rivals", "arm": arm, "sparsity": at}
            own, msp = ({**where, "detector": name} for name in (AUTHORS, "msp"))
            names = {"own": words.detector(AUTHORS), "other": words.detector("msp"), "arm": arm}
            told = words.ENDPOINTS["detectors"].format(**names)
            yield Comparison("C4", told, own, msp, measures=("near",), by="about", primary=True)

    def comparisons(self):
        """Yield what is compared: both forms of SensNorm with every other detector, on the same networks."""
        for own in (AUTHORS, "sensnorm"):
            for rival in self.detectors:
                if rival != own:
                    of, other = ({"question": "rivals", "detector": name} for name in (own, rival))
                    told = f"{words.detector(own)} against {words.detector(rival)}"
                    yield Comparison("C4", told, of, other, by="about", match=("sparsity",))
