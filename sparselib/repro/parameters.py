"""The typed parameters of every figure: profiles give the scale, overrides change single values.

The same models check the command line, the notebooks and YAML. A figure's model also says which cells it needs.
"""

import difflib
from types import FunctionType, ModuleType
from typing import Annotated, ClassVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)

from sparselib import checks, criteria, data, detectors, models, pruning, schedules
from sparselib.repro.cells import Data, Detection, Pruned, Trained

# What each scale means; a figure may refine it.
PROFILES = {
    "digits": {
        "dataset": "digits", "held_out": ["8", "9"], "train_limit": 0, "test_limit": 0,
        "network": "convnet", "width": 16, "epochs": 20, "batch_size": 64, "seeds": 5,
    },
    "mnist": {
        "dataset": "mnist", "held_out": ["8 - eight", "9 - nine"], "train_limit": 20000, "test_limit": 2000,
        "network": "resnet8", "width": 16, "epochs": 5, "batch_size": 128, "seeds": 3,
    },
    "cifar10": {
        "dataset": "cifar10", "held_out": [], "train_limit": 0, "test_limit": 0,
        "network": "resnet18", "width": 64, "epochs": 30, "batch_size": 256, "seeds": 3,
    },
}  # fmt: skip

Count = Annotated[StrictInt, Field(ge=1)]
Limit = Annotated[StrictInt, Field(ge=0)]  # 0: none. (None would say: as the profile has it.)
Sparsity = Annotated[float, Field(ge=0, lt=1)]


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

    profile: str = Field(description="scale: digits, mnist or cifar10")
    dataset: str = Field(description="a data set's name, or folder:<path>")
    held_out: list[str] = Field(description="classes kept out of training, to be detected")
    train_limit: Limit = Field(description="use at most so many training samples; 0: all")
    test_limit: Limit = Field(description="use at most so many test samples; 0: all")
    network: str = Field(description="architecture")
    width: Limit = Field(description="channels of the first layer; 0: the network's own")
    epochs: Annotated[StrictInt, Field(ge=0)] = Field(description="training epochs of the dense network")
    batch_size: Count = Field(description="training batch size")

    @model_validator(mode="before")
    @classmethod
    def _read_lists(cls, values):
        """Let '[0.5, 0.9]' stand for a list: plain papermill hands lists over as text."""
        return {n: yaml.safe_load(v) if isinstance(v, str) and v.startswith("[") else v for n, v in values.items()}

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, name):
        return name if name.startswith("folder:") else checks.choice("dataset", name, data.NAMES)

    @field_validator("network")
    @classmethod
    def _known_network(cls, name):
        return checks.choice("network", name, models.NAMES)

    def source(self):
        return Data(
            name=self.dataset, held_out=tuple(self.held_out), train_limit=self.train_limit or None,
            test_limit=self.test_limit or None,
        )  # fmt: skip

    def trained(self, seed):
        """Return the dense network of one seed."""
        return Trained(
            data=self.source(), network=self.network, width=self.width or None, epochs=self.epochs,
            batch_size=self.batch_size, seed=seed,
        )  # fmt: skip

    def cells(self):
        """Return the cells whose rows the figure draws."""
        return []

    def seed_list(self):
        """Return the seeds that the figure is computed from."""
        raise NotImplementedError


class Sparsification(BaseModel):
    """How networks are pruned, for figures that prune."""

    pruning_defaults: ClassVar[dict] = {
        "criterion": "magnitude", "structured": False, "scope": "global", "when": "after", "rounds": 1,
    }  # fmt: skip

    criterion: str = Field(description="pruning criterion")
    structured: StrictBool = Field(description="remove whole units instead of single weights")
    scope: str = Field(description="rank all weights together (global) or each layer by itself (layer)")
    when: str = Field(description="before, early, gradual, after, or tickets (see schedules.train_sparse)")
    rounds: Count = Field(description="score and prune so many times")
    finetune_epochs: Annotated[StrictInt, Field(ge=0)] = Field(description="training epochs after pruning")

    @field_validator("criterion")
    @classmethod
    def _known_criterion(cls, name):
        return checks.choice("criterion", name, criteria.NAMES)

    @field_validator("scope")
    @classmethod
    def _known_scope(cls, name):
        return checks.choice("scope", name, pruning.SCOPES)

    @field_validator("when")
    @classmethod
    def _known_when(cls, name):
        return checks.choice("when", name, schedules.WHEN)

    def pruned(self, dense, sparsity):
        """Return the sparse network that comes of the recipe `dense`, which at sparsity 0 is itself."""
        if not sparsity:
            return dense
        return Pruned(
            dense=dense, criterion=self.criterion, structured=self.structured, scope=self.scope, sparsity=sparsity,
            when=self.when, rounds=self.rounds, epochs=self.finetune_epochs,
        )  # fmt: skip


