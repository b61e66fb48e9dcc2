"""The typed parameters of the figures, and the cells that each is drawn from."""

from typing import Annotated, ClassVar

from pydantic import Field, StrictInt, ValidationError, field_validator, model_validator

from sparselib import checks
from sparselib.repro.measurements import Attacked, Certified, Ensembled, Scored, Shifted
from sparselib.repro.networks import Masked, Scratch, Shrunk
from sparselib.repro.settings import (
    PROFILES,
    Anomalies,
    AttackSamples,
    AttackSteps,
    Count,
    Detectors,
    Finetuning,
    Limit,
    Objectives,
    Parameters,
    Positive,
    Recipe,
    Seeds,
    Severity,
    Shifts,
    SomeSparsities,
    Sparsities,
    Sparsity,
    Synthetic,
    detections,
    detector,
    filled,
    in_one_line,
    pruned,
)
from sparselib.repro.sparsity_figures import AnomalyDetection, Robustness


class Quickstart(Parameters):
    """One network, pruned, attacked and asked about anomalies."""

    number, notebook, claim = 0, "00_quickstart", "–"
    defaults: ClassVar[dict] = {
        p: {"seed": 0, "sparsity": 0.8, "eps": e} for p, e in (("digits", 0.1), ("mnist", 0.1), ("cifar10", 2 / 255))
    }

    sparsity: Sparsity = Field(description="fraction of weights removed")
    eps: Annotated[float, Field(ge=0, le=1)] = Field(description="radius of the L∞ attack, in pixel units")
    seed: Annotated[StrictInt, Field(ge=0)] = Field(description="of the weights, the order of the data, the attack")


class Subnetworks(Parameters):
    """Masks over frozen trained weights, by what they are learnt for."""

    number, notebook, claim = 3, "03_subnetworks_without_training", "C2"
    defaults: ClassVar[dict] = {
        p: {
            "width": w, "mask_sparsities": s, "mask_epochs": e, "mask_lr": 3e-3, "eps": eps, "noise": 0.4,
            "outliers": "permuted",
            "objectives": ["clean", "adversarial", "shift", "outlier"], "shifts": shifts, "severity": 4,
            "detectors": ["msp", "sensnorm"], "attack_steps": 20, "attack_samples": n,
            "anomalies": [f"pgd:{eps:g}", "gaussian_noise:4", *near, "mixed", "textures"],
        }
        for p, w, s, e, eps, n, near, shifts in (
            ("digits", 32, [0.9], 10, 0.1, 200, ["heldout"], ["gaussian_noise", "impulse_noise", "rotate", "fog"]),
            ("mnist", 16, [0.9], 2, 0.1, 200, ["heldout"], ["gaussian_noise", "impulse_noise", "rotate", "fog"]),
            ("cifar10", 64, [0.9], 10, 2 / 255, 1000, ["svhn"], ["gaussian_noise", "impulse_noise", "fog", "jpeg"]),
        )
    }  # fmt: skip

    seeds: Seeds
    mask_sparsities: SomeSparsities = Field(description="fractions of weights that the masks remove")
    mask_epochs: Count = Field(description="epochs of learning a mask")
    mask_lr: Positive = Field(description="learning rate of the scores that a mask is chosen by")
    objectives: Objectives = Field(description="what masks are learnt for")
    eps: Positive = Field(description="radius of the attacks in L∞, in learning and in the test")
    noise: Positive = Field(description="standard deviation of the noise of the objective shift")
    outliers: Synthetic = Field(description="synthetic outliers of the objective outlier, not to be tested on")
    shifts: Shifts
    severity: Severity
    detectors: Detectors = Field(description="detectors, with options if any")
    anomalies: Anomalies = Field(description="kinds of anomaly")
    attack_steps: AttackSteps
    attack_samples: AttackSamples

    @model_validator(mode="after")
    def _outliers_unseen(self):
        if self.outliers in self.anomalies:
            raise ValueError(f"outliers must not be among the anomalies that are tested on, got {self.outliers!r}")
        return self

    def masks(self, seed):
        """Return the networks under a mask: learnt, and the controls, which are not; all of the same dense one."""
        dense = self.trained(seed)
        blank = self.trained(seed, epochs=0)
        found = []
        for sparsity in self.mask_sparsities:
            usual = {"sparsity": sparsity, "eps": self.eps, "noise": self.noise}

            def learnt(objective, base=dense, usual=usual, **more):
                kind = self.outliers if objective == "outlier" else None
                return Masked(
                    dense=base, objective=objective, outliers=kind, epochs=self.mask_epochs, lr=self.mask_lr,
                    **usual, **more,
                )  # fmt: skip

            found += [learnt(objective) for objective in self.objectives]
            found += [
                Masked(dense=dense, epochs=0, init=init, batch_norm=batch_norm, sparsity=sparsity)
                for init in ("hydra", "edge-popup") for batch_norm in ("frozen", "restated")
            ]  # fmt: skip
            if sparsity == max(self.mask_sparsities):
                first = "adversarial" if "adversarial" in self.objectives else self.objectives[0]
                restated = {"batch_norm": "restated"}  # the statistics of an untrained network say nothing
                found += [learnt(first, **restated), learnt(first, base=blank, **restated)]
        return found

    def networks(self):
        return [net for seed in self.seed_list() for net in (self.trained(seed), *self.masks(seed))]

    def cells(self):
        found = []
        for net in self.networks():
            usual = {"model": net, "eps": self.eps, "limit": self.attack_samples}
            found += [net, Attacked(attack="pgd", steps=self.attack_steps, **usual)]
            found += [Shifted(model=net, kind=kind, severity=self.severity) for kind in self.shifts]
        return found + detections(self.networks(), self.detectors, self.anomalies)


