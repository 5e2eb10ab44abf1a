"""What a run writes to resume from, and how it is put back: of the same run and whole, or refused."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dpa2calc.errors import ConfigError, OutputError
from dpa2calc.files.atomic import writing
from dpa2calc.files.identity import Part
from dpa2calc.model.config import ModelConfig, from_dict, to_dict
from dpa2calc.training.runs.identity import model_part, options_part, require_same_run
from dpa2calc.training.runs.state import (
    STATE_VERSION,
    Header,
    count,
    damaged,
    number,
    read_tensors,
    same_tensors,
    write_tensors,
)

if TYPE_CHECKING:
    from .trainer import Trainer

logger = logging.getLogger(__name__)
STATE_FILE = "state.safetensors"


def save_state(run: Trainer) -> None:
    """Write the state of a run to its folder; an OutputError for a full disk or a read-only folder."""
    header = {
        "version": STATE_VERSION,
        "step": run.step,
        "seconds": run.pace.seconds,
        "optimizer_steps": run.optimizer.steps,
        "sampler": run.sampler_state,
        "best_score": run.best_score,
        "since_best": run.since_best,
        "mean_norm": run.clipper.mean_norm,
        "batch_mean_log": run.batch_clipper.mean_log,
        "train_config": to_dict(run.config),
        "model": to_dict(run.potential.config),
        "identity": run.identity,
        "machine": _machine(run),
    }
    write_tensors(run.output / STATE_FILE, {**_weights(run), **run.optimizer.tensors()}, header)


def require_room(run: Trainer) -> None:
    """Raise an OutputError where the disk cannot hold the next state beside the one that is there."""
    tensors = {**_weights(run), **run.optimizer.tensors()}
    needed = sum(value.numel() * value.element_size() for value in tensors.values())
    with writing(run.output):
        free = shutil.disk_usage(run.output).free
    if free < needed:
        raise OutputError(
            f"{run.output} has {free / 1e6:.3g} MB left, but a checkpoint needs at least {needed / 1e6:.3g} "
            "MB; free some space or choose another place"
        )


def load_state(run: Trainer) -> None:
    """Put back what `save_state` wrote.

    Raises:
        ConfigError: the state is of another run; what differs is named.
        CheckpointError: it is damaged or of another version.
    """
    path = run.output / STATE_FILE
    tensors, header = read_tensors(path)
    try:
        _require_same(run, header)
        step = count(header, "step")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise damaged(path, f"its header is not whole ({error!r})") from error
    if step > run.config.steps and not run.config.minutes:
        raise ConfigError(
            f"{run.output} holds a run of {step} steps, more than steps = {run.config.steps}; give at least "
            f"{step}, or choose another output"
        )
    try:
        _put_back(run, tensors, header)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise damaged(path, str(error)) from error
    run.step = step
    _say_other_machine(run, header.get("machine"))
    logger.info("resuming at step %d of %s", run.step, run.output)


def _weights(run: Trainer) -> dict[str, Tensor]:
    model = {f"model.{name}": value for name, value in run.potential.state_dict().items()}
    return model | {f"average.{name}": value for name, value in zip(run.named, run.average.average)}


def _put_back(run: Trainer, tensors: dict[str, Tensor], header: Header) -> None:
    weights = _weights(run)
    same_tensors(tensors, weights)
    steps = {name: count(header["optimizer_steps"], name) for name in run.named}
    same_tensors(tensors, {k: v for k, v in run.optimizer.tensors().items() if "covariance" not in k})
    run.optimizer.load(tensors, steps)
    run.sampler.load_state(header["sampler"])
    run.sampler_state = run.sampler.state()
    run.pace.seconds = number(header, "seconds") or 0.0
    run.kept = header["train_config"].get("keep", run.config.keep)
    run.best_score, run.since_best = number(header, "best_score"), count(header, "since_best")
    run.clipper.mean_norm = number(header, "mean_norm") or 0.0
    run.batch_clipper.mean_log = number(header, "batch_mean_log")
    with torch.no_grad():
        for name, value in weights.items():
            value.copy_(tensors[name])


def _require_same(run: Trainer, header: Header) -> None:
    asked = {
        "options": options_part(to_dict(run.config)),
        "model": model_part(run.potential.config),
        **run.identity,
    }
    stored: dict[str, Part] = {
        "options": options_part(header["train_config"]),
        "model": model_part(from_dict(ModelConfig, header["model"])),
    }
    if header["version"] > 2:
        stored |= header["identity"]
    else:  # knows the numbers of frames alone
        names = [f"set {name!r}" for name in header["sizes"]]
        stored |= {n: {"training frames": size} for n, size in zip(names, header["sizes"].values())}
        asked = {k: v for k, v in asked.items() if k != "starting model"}
        for name in (n for n in asked if n.startswith("set ")):
            asked[name] = {"training frames": asked[name]["training frames"]}
    require_same_run(stored, asked, run.output, run.config)
    if header["version"] < 3:
        logger.warning(
            "%s was written by an earlier version, which kept no record of the data: whether frames, labels "
            "and starting model are the same cannot be checked",
            run.output / STATE_FILE,
        )


def _machine(run: Trainer) -> Header:
    return {
        "threads": torch.get_num_threads(),
        "processes": run.processes.size,
        "device": torch.device(run.device).type,
    }


def _say_other_machine(run: Trainer, stored: object) -> None:
    now = _machine(run)
    old = stored if isinstance(stored, dict) else now
    changed = [f"{k} {old.get(k)} -> {value}" for k, value in now.items() if old.get(k) != value]
    if changed:
        logger.warning(
            "%s: %s; the last bits of the weights may differ from a run without a stop",
            run.output,
            ", ".join(changed),
        )
