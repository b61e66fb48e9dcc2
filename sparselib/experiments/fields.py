"""The types of parameters that pages share, and what all pages have in common: the data, the network, its training."""

import csv
import re
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import yaml
from pydantic import AfterValidator, Field, StrictInt, field_validator, model_validator
from torch import nn

from sparselib import checkpoints, checks, data, models, training
from sparselib.detection import detectors
from sparselib.experiments.measurements import Detection
from sparselib.experiments.networks import NetworkStep, Pruned, Trained
from sparselib.experiments.samples import Data, family, strength
from sparselib.outside import problem, read_yaml, short
from sparselib.pruning import criteria, schedules, subnetworks
from sparselib.repro import project
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
    checks.choice("criterion", criterion, criteria.CRITERIA)
    checks.choice("when", when, schedules.WHEN)
    if units not in ("", "units"):
        raise ValueError(f"recipe must be '<criterion> <when>' or '<criterion> <when> units', got {text!r}")
    return Recipe(criterion, when, units == "units")


@cache
def detector(text: str) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """Read "<detector> <option>:<value> …" as (name, options): "sensnorm layers:all norm:5".

    Raises ValueError for detectors, options and values that do not exist.
    """
    name, settings = re.findall(r"(?s)^(\S*)\s*(.*)$", text)[0]
    checks.choice("detector", name, detectors.DETECTORS)
    if not re.fullmatch(r"([^\s:]+:\S+\s*)*", settings):
        raise ValueError(f"detector must be '<name> <option>:<value> …', got {text!r}")
    options = tuple((key, _value(value)) for key, value in re.findall(r"([^\s:]+):(\S+)", settings))
    try:
        detectors.build(name, **dict(options))
    except (TypeError, ValueError) as error:
        raise ValueError(f"detector {text!r}: {error}") from None
    return name, options


def shift(text: str) -> tuple[str, int]:
    """Read "<shift>:<severity>" as (kind, severity): "rotate:4". Raises ValueError for anything else."""
    kind, severity = strength(text)
    checks.choice("shift", kind, shifts.SHIFTS)
    if family(text) != "shifts":
        raise ValueError(f"shift must be '<shift>:<severity>', got {text!r}")
    return kind, int(severity)


def attackable(text: str) -> None:
    """Raise ValueError for a detector (as text) whose score has no gradient for an adaptive attack to follow."""
    name, options = detector(text)
    if not detectors.build(name, **dict(options)).is_differentiable():
        raise ValueError(f"detector {text!r} has no score that can be attacked")


def _value(text):
    return float("inf") if text == "inf" else read_yaml(text)


def _readable(read, text):
    read(text)
    return text


def _known(what, allowed, name):
    return checks.choice(what, name, allowed)


def _distinct(values):
    if len(set(values)) < len(values):
        raise ValueError(f"must not name anything twice, got {short(values)}")
    return values


def _some_positive(values):
    if not any(values):
        raise ValueError(f"must hold at least one sparsity above 0, got {short(values)}")
    return values


def holding(name: str, names: list[str], why: str = "which others are compared with") -> list[str]:
    """Return the names. Raises ValueError, saying `why`, unless `name` is among them."""
    if name not in names:
        raise ValueError(f"must hold {name!r}, {why}, got {short(names)}")
    return names


CHOSEN = "chosen"  # the value of a parameter that results/<profile>/choices.csv has
SEVERAL, DISTINCT = Field(min_length=1, max_length=100), AfterValidator(_distinct)

