"""The concurrent loop of a distillation (paper, 2.5 and 4.6) in its folder; `distill` is its front door."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from dpa2calc.files.figures import save_figure
from dpa2calc.labels.errors import Errors
from dpa2calc.model.compression import why_not_compressible
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import save_checkpoint
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.energy_bias import shift_energy_bias
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.exploration.frames import LabelledFrames
from dpa2calc.training.exploration.loop import TEST_FRAMES, Rounds
from dpa2calc.training.exploration.options import MDCondition
from dpa2calc.training.exploration.sampling import Walk
from dpa2calc.training.exploration.structures import StartFrames, perturbed
from dpa2calc.training.fit.run import train_in
from dpa2calc.training.runs.folder import remove_large_files, run_folder

from .config import DistillConfig
from .labels import label_start
from .result import DistillResult
from .selection import (
    HEADER,
    QUANTILES,
    DistillRound,
    choose_frames,
    force_deviations,
    stop_reason,
    table_row,
)
from .setup import Student, check_test_elements, config_of, student_model
from .state import DistillState


class Distillation(Rounds[TrainConfig, DistillConfig]):
    """One distillation in one folder.

    Files: `state.json` (options, phase, finished rounds), `labelled/` (start.extxyz, round-NN.extxyz),
    `explore/round-NN/` (a file a trajectory, all with the teacher's labels), `train/round-NN/`,
    `students/round-NN.safetensors`, `rounds.png`, and at the end `student.safetensors`, `result.json`.
    Each file appears whole; what exists is not made again.
    """

    what = "a distillation"
    models = "students"

    def __init__(
        self,
        teacher: Calculator,
        start_frames: StartFrames,
        student: Student,
        conditions: tuple[MDCondition, ...],
        train: TrainConfig,
        config: DistillConfig,
        output: PathLike,
        test: Dataset | None,
        progress: bool,
    ):
        super().__init__(start_frames, conditions, train, config, output, test, progress)
        self.teacher = teacher
        self.student = student_model(student, self.everything, teacher, config)
        self.head = config_of(self.student).heads[0].name
        check_test_elements(test, self.student)
        self.state = DistillState(
            self.output,
            teacher=teacher,
            student=self.student,
            start=self.start,
            config=config,
            conditions=conditions,
            train=train,
            test=test,
        )
        self.rounds: list[DistillRound] = []
        self.labels = LabelledFrames(self.output / "labelled", self.head)

    # --- the loop -------------------------------------------------------------------------------

    def run(self) -> DistillResult:
        """Go through the rounds that are not done yet."""
        with run_folder(self.output, inside=("labelled", "students", "explore/round-*")):
            return self._run()

    def _run(self) -> DistillResult:
        self.state.load()
        self.rounds = self.state.rounds
        structures = perturbed(self.start, self.config)
        self.state.write("labelling", len(self.rounds))
        start = self.labels.files(0)[0]
        label_start(start, structures, self.teacher, self.config, progress=self.progress)
        reason, why = stop_reason(self.rounds, self.config)
        while not reason:
            self._round(len(self.rounds) + 1)
            reason, why = stop_reason(self.rounds, self.config)
            left = self.config.max_rounds - len(self.rounds)
            if not reason:
                minutes = left * self.rounds[-1].seconds / 60
                self.say(f"at most {left} more rounds, {minutes:.0f} minutes at this pace")
        self.say(f"stopped: {reason}: {why}")
        return self._finish(reason, why)

    def _round(self, number: int) -> None:
        started = time.monotonic()
        data = self.labels.dataset(number - 1)
        self.state.write("training", number)
        before = self.load(f"round-{number - 1:02d}") if number > 1 else None
        potential = self._trained(f"round-{number:02d}", before, data)
        self.state.write("exploring", number)
        walks = self._explore(number, potential)
        self.state.write("comparing", number)
        record = self._compare(number, potential, walks, len(data))
        record = dataclasses.replace(record, seconds=time.monotonic() - started)
        self.rounds.append(record)
        self.state.write("round done", number)
        self.say(f"{HEADER}\n{table_row(record)}")
        drawn = self._result("", "", self.output, [])
        save_figure(self.output / "rounds.png", drawn.plot, panels=3, size=(13, 3.8))

    # --- training -------------------------------------------------------------------------------

    def _trained(self, name: str, before: Potential | None, data: Dataset, *, steps: int = 0) -> Potential:
        """The student of this name, trained now unless that was done before."""
        path = self.model_path(name)
        if not path.exists():
            folder, options = self.output / "train" / name, self.train_config
            result = train_in(
                folder,
                self.student if before is None else before,
                {self.head: data},
                options if before is None else self.later_training(steps=steps),
                progress=self.progress,
                adapt=lambda fresh: shift_energy_bias(fresh, data),
            )
            save_checkpoint(
                result.potential.to("cpu"), path, extra_info={"distilled": self.state.provenance()}
            )
            remove_large_files(folder)
        return self.load(name).to(self.device)

    # --- exploration ----------------------------------------------------------------------------

    def _explore(self, number: int, potential: Potential) -> list[Walk]:
        drivers: dict[str, Calculator] = {"teacher": self.teacher}
        if "student" in self.config.drivers:
            drivers["student"] = self.moving(potential)
        return self.explore(number, drivers, self.teacher)

    def _sampled(self, number: int, trajectories: int) -> list[Atoms]:
        return [atoms for walk in self.trajectories(number, trajectories) for atoms in walk]

    def _compare(self, number: int, potential: Potential, walks: list[Walk], trained_on: int) -> DistillRound:
        """Deviations on the sampled frames; those to learn from go to `labelled/`."""
        frames = self._sampled(number, len(walks))
        if not frames:
            self.nothing_sampled(number, walks, "explore with the teacher")
        data = Dataset.from_atoms(frames, name=f"round {number}")
        config = self.config
        errors, deviations = force_deviations(data, potential, device=self.device)
        chosen = choose_frames(data, deviations, potential, config)
        self.labels.add(number, [frames[i] for i in chosen])
        over = (deviations > config.threshold) & (deviations <= config.upper_bound)
        return DistillRound(
            number=number,
            threshold=config.threshold,
            trained_on=trained_on,
            trajectories=len(walks),
            cut=sum(bool(w.cut) for w in walks),
            explored=len(frames),
            errors=errors,
            deviations=tuple(np.quantile(deviations, QUANTILES, method="higher").tolist()),
            accurate=int((deviations <= config.threshold).sum()),
            over=int(over.sum()),
            exploded=int((deviations > config.upper_bound).sum()),
            added=len(chosen),
            test=self.test_errors(potential, TEST_FRAMES),
            notes=tuple(f"{w.label}: {w.cut}" for w in walks if w.cut),
        )

    # --- the end --------------------------------------------------------------------------------

    def _finish(self, reason: str, why: str) -> DistillResult:
        """A last training if it is asked for, the student with its card, and the result's files."""
        number = len(self.rounds)
        name, final = f"round-{number:02d}", None
        files = self.labels.files(number - 1)
        if self.config.final_steps:
            name, files = f"final-{number:02d}", self.labels.files(number)
            self.state.write("last training", number)
            data, before = self.labels.dataset(number), self.load(f"round-{number:02d}")
            potential = self._trained(name, before, data, steps=self.config.final_steps)
            final = self._final_errors(number, potential)
        potential = self.load(name).to(self.device)
        test = self.test_errors(potential)
        student = self._save_student(potential.to("cpu"), final, test)
        result = self._result(reason, why, student, files, final, test)
        result.save(self.output / "result.json")
        self.state.write("finished", number)
        return result

    def _final_errors(self, number: int, potential: Potential) -> Errors | None:
        """Errors on the last round's frames that were not added."""
        added = {a.positions.tobytes() for a in self.labels.added(number)}
        explored = self._sampled(number, self.rounds[-1].trajectories)
        unseen = [a for a in explored if a.positions.tobytes() not in added]
        if not unseen:
            return None
        return evaluate(potential, Dataset.from_atoms(unseen), device=self.device).errors

    def _save_student(self, potential: Potential, final: Errors | None, test: Errors | None) -> Path:
        head = potential.config.heads[0]
        learned = len(self.rounds) - (0 if self.config.final_steps else 1)
        frames = len(self.labels.dataset(learned))
        card = self.state.card(final, frames=frames, seed=self.config.seed)
        if test is not None:
            card["test_errors"] = test.to_dict()
        head = dataclasses.replace(head, info={**head.info, **card})
        potential.config = potential.config.with_heads((head,))
        potential.prefers_compression = why_not_compressible(potential) is None  # opens with tables
        path = self.output / "student.safetensors"
        return save_checkpoint(potential, path, extra_info={"distilled": self.state.provenance()})

    def _result(
        self,
        reason: str,
        why: str,
        student: Path,
        files: list[Path],
        final: Errors | None = None,
        test: Errors | None = None,
    ) -> DistillResult:
        return DistillResult(
            rounds=tuple(self.rounds),
            reason=reason,
            why=why,
            student=student,
            output=self.output,
            labelled=tuple(files),
            threshold=self.config.threshold,
            final=final,
            test=test,
            provenance=self.state.provenance(),
        )
