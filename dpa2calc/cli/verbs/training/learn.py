"""`dpa2calc learn CONFIG`: active learning with labels of any program."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dpa2calc.cli.arguments.training import add_rounds_arguments, run_rounds

if TYPE_CHECKING:
    from ase import Atoms

    from dpa2calc.training.learning.file import LearnFile
    from dpa2calc.training.learning.result import LearnResult

EXAMPLE = """\
examples:
  dpa2calc learn ethanol.toml                        # the same command resumes
  dpa2calc learn ethanol.toml --budget 100 --output runs/more

a file:
  output = "runs/ethanol"
  model = "default"
  budget = 60                   # labels, those of the start frames included
  threshold = 0.2               # eV/A: frames whose least certain force is known less well are labelled
  [label]
  calculator = "tblite.ase.TBLite"                   # any ASE calculator
  arguments = { method = "GFN2-xTB", verbosity = 0 }
  # or, for calculations on a cluster: queue = "queue", program = "vasp", template = "settings"
  [start]
  frames = ["start.extxyz"]
  [train]
  steps = 2000
  [[md]]                        # as in the application; several [[md]] are explored one after the other
  ensemble = "nvt"
  temperature = [300, 500]
  timestep = 0.5
  steps = 2000
  sample_interval = 50

The model is model.safetensors in the output folder; rounds.png shows how it went, labels/ has every label.
"""
TABLE = "a row a round"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    from dpa2calc.training.learning.config import LearnConfig

    add_rounds_arguments(parser, "active learning", LearnConfig)


def run(args: argparse.Namespace) -> int:
    """Read, check, learn, report."""
    from dpa2calc.training.learning.file import LearnFile

    return run_rounds(args, LearnFile, _learned, "doubts")


def _learned(file: LearnFile, start: list[Atoms], **common: Any) -> LearnResult:
    from dpa2calc.training.exploration.file import load_set
    from dpa2calc.training.learning.file import build_label
    from dpa2calc.training.learning.learn import active_learning

    known = load_set(file.known, file.root, "known")
    return active_learning(file.model, label=build_label(file), start=start, known=known, **common)
