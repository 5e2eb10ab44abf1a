"""Compiled cell search (Numba): neighbours of atoms sorted by cell, as 32-bit rows."""

from __future__ import annotations

from typing import Any

from dpa2calc.kernels.building import empty, exact, free


@exact
def search(
    first: int, last: int, grid: Any, vectors: Any, radius: float, row_of: Any, centers: int, fill: bool,
    start: Any, neighbors: Any, codes: Any,
) -> None:  # fmt: skip
    """Neighbours within `radius` of the points first..last-1, which are sorted by cell.

    A first pass (fill False) puts their number into start[row + 1]; a second one writes them from
    start[row] on. grid: `compact.Grid`; vectors (3, 3) of the box; row_of (n,) row of each point, of which
    the first `centers` get neighbours. A code stands for the neighbour's box, see `CompactPairs.shifts`.
    """
    points, cell_of, cell_start = grid.points, grid.cell_of, grid.cell_start
    shape, reach, bound = grid.shape, grid.reach, grid.bound
    limit = radius * radius
    for i in range(first, last):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        row = row_of[i]
        if row >= centers:
            continue
        count = 0
        at = start[row]
        for a in range(cell_of[i, 0] - reach[0], cell_of[i, 0] + reach[0] + 1):
            shift_a = a // shape[0]
            for b in range(cell_of[i, 1] - reach[1], cell_of[i, 1] + reach[1] + 1):
                shift_b = b // shape[1]
                for c in range(cell_of[i, 2] - reach[2], cell_of[i, 2] + reach[2] + 1):
                    shift_c = c // shape[2]
                    cell = (a - shift_a * shape[0]) * shape[1] + (b - shift_b * shape[1])
                    cell = cell * shape[2] + (c - shift_c * shape[2])
                    ox = shift_a * vectors[0, 0] + shift_b * vectors[1, 0] + shift_c * vectors[2, 0] - x
                    oy = shift_a * vectors[0, 1] + shift_b * vectors[1, 1] + shift_c * vectors[2, 1] - y
                    oz = shift_a * vectors[0, 2] + shift_b * vectors[1, 2] + shift_c * vectors[2, 2] - z
                    same_box = shift_a == 0 and shift_b == 0 and shift_c == 0
                    code = (shift_a + bound[0]) * (2 * bound[1] + 1) + shift_b + bound[1]
                    code = code * (2 * bound[2] + 1) + shift_c + bound[2]
                    for k in range(cell_start[cell], cell_start[cell + 1]):
                        dx, dy, dz = points[k, 0] + ox, points[k, 1] + oy, points[k, 2] + oz
                        if dx * dx + dy * dy + dz * dz < limit and not (same_box and k == i):
                            if fill:
                                neighbors[at + count] = row_of[k]
                                codes[at + count] = code
                            count += 1
        if not fill:
            start[row + 1] = count


@exact
def gather_positions(
    positions: Any, order: Any, wraps: Any, vectors: Any, first: int, last: int, out: Any
) -> None:
    """out[row] = positions[order[row]] - wraps[row] @ vectors for rows first..last-1."""
    for row in range(first, last):
        atom = order[row]
        for axis in range(3):
            value = positions[atom, axis]
            for k in range(3):
                value -= wraps[row, k] * vectors[k, axis]
            out[row, axis] = value


@exact
def sort_by_cell(cells: Any, counts: Any, order: Any) -> None:
    """Counting sort: counts (n_cells + 1,) becomes the start of each cell, order (n,) the points in order."""
    for k in range(len(cells)):
        counts[cells[k] + 1] += 1
    for k in range(len(counts) - 1):
        counts[k + 1] += counts[k]
    place = empty(len(counts), counts.dtype)
    for k in range(len(counts)):
        place[k] = counts[k]
    for k in range(len(cells)):
        order[place[cells[k]]] = k
        place[cells[k]] += 1
    free((place,))
