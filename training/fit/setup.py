"""Before the first step: training sets of heads, a fresh potential, statistics and energy biases."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.typed import typed
from dpa2calc.model.config import ModelConfig
from dpa2calc.model.heads import Head
from dpa2calc.model.potential import Potential
from dpa2calc.training.config.sections import check_set_names
from dpa2calc.training.data.checks.report import check_frames
from dpa2calc.training.data.checks.stress_misfit import stress_misfits
from dpa2calc.training.data.dataset import Dataset, Frame, type_lookup
from dpa2calc.training.data.labels import advice
from dpa2calc.training.statistics import (
    check_type_map,
    energy_bias,
    set_energy_bias,
    set_environment_statistics,
    set_parameter_statistics,
    spread_frames,
)

from .loader import GraphStore, require_parameters

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSet:
    """One dataset of a run.

    Attributes:
        train: frames to train on.
        validation: one set, or several by name, that steer the choice of the best weights.
        head: the head it trains; the set's own name when empty. Sets labelled with identical DFT
            settings should share a head.
        weight: proportional to the chance of being drawn, and to its share in the validation score.
    """

    train: Dataset
    validation: Dataset | Mapping[str, Dataset] | None = None
    head: str = ""
    weight: float = 1.0

    def validation_sets(self) -> dict[str, Dataset]:
        """The validation sets by name ("" for a single one)."""
        if self.validation is None:
            return {}
        return {"": self.validation} if isinstance(self.validation, Dataset) else dict(self.validation)


@dataclass(frozen=True)
class TrainingData:
    """All sets of a run by name, checked against the potential's heads and type map."""

    sets: Mapping[str, TrainingSet]
    heads: Mapping[str, int] = field(default_factory=dict)  # set name -> position of its head

    @classmethod
    def of(cls, sets: Mapping[str, TrainingSet | Dataset], config: ModelConfig) -> TrainingData:
        """Check the sets and find their heads.

        Raises:
            ConfigError: a head is not in the model, or a weight is not positive.
            DataError: a set is empty, has no labels, or has elements outside the type map.
        """
        if not sets:
            raise ConfigError("there is no training set; name at least one")
        whole = {n: s if isinstance(s, TrainingSet) else TrainingSet(s) for n, s in sets.items()}
        check_set_names(whole)
        names = [h.name for h in config.heads]
        heads = {}
        for name, item in whole.items():
            head = item.head or name
            if head not in names:
                raise ConfigError(
                    f"set {name!r}: no head {head!r} in the model; its heads are {', '.join(names)}"
                )
            heads[name] = names.index(head)
            weight = typed(float, item.weight, f"set {name!r}: weight")
            if not weight > 0:
                raise ConfigError(f"set {name!r}: weight = {weight} is not allowed; allowed: above 0")
            _check_set(name, item, config)
        return cls(whole, heads)


def _check_set(name: str, item: TrainingSet, config: ModelConfig) -> None:
    if len(item.train) == 0:
        raise DataError(f"set {name!r} has no training frames")
    head = next(head for head in config.heads if head.name == (item.head or name))
    parts = {f"set {name!r}": item.train}
    parts |= {
        f"set {name!r}, validation{f' {own}' if own else ''}": d for own, d in item.validation_sets().items()
    }
    for title, part in parts.items():
        check_type_map(part, config)
        check_frames(title, part)
        for frame in part:
            require_parameters(frame, head.fitting)
    check_labels(name, item.train, head.label)


def check_labels(name: str, data: Dataset, label: str = "") -> None:
    """Raise a DataError unless some frame has a label, that of the head where it has one of its own."""
    if label:
        if not any(label in frame.properties for frame in data):
            raise DataError(
                f"set {name!r}: no frame has {label}, which its head learns; set atoms.arrays[{label!r}], "
                "one number an atom"
            )
    elif not any(len(frame.lacking) < 3 for frame in data):
        raise DataError(
            f"set {name!r}: no frame has an energy, forces or a stress; "
            f"{advice(chain(*data.unread_labels.values()))}"
        )


def warn_of_misfits(data: TrainingData) -> None:
    """Log a warning for every set with stresses that contradict its energies."""
    for name, item in data.sets.items():
        found = stress_misfits(item.train)
        if found:
            more = f" (and {len(found) - 1} more groups of frames)" if len(found) > 1 else ""
            mend = (
                "drop = ['stress misfit'] in [sets.NAME], or clean(data, drop=('stress misfit',)), leaves "
                "these stresses out"
            )
            logger.warning("%s: %s%s. %s", name, found[0], more, mend)


def new_potential(config: ModelConfig, *, seed: int, dtype: str = "float32") -> Potential:
    """A potential with random weights of a seed; the global random state is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Potential(config, dtype=getattr(torch, dtype))


def head_weights(potential: Potential) -> set[str]:
    """Names of the fitting nets' weights, which are trained where the descriptor is frozen."""
    return {n for n, _ in potential.named_parameters() if n.startswith("heads.")}


def measure_environment(
    potential: Potential, data: TrainingData, *, frames: int = 100, seed: int = 0
) -> None:
    """Measure the environment statistics over at most `frames` frames of every set, sets by weight."""
    pairs = []
    for item in data.sets.values():
        store = GraphStore(item.train, potential.config)
        chosen = spread_frames(item.train, frames, seed=seed)
        pairs += [(store, index, item.weight / len(chosen)) for index in chosen]
    set_environment_statistics(potential, ((store.graph(i), weight) for store, i, weight in pairs))


def fit_energy_biases(potential: Potential, data: TrainingData) -> None:
    """Fit the energy bias of every head to all its sets; heads without energies keep theirs.

    Heads with a label of their own take from it what they want.
    """
    for head in set(data.heads.values()):
        frames = [f for n, s in data.sets.items() if data.heads[n] == head for f in s.train]
        if label := potential.config.heads[head].label:
            _fit_to_own_label(potential, head, [f for f in frames if label in f.properties], label)
            continue
        joint = Dataset(tuple(frames), potential.config.heads[head].name)
        if any(frame.energy is not None for frame in frames):
            bias, _ = energy_bias(joint, potential.config.type_map)
            set_energy_bias(potential, head, bias)


def _fit_to_own_label(potential: Potential, head: int, frames: list[Frame], label: str) -> None:
    module, lookup = potential.heads[head], type_lookup(potential.config.type_map)
    assert isinstance(module, Head)
    numbers = np.concatenate([frame.numbers for frame in frames])
    labels = np.concatenate([frame.properties[label] for frame in frames])
    module.fit_to(torch.from_numpy(labels), torch.from_numpy(lookup[numbers]))


def warn_of_unused_parameters(data: TrainingData, config: ModelConfig) -> None:
    """Log a warning for every set with frame or atomic parameters that its head does not take."""
    for name, item in data.sets.items():
        head = config.heads[data.heads[name]]
        for kind, taken in (("fparam", head.fitting.numb_fparam), ("aparam", head.fitting.numb_aparam)):
            if not taken and any(getattr(frame, kind) is not None for frame in item.train):
                logger.warning(
                    "%s: its frames have %s, which head %r does not take (numb_%s = 0); it is left out",
                    name, kind, head.name, kind,
                )  # fmt: skip


def fit_parameters(potential: Potential, data: TrainingData) -> None:
    """Measure mean and deviation of the parameters that heads take, over all their training frames."""
    for head in set(data.heads.values()):
        frames = [f for n, s in data.sets.items() if data.heads[n] == head for f in s.train]
        set_parameter_statistics(potential, head, frames)
