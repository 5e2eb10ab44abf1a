"""A trained model made larger before it learns on: more updates, layers and heads, the same predictions.

A new update of a residual layer enters with a factor of zero, so that the model starts where it was; the
factor learns first, what it multiplies after that. (The idea is Net2Net's: Chen et al., arXiv:1511.05641.)
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np
import torch
from ase.data import atomic_numbers

from dpa2calc.errors import ConfigError
from dpa2calc.files.atomic import write_json, writing
from dpa2calc.files.typed import build
from dpa2calc.model.config import DescriptorConfig, FittingConfig, ModelConfig, to_dict
from dpa2calc.model.potential import Potential
from dpa2calc.training.config.model import merged, trained_model, with_cards
from dpa2calc.training.config.run_file import RunFile
from dpa2calc.training.config.sections import ModelSection
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset, Frame
from dpa2calc.training.data.readers.frame_file import read_json
from dpa2calc.training.data.sets import TrainingData, TrainingSet, model_for
from dpa2calc.training.energy_bias import absorb_initial_energies, fit_energy_biases, shift_energy_bias
from dpa2calc.training.fit.predict import predict_potential
from dpa2calc.training.fit.resume import STATE_FILE
from dpa2calc.training.fit.setup import new_potential
from dpa2calc.training.runs.processes import ALONE, Processes

from .ranking import rank_heads

PATTERNS_FILE = "copied_heads.json"  # in a run's folder: the head that each new one began as
_FACTOR = re.compile(r"\.[gh][12]_residual\.\d+$")


def grown(
    model: Potential,
    sets: Mapping[str, TrainingSet],
    *,
    descriptor: DescriptorConfig | None = None,
    fitting: FittingConfig | None = None,
    patterns: Mapping[str, str] | None = None,
    seed: int = 1,
) -> Potential:
    """A copy of a model with the heads that `sets` lack in it, and with the parts that a descriptor adds.

    Forces of its heads are unchanged. A new head starts as a copy, with energies of the elements fitted to a
    few of its frames; so are those of any head with several sets, whose compositions may say more than the
    one set that the model learned it from.

    Args:
        descriptor: the model's own with parts switched on that end in a residual factor, such as
            `update_g2_has_attn` of a repformer with `update_style = "res_residual"`, or with more layers.
        fitting: of fresh fitting nets for the new heads, in place of copies.
        patterns: the head to copy for each new one; if not given the one that is best on a few of its frames.

    Raises:
        ConfigError: a part of another shape, or one that would change the predictions.
    """
    fresh = _fresh(model, sets)
    named = {} if fitting else best_heads(model, sets, seed=seed) if patterns is None else patterns
    names = [head.name for head in model.config.heads]
    places = {new: names.index(old) for new, old in named.items()}
    config = _larger(model.config, fresh, descriptor or model.config.descriptor, fitting, places)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    potential = new_potential(config, seed=seed, dtype=dtype)
    _take_weights(potential, model, places)
    _require_equal(potential, model)
    if fresh:
        new = TrainingData.of(fresh, config)
        fit_energy_biases(potential, new)
        if fitting:
            absorb_initial_energies(potential, new, seed=seed)
    data = TrainingData.of(sets, config) if sets else TrainingData({})
    for head, n_sets in sorted(Counter(data.heads.values()).items()):
        if n_sets > 1 or head >= len(names):  # on top of what the nets say
            joint = Dataset(tuple(data.frames(head)), potential.config.heads[head].name)
            shift_energy_bias(potential, joint, head=head, frames=40 * n_sets, seed=seed)
    return potential


def grown_model(
    section: ModelSection,
    run: RunFile[TrainConfig],
    sets: Mapping[str, TrainingSet],
    *,
    processes: Processes = ALONE,
) -> Potential:
    """The model of a file's `[model]` with `start`: larger by what the section adds, a head for each set.

    Which heads the new ones copy is kept in the run's folder, so that resuming need not rank them again.

    Raises:
        ConfigError: see `grown`; or there is no such model, or an unknown part of a descriptor.
    """
    model = trained_model(section.start, run.root)
    old, own = model.config.descriptor, section.fitting
    descriptor = build(type(old), merged(to_dict(old), section.descriptor, ""))
    fitting = build(FittingConfig, {**to_dict(FittingConfig()), **own}) if own else None
    patterns = None if fitting else _kept_patterns(model, run, sets, processes)
    potential = grown(
        model, sets, descriptor=descriptor, fitting=fitting, patterns=patterns, seed=run.config.seed
    )
    potential.config = with_cards(potential.config, run)
    return potential


def best_heads(model: Potential, sets: Mapping[str, TrainingSet], *, seed: int = 1) -> dict[str, str]:
    """For each head that a model lacks the one of its own that does best on a few frames of the first set."""
    return {
        item.head or name: rank_heads(model, item.train, frames=6, seed=seed)[0].head
        for name, item in reversed(list(_fresh(model, sets).items()))
    }


def _fresh(model: Potential, sets: Mapping[str, TrainingSet]) -> dict[str, TrainingSet]:
    known = {head.name for head in model.config.heads}
    return {name: item for name, item in sets.items() if (item.head or name) not in known}


def _kept_patterns(
    model: Potential, run: RunFile[TrainConfig], sets: Mapping[str, TrainingSet], processes: Processes
) -> dict[str, str]:
    """Those of a run that has begun, else the best heads, which are then kept."""
    path, own = run.output / PATTERNS_FILE, {head.name for head in model.config.heads}
    needed = {item.head or name for name, item in _fresh(model, sets).items()}
    if path.exists() and (run.output / STATE_FILE).exists():
        kept = read_json(path)
        if isinstance(kept, dict) and set(kept) == needed and own.issuperset(kept.values()):
            return kept
    found: dict[str, str] = {}
    if processes.first:
        found = best_heads(model, sets, seed=run.config.seed)
        with writing(run.output):
            run.output.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    return dict(json.loads(processes.text_of_first(json.dumps(found))))


def _larger(
    config: ModelConfig,
    fresh: Mapping[str, TrainingSet],
    descriptor: DescriptorConfig,
    fitting: FittingConfig | None,
    patterns: Mapping[str, int],
) -> ModelConfig:
    heads = list(config.heads)
    if fresh:
        for head in model_for("small", fresh, type_map=config.type_map).heads:
            net = fitting or config.heads[patterns[head.name]].fitting
            heads.append(dataclasses.replace(head, fitting=net))
    return dataclasses.replace(config, descriptor=descriptor).with_heads(tuple(heads))


@torch.no_grad()
def _take_weights(potential: Potential, model: Potential, patterns: Mapping[str, int]) -> None:
    """Weights and statistics of the old model, copies for new heads; zero for the factors of new updates."""
    old, new = model.state_dict(), potential.state_dict()
    moved = [name for name, value in old.items() if name not in new or new[name].shape != value.shape]
    if moved:
        raise ConfigError(
            f"the model cannot grow this way: {moved[0]} would have another shape or no place; only updates "
            "with a residual factor (update_g1_has_attn, update_g2_has_attn, update_g2_has_g1g1 with "
            "update_style = 'res_residual'), layers and heads can be added"
        )
    for name, value in new.items():
        if name in old:
            value.copy_(old[name])
        elif _FACTOR.search(name):
            value.zero_()
    names = [head.name for head in potential.config.heads]
    for name, place in patterns.items():
        potential.heads[names.index(name)].load_state_dict(model.heads[place].state_dict())


def _require_equal(potential: Potential, model: Potential) -> None:
    """Raise a ConfigError where the larger model disagrees with the old one on a small cluster."""
    numbers = np.array([atomic_numbers[symbol] for symbol in model.config.type_map[:4]] * 2)
    corners = 1.6 * np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    places = corners[: len(numbers)]
    data = Dataset((Frame(numbers, places, np.zeros((3, 3)), np.zeros(3, dtype=bool), energy=0.0),))
    old, new = (np.array(predict_potential(p, data)[0].forces) for p in (model, potential))
    if not np.allclose(old, new, rtol=1e-4, atol=1e-5):
        raise ConfigError(
            "the model cannot grow this way: its predictions would change, because an update would be put "
            "before others of its layer; add update_g2_has_attn or update_g1_has_attn alone"
        )
