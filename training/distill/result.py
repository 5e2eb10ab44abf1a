"""What a distillation leaves: its rounds, why it stopped, and the student."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpa2calc.errors import DataError
from dpa2calc.files.atomic import atomic_path, write_json
from dpa2calc.files.shown import ShownBySummary
from dpa2calc.labels.errors import Errors
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.data.readers.frame_file import read_json

from .selection import HEADER, DistillRound, table_row


@dataclass(frozen=True, kw_only=True)
class DistillResult(ShownBySummary):
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
    provenance: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def potential(self) -> Potential:
        """The student."""
        return load_checkpoint(self.student)

    def frames(self) -> Dataset:
        """All frames that the teacher labelled and the student learned from."""
        return Dataset.read([path for path in self.labelled if path.stat().st_size], name="labelled")

    def summary(self) -> str:
        """A table with a line a round, and why the loop stopped."""
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

    def plot(self, axes: Any = None) -> Any:
        """Errors on unseen frames, deviations against the threshold, and frames by round; three axes."""
        import matplotlib.pyplot as plt

        if axes is None:
            _, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
        n = [r.number for r in self.rounds]
        axes[0].plot(
            n, [r.errors.force_rmse for r in self.rounds], "o-", label="student - teacher, new frames"
        )
        if all(r.test for r in self.rounds):
            axes[0].plot(n, [r.test.force_rmse for r in self.rounds if r.test], "s--", label="test set")
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
        """`plot` into a file, on a canvas of its own: no backend is set and no window opens."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(13, 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        self.plot(figure.subplots(1, 3))
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110, format="png")

    def save(self, path: PathLike) -> Path:
        """Write JSON; the file is renamed into place when whole. Paths are kept relative to `output`."""
        target = Path(path)
        values = {
            "kind": "DistillResult",
            "rounds": [r.to_dict() for r in self.rounds],
            "reason": self.reason,
            "why": self.why,
            "student": _inside(self.student, self.output),
            "labelled": [_inside(p, self.output) for p in self.labelled],
            "output": str(self.output),
            "threshold": self.threshold,
            "final": self.final.to_dict() if self.final else None,
            "test": self.test.to_dict() if self.test else None,
            "provenance": self.provenance,
        }
        write_json(target, values)
        return target

    @classmethod
    def load(cls, path: PathLike) -> DistillResult:
        """Read what `save` wrote; files are looked for beside it where the old folder is gone.

        Raises:
            DataError: the file is something else, or damaged.
        """
        source = Path(path)
        values = read_json(source)
        if not isinstance(values, dict) or values.get("kind") != "DistillResult":
            raise DataError(f"{source} is not a result written by DistillResult.save")
        try:
            output = Path(values["output"])
            if not (output / values["student"]).exists():
                output = source.parent
            return cls(
                rounds=tuple(DistillRound.from_dict(r) for r in values["rounds"]),
                reason=values["reason"],
                why=values["why"],
                student=output / values["student"],
                output=output,
                labelled=tuple(output / p for p in values["labelled"]),
                threshold=values["threshold"],
                final=Errors(**values["final"]) if values["final"] else None,
                test=Errors(**values["test"]) if values["test"] else None,
                provenance=values["provenance"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{source} is damaged: {error!r}; call `distill` again") from error


def _inside(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
