"""Options of a distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from dpa2calc.files.options import at_least
from dpa2calc.model.config import check
from dpa2calc.training.exploration.options import LoopOptions

Drivers = Literal["teacher", "student", "both"]


@dataclass(frozen=True, kw_only=True)
class DistillConfig(LoopOptions):
    """The loop of the paper's section 4.6; the text beside each option is what `--help` shows.

    A frame's deviation is the largest over its atoms of |F(student) - F(teacher)|, eV/Å.
    """

    round_key: ClassVar[str] = "distill_round"

    threshold: Annotated[float, "frames that deviate by more than this (eV/Å) are added"] = 0.2
    upper_bound: Annotated[float, "frames over this deviation (eV/Å) count as exploded, never added"] = 10.0
    min_change: Annotated[float, "relative fall of the force error that counts as a change"] = 0.03
    patience: Annotated[int, "stop after this many rounds in a row without such a change"] = 2
    explore_with: Annotated[Drivers, "teacher, student or both: who moves the atoms"] = "teacher"
    name: Annotated[str, "of the student's head (default: the teacher's head)"] = ""
    functional: Annotated[str, "that the teacher learned, for the student's card"] = ""
    description: Annotated[str, "for the student's card"] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.threshold > 0, "threshold", self.threshold, "above 0")
        check(self.upper_bound > self.threshold, "upper_bound", self.upper_bound, "above threshold")
        check(0 <= self.min_change < 1, "min_change", self.min_change, "from 0 to below 1")
        at_least(self, 1, "patience")

    @property
    def drivers(self) -> tuple[str, ...]:
        """Who moves the atoms, one after the other."""
        return ("teacher", "student") if self.explore_with == "both" else (self.explore_with,)