class StructureAndCost(Parameters):
    """Ensembles, smoothing, adversarial training and gradient detectors on shrunk networks: quality against cost."""

    number, notebook, claim = 4, "04_structured_sparsity_and_cost", "C3"
    defaults: ClassVar[dict] = {
        p: {
            **scale, "recipe": "magnitude after units", "unit_sparsities": s, "scratch_sparsities": scratch,
            "finetune_epochs": f, "lr": lr, "members": m, "eps": eps, "sigma": 0.25, "radius": 0.25,
            "certify_n": n, "certify_samples": c, "anomalies": [f"pgd:{eps:g}", "rotate:4", *near, "mixed", "textures"],
            "gradient_detectors": ["msp", "gradnorm layers=all", "sensnorm layers=all", "profile"],
        }
        for p, scale, s, scratch, f, lr, m, eps, n, c, near in (
            ("digits", {"epochs": 12}, [0.7, 0.9], [0.7], 8, 0.01, 5, 0.1, 500, 80, ["heldout"]),
            (
                "mnist", {"train_limit": 2000, "test_limit": 200, "epochs": 3},
                [0.8], [0.8], 2, 5e-3, 3, 0.1, 200, 60, ["heldout"],
            ),
            ("cifar10", {}, [0.5, 0.7, 0.9], [0.5, 0.7, 0.9], 10, 2e-3, 5, 2 / 255, 1000, 200, ["svhn"]),
        )
    }  # fmt: skip

    seeds: Seeds
    recipe: Recipe = Field(description="how units are removed: <criterion> <when> units")
    unit_sparsities: SomeSparsities = Field(description="fractions of weights removed with whole units")
    scratch_sparsities: list[Sparsity] = Field(description="those of them whose sizes are also trained from scratch")
    finetune_epochs: Finetuning
    lr: Positive = Field(description="highest learning rate of every training: dense, after pruning, from scratch")
    members: Count = Field(description="networks in an ensemble")
    eps: Positive = Field(description="radius of the attacks in L∞, in adversarial training and in the test")
    sigma: Positive = Field(description="standard deviation of the smoothing noise, in training and in certificates")
    radius: Positive = Field(description="L2 radius at which accuracy is certified")
    certify_n: Count = Field(description="noisy copies of each image for a certificate")
    certify_samples: Count = Field(description="certify so many test images")
    anomalies: Anomalies = Field(description="kinds of anomaly")
    gradient_detectors: Detectors = Field(description="detectors whose cost and quality are measured")

    @model_validator(mode="after")
    def _whole_units_and_their_controls(self):
        if not self.recipe.endswith(" units"):
            raise ValueError(f"recipe must remove whole units ('<criterion> <when> units'), got {self.recipe!r}")
        sizes = [sparsity for sparsity in self.unit_sparsities if sparsity]
        if not set(self.scratch_sparsities) <= set(sizes):
            raise ValueError(f"scratch_sparsities must be among unit_sparsities {sizes}, got {self.scratch_sparsities}")
        return self

    def family(self, seed, **changed):
        """Return [dense, shrunk…, from scratch…]: one network at every size, and the control of some sizes.

        All train equally long, the shrunk ones before and after pruning together.
        """
        start = self.trained(seed, lr=self.lr, **changed)
        dense = self.trained(seed, lr=self.lr, epochs=self.epochs + self.finetune_epochs, **changed)
        shrunk = {
            sparsity: Shrunk(pruned=pruned(start, self.recipe, sparsity, self.finetune_epochs, lr=self.lr))
            for sparsity in filter(None, self.unit_sparsities)
        }  # fmt: skip
        return [dense, *shrunk.values(), *(Scratch(shrunk=shrunk[sparsity]) for sparsity in self.scratch_sparsities)]

    def cells(self):
        found = []
        for seed in self.seed_list():
            families = [self.family(seed * self.members + i) for i in range(self.members)]
            usual = {"eps": self.eps, "anomalies": tuple(self.anomalies)}
            for members in zip(*families, strict=True):
                found += [Ensembled(members=members[:1], **usual), Ensembled(members=members, **usual)]
            others = [self.family(seed, noise=self.sigma), self.family(seed, adversarial=self.eps)]
            for net in (net for family in (*families, *others) for net in family):
                # with what it is made from, for what that costs
                found += [net.pruned.dense, net.pruned, net] if isinstance(net, Shrunk) else [net]
            for net in (net for net in families[0] if not isinstance(net, Scratch)):
                for text in self.gradient_detectors:
                    name, options = detector(text)
                    found.append(Scored(model=net, detector=name, options=options))
                found += detections([net], self.gradient_detectors, self.anomalies)
            for net in others[0]:
                options = {"sigma": self.sigma, "n": self.certify_n, "limit": self.certify_samples}
                found.append(Certified(model=net, radius=self.radius, **options))
            for net in others[1]:
                found += [Attacked(model=net, attack="pgd", eps=self.eps), Ensembled(members=(net,), **usual)]
        return found


