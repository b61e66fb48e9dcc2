"""Figure 6: every claim by its endpoints, by one rule, from the rows of all other figures."""

from typing import Annotated, ClassVar

from pydantic import Field, ValidationError, field_validator, model_validator

from sparselib import checks
from sparselib.experiments import fields
from sparselib.experiments.fields import Page
from sparselib.experiments.sensnorm import Sensnorm
from sparselib.experiments.sparsity import AnomalyDetection, Robustness
from sparselib.experiments.structure import StructureAndCost
from sparselib.experiments.subnetworks import Subnetworks
from sparselib.repro.parameters import Parameters, in_one_line

JUDGED = {page.notebook: page for page in (Robustness, AnomalyDetection, Subnetworks, StructureAndCost, Sensnorm)}


class Verdict(Page):
    """Every claim by its endpoints: better, worse, equal or open, at each scale."""

    number, notebook, claim = 6, "06_verdict", "C1–C4"
    blocks: ClassVar[tuple[str, ...]] = ("verdict",)
    publishable: ClassVar[bool] = False
    judges: ClassVar[tuple[type[Parameters], ...]] = tuple(JUDGED.values())

    seeds: fields.Seeds
    delta: Annotated[float, Field(ge=0, le=100)] = Field(description="smallest difference that would matter, in points")
    figures: dict[str, dict] = Field(description="other figures' parameters that are not the profile's")

    @field_validator("figures")
    @classmethod
    def _known_figures(cls, values):
        for name, changed in values.items():
            page = JUDGED[checks.choice("figure", name, JUDGED)]
            for parameter in changed:
                checks.choice(f"parameter of {name}", parameter, [n for n in page.model_fields if n != "profile"])
        return values

    @model_validator(mode="after")
    def _sound_figures(self):
        try:
            self.judged()
        except ValidationError as error:
            page = next(page for page in self.judges if page.__name__ == error.title)
            raise ValueError(in_one_line(error, page)) from None
        return self

    def judged(self) -> dict[str, Page]:
        """Return the parameters of the figures that are judged, by the names of their notebooks.

        What is changed here and known there is changed there, too.
        """
        usual, found = self.usual(self.profile), {}
        for name, page in JUDGED.items():
            given = {n: v for n, v in self if n in page.model_fields and v != usual[n]}
            found[name] = page.of_profile(self.profile, **given | self.figures.get(name, {}))
        return found

    def roles(self):
        return [pair for parameters in self.judged().values() for pair in parameters.roles()]

    def sources(self):
        return list(self.judged().values())
