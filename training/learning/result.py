"""What active learning leaves: its rounds, why it stopped, and the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpa2calc.files.figures import Axes, panels_for
from dpa2calc.labels.errors import Errors
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.exploration.drawing import (
    cut_notes,
    filled_frames,
    finish_axes,
    force_errors,
    plot_frames,
    plot_quantiles,
)
from dpa2calc.training.runs.result import RunResult

from .selection import HEADER, LearnRound, table_row


@dataclass(frozen=True, kw_only=True)
class LearnResult(RunResult):
    """Active learning that has finished, or that waits for labels.

    Attributes:
        rounds: one record a round.
        reason: "accurate", "budget", "nothing to add", "max_rounds" or "waiting"; `why` is a sentence.
        model: path of the last model; it is not there yet while `reason` is "waiting".
        labelled: files of all frames that were learned from.
        threshold: eV/Å, of the largest deviation of a force in a frame.
        spent: labels that were asked for.
        test: errors of the model on the caller's test set.
        provenance: source of the labels, versions, options.
    """

    rounds: tuple[LearnRound, ...]
    reason: str
    why: str
    model: Path
    output: Path
    labelled: tuple[Path, ...]
    threshold: float
    spent: int
    test: Errors | None = None

    @property
    def potential(self) -> Potential:
        """The model."""
        return load_checkpoint(self.model)

    def frames(self) -> Dataset:
        """All labelled frames that were learned from."""
        return filled_frames(self.labelled)

    def summary(self) -> str:
        """A table with a line per round, and why the loop stopped."""
        lines = [HEADER, *(table_row(r) for r in self.rounds)]
        lines.append(
            "energies meV/atom, forces and the median of the frames' largest doubt meV/Å; new: errors on the "
            "frames of the round before they were learned"
        )
        lines.append(f"stopped: {self.reason}: {self.why}")
        lines.append(f"labels: {self.spent}")
        if self.test is not None:
            lines.append(f"on the test set: {self.test}")
        lines += cut_notes(self.rounds)
        if self.reason != "waiting":
            lines.append(f"model: {self.model}")
        return "\n".join(lines)

    def plot(self, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
        """Errors on new frames, doubts against the threshold, and frames by round; three axes."""
        axes = panels_for(axes, 3, (13, 3.8))
        n = [r.number for r in self.rounds]
        axes[0].plot(
            n, force_errors(r.errors for r in self.rounds), "o-", label="new frames, before learning"
        )
        if all(r.test for r in self.rounds):
            axes[0].plot(n, force_errors(r.test for r in self.rounds), "s--", label="test set")
        axes[0].set(xlabel="round", ylabel="force RMSE (meV/Å)", yscale="log")
        label = "largest doubt of a force (eV/Å)"
        plot_quantiles(axes[1], n, [r.doubts for r in self.rounds], self.threshold, label)
        plot_frames(axes[2], self.rounds)
        finish_axes(axes, n)
        return axes
