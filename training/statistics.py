"""What is measured on the data before training: statistics of environments and of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from dpa2calc.model.neighborhood import Environment, switch
from dpa2calc.model.potential import Potential
from dpa2calc.structures.graph import Graph
from dpa2calc.training.data.frame import Frame
from dpa2calc.training.data.sets import require_parameters

STD_FLOOR = 1e-2
STD_WITHOUT_DATA = 0.1


class EnvironmentMoments:
    """Running sums of the raw environment rows of one block by centre type (docs/maths.md 1)."""

    def __init__(self, environment: Environment, n_types: int, *, nearest: bool):
        self.environment, self.nearest = environment, nearest
        self.slots = torch.zeros(n_types, dtype=torch.float64)
        self.first = torch.zeros(n_types, dtype=torch.float64)  # sum of R_0
        self.radial = torch.zeros(n_types, dtype=torch.float64)  # sum of R_0^2
        self.angular = torch.zeros(n_types, dtype=torch.float64)  # sum of R_1..3^2
        self.vector = torch.zeros(n_types, dtype=torch.float64)  # sum of R_1 + R_2 + R_3

    def add(self, graph: Graph, weight: float = 1.0) -> None:
        """Count every slot of every atom of a graph, padding as zeros."""
        e = self.environment
        width = min(graph.mask.shape[1], e.nsel) if self.nearest else graph.mask.shape[1]
        vectors = graph.vectors[:, :width]
        r = torch.linalg.vector_norm(vectors, dim=-1)
        w = switch(r, e.cutoff, e.cutoff_smooth) * graph.mask[:, :width]
        r0 = w / (r + e.protection)
        rv = (r0 / (r + e.protection)).unsqueeze(-1) * vectors  # (n, k, 3)
        n_types = len(self.slots)
        ones = torch.full((graph.n_atoms,), float(e.nsel), dtype=torch.float64)
        for total, value in (
            (self.slots, ones),
            (self.first, r0.sum(1)),
            (self.radial, (r0 * r0).sum(1)),
            (self.vector, rv.sum((1, 2))),
            (self.angular, (rv * rv).sum((1, 2))),
        ):
            total += weight * torch.zeros(n_types, dtype=torch.float64).index_add(0, graph.types, value)

    def result(self, *, mean_is_zero: bool) -> tuple[Tensor, Tensor]:
        """(mean, std), each (n_types, 4) float64; types without data get 0 and 0.1."""
        seen = self.slots > 0
        slots = torch.where(seen, self.slots, 1.0)

        def deviation(squares: Tensor, sums: Tensor, count: Tensor) -> Tensor:
            variance = (squares / count - (sums / count) ** 2).clamp_min(0.0)
            return torch.where(seen, variance.sqrt().clamp_min(STD_FLOOR), STD_WITHOUT_DATA)

        radial = deviation(self.radial, self.first, slots)
        angular = deviation(self.angular, self.vector, 3.0 * slots)
        mean = torch.zeros(len(slots), 4, dtype=torch.float64)
        if not mean_is_zero:
            mean[:, 0] = self.first / slots
        return mean, torch.stack([radial, angular, angular, angular], dim=1)


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
