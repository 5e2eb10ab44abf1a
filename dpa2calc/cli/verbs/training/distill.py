"""`dpa2calc distill CONFIG`: a small, fast student learns from a large teacher."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dpa2calc.cli.arguments.training import add_rounds_arguments, run_rounds

if TYPE_CHECKING:
    from ase import Atoms

    from dpa2calc.training.distill.file import DistillFile
    from dpa2calc.training.distill.result import DistillResult

EXAMPLE = """\
examples:
  dpa2calc distill water.toml                        # the same command resumes
  dpa2calc distill water.toml --threshold 0.15 --max-rounds 6 --output runs/tight

a file:
  output = "runs/water-student"
  threshold = 0.2               # eV/A: frames where an atom's force deviates by more are learned from
  max_rounds = 6
  final_steps = 40000
  [teacher]
  model = "runs/water-teacher/model.safetensors"   # or calculator = "ase.calculators.emt.EMT"
  head = "H2O-PBE0TS"
  [start]
  frames = ["train.extxyz.xz"]
  max_frames = 20
  [student]
  preset = "dpa1-l0"
  [train]
  steps = 10000
  batch_atoms = 192
  [[md]]                        # as in the application; several [[md]] are explored one after the other
  ensemble = "nvt"
  temperature = [300, 360]
  timestep = 0.5
  steps = 2000
  sample_interval = 100

The student is student.safetensors in the output folder; rounds.png shows how it went.
"""
TABLE = "a row a round"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    from dpa2calc.training.distill.config import DistillConfig

    add_rounds_arguments(parser, "distillation", DistillConfig)


def run(args: argparse.Namespace) -> int:
    """Read, check, distil, report."""
    from dpa2calc.training.distill.file import DistillFile

    return run_rounds(args, DistillFile, _distilled, "deviations")


def _distilled(file: DistillFile, start: list[Atoms], **common: Any) -> DistillResult:
    from dpa2calc.training.distill.distill import distill
    from dpa2calc.training.distill.file import build_student, build_teacher
    from dpa2calc.training.exploration.structures import all_elements

    student = build_student(file, all_elements(start, file.md))
    return distill(build_teacher(file.teacher), start, student, **common)
