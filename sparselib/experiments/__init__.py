"""This paper: what is trained, pruned, measured and claimed. One file a figure; `PAGES` are all pages of the book."""

from sparselib.experiments import lessons, subnetworks, verdict
from sparselib.experiments.fields import Page
from sparselib.repro.parameters import profiles

ASKED = (lessons.Quickstart, *verdict.JUDGED.values(), verdict.Verdict, subnetworks.Pretrained)
FIGURES = {page.notebook: page for page in ASKED}
LESSONS = {page.notebook: page for page in lessons.ALL}
PAGES: dict[str, type[Page]] = {**FIGURES, **LESSONS}
PROFILES = profiles(Page.profiles)
