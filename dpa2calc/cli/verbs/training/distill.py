"""`dpa2calc distill CONFIG`: a small, fast student learns from a large teacher."""

from __future__ import annotations

import argparse

from dpa2calc.cli.arguments.training import add_run_arguments, set_threads
from dpa2calc.cli.arguments.written import rounds_to_table, write_result

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
    from dpa2calc.files.options import add_options
    from dpa2calc.training.distill.config import DistillConfig

    parser.add_argument("config", metavar="CONFIG", help="TOML file")
    add_run_arguments(parser, "distillation")
    add_options(parser, DistillConfig, title="options of the loop (also keys of the file)")


def run(args: argparse.Namespace) -> int:
    """Read, check, distil, report."""
    from dpa2calc.files.atomic import check_writable
    from dpa2calc.files.options import given_options
    from dpa2calc.training.distill.config import DistillConfig
    from dpa2calc.training.distill.file import DistillFile, build_student, build_teacher
    from dpa2calc.training.exploration.file import load_set, load_start

    file = DistillFile(args.config, changes=given_options(args, DistillConfig), output=args.output)
    check_writable(file.output, folder=True)
    start = load_start(file.start, file.root)
    # with torch, from here on
    from dpa2calc.training.distill.distill import distill
    from dpa2calc.training.exploration.structures import all_elements

    set_threads(args)
    result = distill(
        build_teacher(file.teacher),
        start,
        build_student(file, all_elements(start, file.md)),
        md=file.md,
        output=file.output,
        train=file.train,
        config=file.config,
        test=load_set(file.test, file.root, "test"),
        progress=not args.no_progress,
    )
    print(result.summary())
    write_result(args, result, rounds_to_table(result.rounds, "deviations"))
    return 0
