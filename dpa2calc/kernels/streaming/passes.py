"""Compiled passes of a compressed model over a block of atoms (Numba): moments forward, forces backward.

Both passes walk the compact neighbour list and rebuild distances, environment rows and Hermite weights
of one atom at a time in a few small arrays that stay in the cache; nothing of the size
(pairs, channels), and nothing of the size (pairs,) but the list itself, exists.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpa2calc.kernels.building import compiled, empty, free
from dpa2calc.kernels.tables.numba_loops import N_WEIGHTS, hermite, pull_back, pull_back_stripped, width

from .one_atom import (
    N_LINES,
    SWITCH,
    S,
    add_by_one,
    add_by_two,
    begin_moments,
    environment,
    fill_rows,
    keep_closest,
    near,
    pair_forces,
    products,
    products_backward,
    push,
    silence,
)


@compiled
def forward(
    first: int,
    last: int,
    begin: int,
    system: Any,
    limits: Any,
    best: Any,
    most: Any,
    moments: Any,
    descriptors: Any,
    sizes: Any,
    channels: Any,
) -> None:
    """Moments and descriptors of rows first..last-1; a block's arrays begin at row `begin`.

    moments (block, 4 * size) = D; descriptors (block, axis * channels), at a * channels + m:
    sum_c D_ca D_cm. sizes: of the table, whole cache lines; channels: those of them that count.
    system: `tuples.System`.
    """
    kinds, longest, model = system.kinds, system.longest, system.model
    table, strip, grid, sel = model.table, model.strip, model.grid, model.sel
    size = width(sizes)
    scratch, found = empty((N_LINES, longest + 1), np.float64), empty(longest + 1, np.int64)
    node, v = empty(longest + 1, np.int64), empty((N_WEIGHTS, longest + 1), table.dtype)
    rows, counts = empty((4, longest + 1), table.dtype), empty(sel.shape[0], np.int64)
    limit = model.shape[0] * model.shape[0]
    nets, place = (table, model.lines, strip, model.smooth), (node, v, rows)
    for row in range(first, last):
        kind = kinds[row]
        n = near(row, system, limit, (scratch, found))
        keep_closest(n, row, found, scratch, kinds, limits, best)
        environment(n, scratch, model.shape, model.mean[kind], model.std[kind])
        out = moments[row - begin]
        begin_moments(row, n, found, kinds, counts, most, model.padding, sel, out)
        hermite(scratch[S], n, grid[0], grid[1], grid[2], np.int64(grid[3]), node, v)
        fill_rows(n, scratch, rows)
        silence(n, row, found, kinds, model.excluded, rows)
        if strip.shape[0] > 0:
            add_by_one(row, n, found, kinds, nets, scratch, place, out, sizes)
        else:
            add_by_two(row, n, found, kinds, nets, place, out, sizes)
        for m in range(4 * size):
            out[m] *= model.normal
        products(out, descriptors[row - begin], sizes, channels)
    free((scratch, found, node, v, rows, counts))


@compiled
def backward(
    first: int,
    last: int,
    begin: int,
    system: Any,
    moments: Any,
    grad: Any,
    forces: Any,
    virial: Any,
    sizes: Any,
    channels: Any,
) -> None:
    """Forces (n_atoms, 3) and virial (3, 3) are added from `grad`, the gradient of a block's descriptors."""
    kinds, longest, model = system.kinds, system.longest, system.model
    table, strip, grid = model.table, model.strip, model.grid
    size, one, stripped = width(sizes), table.dtype.type(1.0), strip.shape[0] > 0
    scratch, found = empty((N_LINES, longest + 1), np.float64), empty(longest + 1, np.int64)
    node, v = empty(longest + 1, np.int64), empty((N_WEIGHTS, longest + 1), table.dtype)
    rows, to = empty((4, longest + 1), table.dtype), empty((6, longest + 1), table.dtype)
    of_moments = empty(4 * size, table.dtype)
    limit = model.shape[0] * model.shape[0]
    for row in range(first, last):
        kind = kinds[row]
        n = near(row, system, limit, (scratch, found))
        environment(n, scratch, model.shape, model.mean[kind], model.std[kind])
        hermite(scratch[S], n, grid[0], grid[1], grid[2], np.int64(grid[3]), node, v)
        products_backward(moments[row - begin], grad[row - begin], of_moments, model.normal, sizes, channels)
        fill_rows(n, scratch, rows)
        for k in range(n):
            other = kinds[found[k]]
            at = (model.lines[kind, other] + node[k]) * 3 * size
            nodes = table[at : at + 6 * size]
            if stripped:
                factor = table.dtype.type(scratch[SWITCH, k]) if model.smooth else one
                pull_back_stripped(nodes, k, v, rows, strip[kind, other], factor, of_moments, to, sizes)
            else:
                pull_back(nodes, k, v, rows, of_moments, to, sizes)
        silence(n, row, found, kinds, model.excluded, to)
        pair_forces(n, to, stripped and model.smooth, scratch)
        push(n, row, found, scratch, forces, virial)
    free((scratch, found, node, v, rows, to, of_moments))
