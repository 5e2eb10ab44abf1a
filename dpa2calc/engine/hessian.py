"""Second derivatives of the energy with respect to positions, exact, row by row.

The neighbours are found once; every row is then one more backward pass, through that of the forces. Where
an atom's energy depends on its own neighbours alone, the rows of all atoms can be had together, neighbour by
neighbour, so that the number of passes does not grow with the system.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from dpa2calc.ambient import differentiable, gradient
from dpa2calc.errors import ConfigError
from dpa2calc.progress import progress_bar
from dpa2calc.store.checkpoint import blank_potential
from dpa2calc.structures.graph import Graph
from dpa2calc.structures.graph_builder import Inspector, graph_from_atoms
from dpa2calc.validation import check_finite

from .committee import Member
from .dense import member_graphs
from .dispersion import Dispersion, dispersion_results

_STEP = 1e-3  # Å; dftd3 has no second derivatives, and its forces are smooth enough for differences


def hessian_rows(
    members: Sequence[Member],
    atoms: Atoms,
    indices: Sequence[int] | np.ndarray | None,
    *,
    dispersion: Dispersion | None,
    inspect: Inspector,
    progress: bool,
) -> np.ndarray:
    """Rows of the mean Hessian of the members, (3m, 3n) in eV/Å², of the m atoms `indices` (None: all).

    Raises:
        ConfigError: indices that are none; a head without energies.
    """
    chosen = _checked(indices, len(atoms))
    graphs = member_graphs(members, atoms, partial(graph_from_atoms, atoms, positions=False, inspect=inspect))
    total = np.zeros((3 * len(chosen), 3 * len(atoms)))
    for member, graph in zip(members, graphs):
        total += _of_member(member, graph, chosen, progress) / len(members)
    if dispersion is not None:
        total += _of_dispersion(atoms, dispersion, chosen, progress)
    check_finite({"hessian": total})
    return total


def _checked(indices: Sequence[int] | np.ndarray | None, n_atoms: int) -> np.ndarray:
    if indices is None:
        return np.arange(n_atoms)
    chosen = np.asarray(indices)
    whole = chosen.ndim == 1 and len(chosen) > 0 and np.issubdtype(chosen.dtype, np.integer)
    if not whole or chosen.min() < 0 or chosen.max() >= n_atoms:
        raise ConfigError(
            f"indices = {indices!r}; give numbers of atoms from 0 to {n_atoms - 1}, or None for all of them"
        )
    return chosen


def _of_member(member: Member, graph: Graph, chosen: np.ndarray, progress: bool) -> np.ndarray:
    """(3m, 3n), by a copy in float64: the member's own weights are shared with other threads."""
    device = member.graph_device
    potential = blank_potential(member.config, dtype=torch.float64)
    potential.load_state_dict(member.potential.state_dict())
    potential = potential.to(device).eval().requires_grad_(False).use("hessian")
    graph = graph.to(device).usable()
    vectors = differentiable(graph.vectors)
    energy = potential.atomic_energies(graph, vectors, member.head_index).sum()
    pulls = gradient(energy, vectors, retain_graph=True, create_graph=True)  # dE/dd_ij, (n, k, 3)
    if not pulls.requires_grad:  # no neighbours
        return np.zeros((3 * len(chosen), 3 * graph.n_atoms))
    if potential.descriptor.message_passing or len(chosen) <= graph.neighbors.shape[1]:
        return _by_atom(graph, vectors, pulls, chosen, progress)
    return _by_neighbor(graph, vectors, pulls, progress)[chosen].reshape(3 * len(chosen), -1)


def _derivative(pulls: Tensor, vectors: Tensor, weights: Tensor) -> Tensor:
    """Of sum(weights * pulls) with respect to the vectors, (n, k, 3)."""
    (found,) = torch.autograd.grad(pulls, vectors, weights, retain_graph=True)
    return found


def _by_atom(graph: Graph, vectors: Tensor, pulls: Tensor, chosen: np.ndarray, progress: bool) -> np.ndarray:
    """One pass for each coordinate of a chosen atom, (3m, 3n)."""
    rows = np.empty((3 * len(chosen), graph.n_atoms, 3))
    ends = graph.neighbors.flatten()
    for row in progress_bar(range(len(rows)), desc="Hessian", unit="row", shown=progress):
        atom, axis = int(chosen[row // 3]), row % 3
        # dE/dr_a: the pulls of pairs that end at a, less those of pairs that begin there
        weights = torch.zeros_like(pulls)
        weights[..., axis] = ((graph.neighbors == atom) & graph.mask).to(pulls)
        weights[atom, :, axis] -= graph.mask[atom].to(pulls)
        found = _derivative(pulls, vectors, weights)
        columns = (-found.sum(dim=1)).index_add(0, ends, found.flatten(0, 1))
        rows[row] = columns.cpu().numpy()
    return rows.reshape(len(rows), -1)


def _by_neighbor(graph: Graph, vectors: Tensor, pulls: Tensor, progress: bool) -> np.ndarray:
    """One pass for each coordinate of a neighbour, of all atoms at once, (n, 3, n, 3).

    Without message passing dE/dd_ij depends on the vectors of atom i alone, so that passes of different
    atoms do not mix.
    """
    n, k = graph.neighbors.shape
    centers = torch.arange(n, device=pulls.device).unsqueeze(1)
    others = torch.cat([graph.neighbors, centers], dim=1)  # (n, k + 1)
    total = pulls.new_zeros(3, n * n, 3)  # [axis of the row, row and column, axis of the column]
    of_centers = pulls.new_zeros(3, n, k + 1, 3)
    for number in progress_bar(range(3 * k), desc="Hessian", unit="pass", shown=progress):
        slot, axis = divmod(number, 3)
        weights = torch.zeros_like(pulls)
        weights[:, slot, axis] = graph.mask[:, slot].to(pulls)
        found = _derivative(pulls, vectors, weights)
        found = torch.cat([found, -found.sum(dim=1, keepdim=True)], dim=1)
        of_centers[axis] -= found
        places = graph.neighbors[:, slot, None] * n + others
        total[axis].index_add_(0, places.flatten(), found.flatten(0, 1))
    places = (centers * n + others).flatten()
    for axis in range(3):
        total[axis].index_add_(0, places, of_centers[axis].flatten(0, 1))
    return total.view(3, n, n, 3).permute(1, 0, 2, 3).cpu().numpy()


def _of_dispersion(atoms: Atoms, settings: Dispersion, chosen: np.ndarray, progress: bool) -> np.ndarray:
    """(3m, 3n), by central differences of the forces."""
    moved = atoms.copy()
    rows = np.empty((3 * len(chosen), 3 * len(atoms)))
    for row in progress_bar(range(len(rows)), desc="Hessian of D3", unit="row", shown=progress):
        forces = []
        for step in (_STEP, -_STEP):
            moved.positions[:] = atoms.positions
            moved.positions[chosen[row // 3], row % 3] += step
            forces.append(dispersion_results(moved, settings).forces)
        rows[row] = ((forces[1] - forces[0]) / (2 * _STEP)).ravel()
    return rows
