"""The figures of claim C1: one grid of networks, dense and sparse, under attack, under shifts, and as detectors."""

from typing import Annotated, ClassVar

from pydantic import Field, StrictInt

from sparselib.repro.measurements import Attacked, AutoAttacked, Shifted
from sparselib.repro.networks import weight_count
from sparselib.repro.settings import (
    Anomalies,
    AttackSamples,
    AttackSteps,
    Count,
    Detectors,
    Finetuning,
    Limit,
    Parameters,
    Positive,
    Radii,
    Recipes,
    Seeds,
    Severity,
    Shifts,
    SomeSparsities,
    detections,
    pruned,
)


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
    attack_steps: AttackSteps
    attack_samples: AttackSamples
    autoattack_eps: Positive = Field(description="radius of AutoAttack, in L∞")
    autoattack_samples: Limit = Field(description="AutoAttack so many test images; 0: none")
    autoattack_sparsity: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="the closer look is at the dense network and at the first recipe so sparse"
    )
    shifts: Shifts
    severity: Severity

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
        return nets + detections(nets, self.detectors, self.anomalies)