class Quickstart(Parameters):
    """One network, pruned, attacked and asked about anomalies."""

    number, notebook, claim = 0, "00_quickstart", "–"
    defaults: ClassVar[dict] = {
        p: {"seed": 0, "sparsity": 0.8, "eps": e} for p, e in (("digits", 0.1), ("mnist", 0.1), ("cifar10", 2 / 255))
    }

    sparsity: Sparsity = Field(description="fraction of weights removed")
    eps: Annotated[float, Field(ge=0, le=1)] = Field(description="radius of the L∞ attack, in pixel units")
    seed: Annotated[StrictInt, Field(ge=0)] = Field(description="of the weights, the order of the data, the attack")

    def seed_list(self):
        return [self.seed]


class Sensnorm(Sparsification, Parameters):
    """Detection against sparsity, for SensNorm and its baselines."""

    number, notebook, claim = 5, "05_sensnorm", "C4"
    defaults: ClassVar[dict] = {
        p: {
            **Sparsification.pruning_defaults,
            "sparsities": [0.0, 0.5, 0.8, 0.9, 0.95],
            "finetune_epochs": f,
            "detectors": ["msp", "energy", "sensnorm"],
            "anomalies": [*near, "mixed", "textures", "uniform", "permuted", "inverted"],
        }
        for p, f, near in (("digits", 10, ["heldout"]), ("mnist", 2, ["heldout"]), ("cifar10", 10, ["svhn"]))
    }

    seeds: Count = Field(description="number of seeds: 0, 1, …")
    sparsities: Annotated[list[Sparsity], Field(min_length=1)] = Field(description="fractions of weights removed")
    detectors: Annotated[list[str], Field(min_length=1)] = Field(description="detectors to compare")
    anomalies: Annotated[list[str], Field(min_length=1)] = Field(description="kinds of outliers")

    @field_validator("detectors")
    @classmethod
    def _known_detectors(cls, names):
        return [checks.choice("detector", name, detectors.NAMES) for name in names]

    @field_validator("anomalies")
    @classmethod
    def _known_anomalies(cls, names):
        allowed = (*data.OUTLIERS, *data.NAMES)
        return [n if n.startswith("folder:") else checks.choice("anomaly", n, allowed) for n in names]

    def seed_list(self):
        return list(range(self.seeds))

    def networks(self):
        """Return the network cells: every sparsity of every seed, the dense one at sparsity 0."""
        return [
            self.pruned(self.trained(seed), sparsity)
            for seed in self.seed_list() for sparsity in dict.fromkeys(self.sparsities)
        ]  # fmt: skip

    def cells(self):
        found = list(self.networks())
        found += [
            Detection(model=network, detector=detector, anomaly=anomaly)
            for network in self.networks() for detector in self.detectors for anomaly in self.anomalies
        ]  # fmt: skip
        return found


class Lesson(Parameters):
    """A page of book/concepts that computes what it shows."""

    folder: ClassVar[str] = "book/concepts"
    claim: ClassVar[str] = "–"
    defaults: ClassVar[dict] = {profile: {"seed": 0} for profile in PROFILES}

    seed: Annotated[StrictInt, Field(ge=0)] = Field(description="of the weights and the order of the data")

    def seed_list(self):
        return [self.seed]


class SparsityLesson(Lesson):
    """What sparsity is, and what it costs."""

    notebook: ClassVar[str] = "sparsity"


class CriteriaLesson(Lesson):
    """Which weights survive under each criterion."""

    notebook: ClassVar[str] = "criteria"


class StructureLesson(Lesson):
    """Single weights against whole units, with measured times."""

    notebook: ClassVar[str] = "structure"


