"""`train` and `pretrain`: from data and a model to trained weights; the same call resumes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from dpa2calc.ambient import own_modes
from dpa2calc.errors import ConfigError
from dpa2calc.files.identity import Part
from dpa2calc.files.typed import shown
from dpa2calc.model.config import ModelConfig
from dpa2calc.model.potential import Potential
from dpa2calc.training.config.train import DEFAULTS, TrainConfig, require_config
from dpa2calc.training.data.dataset import Dataset, require_dataset
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.data.sets import (
    TrainingData,
    TrainingSet,
    model_for,
    warn_of_misfits,
    warn_of_repeats,
    warn_of_unused_parameters,
    with_seen_elements,
)
from dpa2calc.training.energy_bias import absorb_initial_energies, fit_energy_biases
from dpa2calc.training.runs.folder import run_folder
from dpa2calc.training.runs.identity import start_part
from dpa2calc.training.runs.processes import ALONE, Processes
from dpa2calc.training.runs.result import TrainResult

from .resume import STATE_FILE
from .setup import (
    fit_parameters,
    head_weights,
    measure_environment,
    new_potential,
    tie_heads,
    untie_heads,
)
from .trainer import Trainer


@own_modes()
def pretrain(
    model: ModelConfig | str | Potential,
    sets: Mapping[str, TrainingSet | Dataset],
    config: TrainConfig = DEFAULTS,
    *,
    output: PathLike,
    processes: Processes = ALONE,
    progress: bool = True,
) -> TrainResult:
    """Train one descriptor on several sets together, a head for each (paper, 4.4).

    The same call on the same output folder resumes where an earlier one stopped.

    Args:
        model: a preset's name, a configuration whose heads the sets name, or a Potential to start
            from (its statistics and biases are kept; the object itself is not changed).
        sets: training sets by name.
        output: folder of the run's files, see `Trainer`.

    Raises:
        ConfigError, DataError: see `TrainingData.of`; ConfigError also for `freeze_descriptor` without a
            trained model, for a folder that holds a run of other data, another model or other options
            (what differs is named), and for one in which another process is at work.
        CheckpointError: the folder's state is damaged. OutputError: the folder cannot be written.
        TrainingError: the loss is not finite.
    """
    return train_in(Path(output), model, sets, config, processes=processes, progress=progress)


def train_in(
    folder: Path,
    model: ModelConfig | str | Potential,
    sets: Mapping[str, TrainingSet | Dataset],
    config: TrainConfig,
    *,
    processes: Processes = ALONE,
    progress: bool = True,
    adapt: Callable[[Potential], None] | None = None,
) -> TrainResult:
    """See `pretrain`.

    Args:
        adapt: changes a copy of the given Potential before the first step; what the run starts from is, for
            its identity, the Potential without that.
    """
    require_config(config, TrainConfig)
    processes.require_batches(config.batches_per_step)
    start_from = _start(model, sets)
    given = start_from if isinstance(start_from, Potential) else None
    known = start_from.config if isinstance(start_from, Potential) else start_from
    if config.freeze_descriptor and given is None:
        raise ConfigError(
            "freeze_descriptor = true, but a fresh descriptor has learned nothing; give a trained model to "
            "start from (model = a checkpoint's file or name)"
        )
    if config.shared_steps and given is not None:
        raise ConfigError(
            f"shared_steps = {config.shared_steps} is for fresh heads, and this run starts from a trained "
            "model; leave it out"
        )
    if config.shared_steps and len(known.heads) == 1:
        raise ConfigError(
            f"shared_steps = {config.shared_steps} has no effect: the model has one head; leave it out"
        )
    data = TrainingData.of(sets, known)
    if processes.first:
        warn_of_unused_parameters(data, known)
        warn_of_repeats(data)
        if "virial" in config.learned:
            warn_of_misfits(data)
    with run_folder(folder, processes, mark=STATE_FILE, inside=("shared",)):
        begun = (folder / STATE_FILE).exists()
        if isinstance(start_from, ModelConfig):
            known = with_seen_elements(start_from, data)
            potential = new_potential(known, seed=config.seed, dtype=config.dtype)
        else:
            potential = copy.deepcopy(start_from).to(getattr(torch, config.dtype))
            if adapt is not None and not begun:
                adapt(potential)
        start: Part = start_part(given)
        trainer = functools.partial(Trainer, data=data, start=start, processes=processes, progress=progress)
        if given is None and not begun:  # else all of it is in the state
            shared = config.shared_steps > 0 and len(potential.heads) > 1
            if shared:
                tie_heads(potential)
            if processes.first and not (shared and (folder / "shared" / STATE_FILE).exists()):
                _fit_to_data(potential, data, config)
            processes.share(potential)
            if shared:
                first = trainer(potential, config=config.shared_start(), output=folder / "shared").run()
                if not first.finished:
                    return first
                potential = first.potential
                untie_heads(potential)
        trainable = head_weights(potential) if config.freeze_descriptor else None
        return trainer(potential, config=config, output=folder, trainable=trainable).run()


def _start(
    model: ModelConfig | str | Potential, sets: Mapping[str, TrainingSet | Dataset]
) -> ModelConfig | Potential:
    """What training begins with: the configuration of a preset, or what was given."""
    if isinstance(model, str):
        return model_for(model, sets)
    if not isinstance(model, (ModelConfig, Potential)):
        raise ConfigError(
            f"model = {shown(model)} is not allowed; allowed: the name of a preset, a ModelConfig, or a "
            "Potential (load_model opens one)"
        )
    return model


def _fit_to_data(potential: Potential, data: TrainingData, config: TrainConfig) -> None:
    """Statistics and energy biases of a fresh potential."""
    measure_environment(potential, data, frames=config.statistics_frames, seed=config.seed)
    fit_parameters(potential, data)
    fit_energy_biases(potential, data)
    absorb_initial_energies(potential, data, seed=config.seed)


@own_modes()
def train(
    model: ModelConfig | str | Potential,
    data: Dataset,
    config: TrainConfig = DEFAULTS,
    *,
    output: PathLike,
    validation: Dataset | Mapping[str, Dataset] | None = None,
    head: str | None = None,
    processes: Processes = ALONE,
    progress: bool = True,
) -> TrainResult:
    """Train one head on one dataset (paper, 4.3).

    Example:
        >>> train("small", Dataset.read("train.extxyz"), TrainConfig(steps=2000), output="runs/first")
    """
    require_dataset(data, "data")
    start_from = _start(model, {head or data.name: data})
    heads = (start_from.config if isinstance(start_from, Potential) else start_from).heads
    if head is None:
        if len(heads) > 1:
            raise ConfigError(f"the model has several heads ({', '.join(h.name for h in heads)}); name one")
        head = heads[0].name
    return pretrain(
        start_from,
        {head: TrainingSet(data, validation)},
        config,
        output=output,
        processes=processes,
        progress=progress,
    )
