"""What a training run returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpa2calc.files.figures import Axes
from dpa2calc.files.results import ShownBySummary
from dpa2calc.labels.errors import Errors
from dpa2calc.model.potential import Potential

from .log import History


@dataclass(frozen=True)
class TrainResult(ShownBySummary):
    """What a run leaves: the potential with the weights to use, the log, and the files' folder.

    `finished` is False when the time limit stopped it; the same call resumes.
    """

    potential: Potential
    history: History
    output: Path
    steps: int
    finished: bool
    best_score: float | None

    def summary(self) -> str:
        """Steps, the last errors of each set, and where the files are."""
        end = "finished" if self.finished else "stopped by its time limit; the same call resumes"
        return "\n".join([f"{self.steps} steps, {end}", *self._errors(), f"files: {self.output}"])

    def plot(self, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
        """The learning curve, see `History.plot`; returns the two axes."""
        return self.history.plot(axes)

    def zero_shot(self) -> Errors | None:
        """Errors of the model that the run began with on its data, where they were measured."""
        return None

    def _errors(self) -> list[str]:
        """A line per set: of the last validation, or of the last training steps without one."""
        records, what = self.history.validation, "validation"
        if not records:
            records, what = self.history.train, "training frames"
        if not records:
            return []
        last = records[-1]
        lines = [f"errors (RMSE) at step {last['step']}, {what}:"]
        for name, found in last["sets"].items():
            cells = [
                f"{found[quantity]:.2f} {unit}"
                for quantity, unit in (("energy_rmse", "meV/atom"), ("force_rmse", "meV/Å"))
                if found.get(quantity) is not None
            ]
            if "value_rmse" in found:
                cells.append(f"{found['value_rmse']:.4g}")
            lines.append(f"  {name}: {', '.join(cells)}")
        return lines
