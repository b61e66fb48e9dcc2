"""The types of parameters that pages share, and what all pages have in common: the data, the network, its training."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import yaml
from pydantic import AfterValidator, Field, StrictInt, field_validator

from sparselib import checks, data, models
from sparselib.detection import detectors
from sparselib.experiments import measurements
from sparselib.experiments.measurements import Detection
from sparselib.experiments.networks import Data, Pruned, Trained
from sparselib.pruning import criteria, schedules, subnetworks
from sparselib.repro.parameters import Parameters
from sparselib.robustness import shifts


class Recipe(NamedTuple):
    """How a sparse network is made: by which criterion, when, and whether whole units go."""

    criterion: str
    when: str
    structured: bool


def recipe(text: str) -> Recipe:
    """Read "<criterion> <when>" or "<criterion> <when> units". Raises ValueError for anything else."""
    found = re.fullmatch(r"(\S+)(?: (\S+))?(?: (.+))?", text)
    criterion, when, units = found.groups("") if found else (text, "", "")
    checks.choice("criterion", criterion, criteria.NAMES)
    checks.choice("when", when, schedules.WHEN)
    if units not in ("", "units"):
        raise ValueError(f"recipe must be '<criterion> <when>' or '<criterion> <when> units', got {text!r}")
    return Recipe(criterion, when, units == "units")


def detector(text: str) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """Read "<detector> <option>:<value> …" as (name, options): "sensnorm layers:all norm:5".

    Raises ValueError for detectors, options and values that do not exist.
    """
    name, settings = re.findall(r"(?s)^(\S*)\s*(.*)$", text)[0]
    checks.choice("detector", name, detectors.NAMES)
    if not re.fullmatch(r"([^\s:]+:\S+\s*)*", settings):
        raise ValueError(f"detector must be '<name> <option>:<value> …', got {text!r}")
    options = tuple((key, _value(value)) for key, value in re.findall(r"([^\s:]+):(\S+)", settings))
    try:
        detectors.build(name, **dict(options))
    except (TypeError, ValueError) as error:
        raise ValueError(f"detector {text!r}: {error}") from None
    return name, options


def _value(text):
    return float("inf") if text == "inf" else yaml.safe_load(text)


def _readable(read, text):
    read(text)
    return text


def _known(what, allowed, name):
    return checks.choice(what, name, allowed)


def _distinct(values):
    if len(set(values)) < len(values):
        raise ValueError(f"must not name anything twice, got {values}")
    return values


def _some_positive(values):
    if not any(values):
        raise ValueError(f"must hold at least one sparsity above 0, got {values}")
    return values


SEVERAL, DISTINCT = Field(min_length=1), AfterValidator(_distinct)

Count = Annotated[StrictInt, Field(ge=1)]
Limit = Annotated[StrictInt, Field(ge=0)]  # 0: none. (None would say: as the profile has it.)
Seed = Annotated[StrictInt, Field(ge=0)]
Sparsity = Annotated[float, Field(ge=0, lt=1)]
Epochs = Annotated[StrictInt, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Sparsities = Annotated[list[Sparsity], SEVERAL, DISTINCT]
SomeSparsities = Annotated[Sparsities, AfterValidator(_some_positive)]
Radii = Annotated[list[Positive], SEVERAL, DISTINCT]
OneRecipe = Annotated[str, AfterValidator(partial(_readable, recipe))]
Recipes = Annotated[list[OneRecipe], SEVERAL, DISTINCT]
Shift = Annotated[str, AfterValidator(partial(_known, "shift", shifts.KINDS))]
Shifts = Annotated[list[Shift], SEVERAL, DISTINCT, Field(description="distribution shifts")]
Detector = Annotated[str, AfterValidator(partial(_readable, detector))]
Detectors = Annotated[list[Detector], SEVERAL, DISTINCT]
Anomaly = Annotated[str, AfterValidator(partial(_readable, measurements.family))]
Anomalies = Annotated[list[Anomaly], SEVERAL, DISTINCT]
Synthetic = Annotated[str, AfterValidator(partial(_known, "outliers", tuple(data.SYNTHETIC)))]
Criterion = Annotated[str, AfterValidator(partial(_known, "criterion", criteria.NAMES))]
Objective = Annotated[str, AfterValidator(partial(_known, "objective", subnetworks.OBJECTIVES))]
Objectives = Annotated[list[Objective], SEVERAL, DISTINCT]
Seeds = Annotated[StrictInt, Field(ge=1, le=100, description="number of seeds: 0, 1, …")]
Severity = Annotated[StrictInt, Field(ge=1, le=5, description="of the shifts, 1 to 5")]
AttackSteps = Annotated[Count, Field(description="steps of PGD")]
AttackSamples = Annotated[Count, Field(description="attack this many test images")]
Finetuning = Annotated[Epochs, Field(description="training epochs after pruning")]


class Page(Parameters):
    """What all pages share: the data, the network and its training."""

    profiles: ClassVar[Path] = Path(__file__).parent / "profiles"
    # What is measured speaks by the keys of steps; the texts of parameters and the ways to train are chosen by name.
    apart: ClassVar[frozenset[str]] = frozenset(
        f"sparselib.experiments.{name}" for name in ("measurements", "fields.detector", "networks.TRAINING")
    )

    dataset: str = Field(description="a data set's name, or folder:<path>")
    held_out: list[str] = Field(description="classes kept out of training, to be detected")
    train_limit: Limit = Field(description="use at most this many training samples; 0: all")
    test_limit: Limit = Field(description="use at most this many test samples; 0: all")
    network: str = Field(description="architecture")
    width: Limit = Field(description="channels of the first layer; 0: the network's own")
    epochs: Epochs = Field(description="training epochs of the dense network")
    batch_size: Count = Field(description="training batch size")

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, name):
        return name if measurements.strength(name)[0] == "folder" else checks.choice("dataset", name, data.NAMES)

    @field_validator("network")
    @classmethod
    def _known_network(cls, name):
        return checks.choice("network", name, models.NAMES)

    def setting(self) -> str:
        return f"{self.dataset}, {self.network}"

    def data(self) -> Data:
        """Return the data that the networks are trained and tested on."""
        return Data(
            name=self.dataset, held_out=tuple(self.held_out), train_limit=self.train_limit or None,
            test_limit=self.test_limit or None,
        )  # fmt: skip

    def trained(self, seed: int, **changed: Any) -> Trained:
        """Return the dense network of one seed, as the parameters say but for what is `changed` (see `Trained`)."""
        usual = {"width": self.width or None, "epochs": self.epochs, "batch_size": self.batch_size}
        return Trained(data=self.data(), network=self.network, seed=seed, **{**usual, **changed})

    def pruned(self, dense: Trained, how: str, sparsity: float, *, epochs: int | None = None, **changed: Any) -> Any:
        """Return what a recipe makes of `dense`, trained on for `epochs` (default: finetune_epochs).

        At sparsity 0 it is `dense` itself. `changed`: further fields of `Pruned`.
        """
        if not sparsity:
            return dense
        after = dict(self)["finetune_epochs"] if epochs is None else epochs
        return Pruned(dense=dense, **recipe(how)._asdict(), sparsity=sparsity, epochs=after, **changed)


def _accuracy(p, role, net):
    """What is measured of a network where a page does not say more."""
    yield role, net


class Figure(Page):
    """A figure: for each seed some networks, and what is measured of each. Subclasses give the two functions.

    `networks(p, seed)` yields (role, network): columns that say what the network is to the experiment. `measured(p,
    role, net)` yields (role, step): what is computed from it. Both stand in the notebook as well, where they can be
    edited; a gate keeps the two equal.
    """

    networks: ClassVar[Callable]
    measured: ClassVar[Callable] = _accuracy

    def detection(self, net, text: str, anomaly: str) -> Detection:
        """Return the step that scores a network with a detector (as text) on a kind of anomaly."""
        name, options = detector(text)
        return Detection(model=net, detector=name, options=options, anomaly=anomaly)

    def computed(self) -> list[int]:
        """Return the seeds whose networks are computed; a page may have more than it compares."""
        return self.seed_list()

    def roles(self):
        return [
            pair for seed in self.computed() for role, net in self.networks(seed) for pair in self.measured(role, net)
        ]
