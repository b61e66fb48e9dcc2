"""The teaching pages of the book, and the checks of their exercises: `check("name", answer)`."""

from sparselib.experiments.lessons.checking import Exercise as Exercise
from sparselib.experiments.lessons.checking import Verdict as Verdict
from sparselib.experiments.lessons.checking import check as check
from sparselib.experiments.lessons.pages import *  # noqa: F403
