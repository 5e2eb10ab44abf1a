"""What a distillation file (TOML) says: teacher, start frames, student, dynamics, training, the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ase.calculators.calculator import Calculator

from dpa2calc.errors import ConfigError
from dpa2calc.model.config import ModelConfig
from dpa2calc.model.config.presets import preset
from dpa2calc.training.config.model import with_changes
from dpa2calc.training.config.sections import ModelSection, none_beside
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.exploration.file import LoopFile, any_calculator, model_beside

from .config import DistillConfig


@dataclass(frozen=True, kw_only=True)
class TeacherSection:
    """Who labels: `[teacher]`; a model of this package, or any ASE calculator by its class."""

    model: Annotated[str, "'default', a published name, or a checkpoint file"] = "default"
    head: Annotated[str, "its head; may be left out where there is one"] = ""
    device: Annotated[str, "cpu, cuda, cuda:1; chosen by itself if not given"] = ""
    dtype: Annotated[str, "float32 or float64"] = "float32"
    dispersion: Annotated[str, "d3bj or d3bj:FUNCTIONAL"] = ""
    committee: Annotated[tuple[str, ...], "further models; their mean labels"] = ()
    allow_unseen_elements: Annotated[bool, "label elements that the head never saw"] = False
    calculator: Annotated[str, "instead: an ASE calculator, such as ase.calculators.emt.EMT"] = ""
    arguments: Annotated[dict[str, object], "of that calculator"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.calculator:
            own = ("model", "head", "device", "dtype", "dispersion", "committee", "allow_unseen_elements")
            none_beside(self, "teacher", "calculator", *own)
        else:
            none_beside(self, "teacher", "model", "arguments")


@dataclass(frozen=True, kw_only=True)
class StudentSection(ModelSection):
    """The model to train: `[student]`; changes to descriptor and fitting as in `[model]` of `train`."""

    preset: Annotated[str, "dpa1-l0, deeppot-se, or another preset"] = "dpa1-l0"
    checkpoint: Annotated[str, "start from this student instead"] = ""

    def __post_init__(self) -> None:
        if self.start:
            raise ConfigError(f"student.start = {self.start!r} is not allowed; allowed: student.checkpoint")
        if self.checkpoint:
            none_beside(self, "student", "checkpoint", "preset", "type_map", "descriptor", "fitting")


class DistillFile(LoopFile[TrainConfig, DistillConfig]):
    """A distillation's file."""

    what = "the distillation's files"
    sections = ("teacher", "student")
    loop, training = DistillConfig, TrainConfig

    def __init__(
        self, path: PathLike, *, changes: Mapping[str, object] | None = None, output: str | None = None
    ):
        super().__init__(path, changes=changes, output=output)
        teacher = self.section(TeacherSection, "teacher")
        committee = tuple(model_beside(named, self.root) for named in teacher.committee)
        model = model_beside(teacher.model, self.root)
        self.teacher = dataclasses.replace(teacher, model=model, committee=committee)
        self.student = self.section(StudentSection, "student")


def build_student(file: DistillFile, elements: tuple[str, ...]) -> ModelConfig | Path:
    """The student's configuration for these elements, or the checkpoint to start from."""
    section = file.student
    if section.checkpoint:
        return file.root / section.checkpoint
    return with_changes(preset(section.preset, section.type_map or elements), section)


def build_teacher(section: TeacherSection) -> Calculator:
    """The teacher's ASE calculator; a ConfigError for an unknown class or wrong arguments."""
    if section.calculator:
        return any_calculator(section.calculator, section.arguments, "teacher")
    from dpa2calc.calculator import DPA2Calculator

    given = {name: value for name, value in vars(section).items() if value and name != "arguments"}
    return DPA2Calculator(**given)