class Sensnorm(Parameters):
    """SensNorm against its rivals on attacks, shifts and outliers, dense and sparse; and its ablation."""

    number, notebook, claim = 5, "05_sensnorm", "C4"
    defaults: ClassVar[dict] = {
        p: {
            "recipe": "magnitude after", "sparsities": [0.0, 0.9], "finetune_epochs": f,
            "detectors": [
                "msp", "maxlogit", "entropy", "energy", "odin", "gradnorm", "mahalanobis", "relative_mahalanobis",
                "knn", "vim", "react", "dice", "ash", "sensnorm", "profile",
            ],
            "anomalies": [
                f"pgd:{eps:g}", "gaussian_noise:4", "rotate:4", *near, "mixed", "textures", "uniform", "inverted",
            ],
            "ablation": [
                *second_order, "sensnorm norm=1", "sensnorm norm=5", "sensnorm norm=inf", "sensnorm layers=all",
                "sensnorm layers=all norm=1", "sensnorm layers=all norm=5", "sensnorm layers=all aggregate=mean",
                "sensnorm target=logit", "sensnorm target=uniform", "sensnorm per_loss=true",
                "sensnorm reference=train", "sensnorm reference=train standardise=true", "sensnorm views=4",
                "sensnorm criterion=snap", "sensnorm criterion=snap layers=all",
            ],
            "fresh_seeds": fresh,
        }
        for p, f, eps, near, fresh, second_order in (
            ("digits", 10, 0.1, ["heldout"], 5, ["sensnorm criterion=crop", "sensnorm criterion=grasp"]),
            ("mnist", 2, 0.1, ["heldout"], 5, []),
            ("cifar10", 10, 2 / 255, ["svhn", "cifar100"], 3, []),
        )
    }  # fmt: skip
    FRESH: ClassVar[int] = 100  # the first of the fresh seeds
    CONFIRMED: ClassVar[tuple] = ("msp", "mahalanobis", "knn", "sensnorm", "profile")  # with these detectors

    seeds: Seeds
    recipe: Recipe = Field(description="how the sparse networks are made: <criterion> <when>")
    sparsities: Sparsities = Field(description="fractions of weights removed")
    finetune_epochs: Finetuning
    detectors: Detectors = Field(description="detectors to compare, with options if any")
    anomalies: Anomalies = Field(description="kinds of anomaly: pgd:<eps>, <shift>:<severity>, or outliers")
    ablation: Detectors = Field(description="variants of SensNorm, scored on the dense networks")
    fresh_seeds: Limit = Field(description="so many further seeds (100, 101, …) confirm the profile; 0: none")

    @field_validator("detectors")
    @classmethod
    def _with_sensnorm(cls, names):
        if "sensnorm" not in names:
            raise ValueError(f"must hold 'sensnorm', which all others are compared with, got {names}")
        return names

    def networks(self):
        """Return the dense network of every seed, and the sparse ones made from it."""
        return [
            pruned(self.trained(seed), self.recipe, sparsity, self.finetune_epochs)
            for seed in self.seed_list() for sparsity in dict.fromkeys([0.0, *self.sparsities])
        ]  # fmt: skip

    def fresh(self):
        """Return dense networks of further seeds, which nothing was looked at on before."""
        return [self.trained(self.FRESH + i) for i in range(self.fresh_seeds)]

    def cells(self):
        nets, dense = self.networks(), [self.trained(seed) for seed in self.seed_list()]
        found = [*nets, *detections(nets, self.detectors, self.anomalies)]
        found += detections(dense, [t for t in self.ablation if t not in self.detectors], self.anomalies)
        return [*found, *self.fresh(), *detections(self.fresh(), self.CONFIRMED, self.anomalies)]


