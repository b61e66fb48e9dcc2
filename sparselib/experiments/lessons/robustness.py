"""The exercises of the part on robustness."""

from sparselib.experiments.lessons.checking import Exercise

EXERCISES: dict[str, Exercise] = {}
