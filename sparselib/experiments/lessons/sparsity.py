"""The exercises of the part on sparsity."""

from sparselib.experiments.lessons.checking import Exercise

EXERCISES: dict[str, Exercise] = {}
