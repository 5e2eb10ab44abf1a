"""The log of a run as JSON lines, and its learning curve."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dpa2calc.errors import DataError, optional_library
from dpa2calc.files.atomic import writing
from dpa2calc.files.figures import Axes, panels_for
from dpa2calc.files.json_lines import read_json_lines, write_json_lines
from dpa2calc.files.results import Result
from dpa2calc.labels.errors import ErrorSums

from .processes import Processes

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Record = dict[str, Any]  # a line of the log


class Interval:
    """Errors by set over the steps since the last record of the log."""

    def __init__(self, names: list[str], *, waited_before: float = 0.0):
        self.names = names
        self.sums = [ErrorSums() for _ in names]
        self.losses = np.zeros(len(names))
        self.steps, self.norm = 0, 0.0
        self.started, self.waited_before = time.perf_counter(), waited_before

    def add(
        self, task: int, loss: float, differences: Sequence[np.ndarray], *, n_frames: int, n_atoms: int
    ) -> None:
        """Count one batch of the set with this number; differences as `ErrorSums.count` takes them."""
        self.losses[task] += loss * n_frames
        self.sums[task].count(*differences, n_frames=n_frames, n_atoms=n_atoms)

    def record(self, step: int, learning_rate: float, waited: float, processes: Processes) -> Record:
        """One line of the log, summed over the processes."""
        own = np.column_stack([self.losses, [s.values for s in self.sums]])
        table = processes.sum(torch.from_numpy(own)).numpy()
        sets = {}
        for name, row in zip(self.names, table):
            if row[1] > 0:
                e = ErrorSums(row[1:]).errors()
                found = {key: value for key, value in e.to_dict().items() if key.endswith("rmse")}
                sets[name] = {"frames": e.n_frames, "loss": float(row[0] / row[1]), **found}
        seconds = time.perf_counter() - self.started
        return {
            "kind": "train",
            "step": step,
            "learning_rate": learning_rate,
            "gradient": self.norm / max(self.steps, 1),
            "steps_per_second": self.steps / seconds,
            "waiting": (waited - self.waited_before) / seconds,
            "sets": sets,
        }


def progress_line(sets: dict[str, Record]) -> str:
    """Mean errors over the sets of a record, for the progress bar."""

    def show(name: str) -> str:
        values = [h[name] for h in sets.values() if h[name] is not None]
        return f"{sum(values) / len(values):.1f}" if values else "-"

    return f"E {show('energy_rmse')} meV/atom, F {show('force_rmse')} meV/Å"


class LogWriter:
    """Appends one JSON object per line; on resume, lines after the resumed step are cut off."""

    def __init__(self, path: str | os.PathLike[str], *, resume_step: int = 0, tensorboard: bool = False):
        self.path = Path(path)
        kept: list[Record] = []
        if resume_step and self.path.exists():
            kept = [record for record in _records(self.path) if record["step"] <= resume_step]
        write_json_lines(self.path, kept)
        self._board = _board(self.path.parent / "tensorboard", resume_step) if tensorboard else None

    def write(self, record: Record) -> None:
        """Append one record and flush it."""
        with writing(self.path), open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")
        if self._board is not None:
            for name, values in record["sets"].items():
                for key, value in values.items():
                    if isinstance(value, float):
                        self._board.add_scalar(f"{record['kind']}/{key}/{name}", value, record["step"])
            self._board.flush()


def _board(folder: Path, resume_step: int) -> SummaryWriter:
    text = "tensorboard = true needs the package tensorboard: pip install tensorboard"
    library = optional_library("torch.utils.tensorboard", text)
    board: SummaryWriter = library.SummaryWriter(str(folder), purge_step=resume_step or None)
    return board


def _records(path: Path) -> list[Record]:
    return read_json_lines(path, _record, "record of a training", "put back a copy of the file")


def _record(found: Record) -> Record:
    """What stands in a line of a log; TypeError where it is something else."""
    if found["kind"] not in ("train", "validation") or not all(
        isinstance(s, dict) for s in found["sets"].values()
    ):
        raise TypeError("kind, sets")
    step = found["step"]
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise TypeError("step")
    return dict(found)


@dataclass(frozen=True)
class History(Result):
    """What a run's log holds.

    train: records with step, learning_rate, steps_per_second, waiting (share of the time spent waiting
    for batches) and, by set, errors over the steps since the last record. validation: records with step,
    score and errors by set. Energies in meV/atom, forces in meV/Å.
    """

    train: tuple[Record, ...]
    validation: tuple[Record, ...]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> History:
        """Read a log; a half-written last line is left out.

        Raises:
            DataError: no such file, or a line in it is not a record of a training.
        """
        if not Path(path).exists():
            raise DataError(f"there is no training log {path}")
        records = _records(Path(path))
        return cls(
            tuple(r for r in records if r["kind"] == "train"),
            tuple(r for r in records if r["kind"] == "validation"),
        )

    def series(self, name: str, quantity: str, *, kind: str = "validation") -> tuple[list[int], list[float]]:
        """Steps and values of e.g. `force_rmse` of one set, from the "train" or "validation" records."""
        records = self.train if kind == "train" else self.validation
        pairs = [
            (r["step"], r["sets"][name][quantity])
            for r in records
            if name in r["sets"] and r["sets"][name].get(quantity) is not None
        ]
        return [p[0] for p in pairs], [p[1] for p in pairs]

    def sets(self) -> tuple[str, ...]:
        """Names of all sets in the log."""
        return tuple(dict.fromkeys(name for r in (*self.train, *self.validation) for name in r["sets"]))

    def summary(self) -> str:
        """How many records there are, and the last errors of each set."""
        number = f"{len(self.train)} records of training, {len(self.validation)} of validation"
        return "\n".join([number, *self.last_errors()])

    def last_errors(self) -> list[str]:
        """A line per set: of the last validation, or of the last training steps without one."""
        records, what = self.validation, "validation"
        if not records:
            records, what = self.train, "training frames"
        if not records:
            return []
        lines = [f"errors (RMSE) at step {records[-1]['step']}, {what}:"]
        for name, found in records[-1]["sets"].items():
            cells = [
                f"{found[quantity]:{form}}{unit}"
                for quantity, form, unit in (
                    ("energy_rmse", ".2f", " meV/atom"),
                    ("force_rmse", ".2f", " meV/Å"),
                    ("virial_rmse", ".2f", " meV/atom of the virial"),
                    ("value_rmse", ".4g", ""),
                )
                if found.get(quantity) is not None
            ]
            lines.append(f"  {name}: {', '.join(cells)}")
        return lines

    def plot(self, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
        """Energy and force RMSE by step; returns the two axes.

        Training is thin and validation bold; where nothing was validated the running median of the training
        errors is. More than thirty sets are grey lines, with their median and quartiles at each step.
        """
        names = self.sets()
        many, crowd = len(names) > 10, len(names) > 30
        axes = panels_for(axes, 2, (14 if many and not crowd else 10, 4))
        for axis, quantity, label in (
            (axes[0], "energy_rmse", "energy RMSE (meV/atom)"),
            (axes[1], "force_rmse", "force RMSE (meV/Å)"),
        ):
            curves = {}
            for number, name in enumerate(names):
                steps, errors = self.series(name, quantity, kind="train")
                validated = self.series(name, quantity)
                curves[name] = bold = validated if validated[0] else (steps, _running_median(errors))
                color, style = f"C{number % 10}", ("-", "--", ":")[number // 10 % 3]
                if not crowd:
                    axis.plot(steps, errors, color=color, lw=0.6, alpha=0.15 if many else 0.5)
                    axis.plot(*bold, color=color, ls=style, lw=1.6, label=name)
            axis.set(xlabel="step", ylabel=label, yscale="log")
            if crowd:
                _plot_crowd(axis, list(curves.values()))
        if names:
            beside: Record = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "ncols": 2}
            axes[1].legend(fontsize=7, **(beside if many and not crowd else {}))
        return axes


def _plot_crowd(axis: Axes, curves: Sequence[tuple[list[int], list[float]]]) -> None:
    """Many curves in grey, with their median and quartiles; a single wild one does not set the scale."""
    curves = [(steps, values) for steps, values in curves if steps]
    if not curves:
        return
    for steps, values in curves:
        axis.plot(steps, values, color="0.75", lw=0.5)
    grid = np.unique(np.concatenate([steps for steps, _ in curves]))
    table = [np.interp(grid, s, v, left=np.nan, right=np.nan) for s, v in curves]
    low, middle, high = np.nanpercentile(table, (25, 50, 75), axis=0)
    axis.fill_between(grid, low, high, color="C0", alpha=0.25, lw=0, label="half of the sets")
    axis.plot(grid, middle, color="C0", lw=1.8, label=f"median of {len(curves)} sets")
    smallest, largest = np.percentile(np.concatenate([v for _, v in curves]), (1, 99))
    if smallest > 0:
        axis.set_ylim(0.5 * smallest, 2 * largest)


def _running_median(values: Sequence[float]) -> list[float]:
    """The median of a fifteenth of the points around each."""
    half = len(values) // 30
    return [float(np.median(values[max(0, i - half) : i + half + 1])) for i in range(len(values))]
