"""What a distillation file (TOML) says: teacher, start frames, student, dynamics, training, the loop."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from ase import Atoms
from ase.calculators.calculator import Calculator

from dpa2calc.errors import ConfigError
from dpa2calc.files.options import convert, parse_options, read_toml
from dpa2calc.files.patterns import expanded
from dpa2calc.files.typed import option_types, typed
from dpa2calc.model.config import ModelConfig
from dpa2calc.model.config.presets import preset
from dpa2calc.training.config.model import with_changes
from dpa2calc.training.config.run_file import check_keys, require_file
from dpa2calc.training.config.sections import ModelSection
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers import PathLike, iread_atoms

from .config import DistillConfig, MDCondition, conditions_of

Section = TypeVar("Section")
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
    path: PathLike, *, changes: Mapping[str, object] | None = None, output: str | None = None
) -> DistillFile:
    """Read a TOML file, and put the command line's options of the loop over it.

    Raises:
        ConfigError: the file is missing or no TOML, or a key or value is wrong; the key is named.
    """
    path = Path(path)
    require_file(path)
    values: dict[str, object] = {**read_toml(path), **(changes or {})}
    if output is not None:
        values["output"] = output
    loop = option_types(DistillConfig)
    check_keys(values, [*loop, *SECTIONS], "the distillation's files")
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


def _section(cls: type[Section], values: Mapping[str, object], name: str) -> Section:
    return parse_options(cls, typed(dict, values.get(name, {}), name), name)


def _files(file: DistillFile, named: Iterable[str]) -> list[Path]:
    return [found for path in named for found in expanded(path, file.root) or [file.root / path]]


def load_start(file: DistillFile) -> list[Atoms]:
    """The start frames, spread over the files where there are too many."""
    frames = [atoms for path in _files(file, file.start.frames) for atoms in iread_atoms(path)]
    n = file.start.max_frames
    if 0 < n < len(frames):
        frames = [frames[(2 * i + 1) * len(frames) // (2 * n)] for i in range(n)]
    return frames


def load_test(file: DistillFile) -> Dataset | None:
    """The test set, if one is named."""
    return Dataset.read(_files(file, file.test), name="test") if file.test else None


def build_student(file: DistillFile, elements: tuple[str, ...]) -> ModelConfig | Path:
    """The student's configuration for these elements, or the checkpoint to start from."""
    section = file.student
    if section.checkpoint:
        return file.root / section.checkpoint
    return with_changes(preset(section.preset, section.type_map or elements), section)


def build_teacher(section: TeacherSection) -> Calculator:
    """The teacher's ASE calculator; a ConfigError for an unknown class or wrong arguments."""
    if section.calculator:
        return _any_calculator(section)
    from dpa2calc.calculator import DPA2Calculator

    given = {name: value for name, value in vars(section).items() if value and name != "arguments"}
    return DPA2Calculator(**given)


def _any_calculator(section: TeacherSection) -> Calculator:
    module, _, name = section.calculator.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"teacher.calculator = {section.calculator!r} cannot be imported ({error}); give module and "
            "class, such as ase.calculators.emt.EMT"
        ) from error
    try:
        made: Calculator = kind(**section.arguments)
    except TypeError as error:
        raise ConfigError(f"teacher.arguments do not fit {section.calculator}: {error}") from error
    return made
