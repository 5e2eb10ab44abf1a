"""What a file (TOML) of active learning says: model, source of labels, start frames, dynamics, the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from ase.calculators.calculator import Calculator

from dpa2calc.errors import ConfigError
from dpa2calc.files.options import convert
from dpa2calc.training.config.sections import none_beside
from dpa2calc.training.config.train import FinetuneConfig
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.exploration.file import LoopFile, any_calculator, model_beside

from .config import LearnConfig
from .queue import LabelQueue, QueueOptions


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
        if self.calculator:
            none_beside(self, "label", "calculator", "program", "template", "options")
        else:
            none_beside(self, "label", "queue", "arguments")


class LearnFile(LoopFile[FinetuneConfig, LearnConfig]):
    """A file of active learning."""

    what = "the files of active learning"
    sections = ("model", "label", "known")
    loop, training = LearnConfig, FinetuneConfig

    def __init__(
        self, path: PathLike, *, changes: Mapping[str, object] | None = None, output: str | None = None
    ):
        super().__init__(path, changes=changes, output=output)
        self.model = model_beside(convert(str, self.values.get("model", "default"), "model"), self.root)
        self.label = self.section(LabelSection, "label")
        self.known = self.names("known")


def build_label(file: LearnFile) -> Calculator | LabelQueue:
    """The source of labels; a ConfigError for an unknown class or wrong arguments."""
    section = file.label
    if section.calculator:
        return any_calculator(section.calculator, section.arguments, "label")
    template = str(file.root / section.template) if section.template else ""
    return LabelQueue(file.root / section.queue, section.program, template=template, options=section.options)
