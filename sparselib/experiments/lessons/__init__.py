"""The pages that compute by themselves what they show: the quickstart, the chapters, those of book/rerun.

And the checks of their exercises: `check("name", answer)`.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, create_model

from sparselib.data import Samples
from sparselib.experiments import fields
from sparselib.experiments.fields import Figure, Page
from sparselib.experiments.lessons.checking import Exercise as Exercise
from sparselib.experiments.lessons.checking import Verdict as Verdict
from sparselib.experiments.lessons.checking import check as check
from sparselib.outside import code
from sparselib.pruning import schedules

# What a chapter has: what you will be able to do; a guess before the result; a belief that is wrong; what to remember.
BOXES: Mapping[str, int] = {"goals": 1, "predict": 1, "misconception": 1, "takeaway": 1, "exercise": 3}


class Quickstart(Page):
    """One network, pruned, attacked and asked about anomalies."""

    number, notebook = 0, "00_quickstart"
    blocks: ClassVar[tuple[str, ...]] = ("quickstart",)
    boxes: ClassVar[Mapping[str, int]] = {}

    sparsity: fields.Sparsity = Field(description="fraction of weights removed")
    eps: Annotated[float, Field(ge=0, le=1)] = Field(description="radius of the L∞ attack, in pixel units")
    seed: fields.Seed = Field(description="of the weights, the order of the data, the attack")


class Lesson(Page):
    """A page of book/concepts that computes what it shows."""

    folder: ClassVar[str] = "book/concepts"
    blocks: ClassVar[tuple[str, ...]] = ("lesson",)
    publishable: ClassVar[bool] = False
    boxes = BOXES

    seed: fields.Seed = Field(description="of the weights and the order of the data")


class Walk(Lesson):
    """A page of book/rerun: from a part of the reader's own, as a file, to a figure. No chapter, so without boxes."""

    folder: ClassVar[str] = "book/rerun"
    boxes: ClassVar[Mapping[str, int]] = {}


def _lesson(notebook, says, base=Lesson) -> Any:
    name = f"{notebook.title().replace('_', '')}Lesson"
    page = create_model(name, __base__=base, __module__=__name__, __doc__=says)
    page.notebook = notebook
    return page


UnusualLesson = _lesson("unusual", "One digit, three ways to be unusual.")
SparsityLesson = _lesson("sparsity", "What sparsity is, and what it costs.")
CriteriaLesson = _lesson("criteria", "Which weights survive under each criterion.")
StructureLesson = _lesson("structure", "Single weights against whole units, with measured times.")
TicketsLesson = _lesson("tickets", "Lottery tickets, and subnetworks of trained networks.")
ForgettingLesson = _lesson("forgetting", "The images on which dense and sparse networks disagree.")
AttacksLesson = _lesson("attacks", "Attacks on one image, step by step.")
BelievedLesson = _lesson("believed", "Attacks that fail for the wrong reason.")
ShiftsLesson = _lesson("shifts", "The world changes: corruptions and their severity.")
CertificatesLesson = _lesson("certificates", "Randomized smoothing, vote by vote.")
ConfidenceLesson = _lesson("confidence", "Confidence far from the data, and calibration.")
ThresholdsLesson = _lesson("thresholds", "Scores, thresholds and the metrics of anomaly detection.")
DetectionLesson = _lesson("detection", "Detectors from logits, features and gradients.")
SensnormLesson = _lesson("sensnorm", "SensNorm derived step by step.")
TestingLesson = _lesson("testing", "Tests of detectors that leak, and tests that do not.")
OwnDataLesson = _lesson("own_data", "A folder of your own images, from the files to a figure.", Walk)
OwnNetworkLesson = _lesson("own_network", "A network and weights of your own.", Walk)
OwnCriterionLesson = _lesson("own_criterion", "A pruning criterion of your own.", Walk)
OwnDetectorLesson = _lesson("own_detector", "A detector of your own.", Walk)


def seven(samples: Samples) -> Samples:
    """Return the first seven of the samples, alone: the image that all chapters come back to."""
    label = samples.classes.index(next(name for name in samples.classes if name.startswith("7")))
    return samples.take((samples.y == label).nonzero()[:1, 0])


def companion(samples: Samples) -> tuple[Samples, str]:
    """Return the image that goes through a page, and what it is called: `seven`, or the first where no class is one."""
    if any(name.startswith("7") for name in samples.classes):
        return seven(samples), "our seven"
    return samples.take(slice(0, 1)), "the first image"


def refused(calls: Mapping[str, Callable], home: str | Path = "") -> str:
    """Return a Markdown list of what is said of things that do not fit: {what is wrong: a call that refuses it}.

    home: the folder whose name is left out of the messages. Raises: AssertionError for a call that refuses nothing.
    """
    lines = []
    for wrong, call in calls.items():
        try:
            call()
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            lines.append(f"- {wrong}: {code(told.replace(f'{home}{os.sep}', '') if home else told)}")
            continue
        raise AssertionError(f"{wrong} was taken")
    return "\n".join(lines)


def networks(p, seed):
    """The sparse networks of one seed: pruned at every time, in one round and in several."""
    ways = [*((when, 1) for when in schedules.WHEN), ("before", 20), ("after", 5)]
    for sparsity in p.sparsities:
        for when, rounds in ways:
            net = p.pruned(p.trained(seed), f"{p.criterion} {when}", sparsity, rounds=rounds)
            yield {"arm": when, "rounds": rounds}, net


class SchedulesLesson(Figure):
    """When to prune, and in how many rounds."""

    folder: ClassVar[str] = "book/concepts"
    notebook: ClassVar[str] = "schedules"
    blocks: ClassVar[tuple[str, ...]] = ("schedules",)
    boxes = BOXES

    seeds: fields.Seeds
    criterion: fields.Criterion = Field(description="pruning criterion")
    sparsities: fields.Sparsities = Field(description="fractions of weights removed")
    finetune_epochs: fields.Epochs = Field(description="training epochs after pruning")

    networks = networks


ALL = (
    *(UnusualLesson, SparsityLesson, CriteriaLesson, SchedulesLesson, StructureLesson, TicketsLesson, ForgettingLesson),
    *(AttacksLesson, BelievedLesson, ShiftsLesson, CertificatesLesson),
    *(ConfidenceLesson, ThresholdsLesson, DetectionLesson, SensnormLesson, TestingLesson),
    *(OwnDataLesson, OwnNetworkLesson, OwnCriterionLesson, OwnDetectorLesson),
)
