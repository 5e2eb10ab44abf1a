"""What the files (TOML) of a distillation and of active learning have in common."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Generic, TypeVar

from ase import Atoms
from ase.calculators.calculator import Calculator

from dpa2calc.errors import ConfigError
from dpa2calc.files.options import convert, parse_options, read_toml
from dpa2calc.files.patterns import expanded
from dpa2calc.files.typed import option_types, typed
from dpa2calc.model.config import check
from dpa2calc.training.config.run_file import check_keys, require_file
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers import PathLike, iread_atoms

from .options import LoopOptions, MDCondition, conditions_of

SECTIONS = ("output", "data", "start", "train", "md", "test")
Section = TypeVar("Section")
Train = TypeVar("Train", bound=TrainConfig)
Loop = TypeVar("Loop", bound=LoopOptions)


@dataclass(frozen=True, kw_only=True)
class StartSection:
    """Structures to begin with: `[start]`."""

    frames: Annotated[tuple[str, ...], "files; labels in them are not used"]
    max_frames: Annotated[int, "at most this many, evenly spread over the files (0 = all)"] = 0

    def __post_init__(self) -> None:
        check(self.max_frames >= 0, "start.max_frames", self.max_frames, "at least 0")


class LoopFile(Generic[Train, Loop]):
    """A whole file, checked before anything runs; the command line's options are put over its own.

    Args:
        changes: options of the loop, by name.

    Raises:
        ConfigError: the file is missing or no TOML, or lacks a section, or a key or value is wrong.
    """

    what: ClassVar[str]
    sections: ClassVar[tuple[str, ...]]  # beside those of every file
    loop: type[Loop]
    training: type[Train]

    def __init__(
        self, path: PathLike, *, changes: Mapping[str, object] | None = None, output: str | None = None
    ):
        path, loop = Path(path), option_types(self.loop)
        require_file(path)
        self.values: dict[str, object] = {**read_toml(path), **(changes or {})}
        if output is not None:
            self.values["output"] = output
        check_keys(self.values, [*loop, *SECTIONS, *self.sections], self.what)
        if "md" not in self.values:
            raise ConfigError(
                "there is no [[md]] section; give the dynamics of the application to explore with"
            )
        if "start" not in self.values:
            raise ConfigError('there is no [start] section; give frames = ["FILE"] to begin with')
        self.root = path.resolve().parent / convert(str, self.values.get("data", "."), "data")
        self.output = Path(convert(str, self.values["output"], "output"))
        self.start = self.section(StartSection, "start")
        self.config = parse_options(self.loop, {k: v for k, v in self.values.items() if k in loop})
        self.train = self.section(self.training, "train")
        self.md = self._conditions()
        self.test = self.names("test")

    def section(self, cls: type[Section], name: str) -> Section:
        """The options of a section; defaults where it is missing."""
        return parse_options(cls, typed(dict, self.values.get(name, {}), name), name)

    def _conditions(self) -> tuple[MDCondition, ...]:
        """All `[[md]]`, with full paths."""
        md = self.values["md"] if isinstance(self.values["md"], list) else [self.values["md"]]
        found = conditions_of([typed(dict, c, "md") for c in md])
        return tuple(
            dataclasses.replace(c, structures=tuple(str(self.root / f) for f in c.structures)) for c in found
        )

    def names(self, key: str) -> tuple[str, ...]:
        """A list of files."""
        return convert(tuple[str, ...], self.values.get(key, ()), key)


def files_in(root: Path, named: Iterable[str]) -> list[Path]:
    """Paths relative to a folder; patterns become the files that they match."""
    return [found for path in named for found in expanded(path, root) or [root / path]]


def model_beside(named: str, root: Path) -> str:
    """A model's name, or the path of its file where that lies below a folder."""
    return str(root / named) if (root / named).is_file() else named


def load_start(start: StartSection, root: Path) -> list[Atoms]:
    """The start frames, spread over the files where there are too many."""
    frames = [atoms for path in files_in(root, start.frames) for atoms in iread_atoms(path)]
    n = start.max_frames
    if 0 < n < len(frames):
        frames = [frames[(2 * i + 1) * len(frames) // (2 * n)] for i in range(n)]
    return frames


def load_set(named: Sequence[str], root: Path, name: str) -> Dataset | None:
    """A set of labelled frames, if files are named."""
    return Dataset.read(files_in(root, named), name=name) if named else None


def any_calculator(named: str, arguments: Mapping[str, object], section: str) -> Calculator:
    """An ASE calculator by module and class.

    Raises:
        ConfigError: it cannot be imported, or the arguments do not fit.
    """
    module, _, name = named.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{section}.calculator = {named!r} cannot be imported ({error}); give module and "
            "class, such as ase.calculators.emt.EMT"
        ) from error
    try:
        made: Calculator = kind(**arguments)
    except TypeError as error:
        raise ConfigError(f"{section}.arguments do not fit {named}: {error}") from error
    return made
