"""How far a run has come, by its steps or by the clock; learning rate and prefactors follow from it."""

from __future__ import annotations

import sys
import time

from dpa2calc.training.config.train import TrainConfig


class Pace:
    """The schedule of a run.

    With `minutes` it follows the clock and ends with it, over all calls that the run was made in; `seconds`,
    which the state keeps, is what is spent. Otherwise it follows the steps.
    """

    def __init__(self, config: TrainConfig):
        self.config = config
        self.clock = time.monotonic if config.clock == "wall" else time.process_time
        self.seconds = 0.0
        self.start()

    def start(self) -> None:
        """This call begins."""
        self._started, self._before = self.clock(), self.seconds
        self._counted_from = self._started

    def leave_out(self) -> None:
        """Count nothing of what this call has spent until now.

        Its first step may compile kernels for longer than a short run lasts.
        """
        self._counted_from, self.seconds = self.clock(), self._before

    @property
    def now(self) -> float:
        """Seconds spent by all calls together."""
        return self._before + self.clock() - self._counted_from

    @property
    def out_of_time(self) -> bool:
        """Whether this call has taken longer than `time_limit`."""
        return 0 < self.config.time_limit < self.clock() - self._started

    @property
    def progress(self) -> float | None:
        """Share of `minutes` that is over; None in a run by steps."""
        whole = 60.0 * self.config.minutes
        return min(self.seconds / whole, 1.0) if whole else None

    @property
    def steps(self) -> int | None:
        """Number of steps, None where the clock decides it."""
        return None if self.config.minutes else self.config.steps

    def coming(self, step: int) -> range:
        """The steps that may still come after so many."""
        return range(step, step if self.complete(step) else self.steps or sys.maxsize)

    def complete(self, step: int) -> bool:
        """Whether a run of so many steps is whole."""
        return self.progress == 1.0 if self.config.minutes else step >= self.config.steps

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        return self.config.learning_rate_at(step, self.progress)

    def prefactors(self, step: int) -> tuple[float, float, float]:
        """Weights of energy, force and virial in the loss of a step."""
        return self.config.prefactors(self.config.rate_fraction(step, self.progress))