class SchedulesLesson(Parameters):
    """When to prune, and in how many rounds."""

    folder: ClassVar[str] = "book/concepts"
    notebook: ClassVar[str] = "schedules"
    claim: ClassVar[str] = "–"
    defaults: ClassVar[dict] = {
        p: {"epochs": e, "finetune_epochs": f, "seeds": 3, "criterion": "snip", "sparsities": [0.8, 0.95]}
        for p, e, f in (("digits", 10, 5), ("mnist", 2, 1), ("cifar10", 20, 10))
    }

    seeds: Count = Field(description="number of seeds: 0, 1, …")
    criterion: str = Field(description="pruning criterion")
    sparsities: Annotated[list[Sparsity], Field(min_length=1)] = Field(description="fractions of weights removed")
    finetune_epochs: Annotated[StrictInt, Field(ge=0)] = Field(description="training epochs after pruning")

    _known_criterion = Sparsification._known_criterion

    def seed_list(self):
        return list(range(self.seeds))

    def cells(self):
        ways = [(when, 1) for when in schedules.WHEN] + [("before", 20), ("after", 5)]
        return [
            Pruned(
                dense=self.trained(seed), criterion=self.criterion, sparsity=sparsity, when=when, rounds=rounds,
                epochs=self.finetune_epochs,
            )
            for seed in self.seed_list() for sparsity in self.sparsities for when, rounds in ways
        ]  # fmt: skip


class TicketsLesson(Lesson):
    """Lottery tickets, and subnetworks of trained networks."""

    notebook: ClassVar[str] = "tickets"


class RobustnessLesson(Lesson):
    """Attacks, shifts and certificates on one small network."""

    notebook: ClassVar[str] = "robustness"


class DetectionLesson(Lesson):
    """Scores, thresholds and the metrics of anomaly detection."""

    notebook: ClassVar[str] = "detection"


class SensnormLesson(Lesson):
    """SensNorm derived step by step."""

    notebook: ClassVar[str] = "sensnorm"


FIGURES = {model.notebook: model for model in (Quickstart, Sensnorm)}
_ALL_LESSONS = (
    *(SparsityLesson, CriteriaLesson, SchedulesLesson, StructureLesson, TicketsLesson),
    *(RobustnessLesson, DetectionLesson, SensnormLesson),
)
LESSONS = {model.notebook: model for model in _ALL_LESSONS}
PAGES = {**FIGURES, **LESSONS}


def figure(name):
    """Return the parameter model of a page: a figure by number (5, "5", "05"), any by the name of its notebook
    ("05_sensnorm", with or without folder and .ipynb)."""
    stem = str(name).rsplit("/", 1)[-1].removesuffix(".ipynb")
    by_number = {str(model.number): key for key, model in FIGURES.items()}
    stem = by_number.get(stem.lstrip("0") or "0", stem) if stem.isdigit() else stem
    try:
        return PAGES[checks.choice("figure", stem, PAGES)]
    except ValueError as error:
        raise ParameterError(str(error)) from None


def refuse_unknown(name, known, where):
    """Raise ParameterError for a parameter name that does not exist, with the closest that does."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ParameterError(f"unknown parameter {name!r} of {where}{hint} (parameters: {', '.join(known)})")


def resolve(model, values):
    """Return the model's parameters: the profile's values under the given ones (None: as the profile has it).

    Raises ParameterError, in one line, for a name that does not exist or a value that is not allowed.
    """
    fields = list(model.model_fields)
    for name in values:
        if name not in fields:
            refuse_unknown(name, fields, model.notebook)
    given = {name: value for name, value in values.items() if value is not None}
    profile = given.pop("profile", "digits")
    try:
        checks.choice("profile", profile, PROFILES)
        scale = {name: value for name, value in PROFILES[profile].items() if name in fields}
        return model(profile=profile, **{**scale, **model.defaults[profile], **given})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] != "value_error":  # those name the value already
            message += f", got {first['input']!r}"
        raise ParameterError(f"parameter {where!r} of {model.notebook}: {message}") from None
    except ValueError as error:
        raise ParameterError(str(error)) from None


def from_notebook(name, namespace):
    """Return the parameters of a figure as its notebook's namespace has them.

    Every plain value in the namespace must be a parameter: that is how a misspelt one is caught, which plain papermill
    would pass in silence. So this is called before the notebook defines anything of its own.
    """
    shell = {"In", "Out", "exit", "quit", "open", "get_ipython"}
    plain = {
        n: v for n, v in namespace.items()
        if not n.startswith("_") and n not in shell and not isinstance(v, (ModuleType, FunctionType, type))
    }  # fmt: skip
    return resolve(figure(name), plain)


def overrides(parameters):
    """Return {name: value} of what differs from the profile: the least that reruns the figure."""
    plain = resolve(type(parameters), {"profile": parameters.profile})
    return {n: v for n, v in parameters if v != getattr(plain, n)}
