"""The log of a run as JSON lines, and its learning curve."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpa2calc.errors import DataError


class LogWriter:
    """Appends one JSON object a line; on resume, lines after the resumed step are cut off."""

    def __init__(self, path: str | os.PathLike[str], *, resume_step: int = 0):
        self.path = Path(path)
        kept: list[str] = []
        if resume_step and self.path.exists():
            kept = [line for line in _whole_lines(self.path) if json.loads(line).get("step", 0) <= resume_step]
        temporary = self.path.with_name(self.path.name + ".part")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(temporary, self.path)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record and flush it."""
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")


def _whole_lines(path: Path) -> list[str]:
    """Lines that are complete JSON; a run killed while writing leaves half a line."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            json.loads(line)
        except json.JSONDecodeError:
            continue
        lines.append(line)
    return lines


@dataclass(frozen=True)
class History:
    """What a run's log holds.

    train: records with step, learning_rate, loss and, by head, errors over the steps since the last
    record. validation: records with step, score and errors by head. Energies in meV/atom, forces in meV/Å.
    """

    train: tuple[dict[str, Any], ...]
    validation: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> History:
        """Read a log; a half-written last line is left out.

        Raises:
            DataError: no such file.
        """
        if not Path(path).exists():
            raise DataError(f"there is no training log {path}")
        records = [json.loads(line) for line in _whole_lines(Path(path))]
        return cls(
            tuple(r for r in records if r.get("kind") == "train"),
            tuple(r for r in records if r.get("kind") == "validation"),
        )

    def series(self, head: str, quantity: str, *, kind: str = "validation") -> tuple[list[int], list[float]]:
        """Steps and values of e.g. `force_rmse` of one head, from the "train" or "validation" records."""
        records = self.train if kind == "train" else self.validation
        pairs = [
            (r["step"], r["heads"][head][quantity])
            for r in records
            if head in r["heads"] and r["heads"][head].get(quantity) is not None
        ]
        return [p[0] for p in pairs], [p[1] for p in pairs]

    def heads(self) -> tuple[str, ...]:
        """Names of all heads in the log."""
        names: dict[str, None] = {}
        for record in (*self.train, *self.validation):
            names.update(dict.fromkeys(record["heads"]))
        return tuple(names)

    def plot(self, axes: Any = None) -> Any:
        """Energy and force RMSE by step, training thin and validation bold; returns the two axes."""
        import matplotlib.pyplot as plt

        if axes is None:
            _, axes = plt.subplots(1, 2, figsize=(10, 4))
        for axis, quantity, label in (
            (axes[0], "energy_rmse", "energy RMSE (meV/atom)"),
            (axes[1], "force_rmse", "force RMSE (meV/Å)"),
        ):
            for number, head in enumerate(self.heads()):
                color = f"C{number % 10}"
                axis.plot(*self.series(head, quantity, kind="train"), color=color, lw=0.6, alpha=0.5)
                axis.plot(*self.series(head, quantity), color=color, lw=1.6, label=head)
            axis.set(xlabel="step", ylabel=label, yscale="log")
        if self.heads():
            axes[1].legend(fontsize=7)
        return axes
