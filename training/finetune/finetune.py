"""`finetune`: a pre-trained descriptor and head carried over to a new dataset (paper, 4.5)."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dpa2calc.ambient import own_modes
from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.atomic import write_json
from dpa2calc.files.results import from_plain
from dpa2calc.files.typed import to_dict
from dpa2calc.labels.errors import Errors
from dpa2calc.model.config import HeadConfig
from dpa2calc.model.potential import Potential
from dpa2calc.store.load import load_model
from dpa2calc.training.config.train import FINETUNE_DEFAULTS, FinetuneConfig, require_config
from dpa2calc.training.data.checks.report import check_frames
from dpa2calc.training.data.dataset import Dataset, check_set_names, require_dataset
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.data.sets import (
    TrainingData,
    TrainingSet,
    check_labels,
    check_type_map,
    warn_of_misfits,
    warn_of_repeats,
    with_seen_elements,
)
from dpa2calc.training.energy_bias import fit_energy_biases, shift_energy_bias
from dpa2calc.training.evaluate import find_head
from dpa2calc.training.fit.lora import add_lora
from dpa2calc.training.fit.resume import STATE_FILE
from dpa2calc.training.fit.setup import fit_parameters, head_weights, new_potential
from dpa2calc.training.fit.trainer import Trainer
from dpa2calc.training.runs.folder import run_folder
from dpa2calc.training.runs.identity import WAYS, start_part
from dpa2calc.training.runs.processes import ALONE, Processes
from dpa2calc.training.runs.result import TrainResult

from .ranking import HeadMatch, rank_heads

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Plan:
    """The head to start from, and the heads that were compared; none when a head was named."""

    start_head: str
    matches: tuple[HeadMatch, ...] = ()


@dataclass(frozen=True)
class FinetuneResult(TrainResult):
    """A training result, the heads that were compared, best first, and the one that was taken."""

    matches: tuple[HeadMatch, ...] = ()
    start_head: str = ""

    def summary(self) -> str:
        """As of any training, and the heads that were compared."""
        start = "a fresh head" if self.start_head == "fresh" else f"head {self.start_head}"
        lines = [super().summary(), f"began from {start}"]
        if self.matches:
            lines.append("zero-shot errors of the heads, best first:")
            lines += [f"  {match}" for match in self.matches[:5]]
        if len(self.matches) > 5:
            lines.append(f"  and {len(self.matches) - 5} more (matches)")
        return "\n".join(lines)

    def zero_shot(self) -> Errors | None:
        """Of the head that it began with, after the energy bias was fitted."""
        return next((match.errors for match in self.matches if match.head == self.start_head), None)


def check_elements(potential: Potential, data: Dataset, *, allow_new: bool) -> None:
    """Raise a DataError for elements outside the type map, or that no head has seen (unless allowed)."""
    check_type_map(data, potential.config)
    heads = potential.config.heads
    if allow_new or any(not head.elements for head in heads):
        return
    seen = {e for head in heads for e in head.elements}
    new = [e for e in data.elements if e not in seen]
    if new:
        raise DataError(
            f"{data.name} contains {', '.join(new)}, which no head of this model has seen in training, so "
            "its type embedding is random there. Start from a model that knows the element, pre-train one "
            "with `pretrain`, or set allow_new_elements = true and give enough data"
        )


@own_modes()
def finetune(
    model: Potential | PathLike,
    data: Dataset,
    config: FinetuneConfig = FINETUNE_DEFAULTS,
    *,
    output: PathLike,
    name: str | None = None,
    validation: Dataset | Mapping[str, Dataset] | None = None,
    replay: Mapping[str, TrainingSet] | None = None,
    weight: float = 1.0,
    processes: Processes = ALONE,
    progress: bool = True,
) -> FinetuneResult:
    """Train a new head, and the descriptor under it, from a pre-trained model.

    The same call on the same output folder resumes where an earlier one stopped.

    Args:
        model: a Potential, a checkpoint's path, or a published model's name.
        name: of the new head; the dataset's name when left out.
        replay: sets of the pre-training, by name, whose heads are kept and trained on beside the new
            data so that they are not forgotten; `weight` is that of the new data among them.

    Raises:
        DataError: elements new to the model. ConfigError, HeadError: wrong options or head names, or a folder
            that holds a run of other data, another model or other options, or that another process uses.
        CheckpointError: the folder's state is damaged. OutputError: the folder cannot be written.

    Example:
        >>> finetune("default", Dataset.read("train.extxyz"), FinetuneConfig(steps=2000), output="runs")
    """
    require_dataset(data, "data")
    require_config(config, FinetuneConfig)
    processes.require_batches(config.batches_per_step)
    source = (
        model
        if isinstance(model, Potential)
        else load_model(os.fspath(model) if isinstance(model, os.PathLike) else model)
    )
    check_elements(source, data, allow_new=config.allow_new_elements)
    check_frames(f"set {name or data.name!r}", data)
    check_labels(f"set {name or data.name!r}", data)
    head = HeadConfig(name=name or data.name, elements=data.elements)
    if head.name in {n for name, item in (replay or {}).items() for n in (name, item.head)}:
        raise ConfigError(
            f"a replay set or its head has the new head's name {head.name!r}; rename one of them"
        )
    sets = {head.name: TrainingSet(data, validation, weight=weight), **(replay or {})}
    check_set_names(sets)
    with run_folder(output, processes, mark=STATE_FILE) as folder:
        return _finetune_in(folder, source, sets, config, processes=processes, progress=progress)


def _finetune_in(
    folder: Path,
    source: Potential,
    sets: dict[str, TrainingSet],
    config: FinetuneConfig,
    *,
    processes: Processes,
    progress: bool,
) -> FinetuneResult:
    """The run itself; the first of the sets is the new data."""
    name, new = next(iter(sets.items()))
    data = new.train
    head = HeadConfig(name=name, elements=data.elements)
    begun = (folder / STATE_FILE).exists()
    chosen = folder / "zero_shot.json"
    plan = _read_plan(chosen) if begun else None  # what a run without a state chose may be of other data
    if plan is None:
        if processes.first:
            plan = _choose(source, data, config)
            write_json(chosen, to_dict(plan))
        plan = _of_first(plan, processes)
    start = plan.start_head
    if start not in ("fresh", *(h.name for h in source.config.heads)):
        raise ConfigError(f"{folder} holds a run from head {start!r}, which this model does not have; {WAYS}")
    kept = tuple(dict.fromkeys(s.head or n for n, s in list(sets.items())[1:]))
    origin = start_part(source, head=start)
    potential = _build(source, head, start, kept, config)
    if not begun:
        if processes.first:
            _fit_bias(potential, data, config, fresh=start == "fresh")
        processes.share(potential)
    trainable = trainable_weights(potential, config)
    training_data = TrainingData.of(sets, potential.config)
    if processes.first:
        warn_of_repeats(training_data)
        if "virial" in config.learned:
            warn_of_misfits(training_data)
    potential.config = with_seen_elements(potential.config, training_data)
    result = Trainer(
        potential,
        training_data,
        config,
        output=folder,
        trainable=trainable,
        start=origin,
        processes=processes,
        progress=progress,
    ).run()
    return FinetuneResult(**vars(result), matches=plan.matches, start_head=start)


def _choose(source: Potential, data: Dataset, config: FinetuneConfig) -> _Plan:
    if config.start_head == "fresh":
        return _Plan("fresh")
    if config.start_head != "best":
        chosen = source.config.heads[find_head(source, config.start_head)]
        if chosen.label:
            raise ConfigError(
                f"start_head = {chosen.name!r} predicts {chosen.label}; start from a head of energies, or "
                "from a fresh one"
            )
        return _Plan(chosen.name)
    frames, device = config.zero_shot_frames, config.used_device
    matches = rank_heads(source, data, frames=frames, seed=config.seed, device=device)
    for match in matches[:5]:
        logger.info("zero-shot %s", match)
    if doubt := matches[0].doubt():
        logger.warning("%s: %s", data.name, doubt)
    return _Plan(matches[0].head, matches)


def _of_first(plan: _Plan | None, processes: Processes) -> _Plan:
    """What the first process chose; another machine may rank two heads that are nearly alike otherwise."""
    text = json.dumps(None if plan is None else to_dict(plan))
    return from_plain(_Plan, json.loads(processes.text_of_first(text)))


def _read_plan(path: Path) -> _Plan | None:
    if not path.exists():
        return None
    try:
        return from_plain(_Plan, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged ({error!r}); put back a copy, or choose another output"
        ) from error


def _build(
    source: Potential, head: HeadConfig, start: str, kept: tuple[str, ...], config: FinetuneConfig
) -> Potential:
    """The new head first, then the heads to replay, over the source's descriptor."""
    names = [h.name for h in source.config.heads]
    first = None if start == "fresh" else names.index(start)
    others = [find_head(source, name) for name in kept]
    pattern = source.config.heads[first or 0]
    info = {"finetuned_from": {"head": start, "functional": pattern.functional}}
    new_head = dataclasses.replace(head, fitting=pattern.fitting, info=info)
    heads = (new_head, *(source.config.heads[place] for place in others))
    potential = new_potential(source.config.with_heads(heads), seed=config.seed, dtype=config.dtype)
    potential.descriptor.load_state_dict(source.descriptor.state_dict())
    for new, old in enumerate([first, *others]):
        if old is not None:
            potential.heads[new].load_state_dict(source.heads[old].state_dict())
    return potential


