"""The exercises of the part on anomalies."""

from sparselib.experiments.lessons.checking import Exercise

EXERCISES: dict[str, Exercise] = {}
