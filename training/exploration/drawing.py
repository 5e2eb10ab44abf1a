"""What the results of work in rounds say and draw alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from dpa2calc.files.figures import Axes
from dpa2calc.labels.errors import Errors
from dpa2calc.training.data.dataset import Dataset


class Round(Protocol):
    """What both kinds of rounds know."""

    @property
    def number(self) -> int:
        """From 1."""

    @property
    def trained_on(self) -> int:
        """Labelled frames."""

    @property
    def added(self) -> int:
        """Frames that the next round learns from."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Of trajectories that were cut."""


def cut_notes(rounds: Iterable[Round]) -> list[str]:
    """Lines on trajectories that were cut, at most five."""
    notes = [note for r in rounds for note in r.notes]
    lines = [f"cut: {note}" for note in notes[:5]]
    if len(notes) > 5:
        lines.append(f"and {len(notes) - 5} more trajectories were cut (rounds[...].notes)")
    return lines


def plot_quantiles(
    axis: Axes, n: Sequence[int], quantiles: Sequence[tuple[float, ...]], threshold: float, label: str
) -> None:
    """Bands of 5, 25, 50, 75, 95 % quantiles by round, and the threshold."""
    columns = list(zip(*quantiles))
    if columns:
        axis.fill_between(n, columns[0], columns[4], alpha=0.2, label="5 to 95 % of the frames")
        axis.fill_between(n, columns[1], columns[3], alpha=0.3, label="25 to 75 %")
        axis.plot(n, columns[2], "o-", label="median")
    axis.axhline(threshold, color="0.3", ls="--", lw=1, label="threshold")
    axis.set(xlabel="round", ylabel=label, yscale="log")


def plot_frames(axis: Axes, rounds: Sequence[Round]) -> None:
    """Frames that were trained on, and that were added, by round."""
    n, trained_on = [r.number for r in rounds], [r.trained_on for r in rounds]
    axis.bar(n, trained_on, label="trained on")
    axis.bar(n, [r.added for r in rounds], bottom=trained_on, label="added")
    axis.set(xlabel="round", ylabel="frames")


def finish_axes(axes: Sequence[Axes], n: Sequence[int]) -> None:
    """Legends, and a tick for each round."""
    for axis in axes:
        axis.legend(fontsize=8)
        axis.set_xticks(n)


def force_errors(errors: Iterable[Errors | None]) -> np.ndarray:
    """Force RMSE, meV/Å, NaN where there is none."""
    return np.array([None if e is None else e.force_rmse for e in errors], dtype=np.float64)


def filled_frames(paths: Iterable[Path]) -> Dataset:
    """All labelled frames of files, of which some may be empty."""
    return Dataset.read([path for path in paths if path.stat().st_size], name="labelled")
