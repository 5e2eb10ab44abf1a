"""An ensemble of last layers, from one evaluation: all that it says is linear in them (docs/maths.md 17)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpa2calc.ambient import gradient
from dpa2calc.model.rigidity import Rigidity
from dpa2calc.structures.graph import Graph


@dataclass(frozen=True)
class Ensemble:
    """By how much each member differs from the model; float64, eV and Å.

    energy (members, n_structures); forces (members, n_atoms, 3); virial (members, n_structures, 3, 3).
    """

    energy: Tensor
    forces: Tensor
    virial: Tensor


def ensemble(
    graph: Graph, features: Tensor, vectors: Tensor, rigidity: Rigidity, *, centers: int | None = None
) -> Ensemble:
    """The members of `rigidity.draws`: one backward pass each, the descriptor is not computed again.

    Args:
        features: (n_atoms, m), differentiable; the graph of derivatives is kept.
        vectors: (n_atoms, k, 3), with respect to which.
        centers: only the energies of the first so many atoms.
    """
    draws = rigidity.draws(graph.types.to(features.device))[:, :centers]
    energies, forces, virials = [], [], []
    for draw in draws:
        with torch.enable_grad():
            atomic = (features[:centers] * draw).sum(dim=1)
            p = gradient(atomic.sum(), vectors, retain_graph=True).to(graph.vectors)
        total = p.new_zeros(graph.n_structures)
        energies.append(total.index_add(0, graph.structure[:centers], atomic.detach().to(total)))
        forces.append(forces_of(p, graph))
        virials.append(virial_of(p, graph))
    return Ensemble(torch.stack(energies), torch.stack(forces), torch.stack(virials))


def forces_of(p: Tensor, graph: Graph) -> Tensor:
    """F_i = sum_j (p_ij - p_ji), (n_atoms, 3), of p = dE/dd_ij (n_atoms, k, 3)."""
    return p.sum(dim=1) - to_neighbors(p, graph)


def virial_of(p: Tensor, graph: Graph) -> Tensor:
    """W = -sum_ij p_ij (x) d_ij, (n_structures, 3, 3), of p = dE/dd_ij (n_atoms, k, 3)."""
    per_center = -torch.einsum("nka,nkb->nab", p, graph.vectors)
    return p.new_zeros(graph.n_structures, 3, 3).index_add(0, graph.structure, per_center)


def to_neighbors(values: Tensor, graph: Graph) -> Tensor:
    """Sum (n, k, ...) values at the neighbours' owners: (n_atoms, ...)."""
    # One component after the other: adding rows of a few numbers costs ten times as much.
    to, none = graph.neighbors.flatten(), values.new_zeros(graph.n_atoms)
    columns = [none.index_add(0, to, column.flatten()) for column in values.flatten(2).unbind(2)]
    return torch.stack(columns, dim=1).view(graph.n_atoms, *values.shape[2:])
