"""What a training run belongs to: frames and labels, the model that it starts from, and its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from dpa2calc.description import weights_digest
from dpa2calc.files.identity import Identity, Part, digest, require_same
from dpa2calc.model.config import ModelConfig, to_dict
from dpa2calc.model.potential import Potential
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.sets import TrainingData

# They decide how long a run is, what it reports and where it computes, not what a step does.
FREE_OPTIONS = frozenset(
    {
        "steps",
        "minutes",
        "clock",
        "time_limit",
        "early_stopping",
        "keep",
        "validate_every",
        "checkpoint_every",
        "log_every",
        "tensorboard",
        "prefetch",
        "neighbor_cache_mb",
        "device",
    }
)
WAYS = "give the run's own data, model and options again, or choose another output"
_LABELS = frozenset({"energy", "forces", "virial"})
_WORDS = frozenset({"group", "source", "asymmetry"})  # of a frame; they change nothing that is learned
_CHUNK = 4096  # frames that are hashed together


def data_identity(data: Dataset) -> Part:
    """Number of frames, and hashes of their structures and of their labels, to the last bit and in order."""
    return {
        "frames": len(data),
        "structures": digest(*_arrays(data, labels=False)),
        "labels": digest(*_arrays(data, labels=True)),
    }


def _arrays(data: Dataset, *, labels: bool) -> Iterator[np.ndarray]:
    names = [f.name for f in dataclasses.fields(data[0])] if len(data) else []
    chosen = [name for name in names if name not in _WORDS and (name in _LABELS) == labels]
    for first in range(0, len(data), _CHUNK):
        frames = data.frames[first : first + _CHUNK]
        yield np.array([frame.n_atoms for frame in frames])
        for name in chosen:
            values = [getattr(frame, name) for frame in frames]
            present = [np.ravel(value) for value in values if value is not None]
            # What no frame has leaves no trace: later versions may know more kinds. Words do not count.
            if present and all(value.dtype.kind in "biuf" for value in present):
                yield np.array([value is not None for value in values])
                yield np.concatenate(present)
        for name in sorted({key for frame in frames for key in frame.properties}) if labels else ():
            values = [frame.properties.get(name) for frame in frames]
            yield np.array([value is not None for value in values])
            yield np.concatenate([value for value in values if value is not None])


def set_identities(data: TrainingData) -> dict[str, Part]:
    """A part for each training set: frames of training and validation, head, weight, place in the order."""
    parts = {}
    for place, (name, item) in enumerate(data.sets.items()):
        part: Part = {"place": place, "head": item.head or name, "weight": float(item.weight)}
        part |= {f"training {key}": value for key, value in data_identity(item.train).items()}
        for own, validation in item.validation_sets().items():
            kind = f"validation ({own})" if own else "validation"
            part |= {f"{kind} {key}": value for key, value in data_identity(validation).items()}
        parts[f"set {name!r}"] = part
    return parts


def model_part(config: ModelConfig) -> Part:
    """The architecture, by dotted names; what a head's card says does not count."""
    values = to_dict(config)
    heads = values.pop("heads")
    values["heads"] = [head["name"] for head in heads]
    values["fitting"] = {head["name"]: head["fitting"] for head in heads}
    if kinds := {head["name"]: head["kind"] for head in heads if "kind" in head}:
        values["kind of head"] = kinds  # energies where none is named
    return dict(_flat(values))


def options_part(options: Mapping[str, object]) -> Part:
    """The options that decide what a step does."""
    return {name: value for name, value in options.items() if name not in FREE_OPTIONS}


def _flat(values: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def start_part(given: Potential | None, **more: object) -> Part:
    """The weights that a run starts from; `more` is what was made of them."""
    return {"weights": "fresh" if given is None else weights_digest(given), **more}


def require_same_run(stored: Identity, asked: Identity, folder: Path, config: TrainConfig) -> None:
    """Raise a ConfigError for a run of other data, another model or other options; it names what differs."""
    # An option that is younger than the state had its default then.
    options = {**options_part(to_dict(type(config)())), **stored["options"]}
    require_same({**stored, "options": options}, asked, where=str(folder), ways=WAYS[0].upper() + WAYS[1:])
