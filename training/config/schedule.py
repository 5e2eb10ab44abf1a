"""Learning rate by step, and the loss prefactors tied to it (paper, section 4.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from dpa2calc.model.config import check

ScheduleKind = Literal["exponential", "cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate from `start` to `stop` over `steps`, after a linear warm-up.

    exponential, as deepmd-kit computes it: start * rate^(floor(step / decay_steps)) with
    rate = (stop / start)^(decay_steps / steps); steps are those after the warm-up. decay_steps 1 lowers it at
    every step, the paper's protocol uses 5000. cosine: half a cosine from start to stop. Both would reach
    `stop` at the step after the last one.
    """

    kind: ScheduleKind = "exponential"
    start: float = 1e-3
    stop: float = 1e-6
    steps: int = 100_000
    decay_steps: int = 1
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        check(self.kind in get_args(ScheduleKind), "schedule", self.kind, ", ".join(get_args(ScheduleKind)))
        check(self.start > 0, "learning_rate", self.start, "above 0")
        check(
            0 < self.stop <= self.start, "learning_rate_stop", self.stop, "above 0, not above learning_rate"
        )
        check(self.steps > 0, "steps", self.steps, "at least 1")
        check(self.decay_steps > 0, "decay_steps", self.decay_steps, "at least 1")
        check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "at least 0")

    @property
    def warmup(self) -> int:
        """Steps of the warm-up, at most a fifth of all steps."""
        return min(self.warmup_steps, self.steps // 5)

    @property
    def interval(self) -> int:
        """Steps between two falls of the exponential schedule: `decay_steps`, unless no fall would come.

        deepmd-kit replaces it in the same way where it is not below the number of steps.
        """
        total = self.steps - self.warmup
        if self.decay_steps < total:
            return self.decay_steps
        return 100 if total // 10 > 100 else total // 100 + 1

    def fraction(self, step: int) -> float:
        """Learning rate over its start value at a step counted from 0, without the warm-up."""
        total = max(self.steps - self.warmup, 1)
        done = min(max(step - self.warmup, 0), total)
        low = self.stop / self.start
        if self.kind == "constant":
            return 1.0
        if self.kind == "cosine":
            return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * done / total))
        return max(low ** (done // self.interval * self.interval / total), low)

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step counted from 0."""
        warm = min((step + 1) / self.warmup, 1.0) if self.warmup else 1.0
        return self.start * self.fraction(step) * warm


@dataclass(frozen=True, kw_only=True)
class Prefactors:
    """Weights of the loss terms, from `start` to `limit` as the learning rate falls to zero.

    p(step) = limit (1 - f) + start f, with f the learning rate over its start value.
    """

    energy_start: float = 0.02
    energy_limit: float = 1.0
    force_start: float = 1000.0
    force_limit: float = 1.0
    virial_start: float = 0.0
    virial_limit: float = 0.0

    def __post_init__(self) -> None:
        values = list(vars(self).values())
        check(min(values) >= 0 and max(values) > 0, "prefactors", values, "none below 0 and one above 0")

    def at(self, fraction: float) -> tuple[float, float, float]:
        """(energy, force, virial) prefactors at a learning-rate fraction."""

        def mix(start: float, limit: float) -> float:
            return limit * (1.0 - fraction) + start * fraction

        return (
            mix(self.energy_start, self.energy_limit),
            mix(self.force_start, self.force_limit),
            mix(self.virial_start, self.virial_limit),
        )
