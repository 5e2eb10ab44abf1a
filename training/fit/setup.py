"""Before the first step: a fresh potential, its statistics, and heads that begin as one."""

from __future__ import annotations

import copy

import torch
from torch import nn

from dpa2calc.errors import ConfigError
from dpa2calc.model.config import ModelConfig
from dpa2calc.model.potential import Potential
from dpa2calc.training.data.dataset import spread_frames
from dpa2calc.training.data.sets import TrainingData
from dpa2calc.training.statistics import set_environment_statistics, set_parameter_statistics

from .loader import GraphStore


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


def fit_parameters(potential: Potential, data: TrainingData) -> None:
    """Measure mean and deviation of the parameters that heads take, over all their training frames."""
    for head in set(data.heads.values()):
        set_parameter_statistics(potential, head, list(data.frames(head)))


def tie_heads(potential: Potential) -> None:
    """Give every head the fitting net of the first one; energy biases stay their own.

    Energies of different DFT settings differ by little more than their element biases. A head of its own
    sees only the batches of its sets, a few in a hundred; while all share one net, each batch trains it.

    Raises:
        ConfigError: the heads' fitting nets are of different shapes.
    """
    first, pattern = potential.heads[0], potential.config.heads[0]
    for config, head in zip(potential.config.heads, potential.heads):
        if (config.kind, config.fitting) != (pattern.kind, pattern.fitting):
            raise ConfigError(
                f"shared_steps needs heads of one kind with equal fitting nets; {config.name!r} differs from "
                f"{pattern.name!r}; set shared_steps = 0 or make them equal"
            )
        head.nets = first.nets


def untie_heads(potential: Potential) -> None:
    """Give every head its own copy of the shared net."""
    for head in list(potential.heads)[1:]:
        nets = copy.deepcopy(head.nets)
        assert isinstance(nets, nn.ModuleList)
        head.nets = nets
