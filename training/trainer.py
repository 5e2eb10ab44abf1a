"""The training loop: single- and multi-task, resumable to the bit."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.model.config import ModelConfig, to_dict
from dpa2calc.model.potential import Potential

from .config import TrainConfig
from .dataset import Dataset
from .evaluate import Errors, potential_errors
from .history import History, LogWriter
from .loader import Batch, GraphStore, make_batch
from .loss import LossTerms, energy_force_loss
from .optimizer import Clipper, WeightAverage, make_optimizer
from .prefetch import Prefetcher
from .sampler import Sampler, Task
from .state import STATE_VERSION, load_optimizer_tensors, optimizer_tensors, read_tensors, write_tensors
from .statistics import (
    check_type_map,
    energy_bias,
    set_energy_bias,
    set_environment_statistics,
    statistics_frames,
)
from .weights import save_potential

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeadData:
    """The data of one head: training set, validation set, and sampling weight."""

    train: Dataset
    validation: Dataset | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves: the potential with the weights to use, the log, and the files' folder."""

    potential: Potential
    history: History
    output: Path
    steps: int
    best_score: float | None


def new_potential(config: ModelConfig, *, seed: int, dtype: str = "float32") -> Potential:
    """A potential with random weights of a seed; the global random state is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Potential(config, dtype=getattr(torch, dtype))


def initialise_statistics(potential: Potential, data: Mapping[str, HeadData], config: TrainConfig) -> None:
    """Measure environment statistics over all heads' data and fit each head's energy bias."""
    pairs = []
    for item in data.values():
        store = GraphStore(item.train, potential.config, budget=0)
        chosen = statistics_frames(item.train, config.statistics_frames, seed=config.seed)
        pairs += [(store, index, item.weight / len(chosen)) for index in chosen]
    set_environment_statistics(potential, ((store.graph(i), w) for store, i, w in pairs))
    for name, item in data.items():
        bias, _ = energy_bias(item.train, potential.config.type_map)
        set_energy_bias(potential, potential.head_index(name), bias)


class Trainer:
    """One run in one output folder.

    Files: `log.jsonl`, `last.safetensors` and `best.safetensors` (potentials, averaged weights when there
    is an average), `state.safetensors` (to go on), `run.json` (the options).
    """

    def __init__(
        self,
        potential: Potential,
        data: Mapping[str, HeadData],
        config: TrainConfig,
        *,
        output: str | Path,
        progress: bool = True,
    ):
        self.potential, self.data, self.config = potential.to(config.device), dict(data), config
        self.output, self.progress = Path(output), progress
        self._check_data()
        budget = config.neighbor_cache_mb * 2**20 // max(len(self.data), 1)
        self.tasks = [
            Task(name, potential.head_index(name), GraphStore(d.train, potential.config, budget=budget), d.weight)
            for name, d in self.data.items()
        ]
        self.validation = self._validation_stores()
        self.sampler = Sampler(
            self.tasks, batch_atoms=config.batch_atoms, batches_per_step=config.batches_per_step, seed=config.seed
        )
        self.named = {n: p for n, p in self.potential.named_parameters() if p.requires_grad}
        self.parameters = list(self.named.values())
        self.optimizer = make_optimizer(self.parameters, config)
        self.average = WeightAverage(self.parameters, config.ema_decay)
        self.clipper = Clipper(config.gradient_clip, config.gradient_clip_relative)
        self.schedule, self.prefactors = config.make_schedule(), config.make_prefactors()
        self.step = 0
        self.best_score: float | None = None
        self.since_best = 0
        self.seconds = 0.0
        self._sampler_state = self.sampler.state()
        self._interrupted = False

    def _check_data(self) -> None:
        names = [h.name for h in self.potential.config.heads]
        for name, item in self.data.items():
            if name not in names:
                raise ConfigError(f"no head {name!r} in the model; its heads are {', '.join(names)}")
            if len(item.train) == 0:
                raise DataError(f"head {name!r} has no training frames")
            for part in (item.train, item.validation):
                if part is not None:
                    check_type_map(part, self.potential.config)

    def _validation_stores(self) -> dict[str, tuple[int, GraphStore]]:
        stores = {}
        for name, item in self.data.items():
            if item.validation is not None and len(item.validation):
                chosen = statistics_frames(item.validation, self.config.validation_frames)
                store = GraphStore(item.validation.subset(chosen), self.potential.config)
                stores[name] = (self.potential.head_index(name), store)
        return stores

    # --- the loop -------------------------------------------------------------------------------

    def run(self) -> TrainResult:
        """Train to the last step, going on from a state in the output folder if there is one.

        Raises:
            TrainingError: the loss is not finite; the batch is named and the last checkpoint kept.
            KeyboardInterrupt: Ctrl-C, after a checkpoint of the last whole step was written.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        if (self.output / "state.safetensors").exists():
            self.load_state()
        log = LogWriter(self.output / "log.jsonl", resume_step=self.step)
        batches = Prefetcher(self._make_batches, range(self.step, self.config.steps), ahead=self.config.prefetch)
        bar = tqdm(total=self.config.steps, initial=self.step, unit="step", disable=not self.progress)
        interval = _Interval()
        stopped = False
        with self._catch_interrupt(), bar:
            for step, (made, sampler_state) in batches:
                started = time.perf_counter()
                self._one_step(step, made, interval)
                self.step, self._sampler_state = step + 1, sampler_state
                self.seconds += time.perf_counter() - started
                bar.update(1)
                last = self.step == self.config.steps
                if self.step % self.config.log_every == 0 or last:
                    record = interval.record(self.step, self.schedule.learning_rate(step), batches.waited)
                    log.write(record)
                    bar.set_postfix_str(_line(record["heads"]))
                    interval = _Interval(waited_before=batches.waited)
                if self.validation and (self.step % self.config.validate_every == 0 or last):
                    stopped = self._validate(log)
                if self.step % self.config.checkpoint_every == 0 or last or stopped or self._interrupted:
                    self.save_state()
                if self._interrupted:
                    raise KeyboardInterrupt
                if stopped:
                    logger.info("no better validation for %d times; stopped", self.config.early_stopping)
                    break
        return self._finish()

    def _make_batches(self, step: int) -> tuple[list[Batch], dict[str, list[int]]]:
        batches = [
            make_batch(self.tasks[d.task].store, d.frames, self.tasks[d.task].head)
            for d in self.sampler.draw(step)
        ]
        return batches, self.sampler.state()

    def _one_step(self, step: int, batches: list[Batch], interval: _Interval) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate(step)
        prefactors = self.prefactors.at(self.schedule.fraction(step))
        self.optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            batch = batch.to(self.config.device)
            output = self.potential.compute(batch.graph, batch.head, create_graph=True)
            terms = energy_force_loss(output, batch, prefactors, huber_delta=self.config.huber_delta)
            if not bool(terms.total.isfinite()):
                raise self._not_finite("loss", step, batches)
            (terms.total / len(batches)).backward()
            interval.add(self.potential.config.heads[batch.head].name, terms)
        norm = self.clipper.apply(self.parameters)
        if not math.isfinite(norm):
            raise self._not_finite("gradient", step, batches)
        self.optimizer.step()
        self.average.update(step)

    def _not_finite(self, what: str, step: int, batches: list[Batch]) -> TrainingError:
        frames = "; ".join(source for batch in batches for source in batch.sources)
        return TrainingError(
            f"the {what} is not finite at step {step}; the batch was: {frames}. The checkpoint of the last "
            f"interval is kept in {self.output}. Look at these frames, or lower learning_rate ("
            f"{self.config.learning_rate}) or set gradient_clip_relative"
        )

    # --- validation and files -------------------------------------------------------------------

    def validate(self) -> dict[str, Errors]:
        """Errors of the averaged weights on the validation sets, by head."""
        with self.average.applied():
            return {
                name: potential_errors(self.potential, store, head=head, device=self.config.device)
                for name, (head, store) in self.validation.items()
            }

    def _validate(self, log: LogWriter) -> bool:
        errors = self.validate()
        score = validation_score(errors, {name: d.weight for name, d in self.data.items()})
        record = {name: e.to_dict() for name, e in errors.items()}
        log.write({"kind": "validation", "step": self.step, "score": score, "heads": record})
        if self.best_score is None or score < self.best_score:
            self.best_score, self.since_best = score, 0
            self._save_potential("best.safetensors", validation=record)
        else:
            self.since_best += 1
        return 0 < self.config.early_stopping <= self.since_best

    def _save_potential(self, name: str, **extra: Any) -> None:
        with self.average.applied():
            save_potential(self.potential, self.output / name, step=self.step, **extra)

    def save_state(self) -> None:
        """Write `last.safetensors` and `state.safetensors`."""
        tensors = {f"model.{n}": v for n, v in self.potential.state_dict().items()}
        tensors |= {f"average.{n}": v for n, v in zip(self.named, self.average.average)}
        tensors |= optimizer_tensors(self.optimizer, {id(p): n for n, p in self.named.items()})
        header = {
            "version": STATE_VERSION,
            "step": self.step,
            "sampler": self._sampler_state,
            "best_score": self.best_score,
            "since_best": self.since_best,
            "mean_norm": self.clipper.mean_norm,
            "seconds": self.seconds,
            "train_config": to_dict(self.config),
        }
        self._save_potential("last.safetensors")
        write_tensors(self.output / "state.safetensors", tensors, header)

    def load_state(self) -> None:
        """Go on from `state.safetensors` in the output folder."""
        tensors, header = read_tensors(self.output / "state.safetensors")
        model = {n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")}
        self.potential.load_state_dict(model)
        for name, average in zip(self.named, self.average.average):
            average.copy_(tensors[f"average.{name}"])
        load_optimizer_tensors(self.optimizer, self.named, tensors)
        self.sampler.load_state(header["sampler"])
        self._sampler_state = header["sampler"]
        self.step, self.best_score = header["step"], header["best_score"]
        self.since_best, self.seconds = header["since_best"], header["seconds"]
        self.clipper.mean_norm = header["mean_norm"]
        logger.info("going on at step %d of %s", self.step, self.output)

    def _finish(self) -> TrainResult:
        with self.average.applied():
            final = {n: v.clone() for n, v in self.potential.state_dict().items()}
        self.potential.load_state_dict(final)
        history = History.read(self.output / "log.jsonl")
        return TrainResult(self.potential, history, self.output, self.step, self.best_score)

    @contextmanager
    def _catch_interrupt(self) -> Iterator[None]:
        """Ctrl-C finishes the running step first; a second one stops at once."""

        def handle(signum: int, frame: Any) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        try:
            previous = signal.signal(signal.SIGINT, handle)
        except ValueError:  # not the main thread: Ctrl-C does not arrive here
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)