# Upper bounds are far beyond what is of use: a slip of a digit is told before it computes for days.
Count = Annotated[StrictInt, Field(ge=1, le=10**6)]
Limit = Annotated[StrictInt, Field(ge=0)]  # 0: none. (None would say: as the profile has it.)
Seed = Annotated[StrictInt, Field(ge=0)]
Sparsity = Annotated[float, Field(ge=0, lt=1)]
Few = Annotated[StrictInt, Field(ge=1, le=1000)]
Width = Annotated[StrictInt, Field(ge=0, le=10_000)]
OwnWidth = Annotated[Width, Field(ge=1)]
SomeWidths = Annotated[list[OwnWidth], Field(max_length=100), DISTINCT]
Epochs = Annotated[StrictInt, Field(ge=0, le=10_000)]
Positive = Annotated[float, Field(gt=0, le=1000)]
Share = Annotated[float, Field(gt=0, lt=1)]
AnySparsities = Annotated[list[Sparsity], Field(max_length=100), DISTINCT]
Sparsities = Annotated[AnySparsities, SEVERAL]
SomeSparsities = Annotated[Sparsities, AfterValidator(_some_positive)]
Radii = Annotated[list[Positive], SEVERAL, DISTINCT]
SomeRadii = Annotated[list[Positive], Field(max_length=100), DISTINCT]
OneRecipe = Annotated[str, AfterValidator(partial(_readable, recipe))]
Recipes = Annotated[list[OneRecipe], SEVERAL, DISTINCT]
SomeRecipes = Annotated[list[OneRecipe], Field(max_length=100), DISTINCT]
Shift = Annotated[str, AfterValidator(partial(_readable, shift))]
Shifts = Annotated[list[Shift], SEVERAL, DISTINCT, Field(description="<shift>:<severity 1 to 5>")]
Detectors = Annotated[list[Annotated[str, AfterValidator(partial(_readable, detector))]], SEVERAL, DISTINCT]
Attackable = Annotated[list[Annotated[str, AfterValidator(partial(_readable, attackable))]], SEVERAL, DISTINCT]
Anomaly = Annotated[str, AfterValidator(partial(_readable, family))]
Anomalies = Annotated[list[Anomaly], SEVERAL, DISTINCT]
Synthetic = Annotated[str, AfterValidator(partial(_known, "outliers", data.SYNTHETIC))]
Criterion = Annotated[str, AfterValidator(partial(_known, "criterion", criteria.CRITERIA))]
Objective = Annotated[str, AfterValidator(partial(_known, "objective", subnetworks.OBJECTIVES))]
Objectives = Annotated[list[Objective], SEVERAL, DISTINCT]
Control = Annotated[str, AfterValidator(partial(_known, "control", ("magnitude", "random")))]
Controls = Annotated[list[Control], DISTINCT]
Names = Annotated[list[Annotated[str, Field(min_length=1)]], DISTINCT]
Seeds = Annotated[StrictInt, Field(ge=1, le=100, description="number of seeds: 0, 1, …")]
AttackSteps = Annotated[Count, Field(description="steps of PGD")]
AttackSamples = Annotated[Count, Field(description="attack this many test images")]
AttackRestarts = Annotated[Few, Field(description="restarts of PGD, up each of two losses")]
Rounds = Annotated[Few, Field(description="cuts after training, with training on between them")]
Precision = Annotated[str, AfterValidator(partial(_known, "precision", (*training.PRECISIONS, "auto")))]
Augment = Annotated[str, AfterValidator(partial(_known, "augment", ("", *training.AUGMENTATIONS)))]
Finetuning = Annotated[Epochs, Field(description="training epochs after pruning")]


def choices(profile: str) -> dict[str, Any]:
    """Return {name: value} of what was chosen for a profile on held-back data. Raises ValueError where nothing was."""
    path = project.results_folder() / profile / "choices.csv"
    try:
        lines = list(csv.reader(checkpoints.read_bytes(path).decode().splitlines()))
        table = {name: read_yaml(value) for name, value in lines[1:]}
    except (OSError, ValueError, csv.Error, yaml.YAMLError) as error:
        why = problem(error) if isinstance(error, yaml.YAMLError) else error
        raise ValueError(f"the choices of profile {profile!r} cannot be read ({why}): {_remedy(profile)}") from None
    if table.get("profile") != profile:
        raise ValueError(f"{path.name} is of profile {table.get('profile')!r}, not {profile!r}: {_remedy(profile)}")
    return table


def _remedy(profile, script="choose_strengths"):
    return f"python benchmarks/{script}.py {profile}"


def effective(precision: str) -> str:
    """Return the precision that networks are trained in here: "auto" is bfloat16 where the processor has it.

    Raises: ValueError for "bfloat16" where it has not.
    """
    if precision == "float32" or training.has_bfloat16(project.device()):
        return "bfloat16" if precision == "auto" else precision
    if precision == "auto":
        warnings.warn("no bfloat16 arithmetic here: training in float32", stacklevel=2)
        return "float32"
    raise ValueError("precision 'bfloat16' needs a processor that has it; 'auto' takes float32 here")


