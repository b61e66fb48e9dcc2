"""Claim C3, figure 4: ensembles, smoothing, adversarial training and gradient detectors on shrunk networks."""

from itertools import product
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator

from sparselib import checks
from sparselib.experiments import fields, statistics, words
from sparselib.experiments.fields import Figure, detector, recipe
from sparselib.experiments.findings import Comparison, Endpoint, compare, select
from sparselib.experiments.measurements import Attacked, Certified, Ensembled, Scored
from sparselib.experiments.networks import Scratch, Shrunk

DEFENCES = ("smoothing", "adversarial")


def networks(p, seed):
    """Every network at every size: members; trained on noise; trained on attacks."""
    for i in range(p.members):
        for arm, net in p.family(seed, member=i):
            yield {"question": "member" if i else "first", "arm": arm}, net
    for question, changed in p.trainings():
        for arm, net in p.family(seed, **changed):
            yield {"question": question, "arm": arm}, net


def measured(p, role, net):
    """What is measured of each network by itself; ensembles are made of all members."""
    yield role, net
    if role["question"] == "first" and role["arm"] != "scratch":
        detectors = {**role, "question": "detectors"}
        yield detectors, net
        for text, anomaly in product(p.gradient_detectors, p.anomalies):
            yield detectors, p.detection(net, text, anomaly)
        for name, options in map(detector, p.gradient_detectors):
            yield detectors, Scored(model=net, detector=name, options=options)
    if role["question"] == "smoothing":
        noise = {"sigma": p.sigma, "radius": p.radius, "n": p.certify_n}
        yield role, Certified(model=net, limit=p.certify_samples, **noise)
    if role["question"] == "adversarial":
        few = {"eps": p.eps, "limit": p.attack_samples}
        yield role, Attacked(model=net, attack="pgd", **p.pgd(), **few)
        yield role, p.ensemble(net)


def ensembles(p, seed):
    """The ensemble of each size, and its first member by itself."""
    families = [p.family(seed, member=i) for i in range(p.members)]
    for found in zip(*families, strict=True):
        arm, nets = found[0][0], [net for _, net in found]
        yield {"question": "ensemble", "arm": arm}, p.ensemble(nets[0])
        yield {"question": "ensemble", "arm": arm}, p.ensemble(*nets)


Defence = Annotated[str, AfterValidator(lambda name: checks.choice("defence", name, DEFENCES))]
Defences = Annotated[list[Defence], fields.DISTINCT]


def _compared(method, arm, control):
    return f"{method}: {words.ARMS[arm]} against {words.ARMS[control]}"


