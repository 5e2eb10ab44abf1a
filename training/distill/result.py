"""What a distillation leaves: its rounds, why it stopped, and the student."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpa2calc.files.figures import Axes, panels_for
from dpa2calc.labels.errors import Errors
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training.data.dataset import Dataset
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
        return Dataset.read([path for path in self.labelled if path.stat().st_size], name="labelled")

    def summary(self) -> str:
        """A table with a line per round, and why the loop stopped."""
        lines = [HEADER, *(table_row(r) for r in self.rounds)]
        lines.append("energies meV/atom, forces and the median of the frames' largest deviation meV/Å")
        lines.append(f"stopped: {self.reason}: {self.why}")
        if self.final is not None:
            lines.append(f"after the last training, against the teacher: {self.final}")
        if self.test is not None:
            lines.append(f"on the test set: {self.test}")
        notes = [note for r in self.rounds for note in r.notes]
        lines += [f"cut: {note}" for note in notes[:5]]
        if len(notes) > 5:
            lines.append(f"and {len(notes) - 5} more trajectories were cut (rounds[...].notes)")
        lines.append(f"student: {self.student}")
        return "\n".join(lines)

    def plot(self, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
        """Errors on unseen frames, deviations against the threshold, and frames by round; three axes."""
        axes = panels_for(axes, 3, (13, 3.8))
        n = [r.number for r in self.rounds]
        unseen = _force_errors(r.errors for r in self.rounds)
        axes[0].plot(n, unseen, "o-", label="student - teacher, new frames")
        if all(r.test for r in self.rounds):
            axes[0].plot(n, _force_errors(r.test for r in self.rounds), "s--", label="test set")
        axes[0].set(xlabel="round", ylabel="force RMSE (meV/Å)", yscale="log")
        columns = list(zip(*(r.deviations for r in self.rounds)))
        if columns:
            axes[1].fill_between(n, columns[0], columns[4], alpha=0.2, label="5 to 95 % of the frames")
            axes[1].fill_between(n, columns[1], columns[3], alpha=0.3, label="25 to 75 %")
            axes[1].plot(n, columns[2], "o-", label="median")
        axes[1].axhline(self.threshold, color="0.3", ls="--", lw=1, label="threshold")
        axes[1].set(xlabel="round", ylabel="largest force deviation (eV/Å)", yscale="log")
        trained_on = [r.trained_on for r in self.rounds]
        axes[2].bar(n, trained_on, label="trained on")
        axes[2].bar(n, [r.added for r in self.rounds], bottom=trained_on, label="added")
        axes[2].set(xlabel="round", ylabel="frames")
        for axis in axes:
            axis.legend(fontsize=8)
            axis.set_xticks(n)
        return axes


def _force_errors(errors: Iterable[Errors | None]) -> np.ndarray:
    """Force RMSE, meV/Å, NaN where there is none."""
    return np.array([None if e is None else e.force_rmse for e in errors], dtype=np.float64)
