"""Neighbour pairs for any pbc and any cell, a Verlet skin, and the dense rows the model reads.

    pairs = neighbor_pairs(positions, cell, pbc, cutoff=6.0)        # flat: i, j, shift
    neighbors = NeighborList(cutoff=9.0, skin=1.0)                  # keeps pairs between MD steps
    dense = neighbors.update(positions, cell, pbc).dense            # rows padded to the longest
    rows = dense.nearest(positions, cell, cutoff=9.0, nsel=120)     # nearest first
    vectors = rows.vectors(positions, cell)                         # (n_atoms, k, 3)

Everything is float64 and int64. The vector of a pair is positions[j] - positions[i] + shift @ cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from dpa2calc.errors import ConfigError
from dpa2calc.structures.search import (
    BoolArray,
    FloatArray,
    Geometry,
    IntArray,
    check_cutoff,
    check_geometry,
    check_skin,
    find_pairs,
)

ArrayType = TypeVar("ArrayType", npt.NDArray, torch.Tensor)

# Distances that differ by less than this count as equal, so that symmetry-equivalent neighbours
# keep one order whatever the rounding of the coordinates (Å).
DISTANCE_GRID = 1e-7


@dataclass(frozen=True)
class Pairs:
    """Ordered pairs (each one twice), sorted by (i, j, shift).

    Attributes:
        i, j: (n_pairs,) int64, centre and neighbour.
        shift: (n_pairs, 3) int64, cells between them: vector = r_j - r_i + shift @ cell.
        n_atoms: number of atoms.
        cutoff: the pairs are all those within this distance (Å), the skin included.
    """

    i: IntArray
    j: IntArray
    shift: IntArray
    n_atoms: int
    cutoff: float

    def vectors(self, positions: FloatArray, cell: FloatArray) -> FloatArray:
        """Vectors from i to j, (n_pairs, 3) in Å."""
        return positions[self.j] - positions[self.i] + self.shift @ np.asarray(cell, dtype=np.float64)

    @cached_property
    def dense(self) -> DenseNeighbors:
        """The same pairs as padded rows, made once."""
        return dense_neighbors(self.i, self.j, self.shift, n_atoms=self.n_atoms)


@dataclass(frozen=True)
class DenseNeighbors:
    """Neighbours of each atom as rows padded to the longest one, in the order (index, shift).

    Attributes:
        index: (n_atoms, k) int64; padding holds the centre itself.
        shift: (n_atoms, k, 3) float64 whole numbers; padding holds 0. Offset in Å = shift @ cell.
        mask: (n_atoms, k) bool, False where padded.
    """

    index: IntArray
    shift: FloatArray
    mask: BoolArray

    def vectors(self, positions: FloatArray, cell: FloatArray) -> FloatArray:
        """Vectors from each centre to its neighbours, (n_atoms, k, 3) in Å; 0 where padded."""
        vectors = self.shift @ np.asarray(cell, dtype=np.float64)
        vectors += positions.take(self.index, axis=0)  # (n_atoms, k, 3)
        vectors -= positions[:, None]
        return vectors

    def distances(self, positions: FloatArray, cell: FloatArray) -> FloatArray:
        """Distances, (n_atoms, k) in Å; infinity where padded."""
        lattice = np.asarray(cell, dtype=np.float64)
        components = np.ascontiguousarray(positions.T)  # (3, n_atoms)
        total = np.where(self.mask, 0.0, np.inf)
        # Blocks that fit the cache, one component at a time: twice as fast as by vectors.
        step = max(1, 65536 // max(1, self.index.shape[1]))
        for start in range(0, len(total), step):
            rows = slice(start, start + step)
            index, block = self.index[rows], total[rows]  # `block` is a view
            offset = self.shift[rows] @ lattice  # (rows, k, 3)
            for axis, x in enumerate(components):
                part = x.take(index)
                part -= x[rows, None]
                part += offset[..., axis]
                part *= part
                block += part
        return np.sqrt(total, out=total)

    def nearest(
        self, positions: FloatArray, cell: FloatArray, *, cutoff: float, nsel: int | None = None
    ) -> DenseNeighbors:
        """The rows at these positions: nearest first, within the cutoff, see `select_nearest`."""
        order, mask = select_nearest(self.distances(positions, cell), cutoff=cutoff, nsel=nsel)
        rows = np.arange(len(order))[:, None]
        flat = order + rows * self.index.shape[1]  # `take` of flat slots is faster than [rows, order]
        # Where a row is shorter, `order` points at neighbours beyond the cutoff: pad as promised.
        index = np.where(mask, self.index.ravel().take(flat), rows)
        shift = self.shift.reshape(-1, 3).take(flat, axis=0)  # (n_atoms, k, 3)
        shift[~mask] = 0.0
        return DenseNeighbors(index, shift, mask)


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
    geometry = check_geometry(positions, cell, pbc)
    radius = check_cutoff(cutoff)
    return Pairs(*find_pairs(geometry, radius), len(geometry.positions), radius)


def dense_neighbors(i: IntArray, j: IntArray, shift: IntArray, *, n_atoms: int) -> DenseNeighbors:
    """Turn flat pairs, sorted by i, into padded rows; the order within a row is kept.

    Args:
        i, j: (n_pairs,) centre and neighbour; i must not decrease.
        shift: (n_pairs, 3) whole numbers.
        n_atoms: number of rows; atoms without neighbours get an empty row.
    """
    counts = np.bincount(i, minlength=n_atoms)  # (n_atoms,)
    width = int(counts.max(initial=0))
    mask = np.arange(width) < counts[:, None]  # (n_atoms, width)
    index = np.repeat(np.arange(n_atoms)[:, None], width, axis=1)
    shifts = np.zeros((n_atoms, width, 3))
    # Row-major order of the True entries is exactly the order of pairs sorted by i.
    index[mask] = j
    shifts[mask] = shift
    return DenseNeighbors(index, shifts, mask)


def select_nearest(
    distances: ArrayType, *, cutoff: float, nsel: int | None = None
) -> tuple[ArrayType, ArrayType]:
    """Slots of the neighbours within the cutoff, nearest first, cut to the largest real count.

    Distances are rounded to a grid of 1e-7 Å; ties keep the order of the slots, which in
    `DenseNeighbors` is (neighbour index, shift). So the choice is reproducible, and the same
    with and without a skin.

    Args:
        distances: (n_atoms, K) float64 in Å, infinity (or anything beyond the cutoff) where
            padded; numpy, or torch on any device.
        cutoff: in Å; neighbours at exactly this distance are left out (their weight is 0).
        nsel: keep at most so many of each row; None keeps all within the cutoff.

    Returns:
        order: (n_atoms, k) int64, slots of `distances`; padding points at some valid slot.
        mask: (n_atoms, k) bool. k is the largest number of neighbours kept, so it may be 0.
        Of the same kind as `distances`.
    """
    if nsel is not None and nsel < 1:
        raise ConfigError(f"nsel = {nsel}; it must be at least 1, or None for all within the cutoff")
    if isinstance(distances, torch.Tensor):
        if distances.device.type == "cpu":  # numpy sorts integers 2 to 4 times faster
            order, mask = _select_numpy(distances.detach().numpy(), cutoff, nsel)
            return torch.from_numpy(order), torch.from_numpy(mask)
        return _select_torch(distances.detach(), cutoff, nsel)
    return _select_numpy(distances, cutoff, nsel)


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


def _select_torch(
    distances: torch.Tensor, cutoff: float, nsel: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
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


class NeighborList:
    """Pairs that are searched again only when the atoms have moved far enough to matter.

    The search takes cutoff + skin. Later positions reuse it as long as no pair outside the list
    can have come within the cutoff: with the deformation F of the lattice since the search
    (smallest stretch s) and the displacements u that F does not explain,

        s (cutoff + skin) - max over pairs |u_i - u_j|  >=  cutoff,

    where the maximum is bounded by the two largest |u| (after the common drift is taken out).
    So the list is exact in NPT too, and a crystal that drifts or is strained little keeps it.
    """

    def __init__(self, cutoff: float, skin: float = 1.0) -> None:
        self.cutoff = check_cutoff(cutoff)
        self.skin = check_skin(skin)
        self.n_searches = 0
        self._pairs: Pairs | None = None
        self._geometry: Geometry | None = None

    def update(self, positions: npt.ArrayLike, cell: npt.ArrayLike, pbc: npt.ArrayLike) -> Pairs:
        """Pairs that hold all those within the cutoff at these positions (and some beyond it).

        Filter by r < cutoff afterwards. The very same object comes back while the list is valid.

        Raises:
            StructureError: as `neighbor_pairs`.
        """
        geometry = check_geometry(positions, cell, pbc)
        old = self._geometry
        if self._pairs is None or old is None or not still_valid(old, geometry, self.cutoff, self.skin):
            radius = self.cutoff + self.skin
            self._pairs = Pairs(*find_pairs(geometry, radius), len(geometry.positions), radius)
            # Own copies: the caller may move atoms in place.
            self._geometry = Geometry(geometry.positions.copy(), geometry.cell, geometry.pbc)
            self.n_searches += 1
        return self._pairs

    def reset(self) -> None:
        """Forget the list; the next update searches."""
        self._pairs = self._geometry = None
