"""What the typed parameters of all pages share: the profiles, the names that are allowed, the recipes of pruning."""

from functools import partial
from typing import Annotated, ClassVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    field_validator,
    model_validator,
)

from sparselib import checks, data, models
from sparselib.detection import detectors
from sparselib.pruning import criteria, schedules, subnetworks
from sparselib.repro import measurements
from sparselib.repro.cells import Data
from sparselib.repro.networks import Pruned, Trained
from sparselib.robustness import shifts

# What each scale means; a figure may refine it.
PROFILES = {
    "digits": {
        "dataset": "digits", "held_out": ["8", "9"], "train_limit": 0, "test_limit": 0,
        "network": "convnet", "width": 16, "epochs": 20, "batch_size": 64, "seeds": 5,
    },
    "mnist": {
        "dataset": "mnist", "held_out": ["8 - eight", "9 - nine"], "train_limit": 4000, "test_limit": 800,
        "network": "resnet8", "width": 16, "epochs": 5, "batch_size": 128, "seeds": 5,
    },
    "cifar10": {
        "dataset": "cifar10", "held_out": [], "train_limit": 0, "test_limit": 0,
        "network": "resnet18", "width": 64, "epochs": 30, "batch_size": 256, "seeds": 3,
    },
}  # fmt: skip

Count = Annotated[StrictInt, Field(ge=1)]
Limit = Annotated[StrictInt, Field(ge=0)]  # 0: none. (None would say: as the profile has it.)
Sparsity = Annotated[float, Field(ge=0, lt=1)]
Epochs = Annotated[StrictInt, Field(ge=0)]


def _known(what, allowed, name):
    return checks.choice(what, name, allowed)


class ParameterError(ValueError):
    """A parameter that does not exist or has a value that is not allowed. One line, ready to show."""


class Parameters(BaseModel):
    """What all figures share: the data, the network and its training."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    number: ClassVar[int | None] = None
    notebook: ClassVar[str]  # the stem of its file
    folder: ClassVar[str] = "notebooks"
    claim: ClassVar[str]
    defaults: ClassVar[dict] = {}  # {profile: {name: value}}, over PROFILES
    publishable: ClassVar[bool] = True  # its rows belong in results/

    profile: str = Field(description="scale: digits, mnist or cifar10")
    dataset: str = Field(description="a data set's name, or folder:<path>")
    held_out: list[str] = Field(description="classes kept out of training, to be detected")
    train_limit: Limit = Field(description="use at most so many training samples; 0: all")
    test_limit: Limit = Field(description="use at most so many test samples; 0: all")
    network: str = Field(description="architecture")
    width: Limit = Field(description="channels of the first layer; 0: the network's own")
    epochs: Epochs = Field(description="training epochs of the dense network")
    batch_size: Count = Field(description="training batch size")

    @model_validator(mode="before")
    @classmethod
    def _read_lists(cls, values):
        """Let '[0.5, 0.9]' stand for a list: plain papermill hands lists over as text."""
        read = {}
        for name, value in values.items():
            try:
                read[name] = yaml.safe_load(value) if isinstance(value, str) and value[:1] in ("[", "{") else value
            except yaml.YAMLError:
                raise ValueError(f"{name} is no YAML list or mapping, got {value!r}") from None
        return read

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, name):
        return name if name.startswith("folder:") else checks.choice("dataset", name, data.NAMES)

    @field_validator("network")
    @classmethod
    def _known_network(cls, name):
        return checks.choice("network", name, models.NAMES)

    def source(self):
        """Return the data that the figure's networks are trained and tested on."""
        return Data(
            name=self.dataset, held_out=tuple(self.held_out), train_limit=self.train_limit or None,
            test_limit=self.test_limit or None,
        )  # fmt: skip

    def trained(self, seed, **changed):
        """Return the dense network of one seed, as the parameters say but for what is `changed` (see `Trained`)."""
        usual = {"width": self.width or None, "epochs": self.epochs, "batch_size": self.batch_size}
        return Trained(data=self.source(), network=self.network, seed=seed, **{**usual, **changed})

    def cells(self):
        """Return the cells whose rows the figure draws."""
        return []

    def seed_list(self):
        """Return the seeds that the figure is computed from."""
        return list(range(self.seeds)) if "seeds" in type(self).model_fields else [self.seed]


