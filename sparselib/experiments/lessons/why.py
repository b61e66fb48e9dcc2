"""The exercises of the part on why sparse, robust, watchful."""

from sparselib.experiments.lessons.checking import Exercise

EXERCISES: dict[str, Exercise] = {}
