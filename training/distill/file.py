"""What a distillation file (TOML) says: teacher, start frames, student, dynamics, training, the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ase.calculators.calculator import Calculator

from dpa2calc.files.options import parse_options
from dpa2calc.files.typed import option_types
from dpa2calc.model.config import ModelConfig
from dpa2calc.model.config.presets import preset
from dpa2calc.training.config.model import with_changes
from dpa2calc.training.config.sections import ModelSection
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.exploration.file import LoopFile, StartSection, any_calculator
from dpa2calc.training.exploration.options import MDCondition

from .config import DistillConfig

SECTIONS = ("output", "data", "teacher", "start", "student", "train", "md", "test")


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


@dataclass(frozen=True, kw_only=True)
class StudentSection(ModelSection):
    """The model to train: `[student]`; changes to descriptor and fitting as in `[model]` of `train`."""

    preset: Annotated[str, "dpa1-l0, deeppot-se, or another preset"] = "dpa1-l0"
    checkpoint: Annotated[str, "start from this student instead"] = ""


@dataclass(frozen=True, kw_only=True)
class DistillFile:
    """A whole file, checked before anything runs."""

    config: DistillConfig
    train: TrainConfig
    md: tuple[MDCondition, ...]
    teacher: TeacherSection
    start: StartSection
    student: StudentSection
    test: tuple[str, ...]
    output: Path
    root: Path


def read_distill_file(
    path: PathLike, *, changes: Mapping[str, object] | None = None, output: str | None = None
) -> DistillFile:
    """Read a TOML file, and put the command line's options of the loop over it.

    Raises:
        ConfigError: the file is missing or no TOML, or a key or value is wrong; the key is named.
    """
    loop = option_types(DistillConfig)
    file = LoopFile(
        path, changes=changes, output=output, known=[*loop, *SECTIONS], what="the distillation's files"
    )
    return DistillFile(
        config=parse_options(DistillConfig, {k: v for k, v in file.values.items() if k in loop}),
        train=file.section(TrainConfig, "train"),
        md=file.conditions(),
        teacher=file.section(TeacherSection, "teacher"),
        start=file.start,
        student=file.section(StudentSection, "student"),
        test=file.names("test"),
        output=file.output,
        root=file.root,
    )


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
