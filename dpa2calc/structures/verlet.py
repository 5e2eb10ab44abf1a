"""Neighbour pairs for any pbc and any cell, a Verlet skin, and the choice of the nearest.

    pairs = neighbor_pairs(positions, cell, pbc=pbc, cutoff=6.0)    # i, j, shift
    neighbors = NeighborList(cutoff=9.0, skin=1.0)                  # keeps pairs between MD steps
    pairs = neighbors.update(positions, cell, pbc)                  # all within cutoff + skin

Everything is float64 and int64. The vector of a pair is positions[j] - positions[i] + shift @ cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpa2calc.errors import ConfigError
from dpa2calc.structures.search import (
    BoolArray,
    FloatArray,
    Geometry,
    IntArray,
    check_geometry,
    check_length,
    find_pairs,
)

Found = TypeVar("Found")
# Distances that differ by less than this count as equal, so that symmetry-equivalent neighbours
# keep one order whatever the rounding of the coordinates (Å).
DISTANCE_GRID = 1e-7


@dataclass(frozen=True)
class Pairs:
    """Ordered pairs (each one twice), sorted by (i, j, shift).

    Attributes:
        i, j: (n_pairs,) int64, centre and neighbour.
        shift: (n_pairs, 3) int64, cells between them: vector = r_j - r_i + shift @ cell.
    """

    i: IntArray
    j: IntArray
    shift: IntArray

    def vectors(self, positions: FloatArray, cell: FloatArray) -> FloatArray:
        """Vectors from i to j, (n_pairs, 3) in Å."""
        return positions[self.j] - positions[self.i] + self.shift @ np.asarray(cell, dtype=np.float64)


def neighbor_pairs(
    positions: npt.ArrayLike, cell: npt.ArrayLike, *, pbc: npt.ArrayLike, cutoff: float
) -> Pairs:
    """All pairs within the cutoff, for any pbc and any cell (also shorter than the cutoff).

    Args:
        positions: (n_atoms, 3) in Å; atoms may lie outside the cell.
        cell: (3, 3) in Å, left- or right-handed; vectors of directions that are not periodic
            are ignored and may be zero.
        pbc: (3,) booleans, or one for all.
        cutoff: in Å.

    Raises:
        StructureError: no atoms, NaN or infinity, a periodic direction without a cell vector,
            a cell so small that it must be a mistake.
    """
    return Pairs(*find_pairs(check_geometry(positions, cell, pbc), check_length("cutoff", cutoff)))


def select_nearest(distances: Tensor, *, cutoff: float, nsel: int | None = None) -> tuple[Tensor, Tensor]:
    """Slots of the neighbours within the cutoff, nearest first, cut to the largest real count.

    Distances are rounded to a grid of 1e-7 Å; ties keep the order of the slots. Where that is (neighbour
    index, shift), as in graphs, the choice is reproducible, and the same with and without a skin.

    Args:
        distances: (n_atoms, K) float64 in Å, infinity (or anything beyond the cutoff) where padded.
        cutoff: in Å; neighbours at exactly this distance are left out (their weight is 0).
        nsel: keep at most so many of each row; None keeps all within the cutoff.

    Returns:
        order: (n_atoms, k) int64, slots of `distances`; padding points at some valid slot.
        mask: (n_atoms, k) bool. k is the largest number of neighbours kept, so it may be 0.
    """
    if nsel is not None and nsel < 1:
        raise ConfigError(f"nsel = {nsel}; it must be at least 1, or None for all within the cutoff")
    if distances.device.type == "cpu":  # numpy sorts integers 2 to 4 times faster
        order, mask = _select_numpy(distances.detach().numpy(), cutoff, nsel)
        return torch.from_numpy(order), torch.from_numpy(mask)
    return _select_torch(distances.detach(), cutoff, nsel)


def _select_numpy(distances: FloatArray, cutoff: float, nsel: int | None) -> tuple[IntArray, BoolArray]:
    inside = distances < cutoff  # (n, K)
    counts = inside.sum(axis=1)
    bits = max(1, (distances.shape[1] - 1).bit_length())
    # One integer holds the rounded distance and the slot: a plain sort is then a stable argsort.
    grid = np.where(inside, distances, cutoff + 1.0)
    grid /= DISTANCE_GRID
    key = np.rint(grid, out=grid).astype(np.int64)
    key <<= bits
    key |= np.arange(distances.shape[1])
    key.sort(axis=1)
    width = _width(int(counts.max(initial=0)), nsel)
    order = key[:, :width] & ((1 << bits) - 1)
    return order, np.arange(width) < counts[:, None]


def _select_torch(distances: Tensor, cutoff: float, nsel: int | None) -> tuple[Tensor, Tensor]:
    inside = distances < cutoff
    counts = inside.sum(dim=1)
    bits = max(1, (distances.shape[1] - 1).bit_length())
    grid = torch.where(inside, distances, cutoff + 1.0).div(DISTANCE_GRID).round_().to(torch.int64)
    slots = torch.arange(distances.shape[1], device=distances.device)
    key = (grid << bits) | slots
    width = _width(int(counts.max()) if counts.numel() else 0, nsel)
    order = torch.topk(key, width, dim=1, largest=False).values & ((1 << bits) - 1)
    return order, torch.arange(width, device=distances.device) < counts[:, None]


def _width(largest: int, nsel: int | None) -> int:
    return largest if nsel is None else min(largest, nsel)


def still_valid(old: Geometry, new: Geometry, cutoff: float, skin: float) -> bool:
    """Whether pairs within cutoff + skin of `old` hold all those within the cutoff of `new`."""
    if new.positions.shape != old.positions.shape or (new.pbc != old.pbc).any():
        return False
    moved, stretch = new.positions - old.positions, 1.0
    lattice, new_lattice = old.cell[old.pbc], new.cell[old.pbc]  # (n_periodic, 3)
    if not np.array_equal(lattice, new_lattice):
        # lattice @ F = new_lattice, and F = 1 across the directions that are not periodic.
        change = np.linalg.pinv(lattice) @ (new_lattice - lattice)  # F - 1
        moved -= old.positions @ change
        stretch = float(np.linalg.svd(change + np.eye(3), compute_uv=False)[-1])
    moved -= moved.mean(axis=0)
    travel = np.sqrt(np.einsum("ij,ij->i", moved, moved))  # (n_atoms,)
    largest = np.partition(travel, -2)[-2:].sum() if len(travel) > 1 else 0.0
    return bool(stretch * (cutoff + skin) - largest >= cutoff)


class SkinList(Generic[Found]):
    """What a search finds, which is done again only when the atoms have moved far enough to matter.

    The search takes cutoff + skin. Later positions reuse it as long as no pair outside the list
    can have come within the cutoff: with the deformation F of the lattice since the search
    (smallest stretch s) and the displacements u that F does not explain,

        s (cutoff + skin) - max over pairs |u_i - u_j|  >=  cutoff,

    where the maximum is bounded by the two largest |u| (after the common drift is taken out).
    So the list is exact in NPT too, and a crystal that drifts or is strained little keeps it.
    """

    def __init__(self, cutoff: float, skin: float = 1.0) -> None:
        self.cutoff, self.skin = check_length("cutoff", cutoff), check_length("skin", skin, zero=True)
        self.n_searches = 0
        self._found: tuple[Geometry, Found] | None = None

    def found(self, geometry: Geometry, search: Callable[[float], Found], *, renew: bool = False) -> Found:
        """What `search` finds within cutoff + skin, now or earlier; `renew`: now in any case."""
        known = self._found
        if known is None or renew or not still_valid(known[0], geometry, self.cutoff, self.skin):
            known = self._found = None  # free the old list before the new one is made
            # Own copies: the caller may move atoms in place.
            kept = Geometry(geometry.positions.copy(), geometry.cell, geometry.pbc)
            known = self._found = kept, search(self.cutoff + self.skin)
            self.n_searches += 1
        return known[1]


class NeighborList(SkinList[Pairs]):
    """Pairs between the steps of a run."""

    def update(self, positions: npt.ArrayLike, cell: npt.ArrayLike, pbc: npt.ArrayLike) -> Pairs:
        """Pairs that hold all those within the cutoff at these positions (and some beyond it).

        Filter by r < cutoff afterwards. The very same object comes back while the list is valid.

        Raises:
            StructureError: as `neighbor_pairs`.
        """
        geometry = check_geometry(positions, cell, pbc)
        return self.found(geometry, lambda reach: Pairs(*find_pairs(geometry, reach)))
