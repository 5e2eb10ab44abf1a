"""`dpa2calc finetune CONFIG`: carry a pre-trained model over to new data."""

from __future__ import annotations

import argparse

from dpa2calc.cli.arguments.training import add_data_arguments, finish, read_run, set_threads

EXAMPLE = """\
examples:
  dpa2calc finetune --train train.extxyz --test test.extxyz --minutes 10 --output runs/mine
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
TABLE = "a row a record of the log"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    from dpa2calc.files.options import add_options
    from dpa2calc.training.config.train import FinetuneConfig

    add_data_arguments(parser)
    parser.add_argument("--model", help="'default', a published name, or a checkpoint file")
    add_options(parser, FinetuneConfig, title="fine-tuning options (also keys of the file)")


def run(args: argparse.Namespace) -> int:
    """Read, check, fine-tune, evaluate, write."""
    from dpa2calc.errors import ConfigError
    from dpa2calc.training.config.run_file import check_paths, load_sets
    from dpa2calc.training.config.train import FinetuneConfig

    run_file = read_run(args, FinetuneConfig, args.model)
    if not isinstance(run_file.model, str):
        raise ConfigError(
            f"{args.config}: fine-tuning starts from a trained model, not a [model] table or an input.json; "
            "give --model with a name (`dpa2calc models`) or the path of a checkpoint, as in --model default"
        )
    check_paths(run_file)
    # with torch, from here on
    from dpa2calc.training.finetune.finetune import finetune
    from dpa2calc.training.runs.processes import Processes

    set_threads(args)
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
    if processes.first and result.finished:
        if result.matches:
            print("heads before fine-tuning, after the energy bias was fitted:")
            for match in result.matches[:5]:
                print(f"  {match}")
        print(f"started from head {result.start_head!r}", flush=True)
    return finish(args, result, sets, test, config, processes=processes, progress=progress)
