"""The typed parameters of the figures, and the cells that each is drawn from."""

from typing import Annotated, ClassVar

from pydantic import Field, StrictInt, ValidationError, field_validator, model_validator

from sparselib import checks
from sparselib.repro.measurements import Attacked, AutoAttacked, Certified, Detection, Ensembled, Scored, Shifted
from sparselib.repro.networks import Masked, Scratch, Shrunk, weight_count
from sparselib.repro.settings import (
    PROFILES,
    Anomalies,
    Count,
    Detectors,
    Epochs,
    Limit,
    Objectives,
    Parameters,
    Positive,
    Radii,
    Recipe,
    Recipes,
    Shifts,
    SomeSparsities,
    Sparsities,
    Sparsity,
    Synthetic,
    detector,
    filled,
    in_one_line,
    pruned,
)

Seeds = Annotated[StrictInt, Field(ge=1, le=100, description="number of seeds: 0, 1, …")]
Finetuning = Annotated[Epochs, Field(description="training epochs after pruning")]


class Quickstart(Parameters):
    """One network, pruned, attacked and asked about anomalies."""

    number, notebook, claim = 0, "00_quickstart", "–"
    defaults: ClassVar[dict] = {
        p: {"seed": 0, "sparsity": 0.8, "eps": e} for p, e in (("digits", 0.1), ("mnist", 0.1), ("cifar10", 2 / 255))
    }

    sparsity: Sparsity = Field(description="fraction of weights removed")
    eps: Annotated[float, Field(ge=0, le=1)] = Field(description="radius of the L∞ attack, in pixel units")
    seed: Annotated[StrictInt, Field(ge=0)] = Field(description="of the weights, the order of the data, the attack")


