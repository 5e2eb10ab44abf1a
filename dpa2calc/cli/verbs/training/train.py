"""`dpa2calc train CONFIG`: train a model on one dataset or several."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

EXAMPLE = """\
examples:
  dpa2calc train water.toml                          # the same command goes on where it stopped
  dpa2calc train water.toml --steps 20000 --learning-rate 1e-3
  dpa2calc train --preset small --train train.extxyz --test test.extxyz --output runs/water
  dpa2calc train input.json --output runs/water      # a file of deepmd-kit
  torchrun --nproc-per-node 2 -m dpa2calc.cli.main train water.toml --batches-per-step 2

a file:
  output = "runs/water"
  steps = 20000
  ema_decay = 0.999
  [model]
  preset = "small"
  [sets.H2O-PBE0TS]
  train = ["train.extxyz.xz"]
  test = ["test.extxyz.xz"]
  functional = "PBE0+TS"
"""

# What users may have called their labels.
LABELS = {"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_stress", "virial": "virials"}


def add_parser(subparsers: Any) -> None:
    """Add the verb `train`."""
    from dpa2calc.training.config.train import TrainConfig

    parser = subparsers.add_parser(
        "train",
        help="train a model on one dataset or several (a head for each)",
        epilog=EXAMPLE,
    )
    add_data_arguments(parser)
    parser.add_argument("--preset", help="descriptor by name, or a trained model to go on with")
    from dpa2calc.files.options import add_options

    add_options(parser, TrainConfig, title="training options (also keys of the file)")
    parser.set_defaults(run=run)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that `train` and `finetune` share."""
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="TOML file, or deepmd-kit's input.json")
    parser.add_argument("--output", metavar="FOLDER", help="folder for all files of the run")
    parser.add_argument("--train", nargs="+", metavar="FILE", help="training frames, for a run with one set")
    parser.add_argument("--validation", nargs="+", metavar="FILE", help="validation frames")
    parser.add_argument("--test", nargs="+", metavar="FILE", help="evaluated at the end")
    parser.add_argument("--head", metavar="NAME", help="name of the head that is trained")
    add_label_arguments(parser, LABELS)
    parser.add_argument("--threads", type=int, help="threads of the matrix products")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar on stderr")


def add_label_arguments(parser: argparse.ArgumentParser, kinds: Iterable[str]) -> None:
    """Names of the labels in the files, as in `LabelKeys`."""
    for kind in kinds:
        text = f"name of the {kind} in the files, such as {LABELS[kind]}"
        parser.add_argument(f"--{kind}-key", metavar="NAME", help=text)


def set_changes(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of the one set."""
    names = ("train", "validation", "test", "head", *(f"{kind}_key" for kind in LABELS))
    given = {name: getattr(args, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def prepare(args: argparse.Namespace) -> None:
    """Threads, before anything is computed."""
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)


def run(args: argparse.Namespace) -> int:
    """Read, check, train, evaluate, write."""
    from dpa2calc.files.options import given_options
    from dpa2calc.training.config.run_file import build_model, check_paths, load_sets, read_run_file
    from dpa2calc.training.config.train import TrainConfig

    run_file = read_run_file(
        args.config,
        TrainConfig,
        changes=given_options(args, TrainConfig),
        set_changes=set_changes(args),
        model=args.preset,
        output=args.output,
    )
    check_paths(run_file)
    # with torch, from here on
    from dpa2calc.training.fit.run import pretrain
    from dpa2calc.training.runs.processes import Processes
    from dpa2calc.training.runs.report import finish_run

    prepare(args)
    processes = Processes.from_environment(run_file.config.device)
    sets, test = load_sets(run_file)
    model = build_model(run_file, sets)
    progress = not args.no_progress
    result = pretrain(
        model, sets, run_file.config, output=run_file.output, processes=processes, progress=progress
    )
    if not processes.first:
        return 0
    if not result.finished:
        print(f"stopped at step {result.steps} by time_limit; the same command goes on", file=sys.stderr)
        return 0
    config = run_file.config
    report = finish_run(result, sets, test, config=config, progress=progress)
    print(report.text, end="")
    print(f"model: {report.file}")
    return 0
