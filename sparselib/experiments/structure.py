"""Claim C3, figure 4: ensembles, smoothing, adversarial training and gradient detectors on shrunk networks."""

from itertools import product
from typing import ClassVar

from pydantic import Field, model_validator

from sparselib.experiments import fields, words
from sparselib.experiments.fields import Figure, detector, recipe
from sparselib.experiments.findings import Comparison
from sparselib.experiments.measurements import Attacked, Certified, Ensembled, Scored
from sparselib.experiments.networks import Scratch, Shrunk


def networks(p, seed):
    """Every network at every size: members; trained on noise; trained on attacks."""
    for i in range(p.members):
        for arm, net in p.family(seed * p.members + i):
            yield {"question": "member" if i else "first", "arm": arm}, net
    for arm, net in p.family(seed, noise=p.sigma):
        yield {"question": "smoothing", "arm": arm}, net
    for arm, net in p.family(seed, adversarial=p.eps):
        yield {"question": "adversarial", "arm": arm}, net


def measured(p, role, net):
    """What is measured of each network by itself; ensembles are made of all members."""
    yield role, net
    if role["question"] == "first" and role["arm"] != "scratch":
        detectors = {**role, "question": "detectors"}
        for text, anomaly in product(p.gradient_detectors, p.anomalies):
            yield detectors, p.detection(net, text, anomaly)
        for name, options in map(detector, p.gradient_detectors):
            yield detectors, Scored(model=net, detector=name, options=options)
    if role["question"] == "smoothing":
        noise = {"sigma": p.sigma, "radius": p.radius, "n": p.certify_n}
        yield role, Certified(model=net, limit=p.certify_samples, **noise)
    if role["question"] == "adversarial":
        yield role, Attacked(model=net, attack="pgd", eps=p.eps)
        yield role, p.ensemble(net)


def ensembles(p, seed):
    """The ensemble of each size, and its first member by itself."""
    families = [p.family(seed * p.members + i) for i in range(p.members)]
    for found in zip(*families, strict=True):
        arm, nets = found[0][0], [net for _, net in found]
        yield {"question": "ensemble", "arm": arm}, p.ensemble(nets[0])
        yield {"question": "ensemble", "arm": arm}, p.ensemble(*nets)


class StructureAndCost(Figure):
    """Ensembles, smoothing, adversarial training and gradient detectors on shrunk networks: quality against cost."""

    number, notebook, claim = 4, "04_structured_sparsity_and_cost", "C3"
    blocks: ClassVar[tuple[str, ...]] = ("structure",)

    seeds: fields.Seeds
    recipe: fields.OneRecipe = Field(description="how units are removed: <criterion> <when> units")
    unit_sparsities: fields.SomeSparsities = Field(description="fractions of weights removed with whole units")
    scratch_sparsities: list[fields.Sparsity] = Field(description="sizes that are also trained from scratch")
    finetune_epochs: fields.Finetuning
    lr: fields.Positive = Field(description="highest learning rate of every training")
    members: fields.Count = Field(description="networks in an ensemble")
    eps: fields.Positive = Field(description="radius of the attacks in L∞, in training and test")
    sigma: fields.Positive = Field(description="deviation of the smoothing noise, in training and test")
    radius: fields.Positive = Field(description="L2 radius at which accuracy is certified")
    certify_n: fields.Count = Field(description="noisy copies of each image for a certificate")
    certify_samples: fields.Count = Field(description="certify this many test images")
    anomalies: fields.Anomalies = Field(description="pgd:<eps>, <shift>:<severity>, or outliers")
    gradient_detectors: fields.Detectors = Field(description="detectors whose cost and quality are measured")

    networks, measured = networks, measured

    @model_validator(mode="after")
    def _whole_units_and_their_controls(self):
        if not recipe(self.recipe).structured:
            raise ValueError(f"recipe must remove whole units ('<criterion> <when> units'), got {self.recipe!r}")
        sizes = [sparsity for sparsity in self.unit_sparsities if sparsity]
        if not set(self.scratch_sparsities) <= set(sizes):
            raise ValueError(f"scratch_sparsities must be among unit_sparsities {sizes}, got {self.scratch_sparsities}")
        return self

    def family(self, seed, **changed):
        """Return [("dense", …), ("shrunk", …), …, ("scratch", …), …]: a network at every size, the control at some.

        All train equally long, the shrunk ones before and after pruning together.
        """
        start = self.trained(seed, lr=self.lr, **changed)
        dense = self.trained(seed, lr=self.lr, epochs=self.epochs + self.finetune_epochs, **changed)
        shrunk = {
            sparsity: Shrunk(pruned=self.pruned(start, self.recipe, sparsity, lr=self.lr))
            for sparsity in filter(None, self.unit_sparsities)
        }
        scratch = [("scratch", Scratch(shrunk=shrunk[sparsity])) for sparsity in self.scratch_sparsities]
        return [("dense", dense), *(("shrunk", net) for net in shrunk.values()), *scratch]

    def ensemble(self, *nets):
        """Return what is measured of an ensemble, or of one network as if it were one."""
        return Ensembled(members=nets, eps=self.eps, anomalies=tuple(self.anomalies))

    def roles(self):
        found = super().roles()
        for role, step in tuple(found):
            if isinstance(step, Shrunk):  # with what it is made from, for what that costs
                found += [({**role, "arm": "start"}, step.pruned.dense), ({**role, "arm": "pruned"}, step.pruned)]
        return found + [pair for seed in self.seed_list() for pair in ensembles(self, seed)]

    def subjects(self):
        """Yield (name, columns): the methods, by the rows that they are judged by; MSP needs no gradient."""
        gradients = tuple(text for text in self.gradient_detectors if text != "msp")
        yield f"ensemble of {self.members}", {"question": "ensemble", "members": self.members}
        yield "adversarial training", {"question": "adversarial", "task": ("clean", "attack")}
        yield "randomized smoothing", {"question": "smoothing", "task": "certificate"}
        yield "gradient detectors", {"question": "detectors", "detector": gradients}

    def comparisons(self):
        """Yield what is compared for the claim: shrunk networks with dense ones, and an ensemble at equal cost."""
        yield from self.as_good()
        yield self.equal_cost()

    def as_good(self):
        """Yield the comparisons of shrunk networks with dense ones, by method."""
        for name, of in self.subjects():
            shrunk, dense = ({**of, "arm": arm} for arm in ("shrunk", "dense"))
            yield Comparison("C3", "shrunk as good as dense", shrunk, dense, name=name, keeps=True)

    def equal_cost(self, arm="shrunk"):
        """Return the comparison of an ensemble of small networks with one dense network of no less cost."""
        of, one = ({"question": "ensemble", "members": n} for n in (self.members, 1))
        told = f"{self.members} {words.ARMS[arm]} members against one dense network, at no more multiplications"
        name = f"ensemble of {self.members}"
        return Comparison("C3", told, {**of, "arm": arm}, {**one, "arm": "dense"}, name=name, affordable=True)

    def from_scratch(self):
        """Yield a control of the claim: shrunk networks against those of their shapes, newly trained."""
        told = "shrunk against from scratch at the same size"
        single = ("one network", {"question": "ensemble", "members": 1})
        for name, of in (single, *tuple(self.subjects())[:3]):
            shrunk, scratch = ({**of, "arm": arm} for arm in ("shrunk", "scratch"))
            yield Comparison("C3", told, shrunk, scratch, name=name, match=("sparsity",))
