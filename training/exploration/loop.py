"""Work in rounds in one folder: what a distillation and active learning do alike."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Generic, NoReturn, TypeVar

from ase import Atoms
from ase.calculators.calculator import Calculator
from tqdm import tqdm

from dpa2calc.dynamics.guards import check_stress
from dpa2calc.errors import ConfigError, TrainingError
from dpa2calc.files.figures import save_figure
from dpa2calc.files.identity import Part
from dpa2calc.files.options import refuse_idle
from dpa2calc.files.typed import to_dict
from dpa2calc.labels.errors import Errors
from dpa2calc.model.compression import why_no_kernels, why_not_compressible
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import checkpoint_info, load_checkpoint, save_checkpoint
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset, spread_frames
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.data.readers.frame_file import read_frames
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.runs.folder import remove_large_files, run_folder
from dpa2calc.training.runs.identity import FREE_OPTIONS

from .frames import LabelledFrames
from .options import LoopOptions, MDCondition
from .rounds import Round, RoundsResult, table
from .sampling import Walk, explore
from .state import JSON, RoundsState, plain
from .structures import (
    StartFrames,
    condition_structures,
    fit_to_start,
    plan_trajectories,
    start_structures,
)

logger = logging.getLogger(__name__)
TEST_FRAMES = 200  # of the test set are evaluated in each round; all of them at the end
Train = TypeVar("Train", bound=TrainConfig)
Loop = TypeVar("Loop", bound=LoopOptions)
Record = TypeVar("Record", bound=Round)
Found = TypeVar("Found", bound=RoundsResult)


class Rounds(Generic[Train, Loop, Record, Found]):
    """A folder with `explore/round-NN/` (a file a trajectory), `labelled/` and a model for each round.

    Each file appears whole; what exists is not made again.
    """

    what: ClassVar[str]
    mark: ClassVar[str]  # what the files of its models are marked with
    models: ClassVar[str]  # the folder of the rounds' models
    folders: ClassVar[tuple[str, ...]] = ()  # further ones
    record: type[Record]
    state: RoundsState[Record]
    labels: LabelledFrames

    def __init__(
        self,
        start_frames: StartFrames,
        conditions: tuple[MDCondition, ...],
        train: Train,
        config: Loop,
        output: PathLike,
        test: Dataset | None,
        progress: bool,
    ):
        if train.time_limit:
            raise ConfigError(
                f"train.time_limit = {train.time_limit:g} is not allowed in {self.what}; leave it out and "
                "stop with Ctrl-C at any time, the same command resumes"
            )
        held_out = ("early_stopping", "validate_every", "validation_frames")
        refuse_idle(train, "in rounds, which hold out no frames", *held_out, section="train.")
        self.train_config, self.config, self.conditions = train, config, conditions
        self.test, self.progress = test, progress
        self.output, self.device = Path(output), train.used_device
        self.start = start_structures(start_frames)
        self.structures = fit_to_start([condition_structures(c, self.start) for c in conditions])

    def state_of(
        self, origin: Mapping[str, tuple[JSON, Part]], **sets: Dataset | None
    ) -> RoundsState[Record]:
        """The folder's state; see `RoundsState`."""
        return RoundsState(
            self.output, self.what, self.record, origin, start=self.start, config=self.config,
            conditions=self.conditions, train=self.train_config, **sets,
        )  # fmt: skip

    @property
    def everything(self) -> list[Atoms]:
        """The start frames and the structures that the conditions name."""
        return [*self.start, *(a for pool in self.structures for a in pool)]

    @property
    def rounds(self) -> list[Record]:
        """Those that are done."""
        return self.state.rounds

    def say(self, text: str) -> None:
        """Between the progress bars on stderr; to the log where there are none."""
        if self.progress:
            tqdm.write(text, file=sys.stderr)
        else:
            logger.info(text)

    # --- the loop -------------------------------------------------------------------------------

    def run(self) -> Found:
        """Go through the rounds that are not done yet."""
        folders = ("labelled", self.models, "explore/round-*", *self.folders)
        with run_folder(self.output, mark=self.state.path.name, inside=folders):
            self.state.load()
            return self._run()

    def _run(self) -> Found:
        self.state.write("labelling", len(self.rounds))
        self.label_start()
        reason, why = self.stop_reason()
        while not reason:
            self._round(len(self.rounds) + 1)
            reason, why = self.stop_reason()
            left = self.config.max_rounds - len(self.rounds)
            if not reason:
                minutes = left * self.rounds[-1].seconds / 60
                self.say(f"at most {left} more rounds, {minutes:.0f} minutes at this pace")
        self.say(f"stopped: {reason}: {why}")
        result = self.finish(reason, why)
        result.save(self.output / "result.json")
        self.state.write("finished", len(self.rounds))
        return result

    def _round(self, number: int) -> None:
        started = time.monotonic()
        data = self.labels.dataset(number - 1)
        self.state.write("training", number)
        before = f"round-{number - 1:02d}" if number > 1 else None
        potential = self.trained(f"round-{number:02d}", before, data)
        self.state.write("exploring", number)
        record = self.look(number, potential, data)
        self.rounds.append(dataclasses.replace(record, seconds=time.monotonic() - started))
        self.state.write("round done", number)
        self.say("\n".join(table(self.rounds[-1:])))
        save_figure(self.output / "rounds.png", self.result("", "").plot, panels=3, size=(13, 3.8))

    def trained(self, name: str, before: str | None, data: Dataset, *, last: bool = False) -> Potential:
        """The model of this name, trained now unless that was done before.

        Args:
            last: with `final_steps`; done again where other options are asked for than it was made with.
        """
        path, folder = self.model_path(name), self.output / "train" / name
        if again := last and path.exists() and self._asked_otherwise(path):
            self.say(f"{name} was made with other options, and is trained again")
            remove_large_files(folder)  # which a kill may have left
        if again or not path.exists():
            options = self.train_config if before is None else self._later_training(last)
            made = self.train(folder, None if before is None else self.load(before), data, options)
            save_checkpoint(made.to("cpu"), path, extra_info={self.mark: self.state.provenance()})
            remove_large_files(folder)
        return self.load(name).to(self.device)

    def _asked_otherwise(self, path: Path) -> bool:
        """Whether a last training was made with other options than those of this call."""
        try:
            made = checkpoint_info(path).extra[self.mark]["options"]
        except (KeyError, TypeError):  # nothing is known of it
            return False
        asked = plain(self.state.options)
        names = ("final_steps", "later_learning_rate")
        own = [made["loop"].get(name) != asked["loop"][name] for name in names]
        before = {**plain(to_dict(self.state.train())), **made["train"]}  # younger options had their defaults
        free = FREE_OPTIONS - {"steps", "minutes", "keep"}
        return any(own) or any(before[k] != v for k, v in asked["train"].items() if k not in free)

    def label_start(self) -> None:
        """Labels of the start frames, into `labelled/`."""
        raise NotImplementedError

    def train(self, folder: Path, before: Potential | None, data: Dataset, options: Train) -> Potential:
        """Train the model of the round before, or the first one, in a folder."""
        raise NotImplementedError

    def look(self, number: int, potential: Potential, data: Dataset) -> Record:
        """Explore with what was trained on `data`, and keep in `labelled/` what the next round learns."""
        raise NotImplementedError

    def stop_reason(self) -> tuple[str, str]:
        """Whether the loop ends, and why in a sentence; "" to go on."""
        raise NotImplementedError

    def finish(self, reason: str, why: str) -> Found:
        """The last model with its card, and the result."""
        raise NotImplementedError

    def result(self, reason: str, why: str) -> Found:
        """What there is until now."""
        raise NotImplementedError

    # --- what rounds are made of ------------------------------------------------------------------

    def model_path(self, name: str) -> Path:
        """The model of a round."""
        return self.output / self.models / f"{name}.safetensors"

    def load(self, name: str) -> Potential:
        """The model of a round, whose head has the name that this call gives it."""
        potential = load_checkpoint(self.model_path(name))
        first, *others = potential.config.heads
        first = dataclasses.replace(first, name=self.labels.name)
        potential.config = potential.config.with_heads((first, *others))
        return potential

    def moving(self, potential: Potential) -> Calculator:
        """A trained model as a calculator for dynamics, from tables where it has them."""
        from dpa2calc.calculator import DPA2Calculator

        plain = why_no_kernels(self.device) or why_not_compressible(potential)
        return DPA2Calculator(potential, device=self.device, compress=None if plain else True)

    def check_driver(self, calculator: Calculator) -> None:
        """Raise a ConfigError where a calculator cannot move atoms under the conditions."""
        for condition in self.conditions:
            check_stress(calculator, condition.ensemble)

    def explore(self, number: int, drivers: Mapping[str, Calculator], teacher: Calculator) -> list[Walk]:
        """Run the trajectories of a round; see `sampling.explore`."""
        plan = plan_trajectories(number, self.conditions, self.structures, self.config)
        walks = explore(
            plan,
            self._explored(number),
            drivers=drivers,
            teacher=teacher,
            config=self.config,
            progress=self.progress,
        )
        for walk in walks:
            if walk.cut:
                self.say(f"{walk.label}: cut at {walk.cut}")
        return walks

    def _explored(self, number: int) -> Path:
        return self.output / "explore" / f"round-{number:02d}"

    def trajectories(self, number: int, n: int) -> list[list[Atoms]]:
        """The sampled frames of the first n trajectories of a round."""
        return [read_frames(self._explored(number) / f"{k:03d}.extxyz") for k in range(1, n + 1)]

    def nothing_sampled(self, number: int, walks: Sequence[Walk], other: str) -> NoReturn:
        """The error of a round without a frame; `other` is a further way out."""
        notes = "\n".join(f"{w.label}: {w.cut}" for w in walks[:5])
        shutil.rmtree(self._explored(number), ignore_errors=True)  # the next call may have other limits
        raise TrainingError(
            f"no trajectory of round {number} reached its first sample; give a smaller timestep or "
            f"sample_interval, a larger limit where one cut them, or {other}:\n{notes}"
        )

    def test_errors(self, potential: Potential, most: int | None = None) -> Errors | None:
        """On the caller's test set, or on a part of it."""
        if self.test is None:
            return None
        sample = self.test.subset(spread_frames(self.test, most or len(self.test)))
        return evaluate(potential, sample, device=self.device).errors

    def _later_training(self, last: bool) -> Train:
        """Training options of a round after the first, or of the last training."""
        train, config = self.train_config, self.config
        rate = config.later_learning_rate or train.learning_rate
        given = config.final_steps if last else config.later_steps
        steps = given or train.steps
        constant = train.schedule == "constant"
        return dataclasses.replace(
            train,
            steps=steps,
            minutes=0.0 if given else train.minutes,
            learning_rate=rate,
            learning_rate_stop=rate if constant else min(train.learning_rate_stop, rate),
            warmup_steps=min(train.warmup_steps, steps // 5),
        )
