"""Options of a training run: one frozen dataclass, one name and one help text for Python, file and command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dpa2calc.model.config import check

from .schedule import Prefactors, Schedule, ScheduleKind

Optimizer = Literal["adam", "adamw"]


def option(default: Any, help_text: str) -> Any:
    """A dataclass field with the help text that all front ends show."""
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train. The defaults suit fine-tuning and small sets on a laptop; `paper()` is the paper's protocol."""

    steps: int = option(100_000, "number of optimiser steps")
    batch_atoms: int = option(256, "a batch holds frames of one head with at most this many atoms together")
    batches_per_step: int = option(1, "batches whose gradients are averaged in one step, drawn head by head")
    optimizer: Optimizer = option("adam", "adam or adamw")
    weight_decay: float = option(0.0, "decoupled weight decay, only with adamw")
    beta1: float = option(0.9, "Adam's decay of the mean of the gradient")
    beta2: float = option(0.999, "Adam's decay of the mean of its square")
    schedule: ScheduleKind = option("exponential", "fall of the learning rate: exponential, cosine, constant")
    learning_rate: float = option(1e-3, "learning rate at the start")
    learning_rate_stop: float = option(1e-6, "learning rate at the last step")
    decay_steps: int = option(1, "the exponential schedule lowers the rate once in this many steps")
    warmup_steps: int = option(0, "steps over which the learning rate rises from 0")
    energy_prefactor_start: float = option(0.02, "weight of the energy loss at the start")
    energy_prefactor_limit: float = option(1.0, "weight of the energy loss as the learning rate reaches 0")
    force_prefactor_start: float = option(1000.0, "weight of the force loss at the start")
    force_prefactor_limit: float = option(1.0, "weight of the force loss as the learning rate reaches 0")
    virial_prefactor_start: float = option(0.0, "weight of the virial loss at the start")
    virial_prefactor_limit: float = option(0.0, "weight of the virial loss as the learning rate reaches 0")
    huber_delta: float | None = option(
        None, "errors above this (eV/atom, eV/Å) count linearly; off when not given"
    )
    gradient_clip: float | None = option(None, "longest gradient; off when not given")
    gradient_clip_relative: float | None = option(
        None, "longest gradient as a multiple of the running mean of its length; off when not given"
    )
    ema_decay: float = option(0.0, "decay of the running average of the weights (0 = no average)")
    validate_every: int = option(2000, "steps between validations")
    validation_frames: int = option(200, "at most this many frames of each validation set are used")
    early_stopping: int = option(0, "stop after this many validations without a better one (0 = never)")
    checkpoint_every: int = option(1000, "steps between checkpoints")
    time_limit: float = option(0.0, "stop after this many seconds, ready to go on later (0 = no limit)")
    log_every: int = option(100, "steps between lines of the log")
    statistics_frames: int = option(
        100, "frames of each set on which the environment statistics are measured"
    )
    seed: int = option(1, "seed of weights and sampling")
    dtype: Literal["float32", "float64"] = option("float32", "precision of the networks")
    device: str = option("cpu", "cpu, cuda or cuda:N")
    prefetch: int = option(4, "batches made ahead in a background thread")
    tensorboard: bool = option(False, "also write TensorBoard events (needs the package tensorboard)")
    neighbor_cache_mb: int = option(
        2000, "memory for neighbour tables, MB; frames beyond it are searched again"
    )

    def __post_init__(self) -> None:
        check(self.optimizer in get_args(Optimizer), "optimizer", self.optimizer, "adam, adamw")
        check(self.dtype in ("float32", "float64"), "dtype", self.dtype, "float32, float64")
        check(
            self.weight_decay == 0 or self.optimizer == "adamw",
            "weight_decay",
            self.weight_decay,
            "0 with optimizer 'adam'; choose 'adamw'",
        )
        check(0.0 <= self.ema_decay < 1.0, "ema_decay", self.ema_decay, "from 0 to below 1")
        for name in (
            "batch_atoms",
            "batches_per_step",
            "validate_every",
            "validation_frames",
            "checkpoint_every",
            "log_every",
            "statistics_frames",
            "prefetch",
        ):
            check(getattr(self, name) > 0, name, getattr(self, name), "at least 1")
        for name in ("huber_delta", "gradient_clip", "gradient_clip_relative"):
            value = getattr(self, name)
            check(value is None or value > 0, name, value, "above 0, or left out")
        self.make_schedule()
        self.make_prefactors()

    def make_schedule(self) -> Schedule:
        """The learning-rate schedule of these options."""
        return Schedule(
            kind=self.schedule,
            start=self.learning_rate,
            stop=self.learning_rate_stop,
            steps=self.steps,
            decay_steps=self.decay_steps,
            warmup_steps=self.warmup_steps,
        )

    def make_prefactors(self) -> Prefactors:
        """The loss prefactors of these options."""
        return Prefactors(
            energy_start=self.energy_prefactor_start,
            energy_limit=self.energy_prefactor_limit,
            force_start=self.force_prefactor_start,
            force_limit=self.force_prefactor_limit,
            virial_start=self.virial_prefactor_start,
            virial_limit=self.virial_prefactor_limit,
        )

    @classmethod
    def paper(cls, **changes: Any) -> TrainConfig:
        """The protocol of the paper's section S9: 10^6 steps, batch of one frame, 2e-4 to 3e-8."""
        values: dict[str, Any] = {
            "steps": 1_000_000,
            "batch_atoms": 1,
            "learning_rate": 2e-4,
            "learning_rate_stop": 3e-8,
            "decay_steps": 5000,
        }
        return cls(**{**values, **changes})

    def replace(self, **changes: Any) -> TrainConfig:
        """The same with some options changed."""
        return dataclasses.replace(self, **changes)