def _fit_bias(potential: Potential, data: Dataset, config: FinetuneConfig, *, fresh: bool) -> None:
    """Fit the new head's energy of each element, on top of what it predicts, and a fresh one's parameters."""
    if fresh:
        own = TrainingData({data.name: TrainingSet(data)}, {data.name: 0})
        fit_parameters(potential, own)
        fit_energy_biases(potential, own)
    if len(data.with_energies()):
        shift_energy_bias(potential, data, frames=config.zero_shot_frames, seed=config.seed)


def trainable_weights(potential: Potential, config: FinetuneConfig) -> set[str]:
    """Names of the weights that the options let train; low-rank updates are added if asked for."""
    heads = head_weights(potential)
    if config.lora_rank:
        return heads | add_lora(potential, config.lora_rank, scale=config.lora_scale, seed=config.seed)
    if config.freeze_descriptor:
        return heads
    names = {n for n, _ in potential.named_parameters()}
    if not config.freeze_layers:
        return names
    prefix = f"descriptor.{potential.descriptor.freezable}."
    layers = {n: int(n.removeprefix(prefix).split(".")[0]) for n in names if n.startswith(prefix)}
    n_layers = len(set(layers.values())) if potential.descriptor.freezable else 0
    if config.freeze_layers > n_layers:
        raise ConfigError(
            f"freeze_layers = {config.freeze_layers} is not allowed; the descriptor has {n_layers} "
            "repformer layers; use freeze_descriptor to freeze all of it"
        )
    return heads | {n for n, layer in layers.items() if layer >= config.freeze_layers}
