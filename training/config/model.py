"""The model that a training file names: a preset with changes, a configuration, or a trained one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

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
        return with_cards(section, run)
    if isinstance(section, str):
        if section not in preset_names():
            return trained_model(section, run.root)
        section = ModelSection(preset=section)
    config = model_for(section.preset, sets, type_map=section.type_map or None)
    return with_cards(with_changes(config, section), run)


def trained_model(name: str, root: Path) -> Potential:
    """The model of a checkpoint file below `root`, or of a published name, or a ConfigError."""
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
    """A preset's configuration with a section's changes to descriptor and fitting nets."""
    fitting = build(FittingConfig, {**to_dict(FittingConfig()), **section.fitting})
    heads = tuple(dataclasses.replace(head, fitting=fitting) for head in config.heads)
    return dataclasses.replace(config, descriptor=changed_descriptor(config, section), heads=heads)


def changed_descriptor(config: ModelConfig, section: ModelSection) -> DescriptorConfig:
    """The descriptor of a section's preset with its changes; raises a ConfigError for an unknown part."""
    options = merged(to_dict(preset(section.preset, config.type_map).descriptor), section.descriptor, "")
    return build(type(config.descriptor), options)


def merged(base: Mapping[str, object], changes: Mapping[str, object], where: str) -> dict[str, object]:
    """Changes put over a nested table; "none" removes a part."""
    out = dict(base)
    for key, value in changes.items():
        if key not in base:
            place = f"model.descriptor.{where}"
            raise ConfigError(unknown_key(f"{place}{key}", value, [f"{place}{name}" for name in base]))
        inner = base[key]
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            out[key] = merged(inner, value, f"{where}{key}.")
        else:
            out[key] = None if value == "none" else value
    return out


def with_cards(config: ModelConfig, run: RunFile[TrainConfig]) -> ModelConfig:
    """Functional, description, source and licence of the sets, written into their heads."""
    heads = []
    for head in config.heads:
        parts = {n: s for n, s in run.sets.items() if (s.head or n) == head.name}
        sources = {
            n: {"source": s.source, "licence": s.licence} for n, s in parts.items() if s.source or s.licence
        }
        functional = head.functional or next((s.functional for s in parts.values()), "")
        text = "; ".join(dict.fromkeys(s.description for s in parts.values() if s.description))
        info = {**head.info, **({"data": sources} if sources else {})}
        text = head.description or text
        heads.append(dataclasses.replace(head, functional=functional, description=text, info=info))
    return config.with_heads(tuple(heads))