class StructureAndCost(Figure):
    """Ensembles, smoothing, adversarial training and gradient detectors on shrunk networks: quality against cost."""

    number, notebook, claim = 4, "04_structured_sparsity_and_cost", "C3"
    blocks: ClassVar[tuple[str, ...]] = ("structure",)

    seeds: fields.Seeds
    recipe: fields.OneRecipe = Field(description="how units are removed: <criterion> <when> units")
    unit_sparsities: fields.SomeSparsities = Field(description="fractions of weights removed with whole units")
    scratch_sparsities: fields.AnySparsities = Field(description="sizes that are also trained from scratch")
    rounds: fields.Rounds
    finetune_epochs: fields.Finetuning
    lr: fields.Positive = Field(description="highest learning rate of every training")
    members: Annotated[fields.Count, Field(le=100)] = Field(description="networks in an ensemble")
    defences: Defences = Field(description="what else is trained: smoothing, adversarial")
    eps: fields.Positive = Field(description="radius of the attacks in L∞, in training and test")
    sigma: fields.Positive = Field(description="deviation of the smoothing noise, in training and test")
    radius: fields.Positive = Field(description="L2 radius at which accuracy is certified")
    certify_n: fields.Count = Field(description="noisy copies of each image for a certificate")
    certify_samples: fields.Count = Field(description="certify this many test images")
    attack_steps: fields.AttackSteps
    attack_restarts: fields.AttackRestarts
    attack_samples: fields.AttackSamples
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

    def trainings(self):
        """Yield (defence, what changes of `family`). Attacks in training cost much: only at sizes with both arms."""
        if "smoothing" in self.defences:
            yield "smoothing", {"noise": self.sigma}
        if "adversarial" in self.defences:
            yield "adversarial", {"adversarial": self.eps, "sizes": self.scratch_sparsities or self.unit_sparsities}

    def family(self, seed, member=0, sizes=None, **changed):
        """Return [("dense", …), ("shrunk", …), …, ("scratch", …), …]: a network at every size, the control at some.

        All train equally long, and in the same two phases but for those from scratch. Members have weights of their
        own; all see the data of the seed. `sizes`: only these.
        """
        start = self.trained(seed * self.members + member, data=self.data(seed), lr=self.lr, **changed)
        dense = self.unpruned(start, lr=self.lr)
        shrunk = {
            sparsity: Shrunk(pruned=self.pruned(start, self.recipe, sparsity, lr=self.lr))
            for sparsity in filter(None, sizes or self.unit_sparsities)
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
        yield f"ensembles of {self.members}", {"question": "ensemble", "members": self.members}
        if "adversarial" in self.defences:
            yield "adversarial training", {"question": "adversarial", "task": ("clean", "attack")}
        if "smoothing" in self.defences:
            yield "randomized smoothing", {"question": "smoothing", "task": "certificate"}
        yield "gradient detectors", {"question": "detectors", "detector": gradients}

    def comparisons(self):
        """Yield what is compared, by method: shrunk networks with dense ones, and with those from scratch."""
        for name, of in self.subjects():
            for arm, control, match in (("shrunk", "dense", ()), ("shrunk", "scratch", ("sparsity",))):
                if control == "dense" or (name != "gradient detectors" and self.scratch_sparsities):
                    told = _compared(name, arm, control)
                    own = {"sparsity": tuple(self.scratch_sparsities)} if match else {}
                    yield Comparison("C3", told, {**of, **own, "arm": arm}, {**of, "arm": control}, match=match)
        of, one = ({"question": "ensemble", "members": n} for n in (self.members, 1))
        told = f"{self.members} shrunk members against one dense network"
        yield Comparison("C3", told, {**of, "arm": "shrunk"}, {**one, "arm": "dense"})

    def shown(self):
        """Return the measures that the endpoint rests on, whose differences are drawn."""
        return "clean", f"{words.detector('msp')}, near"

    def purposes(self):
        """Yield (method, question, measure): what each method is used for, and where shrunk and dense are compared."""
        attacked = words.attack("pgd", "linf", self.eps)
        for name, of in self.subjects():
            measures = {
                "ensemble": (attacked, f"{words.detector('msp')}, near"),
                "adversarial": (attacked,),
                "smoothing": (words.ACCURACIES["certified"],),
                "detectors": [f"{words.detector(own)}, near" for own in of.get("detector", ())],
            }[of["question"]]
            for measure in measures:
                yield name, _compared(name, "shrunk", "dense"), measure

    def primary(self):
        """Yield what the endpoint rests on: an ensemble of shrunk networks against the dense one, in two measures."""
        of = {"question": "ensemble", "members": self.members}
        for measure in self.shown():
            told = f"ensemble of {self.members}, shrunk − dense, {measure}"
            yield Comparison("C3", told, {**of, "arm": "shrunk"}, {**of, "arm": "dense"}, measures=(measure,))

    def endpoints(self, rows, delta):
        """Return the endpoint: the least share of the multiplications at which neither measure is worse by δ.

        What the ensemble of that size loses under attack, which the endpoint does not ask, is told beside.

        The sizes are tested from the largest to the smallest, until one fails: so none is chosen among several.
        """
        of, attacked = {"question": "ensemble", "members": self.members}, (words.attack("pgd", "linf", self.eps),)
        shrunk, dense, scratch = ({**of, "arm": arm} for arm in ("shrunk", "dense", "scratch"))
        shrunk_too = {**shrunk, "sparsity": tuple(self.scratch_sparsities)}
        beside = [
            Comparison("C3", "attacked", shrunk, dense, measures=attacked),
            Comparison("C3", "attacked", shrunk_too, scratch, measures=attacked, match=("sparsity",)),
        ]
        found = compare([*self.primary(), *beside], rows, delta=delta)
        under, of_scratch = ({f.at: f.contrast for f in found if f.comparison is c} for c in beside)
        cost = select(rows, {"task": "ensemble", "metric": "macs", "members": self.members})
        macs = cost.groupby(["arm", "sparsity"])["value"].mean()
        least, size, p, outcome, last = 1.0, 0.0, 1.0, statistics.OPEN, None
        for at, share in sorted((macs["shrunk"] / macs["dense"].iloc[0]).items()):
            both = [f.contrast for f in found if f.label == f"sparsity {at:g}" and f.comparison not in beside]
            if len(both) < 2:
                return []  # one of the measures was not taken
            risk = max(statistics.p_no_worse(c.differences, delta) for c in both)
            closer = min(both, key=lambda c: c.low)
            if last is None:  # the largest size
                p, last = risk, closer
                harm = 2 * min(statistics.p_worse(c.differences, delta) for c in both)  # in either of two measures
                if harm < 1 - statistics.LEVEL:
                    p, outcome = harm, statistics.WORSE
            if risk >= 1 - statistics.LEVEL:
                break
            least, size, outcome, last = float(share), at, statistics.BETTER, closer
        if last is None:
            return []
        question = words.ENDPOINTS["cost"].format(delta=delta)
        told = f"{self.members} networks each; the difference closer to a loss: {last}"
        if size in under:
            told += f"; not asked for, accuracy under attack: {under[size]}, {under[size].told}"
            told += f"; {of_scratch[size]}, against one from scratch" if size in of_scratch else "; none from scratch"
        number = f"{100 * least:.0f} % of the multiplications ({told})"
        power = statistics.detectable(last.differences)
        return [Endpoint("C3", question, number, outcome, p, power, last.differences, delta, moves=False)]
