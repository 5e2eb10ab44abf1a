"""What work in rounds leaves: a record a round, why it stopped, and the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from dpa2calc.files.figures import Axes, panels_for
from dpa2calc.labels.errors import Errors
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.runs.result import RunResult

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True, kw_only=True)
class Round:
    """What both kinds of rounds know: what was learned from, and how it went on fresh trajectories.

    Attributes:
        threshold: eV/Å, that was in force. trained_on: labelled frames.
        trajectories, cut: that were run, and that exploded or were cut otherwise.
        explored: sampled frames. accurate: those within the threshold.
        added: frames that the next round learns from.
        errors: of the model on frames that it had not learned.
        test: errors on the caller's test set, if there is one.
        notes: of trajectories that were cut. seconds: wall time.
    """

    number: int
    threshold: float
    trained_on: int
    trajectories: int
    cut: int
    explored: int
    accurate: int
    added: int
    errors: Errors | None = None
    test: Errors | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def accurate_share(self) -> float:
        """Share of the explored frames within the threshold."""
        return self.accurate / self.explored if self.explored else 0.0

    @property
    def quantiles(self) -> tuple[float, ...]:
        """`QUANTILES` over the frames of what the threshold is compared with, eV/Å."""
        raise NotImplementedError

    def own_cells(self) -> dict[str, str]:
        """The cells of its line in the table that are of one kind of rounds, by their titles."""
        raise NotImplementedError


def table(rounds: Sequence[Round]) -> list[str]:
    """Titles, and a line a round; energies in meV/atom, forces in meV/Å. Nothing of no round."""
    rows = [_cells(r) for r in rounds]
    if not rows:
        return []
    widths = {title: max(len(title), *(len(row[title]) for row in rows)) for title in rows[0]}
    lines = [{title: title for title in widths}, *rows]
    return ["  ".join(f"{row[title]:>{width}}" for title, width in widths.items()) for row in lines]


def number(value: float | None) -> str:
    """A cell."""
    return "-" if value is None else f"{value:.1f}"


def error_cells(errors: Errors | None, word: str) -> dict[str, str]:
    """The cells `WORD E` and `WORD F`."""
    energy, force = (None, None) if errors is None else (errors.energy_rmse, errors.force_rmse)
    return {f"{word} E": number(energy), f"{word} F": number(force)}


def _cells(r: Round) -> dict[str, str]:
    counts = {"round": r.number, "trained": r.trained_on, "explored": r.explored, "cut": r.cut}
    return {
        **{title: str(count) for title, count in counts.items()},
        "within": f"{r.accurate_share:.1%}",
        **r.own_cells(),
        **error_cells(r.test, "test"),
        "minutes": number(r.seconds / 60),
    }


@dataclass(frozen=True, kw_only=True)
class RoundsResult(RunResult):
    """Work in rounds that has ended, or waits.

    Attributes:
        rounds: one record a round. reason: a word or two; `why` is a sentence.
        labelled: files of all frames that were learned from.
        threshold: eV/Å, of the largest deviation of a force in a frame.
        test: errors of the model on the caller's test set.
        provenance: source of the labels, versions, options.
    """

    legend: ClassVar[str]  # of the table
    errors_of: ClassVar[str]  # the frames that `Round.errors` is of
    quantiles_of: ClassVar[str]
    path_field: ClassVar[str] = "model"  # the field with the path of the model

    rounds: tuple[Round, ...]
    reason: str
    why: str
    output: Path
    labelled: tuple[Path, ...]
    threshold: float
    test: Errors | None = None

    @property
    def potential(self) -> Potential:
        """The model."""
        return load_checkpoint(getattr(self, self.path_field))

    def frames(self) -> Dataset:
        """All labelled frames that were learned from."""
        return Dataset.read([path for path in self.labelled if path.stat().st_size], name="labelled")

    def own_lines(self) -> list[str]:
        """Lines of the summary that are of one kind of rounds."""
        raise NotImplementedError

    def summary(self) -> str:
        """A table with a line per round, and why the loop stopped."""
        lines = [*table(self.rounds), self.legend, f"stopped: {self.reason}: {self.why}", *self.own_lines()]
        if self.test is not None:
            lines.append(f"on the test set: {self.test}")
        notes = [note for r in self.rounds for note in r.notes]
        lines += [f"cut: {note}" for note in notes[:5]]
        if len(notes) > 5:
            lines.append(f"and {len(notes) - 5} more trajectories were cut (rounds[...].notes)")
        if self.reason != "waiting":
            lines.append(f"{self.path_field}: {getattr(self, self.path_field)}")
        return "\n".join(lines)

    def plot(self, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
        """Errors on new frames, quantiles against the threshold, and frames by round; three axes."""
        axes = panels_for(axes, 3, (13, 3.8))
        n, trained_on = [r.number for r in self.rounds], [r.trained_on for r in self.rounds]
        axes[0].plot(n, _force_errors([r.errors for r in self.rounds]), "o-", label=self.errors_of)
        if all(r.test for r in self.rounds):
            axes[0].plot(n, _force_errors([r.test for r in self.rounds]), "s--", label="test set")
        axes[0].set(xlabel="round", ylabel="force RMSE (meV/Å)", yscale="log")
        self._plot_quantiles(axes[1], n)
        axes[2].bar(n, trained_on, label="trained on")
        axes[2].bar(n, [r.added for r in self.rounds], bottom=trained_on, label="added")
        axes[2].set(xlabel="round", ylabel="frames")
        for axis in axes:
            axis.legend(fontsize=8)
            axis.set_xticks(n)
        return axes

    def _plot_quantiles(self, axis: Axes, n: Sequence[int]) -> None:
        columns = list(zip(*(r.quantiles for r in self.rounds)))
        if columns:
            axis.fill_between(n, columns[0], columns[4], alpha=0.2, label="5 to 95 % of the frames")
            axis.fill_between(n, columns[1], columns[3], alpha=0.3, label="25 to 75 %")
            axis.plot(n, columns[2], "o-", label="median")
        axis.axhline(self.threshold, color="0.3", ls="--", lw=1, label="threshold")
        axis.set(xlabel="round", ylabel=self.quantiles_of, yscale="log")


def _force_errors(errors: Sequence[Errors | None]) -> np.ndarray:
    return np.array([None if e is None else e.force_rmse for e in errors], dtype=np.float64)
