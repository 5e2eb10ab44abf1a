"""What a distillation leaves: its rounds, why it stopped, and the student."""

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

from .selection import HEADER, DistillRound, table_row


@dataclass(frozen=True, kw_only=True)
class DistillResult(RunResult):
    """A finished distillation.

    Attributes:
        rounds: one record a round.
        reason: "accurate", "unchanged", "nothing to add" or "max_rounds"; `why` is a sentence.
        student: path of the student's checkpoint. labelled: files of all frames it was trained on.
        threshold: eV/Å, of the largest force deviation in a frame.
        final: errors of the student, after a last training, on the last round's frames that were not
            added; None without `final_steps`.
        test: errors of the student on the caller's test set.
        provenance: teacher, versions, options.
    """

    rounds: tuple[DistillRound, ...]
    reason: str
    why: str
    student: Path
    output: Path
    labelled: tuple[Path, ...]
    threshold: float
    final: Errors | None = None
    test: Errors | None = None

    @property
    def potential(self) -> Potential:
        """The student."""
        return load_checkpoint(self.student)

    def frames(self) -> Dataset:
        """All frames that the teacher labelled and the student learned from."""
        return filled_frames(self.labelled)

    def summary(self) -> str:
        """A table with a line per round, and why the loop stopped."""
        lines = [HEADER, *(table_row(r) for r in self.rounds)]
        lines.append("energies meV/atom, forces and the median of the frames' largest deviation meV/Å")
        lines.append(f"stopped: {self.reason}: {self.why}")
        if self.final is not None:
            lines.append(f"after the last training, against the teacher: {self.final}")
        if self.test is not None:
            lines.append(f"on the test set: {self.test}")
        lines += cut_notes(self.rounds)
        lines.append(f"student: {self.student}")
        return "\n".join(lines)

    def plot(self, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
        """Errors on unseen frames, deviations against the threshold, and frames by round; three axes."""
        axes = panels_for(axes, 3, (13, 3.8))
        n = [r.number for r in self.rounds]
        unseen = force_errors(r.errors for r in self.rounds)
        axes[0].plot(n, unseen, "o-", label="student - teacher, new frames")
        if all(r.test for r in self.rounds):
            axes[0].plot(n, force_errors(r.test for r in self.rounds), "s--", label="test set")
        axes[0].set(xlabel="round", ylabel="force RMSE (meV/Å)", yscale="log")
        label = "largest force deviation (eV/Å)"
        plot_quantiles(axes[1], n, [r.deviations for r in self.rounds], self.threshold, label)
        plot_frames(axes[2], self.rounds)
        finish_axes(axes, n)
        return axes