def filled(model, profile, **given):
    """Return the model's parameters: what the profile says, under what is given. Raises what pydantic raises."""
    checks.choice("profile", profile, PROFILES)
    scale = {name: value for name, value in PROFILES[profile].items() if name in model.model_fields}
    return model(profile=profile, **{**scale, **model.defaults[profile], **given})


def in_one_line(error, model):
    """Return what a ValidationError of a page's parameters says first: the parameter, what is allowed, the value."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] != "value_error":  # those name the value already
        message += f", got {first['input']!r}"
    return f"parameter {where!r} of {model.notebook}: {message}" if where else f"{model.notebook}: {message}"


def pruned(dense, recipe, sparsity, epochs, **changed):
    """Return the network that a recipe makes of `dense`, trained on for `epochs`; at sparsity 0 it is `dense` itself.

    A recipe is a text "<criterion> <when>", or "<criterion> <when> units" for structured pruning: "magnitude after".
    `changed`: further fields of `Pruned`.
    """
    if not sparsity:
        return dense
    criterion, when, *units = recipe.split()
    return Pruned(
        dense=dense, criterion=criterion, when=when, structured=bool(units), sparsity=sparsity, epochs=epochs, **changed
    )  # fmt: skip


def detector(text):
    """Return (name, options) of a text "<detector> <option>=<value> …": "sensnorm layers=all norm=5".

    Raises ValueError for detectors, options and values that do not exist.
    """
    name, *settings = text.split() or [""]
    checks.choice("detector", name, detectors.NAMES)
    pairs = [setting.partition("=") for setting in settings]
    if not all(key and equals and value for key, equals, value in pairs):
        raise ValueError(f"detector must be '<name> <option>=<value> …', got {text!r}")
    options = tuple((key, _value(value)) for key, _, value in pairs)
    try:
        detectors.build(name, **dict(options))
    except (TypeError, ValueError) as error:
        raise ValueError(f"detector {text!r}: {error}") from None
    return name, options


def detections(nets, texts, anomalies):
    """Return the cells that score every network with every detector (as text) on every anomaly."""
    return [
        measurements.Detection(model=net, detector=name, options=options, anomaly=anomaly)
        for net in nets for name, options in map(detector, texts) for anomaly in anomalies
    ]  # fmt: skip


def _value(text):
    return float("inf") if text == "inf" else yaml.safe_load(text)


def _recipe(text):
    criterion, when, *units = [*text.split(), "", ""][: max(2, len(text.split()))]
    checks.choice("criterion", criterion, criteria.NAMES)
    checks.choice("when", when, schedules.WHEN)
    if units not in ([], ["units"]):
        raise ValueError(f"recipe must be '<criterion> <when>' or '<criterion> <when> units', got {text!r}")
    return text


def _detector(text):
    detector(text)
    return text


def _anomaly(name):
    measurements.family(name)
    return name


def _distinct(values):
    if len(set(values)) < len(values):
        raise ValueError(f"must not name anything twice, got {values}")
    return values


def _some_positive(values):
    if not any(values):
        raise ValueError(f"must hold at least one sparsity above 0, got {values}")
    return values


def _list(item, check=None, least=1):
    """Return the type of a list of distinct items, each checked by a function that returns it or raises ValueError."""
    item = Annotated[item, AfterValidator(check)] if check else item
    return Annotated[list[item], Field(min_length=least), AfterValidator(_distinct)]


Positive = Annotated[float, Field(gt=0)]
Sparsities = _list(Sparsity)
SomeSparsities = Annotated[Sparsities, AfterValidator(_some_positive)]
Radii = _list(Positive)
Recipe = Annotated[str, AfterValidator(_recipe)]
Recipes = _list(str, _recipe)
Shifts = Annotated[_list(str, partial(_known, "shift", shifts.KINDS)), Field(description="kinds of distribution shift")]
Detectors = _list(str, _detector)
Anomalies = _list(str, _anomaly)
Synthetic = Annotated[str, AfterValidator(partial(_known, "outliers", tuple(data.SYNTHETIC)))]
Objectives = _list(str, partial(_known, "objective", subnetworks.OBJECTIVES))
Seeds = Annotated[StrictInt, Field(ge=1, le=100, description="number of seeds: 0, 1, …")]
Severity = Annotated[StrictInt, Field(ge=1, le=5, description="of the shifts, 1 to 5")]
AttackSteps = Annotated[Count, Field(description="steps of PGD")]
AttackSamples = Annotated[Count, Field(description="attack so many test images")]
Finetuning = Annotated[Epochs, Field(description="training epochs after pruning")]
