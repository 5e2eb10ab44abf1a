"""What a file (TOML) of active learning says: model, source of labels, start frames, dynamics, the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ase.calculators.calculator import Calculator

from dpa2calc.errors import ConfigError
from dpa2calc.files.options import convert, parse_options
from dpa2calc.files.typed import option_types
from dpa2calc.training.config.train import FinetuneConfig
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.exploration.file import LoopFile, StartSection, any_calculator
from dpa2calc.training.exploration.options import MDCondition

from .config import LearnConfig
from .queue import LabelQueue, QueueOptions

SECTIONS = ("output", "data", "model", "label", "start", "train", "md", "known", "test")


@dataclass(frozen=True, kw_only=True)
class LabelSection(QueueOptions):
    """Who labels: `[label]`; a calculator, or a queue for calculations elsewhere."""

    calculator: Annotated[str, "an ASE calculator, such as tblite.ase.TBLite"] = ""
    arguments: Annotated[dict[str, object], "of that calculator"] = field(default_factory=dict)
    queue: Annotated[str, "instead: a folder where frames wait for their labels"] = ""

    def __post_init__(self) -> None:
        if bool(self.calculator) == bool(self.queue):
            raise ConfigError(
                "[label] needs one of calculator and queue: an ASE calculator that labels, such as "
                "tblite.ase.TBLite, or a folder where frames wait for their labels"
            )


@dataclass(frozen=True, kw_only=True)
class LearnFile:
    """A whole file, checked before anything runs."""

    config: LearnConfig
    train: FinetuneConfig
    md: tuple[MDCondition, ...]
    model: str
    label: LabelSection
    start: StartSection
    known: tuple[str, ...]
    test: tuple[str, ...]
    output: Path
    root: Path


def read_learn_file(
    path: PathLike, *, changes: Mapping[str, object] | None = None, output: str | None = None
) -> LearnFile:
    """Read a TOML file, and put the command line's options of the loop over it.

    Raises:
        ConfigError: the file is missing or no TOML, or a key or value is wrong; the key is named.
    """
    loop = option_types(LearnConfig)
    file = LoopFile(
        path, changes=changes, output=output, known=[*loop, *SECTIONS], what="the files of active learning"
    )
    return LearnFile(
        config=parse_options(LearnConfig, {k: v for k, v in file.values.items() if k in loop}),
        train=file.section(FinetuneConfig, "train"),
        md=file.conditions(),
        model=_model(convert(str, file.values.get("model", "default"), "model"), file.root),
        label=file.section(LabelSection, "label"),
        start=file.start,
        known=file.names("known"),
        test=file.names("test"),
        output=file.output,
        root=file.root,
    )


def _model(named: str, root: Path) -> str:
    """A name, or the path of a file beside the run's."""
    return str(root / named) if (root / named).is_file() else named


def build_label(file: LearnFile) -> Calculator | LabelQueue:
    """The source of labels; a ConfigError for an unknown class or wrong arguments."""
    section = file.label
    if section.calculator:
        return any_calculator(section.calculator, section.arguments, "label")
    template = str(file.root / section.template) if section.template else ""
    return LabelQueue(file.root / section.queue, section.program, template=template, options=section.options)
