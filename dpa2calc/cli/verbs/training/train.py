"""`dpa2calc train CONFIG`: train a model on one dataset or several."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dpa2calc.cli.arguments.training import add_data_arguments, finish, read_run, set_threads

if TYPE_CHECKING:
    from dpa2calc.model.config import ModelConfig
    from dpa2calc.model.potential import Potential

EXAMPLE = """\
examples:
  dpa2calc train water.toml                          # the same command resumes
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
TABLE = "a row a record of the log"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    from dpa2calc.files.options import add_options
    from dpa2calc.training.config.train import TrainConfig

    add_data_arguments(parser)
    parser.add_argument("--preset", help="descriptor by name, or a trained model to start from")
    add_options(parser, TrainConfig, title="training options (also keys of the file)")


def run(args: argparse.Namespace) -> int:
    """Read, check, train, evaluate, write."""
    from dpa2calc.training.config.model import build_model
    from dpa2calc.training.config.run_file import check_paths, load_sets
    from dpa2calc.training.config.sections import ModelSection
    from dpa2calc.training.config.train import TrainConfig

    run_file = read_run(args, TrainConfig, args.preset)
    check_paths(run_file)
    # with torch, from here on
    import torch

    from dpa2calc.store.checkpoint import load_checkpoint
    from dpa2calc.training.finetune.grow import grown_model
    from dpa2calc.training.fit.run import pretrain
    from dpa2calc.training.runs.processes import Processes

    set_threads(args)
    config, progress = run_file.config, not args.no_progress
    processes = Processes.from_environment(config.device)
    sets, test = load_sets(run_file)
    section = run_file.model
    if isinstance(section, ModelSection) and section.start:
        model: ModelConfig | Potential = grown_model(section, run_file, sets, processes=processes)
    else:
        model = build_model(run_file, sets)
    result = pretrain(model, sets, config, output=run_file.output, processes=processes, progress=progress)
    for name, stage in run_file.stages.items():
        if not result.finished:
            break
        processes.sum(torch.zeros(1))  # the first one has written its model
        config, sets, folder = stage.config, stage.weighted(sets), run_file.output / f"stage-{name}"
        start = load_checkpoint(result.output / "model.safetensors")
        result = pretrain(start, sets, config, output=folder, processes=processes, progress=progress)
    return finish(args, result, sets, test, config, processes=processes, progress=progress)
