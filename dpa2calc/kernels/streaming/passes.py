"""Compiled passes of a compressed model over a block of atoms (Numba): moments forward, forces backward.

Both passes walk the compact neighbour list and rebuild distances, environment rows and Hermite weights
of one atom at a time in a few small arrays that stay in the cache; nothing of the size
(pairs, channels), and nothing of the size (pairs,) but the list itself, exists.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpa2calc.kernels.building import compiled, empty, free
from dpa2calc.kernels.tables.numba_loops import N_WEIGHTS, add_neighbors, pull_back_neighbors, width

from .one_atom import (
    N_LINES,
    begin_moments,
    environment,
    fill_rows,
    keep_closest,
    look_up,
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
    kinds, room, model = system.kinds, system.longest + 1, system.model
    table, sel, limit = model.table, model.sel, model.shape[0] * model.shape[0]
    scratch, found, at = empty((N_LINES, room), np.float64), empty(room, np.int64), empty(room, np.int64)
    v, rows = empty((N_WEIGHTS, room), table.dtype), empty((4, room), table.dtype)
    others, factor = empty(room, np.int64), empty(room, table.dtype)
    counts = empty(sel.shape[0], np.int64)
    for row in range(first, last):
        kind = kinds[row]
        n = near(row, system, limit, (scratch, found))
        keep_closest(n, row, found, scratch, kinds, limits, best)
        environment(n, scratch, model.shape, model.mean[kind], model.std[kind])
        out = moments[row - begin]
        begin_moments(row, n, found, kinds, counts, most, model.padding, sel, out)
        look_up(row, n, found, system, scratch, (at, v, others, factor), sizes)
        fill_rows(n, scratch, rows)
        silence(n, row, found, kinds, model.excluded, rows)
        add_neighbors(n, (at, v, rows, others, factor), table, model.strip[kind], out, sizes)
        for m in range(4 * width(sizes)):
            out[m] *= model.normal
        products(out, descriptors[row - begin], sizes, channels)
    free((scratch, found, at, v, rows, others, factor, counts))


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
    kinds, room, model = system.kinds, system.longest + 1, system.model
    table, limit = model.table, model.shape[0] * model.shape[0]
    scratch, found, at = empty((N_LINES, room), np.float64), empty(room, np.int64), empty(room, np.int64)
    v, rows = empty((N_WEIGHTS, room), table.dtype), empty((4, room), table.dtype)
    others, factor = empty(room, np.int64), empty(room, table.dtype)
    to, of_moments = empty((6, room), table.dtype), empty(4 * width(sizes), table.dtype)
    for row in range(first, last):
        kind = kinds[row]
        n = near(row, system, limit, (scratch, found))
        environment(n, scratch, model.shape, model.mean[kind], model.std[kind])
        look_up(row, n, found, system, scratch, (at, v, others, factor), sizes)
        products_backward(moments[row - begin], grad[row - begin], of_moments, model.normal, sizes, channels)
        fill_rows(n, scratch, rows)
        given = at, v, rows, others, factor
        pull_back_neighbors(n, given, table, model.strip[kind], of_moments, to, sizes)
        silence(n, row, found, kinds, model.excluded, to)
        pair_forces(n, to, model.strip.shape[0] > 0 and model.smooth, scratch)
        push(n, row, found, scratch, forces, virial)
    free((scratch, found, at, v, rows, others, factor, to, of_moments))