CLAIMS = (Robustness, AnomalyDetection, Subnetworks, StructureAndCost, Sensnorm)


class Verdict(Parameters):
    """Each claim against each measure: supported, contradicted or undecided."""

    number, notebook, claim = 6, "06_verdict", "C1–C4"
    publishable: ClassVar[bool] = False
    reads: ClassVar[tuple] = tuple(model.notebook for model in CLAIMS)  # whose published rows it shows
    defaults: ClassVar[dict] = {profile: {"margin": 1.0, "figures": {}} for profile in PROFILES}

    seeds: Seeds
    margin: Annotated[float, Field(ge=0)] = Field(description="smallest difference that would matter, in points")
    figures: dict[str, dict] = Field(description="parameters of the other figures that are not the profile's")

    @field_validator("figures")
    @classmethod
    def _known_figures(cls, values):
        for name, changed in values.items():
            model = next(m for m in CLAIMS if m.notebook == checks.choice("figure", name, [m.notebook for m in CLAIMS]))
            for parameter in changed:
                own = [field for field in model.model_fields if field != "profile"]
                checks.choice(f"parameter of {name}", parameter, own)
        return values

    @model_validator(mode="after")
    def _sound_figures(self):
        try:
            self.judged()
        except ValidationError as error:
            raise ValueError(in_one_line(error, next(m for m in CLAIMS if m.__name__ == error.title))) from None
        return self

    def judged(self):
        """Return the parameters of the figures that are judged, by the names of their notebooks.

        What is changed here and known there is changed there, too.
        """
        usual = {**PROFILES[self.profile], **self.defaults[self.profile]}
        changed = {n: v for n, v in self if n in usual and n != "figures" and v != usual[n]}
        return {
            model.notebook: filled(
                model, self.profile,
                **{n: v for n, v in changed.items() if n in model.model_fields}
                | self.figures.get(model.notebook, {}),
            )
            for model in CLAIMS
        }  # fmt: skip

    def cells(self):
        return [cell for parameters in self.judged().values() for cell in parameters.cells()]


ALL = (Quickstart, *CLAIMS, Verdict)