class SparsityGrid(Parameters):
    """The networks of claim C1: one width at many sparsities, one size at several widths, noisy labels."""

    grid: ClassVar[dict] = {
        "digits": {
            "recipes": [
                "magnitude after", "crop after", "random after", "snip before", "synflow before",
                "magnitude after units", "crop after units", "snip before units",
            ],
            "sparsities": [0.5, 0.7, 0.8, 0.9, 0.95, 0.98],
            "epochs": 16, "finetune_epochs": 8, "wide_width": 32, "narrow_widths": [8, 16],
            "label_noise": 0.4, "noisy_width": 24, "noisy_epochs": 24,
            "noisy_recipes": ["random before", "snip before", "magnitude after"], "noisy_sparsities": [0.9, 0.95],
        },
        "mnist": {
            "recipes": ["magnitude after", "random after", "snip before", "magnitude after units"],
            "sparsities": [0.8, 0.95, 0.98],
            "finetune_epochs": 2, "wide_width": 16, "narrow_widths": [4, 8],
            "label_noise": 0.4, "noisy_width": 16, "noisy_epochs": 8,
            "noisy_recipes": ["random before", "snip before"], "noisy_sparsities": [0.9, 0.95],
        },
        "cifar10": {
            "recipes": ["magnitude after", "random after", "snip before", "synflow before", "magnitude after units"],
            "sparsities": [0.5, 0.8, 0.9, 0.95, 0.98],
            "finetune_epochs": 10, "wide_width": 64, "narrow_widths": [8, 16, 32],
            "label_noise": 0.4, "noisy_width": 64, "noisy_epochs": 30,
            "noisy_recipes": ["random before", "snip before"], "noisy_sparsities": [0.9, 0.95],
        },
    }  # fmt: skip

    seeds: Seeds
    recipes: Recipes = Field(description="same width: criterion and time of pruning, units for structured")
    sparsities: SomeSparsities = Field(description="same width: fractions of weights removed")
    finetune_epochs: Finetuning
    wide_width: Count = Field(description="same size: width of the networks that are pruned to the size of narrow ones")
    narrow_widths: list[Count] = Field(description="same size: widths of the dense networks")
    label_noise: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="noisy labels: share of the training labels drawn anew"
    )
    noisy_width: Count = Field(description="noisy labels: width")
    noisy_epochs: Annotated[StrictInt, Field(ge=2)] = Field(description="noisy labels: training epochs")
    noisy_recipes: Recipes = Field(description="noisy labels: criterion and time of pruning")
    noisy_sparsities: SomeSparsities = Field(description="noisy labels: fractions of weights removed")

    def dense(self, seed, **changed):
        """Return a dense network that trains as long as a sparse one, before and after pruning together."""
        return self.trained(seed, epochs=self.epochs + self.finetune_epochs, **changed)

    def same_width(self, seed):
        """Return the dense network and its sparse ones; all train equally long."""
        start = self.trained(seed)
        return [self.dense(seed)] + [
            pruned(start, recipe, sparsity, self.finetune_epochs)
            for recipe in self.recipes for sparsity in self.sparsities if sparsity
        ]  # fmt: skip

    def same_size(self, seed):
        """Return pairs: a narrow dense network, and a wide one pruned to as many weights; last, the wide dense one."""
        start = self.trained(seed, width=self.wide_width)
        pairs = []
        for width in self.narrow_widths:
            narrow = self.dense(seed, width=width)
            sparsity = 1 - weight_count(narrow) / weight_count(start)
            if sparsity > 0:
                pairs.append((narrow, pruned(start, "magnitude after", sparsity, self.finetune_epochs)))
        return [*pairs, (self.dense(seed, width=self.wide_width),)]

    def noisy_labels(self, seed):
        """Return {name: network}, all trained on noisy labels: dense, the controls, the sparse ones."""
        usual = {"width": self.noisy_width, "label_noise": self.label_noise}
        dense = self.trained(seed, epochs=self.noisy_epochs, **usual)
        found = {
            "dense": dense,
            "fewer epochs": self.trained(seed, epochs=max(1, self.noisy_epochs // 4), **usual),
            "weight decay": self.trained(seed, epochs=self.noisy_epochs, weight_decay=0.01, **usual),
            "narrow": self.trained(seed, epochs=self.noisy_epochs, **{**usual, "width": max(1, self.noisy_width // 4)}),
        }
        for recipe in self.noisy_recipes:
            for sparsity in filter(None, self.noisy_sparsities):
                # All train equally long, whether pruned before or after.
                after = self.noisy_epochs // 3
                start = self.trained(seed, epochs=self.noisy_epochs - after, **usual)
                found[f"{recipe} {sparsity:g}"] = pruned(start, recipe, sparsity, after)
        return found

    def networks(self):
        """Return all the networks, each once."""
        found = {}
        for seed in self.seed_list():
            nets = [*self.same_width(seed), *(net for pair in self.same_size(seed) for net in pair)]
            for net in [*nets, *self.noisy_labels(seed).values()]:
                found[net.what] = net
        return list(found.values())


class Robustness(SparsityGrid):
    """Clean, attacked and shifted accuracy against sparsity."""

    number, notebook, claim = 1, "01_sparsity_and_robustness", "C1"
    defaults: ClassVar[dict] = {
        "digits": {
            **SparsityGrid.grid["digits"],
            "eps_linf": [0.1], "eps_l2": [0.5], "attack_steps": 10, "attack_samples": 200,
            "autoattack_eps": 0.1, "autoattack_samples": 16, "autoattack_sparsity": 0.9, "severity": 4,
            "curve_linf": [0.025, 0.05, 0.075, 0.1, 0.15, 0.2], "curve_l2": [0.25, 0.5, 0.75, 1.0],
            "shifts": ["gaussian_noise", "motion_blur", "fog", "contrast", "pixelate", "rotate", "translate", "stripe"],
        },
        "mnist": {
            **SparsityGrid.grid["mnist"],
            "eps_linf": [0.05, 0.1], "eps_l2": [1.0], "attack_steps": 20, "attack_samples": 200,
            "autoattack_eps": 0.1, "autoattack_samples": 16, "autoattack_sparsity": 0.95, "severity": 4,
            "curve_linf": [0.025, 0.05, 0.1, 0.2], "curve_l2": [0.5, 1.0, 2.0],
            "shifts": [
                "gaussian_noise", "impulse_noise", "motion_blur", "fog", "contrast", "rotate", "translate", "stripe",
            ],
        },
        "cifar10": {
            **SparsityGrid.grid["cifar10"],
            "eps_linf": [1 / 255, 2 / 255, 8 / 255], "eps_l2": [0.25], "attack_steps": 20, "attack_samples": 1000,
            "autoattack_eps": 2 / 255, "autoattack_samples": 200, "autoattack_sparsity": 0.95, "severity": 3,
            "curve_linf": [0.5 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255], "curve_l2": [0.125, 0.25, 0.5],
            "shifts": [
                "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "motion_blur", "zoom_blur", "fog",
                "brightness", "contrast", "pixelate", "jpeg", "rotate",
            ],
        },
    }  # fmt: skip

    eps_linf: Radii = Field(description="radii of the attacks in L∞, in pixel units")
    eps_l2: Radii = Field(description="radii of the attacks in L2")
    curve_linf: Radii = Field(description="a closer look at two networks a seed: radii in L∞")
    curve_l2: Radii = Field(description="a closer look: radii in L2")
    attack_steps: Count = Field(description="steps of PGD")
    attack_samples: Count = Field(description="attack so many test images")
    autoattack_eps: Positive = Field(description="radius of AutoAttack, in L∞")
    autoattack_samples: Limit = Field(description="AutoAttack so many test images; 0: none")
    autoattack_sparsity: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="the closer look is at the dense network and at the first recipe so sparse"
    )
    shifts: Shifts = Field(description="kinds of distribution shift")
    severity: Annotated[StrictInt, Field(ge=1, le=5)] = Field(description="of the shifts, 1 to 5")

    def cells(self):
        radii = [("linf", eps) for eps in self.eps_linf] + [("l2", eps) for eps in self.eps_l2]
        found = []
        for net in self.networks():
            found.append(net)
            for norm, eps in radii:
                usual = {"model": net, "norm": norm, "eps": eps, "limit": self.attack_samples}
                found += [Attacked(attack="fgsm", **usual)] if norm == "linf" else []
                found.append(Attacked(attack="pgd", steps=self.attack_steps, **usual))
            found += [Shifted(model=net, kind=kind, severity=self.severity) for kind in self.shifts]
        return found + self._closer()

    def _closer(self):
        """Return accuracy over many radii and under AutoAttack, of the dense network and of a sparse one."""
        found = []
        for seed in self.seed_list():
            sparse = pruned(self.trained(seed), self.recipes[0], self.autoattack_sparsity, self.finetune_epochs)
            for net in (self.dense(seed), sparse):
                usual = {"model": net, "steps": self.attack_steps, "limit": self.attack_samples}
                found.append(net)
                for eps in self.curve_linf:
                    found += [Attacked(attack=attack, norm="linf", eps=eps, **usual) for attack in ("fgsm", "pgd")]
                found += [Attacked(attack="pgd", norm="l2", eps=eps, **usual) for eps in self.curve_l2]
                if self.autoattack_samples:
                    options = {"eps": self.autoattack_eps, "limit": self.autoattack_samples}
                    found.append(AutoAttacked(model=net, steps=self.attack_steps, **options))
        return found


class AnomalyDetection(SparsityGrid):
    """AUROC, AUPR and FPR95 against sparsity, for attacks, shifts and outliers."""

    number, notebook, claim = 2, "02_sparsity_and_anomaly_detection", "C1"
    defaults: ClassVar[dict] = {
        p: {**SparsityGrid.grid[p], "detectors": ["msp", "knn", "sensnorm"], "anomalies": a}
        for p, a in (
            ("digits", ["pgd:0.1", "rotate:4", "heldout", "textures"]),
            ("mnist", ["pgd:0.1", "rotate:4", "heldout", "textures"]),
            ("cifar10", ["pgd:0.0078", "gaussian_noise:4", "cifar100", "svhn"]),
        )
    }

    detectors: Detectors = Field(description="detectors, with options if any")
    anomalies: Anomalies = Field(description="kinds of anomaly: pgd:<eps>, <shift>:<severity>, or outliers")

    def cells(self):
        nets = self.networks()
        return nets + _detections(nets, self.detectors, self.anomalies)


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
    shifts: Shifts = Field(description="kinds of distribution shift")
    severity: Annotated[StrictInt, Field(ge=1, le=5)] = Field(description="of the shifts, 1 to 5")
    detectors: Detectors = Field(description="detectors, with options if any")
    anomalies: Anomalies = Field(description="kinds of anomaly")
    attack_steps: Count = Field(description="steps of PGD")
    attack_samples: Count = Field(description="attack so many test images")

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
        return found + _detections(self.networks(), self.detectors, self.anomalies)


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
            ("mnist", {"train_limit": 2000, "test_limit": 400}, [0.8], [0.8], 2, 5e-3, 3, 0.1, 200, 60, ["heldout"]),
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
                found += _detections([net], self.gradient_detectors, self.anomalies)
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
            ("mnist", 2, 0.1, ["heldout"], 3, []),
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
        """Return dense networks of seeds that nothing was looked at before."""
        return [self.trained(self.FRESH + i) for i in range(self.fresh_seeds)]

    def cells(self):
        nets, dense = self.networks(), [self.trained(seed) for seed in self.seed_list()]
        found = [*nets, *_detections(nets, self.detectors, self.anomalies)]
        found += _detections(dense, [t for t in self.ablation if t not in self.detectors], self.anomalies)
        return [*found, *self.fresh(), *_detections(self.fresh(), self.CONFIRMED, self.anomalies)]


def _detections(nets, texts, anomalies):
    return [
        Detection(model=net, detector=name, options=options, anomaly=anomaly)
        for net in nets for name, options in map(detector, texts) for anomaly in anomalies
    ]  # fmt: skip


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
