"""What a distillation file (TOML) says: teacher, start frames, student, dynamics, training, the loop."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ase import Atoms

from dpa2calc.errors import ConfigError
from dpa2calc.files.options import convert, parse_options, read_toml
from dpa2calc.files.patterns import expanded
from dpa2calc.files.typed import option_types, typed, unknown_key
from dpa2calc.model.config import ModelConfig
from dpa2calc.model.config.presets import preset
from dpa2calc.training.config.model import with_changes
from dpa2calc.training.config.sections import ModelSection
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers import PathLike, iread_atoms

from .config import DistillConfig, MDCondition, conditions_of

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
    arguments: Annotated[dict[str, Any], "of that calculator"] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StartSection:
    """Structures to begin with: `[start]`."""

    frames: Annotated[tuple[str, ...], "files; labels in them are not used"]
    max_frames: Annotated[int, "at most this many, evenly spread over the files (0 = all)"] = 0


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
    path: PathLike, *, changes: Mapping[str, Any] | None = None, output: str | None = None
) -> DistillFile:
    """Read a TOML file, and put the command line's options of the loop over it.

    Raises:
        ConfigError: the file is missing or no TOML, or a key or value is wrong; the key is named.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise ConfigError(f"there is no file {path}")
    values = {**read_toml(path), **(changes or {})}
    if output is not None:
        values["output"] = output
    loop = option_types(DistillConfig)
    for key, value in values.items():
        if key not in loop and key not in SECTIONS:
            raise ConfigError(unknown_key(key, value, [*loop, *SECTIONS]))
    if "output" not in values:
        raise ConfigError("output is missing; name a folder for the distillation's files")
    if "md" not in values:
        raise ConfigError("there is no [[md]] section; give the dynamics of the application to explore with")
    if "start" not in values:
        raise ConfigError('there is no [start] section; give frames = ["FILE"] to begin with')
    root = path.resolve().parent / convert(str, values.get("data", "."), "data")
    conditions = values["md"] if isinstance(values["md"], list) else [values["md"]]
    md = conditions_of([typed(dict, c, "md") for c in conditions])
    return DistillFile(
        config=parse_options(DistillConfig, {k: v for k, v in values.items() if k in loop}),
        train=_section(TrainConfig, values, "train"),
        md=tuple(dataclasses.replace(c, structures=tuple(str(root / f) for f in c.structures)) for c in md),
        teacher=_section(TeacherSection, values, "teacher"),
        start=_section(StartSection, values, "start"),
        student=_section(StudentSection, values, "student"),
        test=convert(tuple[str, ...], values.get("test", ()), "test"),
        output=Path(convert(str, values["output"], "output")),
        root=root,
    )


def _section(cls: Any, values: Mapping[str, Any], name: str) -> Any:
    return parse_options(cls, values.get(name, {}), name)


def load_start(file: DistillFile) -> list[Atoms]:
    """The start frames, spread over the files where there are too many.

    Raises:
        DataError: a file cannot be read.
    """
    files = [found for path in file.start.frames for found in expanded(path, file.root) or [file.root / path]]
    frames = [atoms for path in files for atoms in iread_atoms(path)]
    n = file.start.max_frames
    if 0 < n < len(frames):
        frames = [frames[(2 * i + 1) * len(frames) // (2 * n)] for i in range(n)]
    return frames


def load_test(file: DistillFile) -> Dataset | None:
    """The test set, if one is named."""
    files = [str(found) for path in file.test for found in expanded(path, file.root) or [file.root / path]]
    return Dataset.read(files, name="test") if files else None


def build_student(file: DistillFile, elements: tuple[str, ...]) -> ModelConfig | Path:
    """The student's configuration for these elements, or the checkpoint to start from."""
    section = file.student
    if section.checkpoint:
        return file.root / section.checkpoint
    return with_changes(preset(section.preset, section.type_map or elements), section)


def build_teacher(section: TeacherSection) -> Any:
    """The teacher's ASE calculator.

    Raises:
        ConfigError: no such class, or arguments that it does not take.
    """
    if section.calculator:
        return _any_calculator(section)
    from dpa2calc.calculator import DPA2Calculator

    given = {name: getattr(section, name) for name in ("device", "dispersion", "committee")}
    chosen = {name: value for name, value in given.items() if value}
    return DPA2Calculator(
        section.model,
        section.head or None,
        dtype=section.dtype,
        allow_unseen_elements=section.allow_unseen_elements,
        **chosen,
    )


def _any_calculator(section: TeacherSection) -> Any:
    module, _, name = section.calculator.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"teacher.calculator = {section.calculator!r} cannot be imported ({error}); give module and "
            "class, such as ase.calculators.emt.EMT"
        ) from error
    try:
        return kind(**section.arguments)
    except TypeError as error:
        raise ConfigError(f"teacher.arguments do not fit {section.calculator}: {error}") from error
