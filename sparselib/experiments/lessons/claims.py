"""The exercises of the part on the claims."""

from sparselib.experiments.lessons.checking import Exercise

EXERCISES: dict[str, Exercise] = {}
