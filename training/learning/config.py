"""Options of active learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from dpa2calc.model.config import check
from dpa2calc.training.exploration.options import LoopOptions


@dataclass(frozen=True, kw_only=True)
class LearnConfig(LoopOptions):
    """The loop of active learning; the text beside each option is what `--help` shows.

    A frame's doubt is the largest over its atoms of the standard deviation of the force, eV/Å.
    """

    round_key: ClassVar[str] = "learn_round"

    budget: Annotated[int, "at most this many labels are asked for, those of the start frames included"] = 100
    threshold: Annotated[float, "frames whose doubt is above this (eV/Å) are labelled"] = 0.2
    upper_bound: Annotated[float, "a trajectory is cut where the doubt exceeds this (eV/Å)"] = 5.0
    frames_per_round: Annotated[int, "at most this many frames are labelled in a round, chosen diverse"] = 20
    name: Annotated[str, "of the new head"] = "learned"

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.budget > 0, "budget", self.budget, "at least 1")
        check(self.threshold > 0, "threshold", self.threshold, "above 0")
        check(self.upper_bound > self.threshold, "upper_bound", self.upper_bound, "above threshold")
        check(bool(self.name), "name", self.name, "a name")

    @property
    def drivers(self) -> tuple[str, ...]:
        """Who moves the atoms: the model that learns."""
        return ("model",)
