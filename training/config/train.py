"""Options of a training run: one name and one help text for Python, file and command line."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from dpa2calc.errors import ConfigError
from dpa2calc.files.options import at_least, refuse_idle, settle
from dpa2calc.model.config import check

Optimizer = Literal["adam", "adamw", "soap"]
ScheduleKind = Literal["exponential", "cosine", "constant"]
Keep = Literal["best", "last"]
Clock = Literal["wall", "cpu"]
_LEARNED = ("energy", "force", "virial")
FEWEST_TO_CHOOSE = 10  # validation frames of a run; what fewer say of two sets of weights is chance


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; the defaults suit small sets on a laptop, `paper()` is the paper's protocol.

    The text beside each option is what `--help` and the documentation show.
    """

    steps: Annotated[int, "number of optimiser steps"] = 10_000
    minutes: Annotated[
        float, "length of the run in place of steps; the schedule ends with it (0 = by steps)"
    ] = 0.0
    clock: Annotated[Clock, "what minutes and time_limit count: wall time, or cpu time of all threads"] = (
        "wall"
    )
    batch_atoms: Annotated[int, "a batch holds frames of one set with at most this many atoms"] = 256
    batches_per_step: Annotated[int, "batches, each of a set drawn anew, averaged in one step"] = 1
    optimizer: Annotated[Optimizer, "soap, adam or adamw"] = "soap"
    weight_decay: Annotated[float, "decoupled weight decay, with adamw and soap"] = 0.0
    beta1: Annotated[float | None, "decay of the gradient's mean; 0.9 with adam, 0.95 with soap"] = None
    beta2: Annotated[float | None, "decay of its square's mean; 0.999 with adam, 0.95 with soap"] = None
    schedule: Annotated[ScheduleKind, "exponential, cosine or constant"] = "cosine"
    learning_rate: Annotated[float, "learning rate at the start; adam wants about a tenth of soap's"] = 2e-2
    learning_rate_stop: Annotated[float, "learning rate that the schedule reaches after the last step"] = 1e-4
    decay_steps: Annotated[
        int, "the exponential schedule lowers the rate once in this many steps (by minutes: at each)"
    ] = 1
    warmup_steps: Annotated[int, "steps over which the learning rate rises (at most a fifth)"] = 50
    energy_prefactor_start: Annotated[float, "weight of the energy loss at the start"] = 0.02
    energy_prefactor_limit: Annotated[
        float, "weight of the energy loss as the learning rate reaches 0 (never, if constant)"
    ] = 1.0
    force_prefactor_start: Annotated[float, "weight of the force loss at the start"] = 1000.0
    force_prefactor_limit: Annotated[float, "weight of the force loss as the learning rate reaches 0"] = 1.0
    virial_prefactor_start: Annotated[float, "the same for the virial, of frames that have one"] = 0.02
    virial_prefactor_limit: Annotated[float, "weight of the virial loss as the learning rate reaches 0"] = 1.0
    huber_delta: Annotated[float | None, "larger errors (eV/atom, eV/Å) count linearly; off if not given"] = (
        None
    )
    gradient_clip: Annotated[float | None, "longest gradient; off if not given"] = None
    gradient_clip_relative: Annotated[float | None, "longest gradient, over the running mean"] = 3.0
    gradient_clip_batch: Annotated[
        float | None, "longest gradient of one batch of several, over the running geometric mean"
    ] = None
    ema_decay: Annotated[float, "decay of the running average of the weights (0 = no average)"] = 0.99
    validate_every: Annotated[int, "steps between validations"] = 2000
    validation_frames: Annotated[int, "at most this many frames of each validation set are used"] = 200
    early_stopping: Annotated[int, "stop after this many validations without a better one (0 = never)"] = 0
    keep: Annotated[
        Keep, "weights of model.safetensors: best by validation (last if by fewer than 10 frames), or last"
    ] = "best"
    checkpoint_every: Annotated[int, "steps between checkpoints"] = 1000
    time_limit: Annotated[float, "stop after this many seconds, ready to resume later (0 = no limit)"] = 0.0
    log_every: Annotated[int, "steps between lines of the log"] = 100
    statistics_frames: Annotated[
        int, "frames of each set for the environment statistics of a fresh model"
    ] = 100
    final_bias_frames: Annotated[
        int, "frames of each set to which the elements' energies are fitted after the last step (0 = none)"
    ] = 200
    shared_steps: Annotated[int, "steps before `steps` in which all heads share one fitting net"] = 0
    freeze_descriptor: Annotated[bool, "train the fitting nets only, of a model that is trained already"] = (
        False
    )
    seed: Annotated[int, "seed of weights and sampling"] = 1
    dtype: Annotated[Literal["float32", "float64"], "precision of the networks"] = "float32"
    device: Annotated[str | None, "cpu, cuda or cuda:N; if not given a CUDA device if there is one"] = None
    prefetch: Annotated[int, "batches made ahead in a background thread"] = 4
    tensorboard: Annotated[bool, "also write TensorBoard events (needs the package tensorboard)"] = False
    neighbor_cache_mb: Annotated[int, "memory for neighbour tables, MB"] = 2000

    def __post_init__(self) -> None:
        settle(self)
        check(
            self.optimizer != "adam" or not self.weight_decay,
            "weight_decay",
            self.weight_decay,
            "0 with optimizer 'adam'; choose 'adamw' or 'soap'",
        )
        check(0.0 <= self.ema_decay < 1.0, "ema_decay", self.ema_decay, "from 0 to below 1")
        at_least(self, 1, "steps", "batch_atoms", "batches_per_step", "validate_every", "validation_frames")
        at_least(self, 1, "checkpoint_every", "log_every", "statistics_frames", "prefetch", "decay_steps")
        at_least(self, 0, "early_stopping", "final_bias_frames", "shared_steps", "seed", "neighbor_cache_mb")
        at_least(self, 0, "warmup_steps", "minutes", "time_limit", "weight_decay")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            check(value is None or 0 <= value < 1, name, value, "from 0 to below 1, or left out")
        for name in ("huber_delta", "gradient_clip", "gradient_clip_relative", "gradient_clip_batch"):
            value = getattr(self, name)
            check(value is None or value > 0, name, value, "above 0, or left out")
        start, stop = self.learning_rate, self.learning_rate_stop
        check(start > 0, "learning_rate", start, "above 0")
        falls = self.schedule != "constant"
        check(0 < stop <= start or not falls, "learning_rate_stop", stop, "above 0, not above learning_rate")
        if self.schedule != "exponential":
            refuse_idle(self, f"with schedule = {self.schedule!r}", "decay_steps")
        if not falls and stop != start:
            refuse_idle(self, "with schedule = 'constant'", "learning_rate_stop")
        prefactors = [f"{kind}_prefactor_{end}" for kind in _LEARNED for end in ("start", "limit")]
        at_least(self, 0, *prefactors)
        check(bool(self.learned), ", ".join(prefactors), 0, "one of them above 0")

    @property
    def used_device(self) -> str:
        """The device by name; if not given as `DPA2Calculator` chooses, one each for torchrun's processes.

        Raises:
            ConfigError: this machine has no such device.
        """
        import torch

        from dpa2calc.validation import check_device

        if self.device is not None:
            try:
                torch.empty(1, device=self.device)
            except (RuntimeError, AssertionError, NotImplementedError):
                check_device(self.device)  # says what is allowed
            return self.device
        chosen, rank = str(check_device(None)), os.environ.get("LOCAL_RANK")
        if chosen == "cuda" and rank is not None:
            return f"cuda:{int(rank) % torch.cuda.device_count()}"
        return chosen

    def rate_fraction(self, step: int, progress: float | None = None) -> float:
        """Learning rate over its start value at a step counted from 0, without the warm-up.

        Args:
            progress: share of `minutes` that is over, in place of the share of steps.

        exponential, as deepmd-kit computes it: rate^(floor(step / decay_steps)) with
        rate = (stop / start)^(decay_steps / steps); steps are those after the warm-up. decay_steps 1 lowers
        it at every step, the paper's protocol uses 5000. cosine: half a cosine from start to stop. Both would
        reach `learning_rate_stop` at the step after the last one.
        """
        if self.schedule == "constant":
            return 1.0
        total = self.steps - self._warmup
        done = min(max(step - self._warmup, 0), total)
        low = self.learning_rate_stop / self.learning_rate
        share = done / total if progress is None else progress
        if self.schedule == "cosine":
            return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * share))
        if progress is not None:
            return max(low**share, low)
        interval = self.decay_steps
        if interval >= total:  # no fall would come; deepmd-kit replaces it in the same way
            interval = 100 if total // 10 > 100 else total // 100 + 1
        return max(low ** (done // interval * interval / total), low)

    def learning_rate_at(self, step: int, progress: float | None = None) -> float:
        """Learning rate of a step counted from 0, with a linear warm-up over at most a fifth of the run."""
        if progress is None:
            warm = min((step + 1) / self._warmup, 1.0) if self._warmup else 1.0
        else:
            warm = min(max((step + 1) / max(self.warmup_steps, 1), 5.0 * progress), 1.0)
        return self.learning_rate * self.rate_fraction(step, progress) * warm

    @property
    def _warmup(self) -> int:
        return min(self.warmup_steps, self.steps // 5)

    def prefactors(self, fraction: float) -> tuple[float, float, float]:
        """Weights of energy, force and virial in the loss: limit (1 - fraction) + start fraction.

        Args:
            fraction: learning rate over its start value, see `rate_fraction` (paper, section 4.3).
        """
        energy, force, virial = (
            getattr(self, f"{name}_prefactor_limit") * (1.0 - fraction)
            + getattr(self, f"{name}_prefactor_start") * fraction
            for name in _LEARNED
        )
        return energy, force, virial

    @property
    def learned(self) -> tuple[str, ...]:
        """Those of energy, force and virial that count in the loss at any time."""
        ends = zip(_LEARNED, self.prefactors(0.0), self.prefactors(1.0))
        return tuple(name for name, *weights in ends if max(weights) > 0)

    def shared_start(self) -> TrainConfig:
        """The options of the `shared_steps` before the run itself: constant learning rate."""
        return dataclasses.replace(
            self,
            steps=self.shared_steps,
            minutes=0.0,
            schedule="constant",
            decay_steps=1,
            learning_rate_stop=self.learning_rate,
            shared_steps=0,
            final_bias_frames=0,
        )

    @classmethod
    def paper(cls, **changes: Any) -> TrainConfig:
        """The protocol of the paper's section S9: 10^6 steps, batch of one frame, 2e-4 to 3e-8."""
        protocol = cls(
            steps=1_000_000,
            batch_atoms=1,
            optimizer="adam",
            schedule="exponential",
            warmup_steps=0,
            gradient_clip_relative=None,
            ema_decay=0.0,
            final_bias_frames=0,
            learning_rate=2e-4,
            learning_rate_stop=3e-8,
            decay_steps=5000,
        )
        return protocol.replace(**changes)

    def replace(self, **changes: Any) -> TrainConfig:
        """The same with some options changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainConfig):
    """How to fine-tune (paper, 4.5): the training options with gentler defaults, and where to start from."""

    steps: Annotated[int, "number of optimiser steps"] = 5000
    batch_atoms: Annotated[int, "a batch holds frames of one set with at most this many atoms"] = 64
    learning_rate: Annotated[float, "learning rate at the start"] = 2e-3
    warmup_steps: Annotated[int, "steps over which the learning rate rises (at most a fifth)"] = 100
    energy_prefactor_start: Annotated[float, "weight of the energy loss at the start"] = 1.0
    energy_prefactor_limit: Annotated[float, "weight of the energy loss as the learning rate reaches 0"] = (
        20.0
    )
    virial_prefactor_start: Annotated[float, "the same for the virial, of frames that have one"] = 1.0
    virial_prefactor_limit: Annotated[float, "weight of the virial loss as the learning rate reaches 0"] = 5.0
    validate_every: Annotated[int, "steps between validations"] = 500
    start_head: Annotated[str, "a head's name, 'best' (least zero-shot error) or 'fresh'"] = "best"
    zero_shot_frames: Annotated[int, "frames for the choice of head and the bias fit"] = 100
    freeze_layers: Annotated[int, "freeze repinit and this many repformer layers (0 = nothing)"] = 0
    lora_rank: Annotated[int, "rank of low-rank updates of the frozen descriptor (0 = off)"] = 0
    lora_scale: Annotated[float, "factor of the low-rank updates"] = 1.0
    allow_new_elements: Annotated[bool, "accept elements that no head has seen in training"] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "zero_shot_frames")
        at_least(self, 0, "freeze_layers", "lora_rank")
        check(
            not self.shared_steps,
            "shared_steps",
            self.shared_steps,
            "0 in fine-tuning, which has one new head",
        )
        refuse_idle(self, "in fine-tuning, which keeps the model's statistics", "statistics_frames")
        if not self.lora_rank:
            refuse_idle(self, "without lora_rank", "lora_scale")
        frozen = self.freeze_descriptor + (self.freeze_layers > 0) + (self.lora_rank > 0)
        check(
            frozen <= 1,
            "freeze_descriptor, freeze_layers, lora_rank",
            (self.freeze_descriptor, self.freeze_layers, self.lora_rank),
            "at most one of them",
        )


def require_config(config: object, kind: type[TrainConfig]) -> None:
    """Raise a ConfigError for options that are none of this kind, or that this kind of run would ignore."""
    if not isinstance(config, kind):
        raise ConfigError(f"config must be {kind.__name__}(...), not {type(config).__name__}")
    known = {f.name for f in dataclasses.fields(kind)}
    for option in dataclasses.fields(config):
        if option.name not in known and getattr(config, option.name) != option.default:
            raise ConfigError(
                f"{option.name} = {getattr(config, option.name)!r} is of finetune, not of this kind "
                f"of run; call finetune, or give {kind.__name__}(...)"
            )


DEFAULTS = TrainConfig()
FINETUNE_DEFAULTS = FinetuneConfig()
