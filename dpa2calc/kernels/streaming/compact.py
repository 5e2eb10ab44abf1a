"""Neighbour lists for systems of millions of atoms: 6 bytes per pair, rows sorted in space, all threads.

    pairs = CompactList(cutoff=6.0, skin=1.0).update(positions, cell, pbc)
    pairs.start, pairs.neighbors, pairs.codes        # row i: neighbors[start[i]:start[i + 1]]
    vector = x[neighbors] - x[row] + pairs.offsets(cell)[codes], x = pairs.rows(positions, cell)

Rows are the atoms in another order: by group where groups are given, then cell by cell, so that
neighbours lie close together in memory. `order[row]` is the atom of a row.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dpa2calc.errors import StructureError
from dpa2calc.kernels.native import Native
from dpa2calc.kernels.threads import Workers
from dpa2calc.structures.search import (
    BoolArray,
    Box,
    FloatArray,
    Geometry,
    IntArray,
    face_distances,
    make_box,
)
from dpa2calc.structures.verlet import SkinList

_MOST_CODES = 65535
_SEARCH, _SORT = Native("streaming.cells", "search"), Native("streaming.cells", "sort_by_cell")
_GATHER = Native("streaming.cells", "gather_positions")


@dataclass(frozen=True, eq=False)
class CompactPairs:
    """Ordered pairs (each one twice) by rows.

    Attributes:
        order: (n_atoms,) int64, atom of each row.
        start: (n_atoms + 1,) int64, where each row begins.
        neighbors: (n_pairs,) int32, row of the neighbour.
        codes: (n_pairs,) uint16, which box it is in: line of `shifts`.
        shifts: (n_codes, 3) int64, in boxes.
        wraps: (n_atoms, 3) int64, boxes taken from the position of each row.
        to_cell: (3, 3) int64, box vectors = to_cell @ cell for periodic directions.
        pbc: (3,) bool.
        longest: most neighbours of a row.
    """

    order: IntArray
    start: IntArray
    neighbors: npt.NDArray[np.int32]
    codes: npt.NDArray[np.uint16]
    shifts: IntArray
    wraps: IntArray
    to_cell: IntArray
    pbc: BoolArray
    longest: int

    def box(self, cell: FloatArray) -> FloatArray:
        """Vectors of the periodic box in a (deformed) cell, (3, 3); 0 where not periodic."""
        return np.asarray(self.to_cell @ cell, dtype=np.float64) * self.pbc[:, None]

    def offsets(self, cell: FloatArray) -> FloatArray:
        """Å to add for each code, (n_codes, 3)."""
        return np.ascontiguousarray(self.shifts @ self.box(cell))

    def rows(self, positions: FloatArray, cell: FloatArray, workers: Workers) -> FloatArray:
        """Positions inside the box in the order of the rows, (n_atoms, 3) in Å."""
        out = np.empty((len(self.order), 3))
        box = self.box(cell)

        def gather(first: int, last: int) -> None:
            _GATHER(positions, self.order, self.wraps, box, first, last, out)

        workers.split(gather, len(out), least=4096)
        return out


class Grid(NamedTuple):
    """Atoms sorted by the cells of a grid over the box.

    Attributes:
        order: (n_atoms,) atom of each sorted point; points: (n_atoms, 3) in Å.
        cell_of: (n_atoms, 3) cell of each sorted point; cell_start: (n_cells + 1,) first point of each.
        shape, reach, bound: (3,) cells, cells within the cutoff and images within it along each vector.
    """

    order: IntArray
    points: FloatArray
    cell_of: IntArray
    cell_start: IntArray
    shape: IntArray
    reach: IntArray
    bound: IntArray


def _grid(box: Box, cutoff: float) -> Grid:
    """Sort the atoms of a box into cells of about half the cutoff."""
    n_atoms = len(box.positions)
    heights = face_distances(box.vectors)
    counts = np.maximum(1.0, np.floor(2.0 * heights / cutoff))
    # A few atoms in a huge box; in float64, as the product of three whole numbers may pass 2^63.
    while counts.prod() > max(64, 2 * n_atoms):
        counts = np.maximum(1.0, counts // 2)
    shape = counts.astype(np.int64)
    reach = np.ceil(cutoff * shape / heights * (1 + 1e-12)).astype(np.int64)
    # Not periodic: the box is longer than the system by more than the cutoff, so that images never count.
    fractions = box.positions @ np.linalg.inv(box.vectors)
    cell_of = np.clip(np.floor(fractions * shape), 0, shape - 1).astype(np.int64)
    flat = (cell_of[:, 0] * shape[1] + cell_of[:, 1]) * shape[2] + cell_of[:, 2]
    cell_start = np.zeros(int(shape.prod()) + 1, dtype=np.int64)
    order = np.empty(n_atoms, dtype=np.int64)
    _SORT(flat, cell_start, order)
    return Grid(order, box.positions[order], cell_of[order], cell_start, shape, reach, -(-reach // shape))


def compact_pairs(
    geometry: Geometry,
    cutoff: float,
    workers: Workers,
    *,
    groups: IntArray | None = None,
    centers: int | None = None,
) -> CompactPairs:
    """All ordered pairs within the cutoff, for any pbc and any cell.

    Args:
        groups: (n_atoms,) rows of equal groups come together, in increasing order.
        centers: only the first so many rows get neighbours; None: all.

    Raises:
        StructureError: the cell is so small that it must be a mistake.
    """
    box = make_box(geometry, cutoff)
    grid = _grid(box, cutoff)
    if (2.0 * grid.bound + 1).prod() > _MOST_CODES:
        raise StructureError(
            f"the cell {geometry.cell.tolist()} is too flat or too thin for the fast neighbour search "
            f"({grid.bound.tolist()} images along its vectors); repeat it, or use compress=False"
        )
    n_atoms = len(grid.order)
    row_of, order = np.arange(n_atoms, dtype=np.int64), grid.order
    if groups is not None:
        by_group = np.argsort(groups[order], kind="stable")  # rows -> sorted points
        row_of[by_group] = np.arange(n_atoms)
        order = order[by_group]
    start = np.zeros(n_atoms + 1, dtype=np.int64)
    n_rows = n_atoms if centers is None else centers
    found: tuple[Any, Any] = (np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint16))

    def run(first: int, last: int) -> None:
        fill = len(found[0]) > 0
        _SEARCH(first, last, grid, box.vectors, cutoff, row_of, n_rows, fill, start, *found)

    workers.split(run, n_atoms, least=256)  # counts first, then pairs
    np.cumsum(start, out=start)
    if start[-1]:
        found = (np.empty(start[-1], dtype=np.int32), np.empty(start[-1], dtype=np.uint16))
        workers.split(run, n_atoms, least=256)
    spans = (range(-int(r), int(r) + 1) for r in grid.bound)
    return CompactPairs(
        order=order,
        start=start,
        neighbors=found[0],
        codes=found[1],
        shifts=np.array(list(itertools.product(*spans)), dtype=np.int64),
        wraps=box.wraps[order],
        to_cell=box.to_cell,
        pbc=geometry.pbc,
        longest=int(np.diff(start).max()),
    )


class CompactList(SkinList[CompactPairs]):
    """Compact pairs between the steps of a run."""

    def update(
        self,
        geometry: Geometry,
        workers: Workers,
        *,
        groups: IntArray | None = None,
        centers: int | None = None,
        renew: bool = False,
    ) -> CompactPairs:
        """Pairs that hold all those within the cutoff at these positions, and some beyond it.

        groups, centers: as for `compact_pairs`. renew: one of them has changed, search in any case.
        """

        def search(reach: float) -> CompactPairs:
            return compact_pairs(geometry, reach, workers, groups=groups, centers=centers)

        return self.found(geometry, search, renew=renew)