class TrainingError(DataError):
    """Training cannot go on; the message names the batch."""


class _Interval:
    """Errors by head over the steps since the last record."""

    def __init__(self, *, waited_before: float = 0.0):
        self.squares: dict[str, dict[str, list[torch.Tensor]]] = defaultdict(lambda: defaultdict(list))
        self.started, self.waited_before = time.perf_counter(), waited_before

    def add(self, head: str, terms: LossTerms) -> None:
        for name in ("total", "energy_mse", "force_mse", "virial_mse"):
            self.squares[head][name].append(getattr(terms, name).detach())

    def record(self, step: int, learning_rate: float, waited: float) -> dict[str, Any]:
        heads: dict[str, dict[str, float | None]] = {}
        n_steps = 0
        for head, values in self.squares.items():
            means = {name: float(torch.stack(v).nanmean()) for name, v in values.items()}
            n_steps += len(values["total"])
            heads[head] = {"batches": len(values["total"]), "loss": means["total"]}
            for name in ("energy", "force", "virial"):
                mse = means[f"{name}_mse"]
                heads[head][f"{name}_rmse"] = 1e3 * math.sqrt(mse) if math.isfinite(mse) else None
        seconds = time.perf_counter() - self.started
        return {
            "kind": "train",
            "step": step,
            "learning_rate": learning_rate,
            "batches_per_second": n_steps / seconds,
            "waiting": (waited - self.waited_before) / seconds,
            "heads": heads,
        }


def _line(heads: dict[str, dict[str, Any]]) -> str:
    def show(name: str) -> str:
        values = [h[name] for h in heads.values() if h[name] is not None]
        return f"{sum(values) / len(values):.1f}" if values else "-"

    return f"E {show('energy_rmse')} meV/atom, F {show('force_rmse')} meV/Å"


def validation_score(errors: Mapping[str, Errors], weights: Mapping[str, float]) -> float:
    """Weighted geometric mean over heads of sqrt(energy RMSE * force RMSE): no unit has to be chosen."""
    total = weight_sum = 0.0
    for name, e in errors.items():
        values = [v for v in (e.energy_rmse, e.force_rmse) if v is not None]
        if not values:
            continue
        if not all(math.isfinite(v) for v in values):
            return math.inf
        total += weights[name] * sum(math.log(max(v, 1e-9)) for v in values) / len(values)
        weight_sum += weights[name]
    return math.exp(total / weight_sum) if weight_sum else math.inf
