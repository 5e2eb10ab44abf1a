"""The training loop: single- and multi-task, on one process or several, resumable to the bit."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from dpa2calc.ambient import own_modes
from dpa2calc.errors import ConfigError, TrainingError
from dpa2calc.files.atomic import atomic_path, writing
from dpa2calc.files.identity import Part
from dpa2calc.labels.errors import validation_score
from dpa2calc.model.potential import Potential
from dpa2calc.progress import progress_bar
from dpa2calc.store.checkpoint import save_checkpoint
from dpa2calc.training.config.train import FEWEST_TO_CHOOSE, TrainConfig
from dpa2calc.training.data.dataset import spread_frames
from dpa2calc.training.data.sets import TrainingData
from dpa2calc.training.energy_bias import refit_energy_biases
from dpa2calc.training.runs.identity import set_identities, start_part
from dpa2calc.training.runs.interrupt import Interrupt
from dpa2calc.training.runs.log import History, Interval, LogWriter, progress_line
from dpa2calc.training.runs.processes import ALONE, Processes
from dpa2calc.training.runs.result import LAST_FILE, TrainResult
from dpa2calc.training.uncertainty import leave_uncertainty

from .loader import Batch, Budget, GraphStore, make_batch
from .lora import merged
from .loss import LossTerms, energy_force_loss, own_loss
from .optimizers.optimizer import BatchClipper, Clipper, WeightAverage, make_optimizer
from .pace import Pace
from .predict import potential_errors
from .prefetch import Prefetcher
from .resume import STATE_FILE, load_state, require_room, save_state
from .sampler import Sampler, Task

logger = logging.getLogger(__name__)
MODEL_FILE = "model.safetensors"
# This process's batches of a step, the sampler's state after it.
Made = tuple[list[Batch], dict[str, list[int]]]


class Trainer:
    """One run in one output folder.

    Files: `log.jsonl`, `last.safetensors` and `best.safetensors` (potentials, averaged weights when there
    is an average), `state.safetensors` (to resume), and at the end `model.safetensors`: the best by
    validation, or the last. With fewer than ten validation frames the best are the last. The potential's
    statistics and biases must be set before the first run (`measure_environment`, `fit_energy_biases`); a
    resumed run takes all from its state. `trainable` names the weights to train (all when left out); `start`
    says what the weights are at the beginning (see `start_part`).
    """

    @own_modes()
    def __init__(
        self,
        potential: Potential,
        data: TrainingData,
        config: TrainConfig,
        *,
        output: str | Path,
        trainable: Collection[str] | None = None,
        start: Part | None = None,
        processes: Processes = ALONE,
        progress: bool = True,
    ):
        processes.require_batches(config.batches_per_step)
        self.device = config.used_device
        self.potential, self.data, self.config = potential.to(self.device), data, config
        self.potential.forget_uncertainty()
        self.output, self.processes, self.progress = Path(output), processes, progress
        budget = Budget(config.neighbor_cache_mb * 2**20)
        self.tasks = [
            Task(name, data.heads[name], GraphStore(s.train, potential.config, budget=budget), s.weight)
            for name, s in data.sets.items()
        ]
        self.validation = self._validation_stores(budget)
        held_out = sum(len(store) for _, store in self.validation.values())
        self.chooses = held_out >= FEWEST_TO_CHOOSE
        if config.early_stopping and not held_out:
            logger.warning("early_stopping = %d stops nothing: no frames are held out", config.early_stopping)
        self.sampler = Sampler(
            self.tasks,
            batch_atoms=config.batch_atoms,
            batches_per_step=config.batches_per_step,
            seed=config.seed,
        )
        self.usual = self.sampler.usual_labels()
        learnable = {n: p for n, p in self.potential.named_parameters() if p.requires_grad}
        self.named = {n: p for n, p in learnable.items() if trainable is None or n in trainable}
        self.parameters = list(self.named.values())
        self.frozen = [p for n, p in learnable.items() if n not in self.named]
        self.optimizer = make_optimizer(self.named, config, processes)
        self.average = WeightAverage(self.parameters, config.ema_decay)
        self.clipper = Clipper(config.gradient_clip, config.gradient_clip_relative)
        self.batch_clipper = BatchClipper(config.gradient_clip_batch)
        self.pace = Pace(config)
        self.step, self.since_best = 0, 0
        self.best_score: float | None = None
        self.kept = config.keep  # of the state that the run resumes from
        self.sampler_state = self.sampler.state()
        self.interrupt = Interrupt()
        self.identity = {"starting model": start or start_part(None), **set_identities(data)}

    def _validation_stores(self, budget: Budget) -> dict[str, tuple[str, GraphStore]]:
        """Name in the log -> (training set, store)."""
        stores: dict[str, tuple[str, GraphStore]] = {}
        for name, item in self.data.sets.items():
            for part, dataset in item.validation_sets().items():
                chosen = dataset.subset(spread_frames(dataset, self.config.validation_frames))
                store = GraphStore(chosen, self.potential.config, budget=budget)
                title = f"{name}/{part}" if part else name
                if title in stores:
                    raise ConfigError(f"two validation sets have the name {title!r}; rename one of them")
                stores[title] = (name, store)
        return stores

    # --- the loop -------------------------------------------------------------------------------

    @own_modes()
    def run(self) -> TrainResult:
        """Train to the last step, resuming from a state in the output folder if there is one.

        Raises:
            ConfigError, CheckpointError, DataError: what is in the folder is of another run, or damaged.
            OutputError: full disk, read-only folder.
            TrainingError: the loss is not finite; the batch is named and the last checkpoint kept.
            KeyboardInterrupt: Ctrl-C, after the state of the last whole step was written.
        """
        with writing(self.output):
            self.output.mkdir(parents=True, exist_ok=True)
        if (self.output / STATE_FILE).exists():
            load_state(self)
        self.pace.start()
        log = None
        if self.processes.first:
            require_room(self)
            log = LogWriter(
                self.output / "log.jsonl", resume_step=self.step, tensorboard=self.config.tensorboard
            )
        if self.step == 0:
            self._validate(log)
        coming = range(0) if self._stalled else self.pace.coming(self.step)
        batches: Prefetcher[Made] = Prefetcher(self._make_batches, coming, ahead=self.config.prefetch)
        shown, total = self.progress and self.processes.first, self.pace.steps
        bar = progress_bar(total=total, initial=self.step, unit="step", shown=shown, dynamic_ncols=True)
        with self.interrupt.caught(), self._in_training(), bar:
            stopped = self._loop(batches, log, bar)
        if stopped == "interrupt":
            raise KeyboardInterrupt
        return self._finish(finished=stopped != "time")

    @contextmanager
    def _in_training(self) -> Iterator[None]:
        """The potential may be differentiated twice, and with respect to the trained weights alone."""
        for p in self.frozen:
            p.requires_grad_(False)
        try:
            with self.potential.using("training"):
                yield
        finally:
            for p in self.frozen:
                p.requires_grad_(True)

    def _loop(self, batches: Prefetcher[Made], log: LogWriter | None, bar: tqdm[object]) -> str:
        """Steps until the end or a reason to stop: "", "interrupt", "time" or "early"."""
        c = self.config
        names = [task.name for task in self.tasks]
        interval, reason, first = Interval(names), "", self.step
        for step, (made, sampler_state) in batches:
            rate = self.pace.rate(step)
            interrupted, late = self._one_step(step, made, interval, rate)
            if step == first:
                self.pace.leave_out()
            self.step, self.sampler_state = step + 1, sampler_state
            bar.update(1)
            last = self.pace.complete(self.step)
            reason = "interrupt" if interrupted else "time" if late and not last else ""
            if self.step % c.log_every == 0 or last:
                record = interval.record(self.step, rate, batches.waited, self.processes)
                if log is not None:
                    log.write(record)
                bar.set_postfix_str(progress_line(record["sets"]))
                interval = Interval(names, waited_before=batches.waited)
            if last and c.final_bias_frames:
                with self.average.applied():
                    refit_energy_biases(
                        self.potential,
                        self.tasks,
                        frames=c.final_bias_frames,
                        seed=c.seed,
                        processes=self.processes,
                    )
            if self.validation and (self.step % c.validate_every == 0 or last):
                self._validate(log)
                if self._stalled:
                    reason = reason or "early"
            if last or reason == "early":
                self._leave_model()
            if self.step % c.checkpoint_every == 0 or last or reason:
                self.save_state()
            if reason or last:
                break
        return reason

    @property
    def _stalled(self) -> bool:
        """Whether early stopping ends the run here."""
        return 0 < self.config.early_stopping <= self.since_best

    def _make_batches(self, step: int) -> Made:
        batches = []
        for draw in self.sampler.draw(step)[self.processes.rank :: self.processes.size]:
            task = self.tasks[draw.task]
            batches.append(make_batch(task.store, draw.frames, head=task.head, task=draw.task))
        return batches, self.sampler.state()

    def _one_step(
        self, step: int, batches: list[Batch], interval: Interval, rate: float
    ) -> tuple[bool, bool]:
        """One optimiser step; returns whether any process was interrupted, or is out of time."""
        prefactors, out_of_time = self.pace.prefactors(step), self.pace.out_of_time
        self.optimizer.zero_grad()
        finite, logs = True, []
        for batch in batches:
            batch = batch.to(self.device)
            terms = self._loss(batch, prefactors)
            finite = finite and bool(terms.total.isfinite())
            if finite:
                share = terms.total / self.config.batches_per_step
                logs.append(self.batch_clipper.backward(share, self.parameters))
                counts = {"n_frames": len(batch.sources), "n_atoms": batch.graph.n_atoms}
                interval.add(batch.task, float(terms.total.detach()), terms.differences(), **counts)
        lengths = [value for value in logs if value is not None]
        own = [not finite, self.interrupt.seen, out_of_time, sum(lengths), len(lengths), self.pace.now]
        flags = torch.tensor(own, dtype=torch.float64)
        *sums, log_sum, number, seconds = self.processes.sum_gradients(self.parameters, flags).tolist()
        bad, interrupted, late = (value > 0 for value in sums)
        self.batch_clipper.update(log_sum / number if number else None)
        norm = self.clipper.apply(self.parameters)
        if bad or not math.isfinite(norm):
            raise self._not_finite("gradient" if finite else "loss", step, batches)
        interval.steps, interval.norm = interval.steps + 1, interval.norm + norm
        self.optimizer.step(rate)
        self.average.update(step)
        self.pace.seconds = seconds / self.processes.size  # one schedule for all processes
        return interrupted, late

    def _loss(self, batch: Batch, prefactors: tuple[float, float, float]) -> LossTerms:
        if self.potential.config.heads[batch.head].label:
            return own_loss(self.potential, batch)
        output = self.potential.compute(batch.graph, batch.head, create_graph=True)
        return energy_force_loss(
            output, batch, prefactors, huber_delta=self.config.huber_delta, usual=self.usual[batch.task]
        )

    def _not_finite(self, what: str, step: int, batches: list[Batch]) -> TrainingError:
        frames = "; ".join(source for batch in batches for source in batch.sources)
        return TrainingError(
            f"the {what} is not finite at step {step}; the batch was: {frames}. The last checkpoint is kept "
            f"in {self.output}. Look at these frames, lower learning_rate ({self.config.learning_rate}), "
            "or set gradient_clip_relative"
        )

    # --- validation and files -------------------------------------------------------------------

    def _validate(self, log: LogWriter | None) -> None:
        """Errors of the averaged weights on the validation sets; the best weights are kept."""
        if not self.validation:
            return
        with self.average.applied():
            errors = {
                name: potential_errors(
                    self.potential, store, head=self.data.heads[task], processes=self.processes
                )
                for name, (task, store) in self.validation.items()
            }
        weights = {name: self.data.sets[task].weight for name, (task, _) in self.validation.items()}
        score = validation_score(errors, weights, learned=(*self.config.learned, "value"))
        record = {name: e.to_dict() for name, e in errors.items()}
        if log is not None:
            log.write({"kind": "validation", "step": self.step, "score": score, "sets": record})
        if self.best_score is None or score < self.best_score:
            self.best_score, self.since_best = score, 0
            if self.chooses:
                self._save_potential("best.safetensors")
        else:
            self.since_best += 1

    def _save_potential(self, name: str) -> None:
        if self.processes.first:
            with self.average.applied():
                save_checkpoint(merged(self.potential), self.output / name, extra_info={"step": self.step})

    def save_state(self) -> None:
        """Write `last.safetensors` and `state.safetensors`."""
        if self.processes.first:
            self._save_potential(LAST_FILE)
            save_state(self)

    def _leave_model(self) -> None:
        """`model.safetensors`, and where nothing could be chosen `best.safetensors`, for what comes after."""
        if not self.processes.first:
            return
        if not self.chooses:
            self._save_potential("best.safetensors")
        best = self.output / "best.safetensors"
        if self.config.keep == "best" and best.exists():
            with atomic_path(self.output / MODEL_FILE) as temporary:
                shutil.copyfile(best, temporary)
        else:
            self._save_potential(MODEL_FILE)

    def _finish(self, *, finished: bool) -> TrainResult:
        with self.average.applied():
            final = {n: v.clone() for n, v in self.potential.state_dict().items()}
        # of the end of an earlier version's run, or of one that kept others
        if finished and (not (self.output / MODEL_FILE).exists() or self.kept != self.config.keep):
            self._leave_model()
            self.save_state()
        self.potential.load_state_dict(final)
        potential, history = merged(self.potential), History((), ())
        if finished and self.processes.first:
            path, seed = self.output / MODEL_FILE, self.config.seed
            leave_uncertainty(potential, path, self.data.sets, seed=seed, progress=self.progress)
        if self.processes.first:
            history = History.read(self.output / "log.jsonl")
        return TrainResult(potential, history, self.output, self.step, finished, self.best_score)
