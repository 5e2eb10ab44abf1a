"""The concurrent loop of a distillation (paper, 2.5 and 4.6) in its folder; `distill` is its front door."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from dpa2calc.files.identity import calculator_identity
from dpa2calc.files.typed import to_json
from dpa2calc.labels.errors import Errors
from dpa2calc.model.compression import why_not_compressible
from dpa2calc.model.config import to_dict
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import save_checkpoint
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.energy_bias import refit_energy_biases, shift_energy_bias
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.exploration.frames import LabelledFrames
from dpa2calc.training.exploration.loop import TEST_FRAMES, Rounds
from dpa2calc.training.exploration.options import MDCondition
from dpa2calc.training.exploration.rounds import QUANTILES
from dpa2calc.training.exploration.sampling import Walk
from dpa2calc.training.exploration.structures import StartFrames, perturbed
from dpa2calc.training.fit.loader import GraphStore
from dpa2calc.training.fit.run import train_in
from dpa2calc.training.fit.sampler import Task
from dpa2calc.training.runs.identity import model_part, start_part

from .config import DistillConfig
from .labels import check_teacher, label_start
from .result import DistillResult
from .selection import DistillRound, choose_frames, force_deviations, stop_reason
from .setup import Student, check_test_elements, config_of, student_model, teacher_card


class Distillation(Rounds[TrainConfig, DistillConfig, DistillRound, DistillResult]):
    """One distillation in one folder.

    Files: `state.json` (options, phase, finished rounds), `labelled/` (start.extxyz, round-NN.extxyz),
    `explore/round-NN/` (a file a trajectory, all with the teacher's labels), `train/round-NN/`,
    `students/round-NN.safetensors`, `rounds.png`, and at the end `student.safetensors`, `result.json`.
    Each file appears whole; what exists is not made again.
    """

    what = "a distillation"
    mark = "distilled"
    models = "students"

    record = DistillRound

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
        if "teacher" in config.drivers:
            self.check_driver(teacher)
        self.student = student_model(student, self.everything, teacher, config)
        self.head = config_of(self.student).heads[0].name
        check_test_elements(test, self.student)
        model = config_of(self.student)
        words = {**to_dict(model), "heads": to_dict(model.heads[0].fitting)}
        begun = self.student if isinstance(self.student, Potential) else None
        own = {**model_part(model), **start_part(begun)}
        del own["heads"]  # its head may get another name
        origin = {"teacher": (teacher_card(teacher), calculator_identity(teacher)), "student": (words, own)}
        self.state = self.state_of(origin, test=test)
        self.labels = LabelledFrames(self.output / "labelled", self.head)

    def label_start(self) -> None:
        """By the teacher, perturbed copies too."""
        structures = perturbed(self.start, self.config)
        start = self.labels.files(0)[0]
        label_start(start, structures, self.teacher, self.config, progress=self.progress)
        if not self.rounds:
            check_teacher(self.teacher, self.start, self.everything)

    def stop_reason(self) -> tuple[str, str]:
        """See `selection.stop_reason`."""
        return stop_reason(self.rounds, self.config)

    def train(self, folder: Path, before: Potential | None, data: Dataset, options: TrainConfig) -> Potential:
        """Train the student; its energies are shifted to the labels first."""
        return train_in(
            folder,
            self.student if before is None else before,
            {self.head: data},
            options,
            progress=self.progress,
            adapt=lambda fresh: shift_energy_bias(fresh, data),
        ).potential

    def look(self, number: int, potential: Potential, data: Dataset) -> DistillRound:
        """Student against teacher along new trajectories; those to learn from go to `labelled/`."""
        drivers: dict[str, Calculator] = {"teacher": self.teacher}
        if "student" in self.config.drivers:
            drivers["student"] = self.moving(potential)
        walks = self.explore(number, drivers, self.teacher)
        self.state.write("comparing", number)
        return self._compare(number, potential, walks, len(data))

    def _sampled(self, number: int, trajectories: int) -> list[Atoms]:
        return [atoms for walk in self.trajectories(number, trajectories) for atoms in walk]

    def _compare(self, number: int, potential: Potential, walks: list[Walk], trained_on: int) -> DistillRound:
        """Deviations on the sampled frames; those to learn from go to `labelled/`."""
        frames = self._sampled(number, len(walks))
        if not frames:
            student = "student" in self.config.drivers
            self.nothing_sampled(
                number, walks, "explore with the teacher" if student else "start from other structures"
            )
        data = Dataset.from_atoms(frames, name=f"round {number}")
        config = self.config
        errors, deviations = force_deviations(data, potential, device=self.device)
        chosen = choose_frames(data, deviations, potential, config)
        self.labels.add(number, [frames[i] for i in chosen])
        over = (deviations > config.threshold) & (deviations <= config.upper_bound)
        return DistillRound(
            number=number,
            threshold=config.threshold,
            upper_bound=config.upper_bound,
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

    def finish(self, reason: str, why: str) -> DistillResult:
        """A last training if it is asked for, and the student with its card."""
        number = len(self.rounds)
        name, learned, final = f"round-{number:02d}", number - 1, None
        if self.config.final_steps:
            before, name, learned = name, f"final-{number:02d}", number
            self.state.write("last training", number)
            self.trained(name, before, self.labels.dataset(number), last=True)
        potential, data = self.load(name).to(self.device), self.labels.dataset(learned)
        self._set_level(potential, data)
        if self.config.final_steps:
            final = self._final_errors(number, potential)
        test = self.test_errors(potential)
        self._save_student(potential.to("cpu"), final, test, frames=len(data))
        files = tuple(self.labels.files(learned))
        return dataclasses.replace(self.result(reason, why), labelled=files, final=final, test=test)

    def _set_level(self, potential: Potential, data: Dataset) -> None:
        """Fit the elements' energies to the frames that the student has not chosen, where both drove.

        Its own dynamics go where its energy is too low: these frames would move the level of all others.
        """
        frames, own = self.train_config.final_bias_frames, "student "
        if self.config.explore_with == "both" and frames:
            others = data.subset([i for i, frame in enumerate(data) if not frame.group.startswith(own)])
            task = Task(others.name, 0, GraphStore(others, potential.config))
            refit_energy_biases(potential, [task], frames=frames, seed=self.train_config.seed)

    def _final_errors(self, number: int, potential: Potential) -> Errors | None:
        """Errors on the last round's frames that were not added."""
        added = {a.positions.tobytes() for a in self.labels.added(number)}
        explored = self._sampled(number, self.rounds[-1].trajectories)
        unseen = [a for a in explored if a.positions.tobytes() not in added]
        if not unseen:
            return None
        return evaluate(potential, Dataset.from_atoms(unseen), device=self.device).errors

    def _save_student(
        self, potential: Potential, final: Errors | None, test: Errors | None, *, frames: int
    ) -> None:
        head, provenance = potential.config.heads[0], self.state.provenance()
        errors = final or self.rounds[-1].errors
        card: dict[str, object] = {
            "distilled_from": provenance["teacher"],
            "distillation": {
                "rounds": len(self.rounds),
                "frames": frames,
                "errors_against_teacher": errors.to_dict(),
                "seed": self.config.seed,
                "versions": provenance["versions"],
            },
        }
        if test is not None:
            card["test_errors"] = test.to_dict()
        asked = config_of(self.student).heads[0]
        head = dataclasses.replace(
            head,
            functional=asked.functional,
            description=asked.description,
            info={**head.info, **to_json(card)},
        )
        potential.config = potential.config.with_heads((head,))
        potential.prefers_compression = why_not_compressible(potential) is None  # opens with tables
        save_checkpoint(potential, self._student, extra_info={self.mark: provenance})

    @property
    def _student(self) -> Path:
        return self.output / "student.safetensors"

    def result(self, reason: str, why: str) -> DistillResult:
        """What there is until now."""
        return DistillResult(
            rounds=tuple(self.rounds),
            reason=reason,
            why=why,
            student=self._student,
            output=self.output,
            labelled=(),
            threshold=self.config.threshold,
            provenance=self.state.provenance(),
        )