class Page(Parameters):
    """What all pages share: the data, the network and its training."""

    profiles: ClassVar[Path] = Path(__file__).parent / "profiles"
    boxes: ClassVar[Mapping[str, int]] = {"exercise": 3}
    # What is measured speaks by the keys of steps; the texts of parameters and the ways to train are chosen by name.
    apart: ClassVar[frozenset[str]] = frozenset(
        f"sparselib.experiments.{name}" for name in ("measurements", "samples", "fields.detector", "networks.TRAINING")
    )

    dataset: str = Field(description="a data set's name, or folder:<path>")
    held_out: Names = Field(description="classes kept out of training, to be detected")
    train_limit: Limit = Field(description="use at most this many training samples; 0: all")
    test_limit: Limit = Field(description="use at most this many test samples; 0: all")
    network: str = Field(description="architecture, or yours: <path or module>:<factory>")
    weights: str = Field(description="file of its weights, taken as they are; empty: it is trained")
    width: Width = Field(description="channels of the first layer; 0: the network's own")
    epochs: Epochs = Field(description="training epochs of the dense network")
    batch_size: Count = Field(description="training batch size")
    precision: Precision = Field(description="of training: float32, bfloat16, or auto")
    augment: Augment = Field(description="of training images: crop, crop+flip; empty: none")

    @classmethod
    def filled_in(cls, values):
        """Put the profile's choices where a value is `CHOSEN`: radii; the strength of "pgd:chosen", "fog:chosen"."""

        def chosen(name):
            known = choices(str(values.get("profile")))
            if name not in known:
                script = "choose_mask_radius" if name == "mask_eps" else "choose_strengths"
                raise ValueError(
                    f"{name} is not among the choices of the profile: {_remedy(values['profile'], script)}"
                )
            return known[name]

        def read(name, value):
            if isinstance(value, list):
                return [read(name, one) for one in value]
            head, rest = strength(value) if isinstance(value, str) else ("", "")
            return f"{head}:{chosen(head)}" if rest == CHOSEN else chosen(name) if value == CHOSEN else value

        return {name: read(name, value) for name, value in values.items()}

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, name):
        kind, path = strength(name)
        if kind == "folder" and not path.strip():
            raise ValueError(f"dataset must be a name or folder:<path>, got {name!r}")
        return name if kind == "folder" else checks.choice("dataset", name, data.NAMES)

    @field_validator("network")
    @classmethod
    def _known_network(cls, name):
        if ":" not in name:
            return checks.choice("network", name, models.NAMES, also=", <path or module>:<factory>")
        if not re.fullmatch(r"\s*\S.*:\s*\S.*", name):
            raise ValueError(f"network must be a name or <path or module>:<factory>, got {name!r}")
        return name

    @field_validator("weights")
    @classmethod
    def _existing_weights(cls, name):
        try:
            models.weights_file(name or __file__)
        except OSError as error:  # such a name cannot be
            raise ValueError(f"weights: {error}") from None
        return name

    @model_validator(mode="after")
    def _network_fits(self):
        """Try a network that is not the library's on the data, at every width at which the page trains it."""
        if ":" in self.network or self.weights:
            try:
                origins = {s.origin.width: s.origin for s in self.steps() if isinstance(s, NetworkStep)}.values()
                nets = [origin.initial() for origin in origins]
            except FileNotFoundError:  # of the data: said, with the remedy, where they are needed
                return self
            for net in nets if self.weights else ():
                models.fill(net, self.weights)
        return self

    def setting(self) -> str:
        from sparselib.experiments import words  # which reads recipes with this module

        return words.setting(self.dataset, self.network)

    def data(self, seed: int = 0) -> Data:
        """Return the data that the networks of a seed are trained and tested on."""
        return Data(
            name=self.dataset, held_out=tuple(self.held_out), train_limit=self.train_limit or None,
            test_limit=self.test_limit or None, seed=seed,
        )  # fmt: skip

    def trained(self, seed: int, **changed: Any) -> Trained:
        """Return the dense network of one seed, as the parameters say but for what is `changed` (see `Trained`)."""
        usual = {"width": self.width or None, "epochs": self.epochs, "batch_size": self.batch_size}
        usual |= {"data": self.data(seed), "precision": effective(self.precision), "augment": self.augment or None}
        given = {"network": self.network, "weights": self.weights or None}
        return Trained(seed=seed, **{**given, **usual, **changed})

    def pruned(self, dense: Trained, how: str, sparsity: float, *, epochs: int | None = None, **changed: Any) -> Pruned:
        """Return what a recipe makes of `dense`, trained on for `epochs` (default: finetune_epochs).

        Pruned after training, it is cut in so many `rounds` as the page says. `changed`: further fields of `Pruned`.
        """
        own, given = recipe(how), dict(self)
        rounds = given.get("rounds") if own.when == "after" else None
        after = given["finetune_epochs"] if epochs is None else epochs
        return Pruned(dense=dense, **own._asdict(), sparsity=sparsity, epochs=after, **{"rounds": rounds, **changed})

    def unpruned(self, dense: Trained, **changed: Any) -> Pruned:
        """Return the control of what is pruned after training: `dense` trained on in the same phases, all weights."""
        return self.pruned(dense, "magnitude after", 0.0, **changed)

    def pgd(self) -> dict[str, int]:
        """Return how PGD runs on the pages that have its parameters."""
        given = dict(self)
        return {"steps": given["attack_steps"], "restarts": given["attack_restarts"]}


def untrained(trained: Trained) -> nn.Module:
    """Return the network of a Trained before training, one for all seeds: for its layers and sizes, not its weights."""
    return _initial(trained.model_copy(update={"seed": 0, "data": trained.data.model_copy(update={"seed": 0})}))


@cache
def _initial(trained):
    return trained.initial()


def _accuracy(p, role, net):
    """What is measured of each network where a page does not say more: its accuracy."""
    yield role, net


class Figure(Page):
    """A figure: for each seed some networks, and what is measured of each. Subclasses give the two functions.

    `networks(p, seed)` yields (role, network): columns that say what the network is to the experiment. `measured(p,
    role, net)` yields (role, step): what is computed from it. Both stand in the notebook as well, where they can be
    edited; a gate keeps the two equal.
    """

    networks: ClassVar[Callable]
    measured: ClassVar[Callable] = _accuracy
    primary: ClassVar[Callable] = lambda p: ()  # the endpoints of its claim: see `findings.endpoints`
    boxes: ClassVar[Mapping[str, int]] = {"vote": 1, "exercise": 3}

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
