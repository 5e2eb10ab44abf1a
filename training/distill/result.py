"""What a distillation leaves: its rounds, why it stopped, and the student."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpa2calc.errors import DataError
from dpa2calc.files.atomic import write_json
from dpa2calc.files.figures import Axes, panels_for, save_figure
from dpa2calc.files.results import Result, from_plain
from dpa2calc.files.typed import to_dict
from dpa2calc.labels.errors import Errors
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.data.readers.frame_file import read_json

from .selection import HEADER, DistillRound, table_row


@dataclass(frozen=True, kw_only=True)
class DistillResult(Result):
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
        axes[0].legend(fontsize=8)
        columns = list(zip(*(r.deviations for r in self.rounds)))
        if columns:
            axes[1].fill_between(n, columns[0], columns[4], alpha=0.2, label="5 to 95 % of the frames")
            axes[1].fill_between(n, columns[1], columns[3], alpha=0.3, label="25 to 75 %")
            axes[1].plot(n, columns[2], "o-", label="median")
        axes[1].axhline(self.threshold, color="0.3", ls="--", lw=1, label="threshold")
        axes[1].set(xlabel="round", ylabel="largest force deviation (eV/Å)", yscale="log")
        axes[1].legend(fontsize=8)
        axes[2].bar(n, [r.trained_on for r in self.rounds], label="trained on")
        axes[2].bar(
            n, [r.added for r in self.rounds], bottom=[r.trained_on for r in self.rounds], label="added"
        )
        axes[2].set(xlabel="round", ylabel="frames")
        axes[2].legend(fontsize=8)
        for axis in axes:
            axis.set_xticks(n)
        return axes

    def draw(self, path: PathLike) -> None:
        """`plot` into a file."""
        save_figure(path, self.plot, panels=3, size=(13, 3.8))

    def save(self, path: PathLike) -> Path:
        """Write JSON; the file is renamed into place when whole. Paths are kept relative to `output`."""
        values = {
            "kind": "DistillResult",
            **to_dict(self),
            "student": _inside(self.student, self.output),
            "labelled": [_inside(p, self.output) for p in self.labelled],
        }
        write_json(path, values)
        return Path(path)

    @classmethod
    def load(cls, path: PathLike) -> DistillResult:
        """Read what `save` wrote; files are looked for beside it where the old folder is gone.

        Raises:
            DataError: the file is something else, or damaged.
        """
        source = Path(path)
        values = read_json(source)
        if not isinstance(values, dict) or values.pop("kind", None) != "DistillResult":
            raise DataError(f"{source} is not a result written by DistillResult.save")
        try:
            output = Path(values["output"])
            if not (output / values["student"]).exists():
                output = source.parent
            labelled = tuple(output / p for p in values["labelled"])
            paths = {"output": output, "student": output / values["student"], "labelled": labelled}
            return from_plain(cls, {**values, **paths})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{source} is damaged: {error!r}; call `distill` again") from error


def _force_errors(errors: Iterable[Errors | None]) -> np.ndarray:
    """Force RMSE, meV/Å, NaN where there is none."""
    return np.array([None if e is None else e.force_rmse for e in errors], dtype=np.float64)


def _inside(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
