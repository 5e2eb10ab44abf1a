"""The log of a run as JSON lines, and its learning curve."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpa2calc.errors import DataError, MissingDependencyError
from dpa2calc.files.atomic import write_text, writing
from dpa2calc.training.fit.distributed import Processes
from dpa2calc.training.fit.loss import LossTerms
from dpa2calc.training.metrics import ErrorSums


class Interval:
    """Errors by set over the steps since the last record of the log."""

    def __init__(self, names: list[str], *, waited_before: float = 0.0):
        self.names = names
        self.sums = [ErrorSums() for _ in names]
        self.losses = torch.zeros(len(names), dtype=torch.float64)
        self.steps, self.norm = 0, 0.0
        self.started, self.waited_before = time.perf_counter(), waited_before

    def add(self, task: int, terms: LossTerms, *, n_frames: int, n_atoms: int) -> None:
        """Count one batch of the set with this number."""
        self.losses[task] += float(terms.total.detach()) * n_frames
        self.sums[task].add(*terms.errors, n_frames=n_frames, n_atoms=n_atoms)

    def record(self, step: int, learning_rate: float, waited: float, processes: Processes) -> dict[str, Any]:
        """One line of the log, summed over the processes."""
        table = torch.cat([self.losses[:, None], torch.stack([s.values for s in self.sums])], dim=1)
        table = processes.sum(table)
        sets = {}
        for name, row in zip(self.names, table):
            if row[1] > 0:
                e = ErrorSums(row[1:]).errors()
                sets[name] = {
                    "frames": e.n_frames,
                    "loss": float(row[0] / row[1]),
                    "energy_rmse": e.energy_rmse,
                    "force_rmse": e.force_rmse,
                    "virial_rmse": e.virial_rmse,
                }
                if e.value_rmse is not None:
                    sets[name]["value_rmse"] = e.value_rmse
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


def progress_line(sets: dict[str, dict[str, Any]]) -> str:
    """Mean errors over the sets of a record, for the progress bar."""

    def show(name: str) -> str:
        values = [h[name] for h in sets.values() if h[name] is not None]
        return f"{sum(values) / len(values):.1f}" if values else "-"

    return f"E {show('energy_rmse')} meV/atom, F {show('force_rmse')} meV/Å"


class LogWriter:
    """Appends one JSON object a line; on resume, lines after the resumed step are cut off."""

    def __init__(self, path: str | os.PathLike[str], *, resume_step: int = 0, tensorboard: bool = False):
        self.path = Path(path)
        kept: list[dict[str, Any]] = []
        if resume_step and self.path.exists():
            kept = [record for record in _records(self.path) if record["step"] <= resume_step]
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self._board = _board(self.path.parent / "tensorboard", resume_step) if tensorboard else None

    def write(self, record: dict[str, Any]) -> None:
        """Append one record and flush it."""
        with writing(self.path), open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")
        if self._board is not None:
            for name, values in record["sets"].items():
                for key, value in values.items():
                    if isinstance(value, float):
                        self._board.add_scalar(f"{record['kind']}/{key}/{name}", value, record["step"])
            self._board.flush()


def _board(folder: Path, resume_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            "tensorboard = true needs the package tensorboard: pip install tensorboard"
        ) from error
    return SummaryWriter(str(folder), purge_step=resume_step or None)


def _records(path: Path) -> list[dict[str, Any]]:
    """All records of a log; a last line that a killed run left half-written is left out.

    Raises:
        DataError: the file cannot be read, or a line is no record; it is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the training log {path} cannot be read: {error}") from error
    lines, records = text.splitlines(), []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(lines) and line.startswith("{") and not text.endswith("\n"):
                break
            record = None
        if not _is_record(record):
            raise DataError(
                f"{path}, line {number} is no record of a training: {line[:60]!r}; remove this line, or put "
                "back a copy of the file"
            )
        records.append(record)
    return records


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or record.get("kind") not in ("train", "validation"):
        return False
    step, sets = record.get("step"), record.get("sets")
    numbers = isinstance(step, int) and not isinstance(step, bool) and step >= 0
    return numbers and isinstance(sets, dict) and all(isinstance(s, dict) for s in sets.values())


@dataclass(frozen=True)
class History:
    """What a run's log holds.

    train: records with step, learning_rate, steps_per_second, waiting (share of the time spent waiting
    for batches) and, by set, errors over the steps since the last record. validation: records with step,
    score and errors by set. Energies in meV/atom, forces in meV/Å.
    """

    train: tuple[dict[str, Any], ...]
    validation: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> History:
        """Read a log; a half-written last line is left out.

        Raises:
            DataError: no such file, or a line in it is no record of a training.
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
        names: dict[str, None] = {}
        for record in (*self.train, *self.validation):
            names.update(dict.fromkeys(record["sets"]))
        return tuple(names)

    def plot(self, axes: Any = None) -> Any:
        """Energy and force RMSE by step; returns the two axes.

        Training is thin and validation bold; where nothing was validated the running median of the training
        errors is.
        """
        import matplotlib.pyplot as plt

        many = len(self.sets()) > 10
        if axes is None:
            _, axes = plt.subplots(1, 2, figsize=(14 if many else 10, 4), layout="constrained")
        for axis, quantity, label in (
            (axes[0], "energy_rmse", "energy RMSE (meV/atom)"),
            (axes[1], "force_rmse", "force RMSE (meV/Å)"),
        ):
            for number, name in enumerate(self.sets()):
                steps, errors = self.series(name, quantity, kind="train")
                bold = self.series(name, quantity)
                if not bold[0]:
                    bold = steps, _running_median(errors)
                style = {"color": f"C{number % 10}", "ls": ("-", "--", ":")[number // 10 % 3]}
                axis.plot(steps, errors, color=style["color"], lw=0.6, alpha=0.15 if many else 0.5)
                axis.plot(*bold, lw=1.6, label=name, **style)
            axis.set(xlabel="step", ylabel=label, yscale="log")
        if self.sets():
            beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "ncols": 2} if many else {}
            axes[1].legend(fontsize=7, **beside)
        return axes


def _running_median(values: Sequence[float]) -> list[float]:
    """The median of a fifteenth of the points around each."""
    half = len(values) // 30
    return [float(np.median(values[max(0, i - half) : i + half + 1])) for i in range(len(values))]
