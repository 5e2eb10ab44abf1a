"""`dpa2calc learn CONFIG`: active learning with labels of any program."""

from __future__ import annotations

import argparse

from dpa2calc.cli.arguments.training import add_run_arguments, set_threads
from dpa2calc.cli.arguments.written import rounds_to_table, write_result

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
    from dpa2calc.files.options import add_options
    from dpa2calc.training.learning.config import LearnConfig

    parser.add_argument("config", metavar="CONFIG", help="TOML file")
    add_run_arguments(parser, "active learning")
    add_options(parser, LearnConfig, title="options of the loop (also keys of the file)")


def run(args: argparse.Namespace) -> int:
    """Read, check, learn, report."""
    from dpa2calc.files.atomic import check_writable
    from dpa2calc.files.options import given_options
    from dpa2calc.training.exploration.file import load_set, load_start
    from dpa2calc.training.learning.config import LearnConfig
    from dpa2calc.training.learning.file import LearnFile, build_label

    file = LearnFile(args.config, changes=given_options(args, LearnConfig), output=args.output)
    check_writable(file.output, folder=True)
    start = load_start(file.start, file.root)
    # with torch, from here on
    from dpa2calc.training.learning.learn import active_learning

    set_threads(args)
    result = active_learning(
        file.model,
        label=build_label(file),
        start=start,
        md=file.md,
        output=file.output,
        train=file.train,
        config=file.config,
        known=load_set(file.known, file.root, "known"),
        test=load_set(file.test, file.root, "test"),
        progress=not args.no_progress,
    )
    print(result.summary())
    write_result(args, result, rounds_to_table(result.rounds, "doubts"))
    return 0
