"""Before the first step: a fresh potential, its statistics from the data, and heads that begin as one."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dpa2calc.errors import ConfigError
from dpa2calc.model.config import ModelConfig
from dpa2calc.model.neighborhood import Environment, switch
from dpa2calc.model.potential import Potential
from dpa2calc.structures.graph import Graph
from dpa2calc.training.data.dataset import spanning_frames
from dpa2calc.training.data.frame import Frame
from dpa2calc.training.data.sets import TrainingData, require_parameters

from .loader import GraphStore

STD_FLOOR = 1e-2
STD_WITHOUT_DATA = 0.1


def new_potential(config: ModelConfig, *, seed: int, dtype: str = "float32") -> Potential:
    """A potential with random weights of a seed; the global random state is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Potential(config, dtype=getattr(torch, dtype))


def head_weights(potential: Potential) -> set[str]:
    """Names of the fitting nets' weights, which are trained where the descriptor is frozen."""
    return {n for n, _ in potential.named_parameters() if n.startswith("heads.")}


class EnvironmentMoments:
    """Running sums of the raw environment rows of one block by centre type (docs/maths.md 1).

    sums: (5, n_types) of the slots, R_0, R_0^2, R_1 + R_2 + R_3 and R_1..3^2.
    """

    def __init__(self, environment: Environment, n_types: int, *, nearest: bool):
        self.environment, self.nearest = environment, nearest
        self.sums = torch.zeros(5, n_types, dtype=torch.float64)

    def add(self, graph: Graph, weight: float = 1.0) -> None:
        """Count every slot of every atom of a graph, padding as zeros."""
        e = self.environment
        width = min(graph.mask.shape[1], e.nsel) if self.nearest else graph.mask.shape[1]
        vectors = graph.vectors[:, :width]
        r = torch.linalg.vector_norm(vectors, dim=-1)
        w = switch(r, e.cutoff, e.cutoff_smooth) * graph.mask[:, :width]
        r0 = w / (r + e.protection)
        rv = (r0 / (r + e.protection)).unsqueeze(-1) * vectors  # (n, k, 3)
        slots = r0.new_full((graph.n_atoms,), float(e.nsel))
        rows = [slots, r0.sum(1), (r0 * r0).sum(1), rv.sum((1, 2)), (rv * rv).sum((1, 2))]
        self.sums += weight * torch.zeros_like(self.sums).index_add(1, graph.types, torch.stack(rows))

    def result(self, *, mean_is_zero: bool) -> tuple[Tensor, Tensor]:
        """(mean, std), each (n_types, 4) float64; types without data get 0 and 0.1."""
        slots, first, radial, vector, angular = self.sums
        seen = slots > 0
        slots = torch.where(seen, slots, 1.0)

        def deviation(squares: Tensor, sums: Tensor, count: Tensor) -> Tensor:
            variance = (squares / count - (sums / count) ** 2).clamp_min(0.0)
            return torch.where(seen, variance.sqrt().clamp_min(STD_FLOOR), STD_WITHOUT_DATA)

        std = deviation(angular, vector, 3.0 * slots).repeat(4, 1).T.contiguous()
        std[:, 0] = deviation(radial, first, slots)
        mean = torch.zeros_like(std)
        if not mean_is_zero:
            mean[:, 0] = first / slots
        return mean, std


def set_environment_statistics(
    potential: Potential, graphs: Iterable[Graph] | Iterable[tuple[Graph, float]]
) -> None:
    """Measure mean and deviation on the graphs (or (graph, weight) pairs) and write them into the potential.

    Under the rule "all" the same formula is used with `nsel` slots per atom.
    """
    environments = [m for m in potential.descriptor.modules() if isinstance(m, Environment)]
    nearest = potential.config.neighbor_rule == "nearest"
    n_types = potential.config.n_types
    moments = [EnvironmentMoments(e, n_types, nearest=nearest) for e in environments]
    for item in graphs:
        graph, weight = item if isinstance(item, tuple) else (item, 1.0)
        for moment in moments:
            moment.add(graph, weight)
    for environment, moment in zip(environments, moments):
        mean, std = moment.result(mean_is_zero=environment.mean_is_zero)
        environment.mean.copy_(mean)
        environment.std.copy_(std)


def set_parameter_statistics(potential: Potential, head: int, frames: Sequence[Frame]) -> None:
    """Write mean and inverse deviation of the frame and atomic parameters that one head takes.

    As in deepmd-kit: over all frames (fparam) and all atoms (aparam), with a deviation of at least 0.01.
    Where some frames have no fparam the head's default stands in for it.

    Raises:
        DataError: a frame lacks what the head needs.
    """
    module = potential.get_submodule(f"heads.{head}")
    fitting = potential.config.heads[head].fitting
    for frame in frames:
        require_parameters(frame, fitting)
    default = fitting.default_fparam
    fparam = [given for f in frames if (given := f.fparam if f.fparam is not None else default) is not None]
    aparam = [f.aparam for f in frames if f.aparam is not None]
    for name, number, rows in (
        ("fparam", fitting.numb_fparam, fparam),
        ("aparam", fitting.numb_aparam, aparam),
    ):
        if not number or not rows:
            continue
        values = np.concatenate([np.asarray(row, dtype=np.float64).reshape(-1, number) for row in rows])
        deviation = np.maximum(values.std(axis=0), STD_FLOOR)
        for kind, result in (("avg", values.mean(axis=0)), ("inv_std", 1.0 / deviation)):
            module.get_buffer(f"{name}_{kind}").copy_(torch.from_numpy(result))


def measure_environment(
    potential: Potential, data: TrainingData, *, frames: int = 100, seed: int = 0
) -> None:
    """Measure the environment statistics over about `frames` frames of every set, sets by weight."""
    pairs = []
    for item in data.sets.values():
        store = GraphStore(item.train, potential.config)
        chosen = spanning_frames(item.train, frames, seed=seed)
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
