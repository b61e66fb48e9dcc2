"""The typed parameters of the teaching pages, book/concepts."""

from typing import Annotated, ClassVar

from pydantic import Field, StrictInt, field_validator

from sparselib import checks
from sparselib.pruning import criteria, schedules
from sparselib.repro.networks import Pruned
from sparselib.repro.settings import PROFILES, Count, Parameters, Sparsity


class Lesson(Parameters):
    """A page of book/concepts that computes what it shows."""

    folder: ClassVar[str] = "book/concepts"
    claim: ClassVar[str] = "–"
    publishable: ClassVar[bool] = False
    defaults: ClassVar[dict] = {profile: {"seed": 0} for profile in PROFILES}

    seed: Annotated[StrictInt, Field(ge=0)] = Field(description="of the weights and the order of the data")


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
    publishable: ClassVar[bool] = False
    claim: ClassVar[str] = "–"
    defaults: ClassVar[dict] = {
        p: {"epochs": e, "finetune_epochs": f, "seeds": 3, "criterion": "snip", "sparsities": s}
        for p, e, f, s in (("digits", 10, 5, [0.9]), ("mnist", 2, 1, [0.8, 0.95]), ("cifar10", 20, 10, [0.8, 0.95]))
    }

    seeds: Count = Field(description="number of seeds: 0, 1, …")
    criterion: str = Field(description="pruning criterion")
    sparsities: Annotated[list[Sparsity], Field(min_length=1)] = Field(description="fractions of weights removed")
    finetune_epochs: Annotated[StrictInt, Field(ge=0)] = Field(description="training epochs after pruning")

    @field_validator("criterion")
    @classmethod
    def _known_criterion(cls, name):
        return checks.choice("criterion", name, criteria.NAMES)

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


ALL = (
    *(SparsityLesson, CriteriaLesson, SchedulesLesson, StructureLesson, TicketsLesson),
    *(RobustnessLesson, DetectionLesson, SensnormLesson),
)
