"""`dpa2calc finetune CONFIG`: carry a pre-trained model over to new data."""

from __future__ import annotations

import argparse
import sys
from typing import Any

EXAMPLE = """\
examples:
  dpa2calc finetune --model default --train train.extxyz --test test.extxyz --output runs/mine
  dpa2calc finetune mine.toml --start-head fresh --freeze-layers 1

a file:
  output = "runs/mine"
  model = "default"             # a name, or the path of a checkpoint
  steps = 3000
  [sets.mine]
  train = ["train.extxyz"]
  test = ["test.extxyz"]
  [sets.FerroEle]               # further sets are replayed, so that the model's heads are not forgotten
  train = ["ferroele.extxyz.xz"]
  weight = 0.5
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb `finetune`."""
    from dpa2calc.cli.verbs.training.train import add_data_arguments
    from dpa2calc.files.options import add_options
    from dpa2calc.training.config.train import FinetuneConfig

    parser = subparsers.add_parser(
        "finetune",
        help="carry a pre-trained model over to new data",
        epilog=EXAMPLE,
    )
    add_data_arguments(parser)
    parser.add_argument("--model", help="'default', a published name, or a checkpoint file")
    add_options(parser, FinetuneConfig, title="fine-tuning options (also keys of the file)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, check, fine-tune, evaluate, write."""
    from dpa2calc.cli.verbs.training.train import prepare, set_changes
    from dpa2calc.errors import ConfigError
    from dpa2calc.files.options import given_options
    from dpa2calc.training.config.run_file import check_paths, load_sets, read_run_file
    from dpa2calc.training.config.train import FinetuneConfig

    run_file = read_run_file(
        args.config,
        FinetuneConfig,
        changes=given_options(args, FinetuneConfig),
        set_changes=set_changes(args),
        model=args.model,
        output=args.output,
    )
    if not isinstance(run_file.model, str):
        raise ConfigError(
            f"{args.config}: fine-tuning starts from a trained model, not a [model] table or an input.json; "
            "give --model with a name (`dpa2calc models`) or the path of a checkpoint, as in --model default"
        )
    check_paths(run_file)
    # with torch, from here on
    from dpa2calc.training.finetune.finetune import finetune
    from dpa2calc.training.runs.processes import Processes
    from dpa2calc.training.runs.report import finish_run

    prepare(args)
    config, progress = run_file.config, not args.no_progress
    processes = Processes.from_environment(config.device)
    sets, test = load_sets(run_file)
    name, *others = sets
    new = sets[name]
    result = finetune(
        run_file.model,
        new.train,
        config,
        output=run_file.output,
        name=new.head,
        validation=new.validation,
        replay={other: sets[other] for other in others},
        weight=new.weight,
        processes=processes,
        progress=progress,
    )
    if not processes.first:
        return 0
    if not result.finished:
        print(f"stopped at step {result.steps} by time_limit; the same command goes on", file=sys.stderr)
        return 0
    report = finish_run(result, sets, test, config=config, progress=progress)
    if result.matches:
        print("heads before fine-tuning, after the energy bias was fitted:")
        for match in result.matches[:5]:
            print(f"  {match}")
    print(f"started from head {result.start_head!r}")
    print(report.text, end="")
    print(f"model: {report.file}")
    return 0
