"""What a distillation leaves: its rounds, why it stopped, and the student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dpa2calc.labels.errors import Errors
from dpa2calc.training.exploration.rounds import RoundsResult

from .selection import DistillRound


@dataclass(frozen=True, kw_only=True)
class DistillResult(RoundsResult):
    """A finished distillation.

    Attributes:
        rounds: one record a round.
        reason: "accurate", "unchanged", "nothing to add" or "max_rounds"; `why` is a sentence.
        student: path of the student's checkpoint; `potential` opens it.
        labelled: files of all frames that the teacher labelled and the student learned from.
        threshold: eV/Å, of the largest force deviation in a frame.
        final: errors of the student, after a last training, on the last round's frames that were not
            added; None without `final_steps`.
        test: errors of the student on the caller's test set.
        provenance: teacher, versions, options.
    """

    legend: ClassVar[str] = "energies meV/atom, forces and the median of the frames' largest deviation meV/Å"
    errors_of: ClassVar[str] = "student - teacher, new frames"
    quantiles_of: ClassVar[str] = "largest force deviation (eV/Å)"
    path_field: ClassVar[str] = "student"

    rounds: tuple[DistillRound, ...]
    student: Path
    final: Errors | None = None

    def own_lines(self) -> list[str]:
        """How good the last training was."""
        return [] if self.final is None else [f"after the last training, against the teacher: {self.final}"]
