"""What active learning leaves: its rounds, why it stopped, and the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dpa2calc.training.exploration.rounds import RoundsResult

from .selection import LearnRound


@dataclass(frozen=True, kw_only=True)
class LearnResult(RoundsResult):
    """Active learning that has finished, or that waits for labels.

    Attributes:
        rounds: one record a round.
        reason: "accurate", "budget", "nothing to add", "max_rounds" or "waiting"; `why` is a sentence.
        model: path of the last model, which `potential` opens; not there yet while `reason` is "waiting".
        labelled: files of all frames that were learned from.
        threshold: eV/Å, of the largest deviation of a force in a frame.
        spent: labels that were asked for.
        test: errors of the model on the caller's test set.
        provenance: source of the labels, versions, options.
    """

    legend: ClassVar[str] = (
        "energies meV/atom, forces and the median of the frames' largest doubt meV/Å; new: errors on the "
        "frames of the round before they were learned"
    )
    errors_of: ClassVar[str] = "new frames, before learning"
    quantiles_of: ClassVar[str] = "largest doubt of a force (eV/Å)"

    rounds: tuple[LearnRound, ...]
    model: Path
    spent: int

    def own_lines(self) -> list[str]:
        """What it cost."""
        return [f"labels: {self.spent}"]
