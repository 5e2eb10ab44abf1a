"""The model that a training file names: a preset with changes, a configuration, or a trained one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpa2calc.errors import CheckpointError, ConfigError
from dpa2calc.files.typed import build, unknown_key
from dpa2calc.model.config import DescriptorConfig, FittingConfig, ModelConfig, to_dict
from dpa2calc.model.config.presets import preset, preset_names

from .sections import ModelSection

if TYPE_CHECKING:
    from dpa2calc.model.potential import Potential
    from dpa2calc.training.data.sets import TrainingSet

    from .run_file import RunFile
    from .train import TrainConfig


def build_model(run: RunFile[TrainConfig], sets: Mapping[str, TrainingSet]) -> ModelConfig | Potential:
    """The configuration of a file's `[model]`, with the sets' heads and what is known of them.

    A text that is no preset is a trained model to start from: a checkpoint file, or a name as in
    `DPA2Calculator(name)`; its heads must be those that the sets name.
    """
    from dpa2calc.training.data.sets import model_for

    section = run.model
    if isinstance(section, ModelConfig):
        return _with_cards(section, run)
    if isinstance(section, str):
        if section not in preset_names():
            return trained_model(section, run.root)
        section = ModelSection(preset=section)
    if section.start:
        return _grown_model(section, run, sets)
    config = model_for(section.preset, sets, type_map=section.type_map or None)
    return _with_cards(with_changes(config, section), run)


def _grown_model(
    section: ModelSection, run: RunFile[TrainConfig], sets: Mapping[str, TrainingSet]
) -> Potential:
    """The model of `start` with what the section adds, and a head for each set that has none."""
    from dpa2calc.training.finetune.grow import grown

    model = trained_model(section.start, run.root)
    descriptor = build(
        type(model.config.descriptor), _merge(to_dict(model.config.descriptor), section.descriptor, "")
    )
    fitting = (
        build(FittingConfig, {**to_dict(FittingConfig()), **section.fitting}) if section.fitting else None
    )
    return grown(model, sets, descriptor=descriptor, fitting=fitting, seed=run.config.seed)


def trained_model(name: str, root: Path) -> Potential:
    """The model of a checkpoint file below `root`, or of a published name.

    Raises:
        ConfigError: there is none.
    """
    from dpa2calc.store.load import load_model

    beside = root / name
    try:
        return load_model(beside if os.path.isfile(beside) else name)
    except CheckpointError as error:
        presets = ", ".join(preset_names())
        raise ConfigError(
            f"model = {name!r} is neither a preset ({presets}) nor a trained model: {error}"
        ) from error


def with_changes(config: ModelConfig, section: ModelSection) -> ModelConfig:
    """A preset's configuration with a section's changes to descriptor and fitting nets.

    Raises:
        ConfigError: an unknown part; the nearest is named.
    """
    descriptor = changed_descriptor(config, section)
    fitting = build(FittingConfig, {**to_dict(FittingConfig()), **section.fitting})
    heads = tuple(dataclasses.replace(head, fitting=fitting) for head in config.heads)
    return dataclasses.replace(config, descriptor=descriptor, heads=heads)


def changed_descriptor(config: ModelConfig, section: ModelSection) -> DescriptorConfig:
    """The descriptor of a section's preset with its changes.

    Raises:
        ConfigError: an unknown part; the nearest is named.
    """
    merged = _merge(to_dict(preset(section.preset, config.type_map).descriptor), section.descriptor, "")
    return build(type(config.descriptor), merged)


def _merge(base: dict[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Changes put over a nested table; "none" removes a part."""
    out = dict(base)
    for key, value in changes.items():
        if key not in base:
            place = f"model.descriptor.{where}"
            raise ConfigError(unknown_key(f"{place}{key}", value, [f"{place}{name}" for name in base]))
        if isinstance(value, Mapping) and isinstance(base[key], Mapping):
            out[key] = _merge(base[key], value, f"{where}{key}.")
        else:
            out[key] = None if value == "none" else value
    return out


def _with_cards(config: ModelConfig, run: RunFile[TrainConfig]) -> ModelConfig:
    """Functional, description, source and licence of the sets, written into their heads."""
    heads = []
    for head in config.heads:
        parts = {n: s for n, s in run.sets.items() if (s.head or n) == head.name}
        sources = {
            n: {"source": s.source, "licence": s.licence} for n, s in parts.items() if s.source or s.licence
        }
        first = next(iter(parts.values()), None)
        described = dict.fromkeys(s.description for s in parts.values() if s.description)
        heads.append(
            dataclasses.replace(
                head,
                functional=head.functional or (first.functional if first else ""),
                description=head.description or "; ".join(described),
                info={**head.info, **({"data": sources} if sources else {})},
            )
        )
    return config.with_heads(tuple(heads))
