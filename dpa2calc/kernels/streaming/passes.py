"""Compiled passes of a compressed model over a block of atoms (Numba): moments forward, forces backward.

Both passes walk the compact neighbour list and rebuild distances, environment rows and Hermite weights
of one atom at a time in a few small arrays that stay in the cache; nothing of the size
(pairs, channels), and nothing of the size (pairs,) but the list itself, exists.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpa2calc.kernels.building import compiled, empty, free, summing
from dpa2calc.kernels.tables.numba_loops import (
    N_WEIGHTS,
    add_stripped,
    add_two,
    hermite,
    pull_back,
    pull_back_stripped,
    width,
)

# Lines of the scratch array of one atom's neighbours.
X, Y, Z, SQUARE, S, RADIAL_SLOPE, RATIO, RATIO_SLOPE, SWITCH, SWITCH_SLOPE, N_LINES = range(11)


@compiled
def near(row: int, system: Any, limit: float, far: Any) -> Any:
    """Vectors of the neighbours of a row within the cutoff; hidden type pairs are left out.

    Writes x, y, z, square and the rows `far[1]` of the neighbours.
    """
    start, neighbors, codes = system.pairs
    x, offsets, kinds, excluded = system.x, system.offsets, system.kinds, system.model.hidden
    scratch, found = far
    px, py, pz = x[row, 0], x[row, 1], x[row, 2]
    n = 0
    for k in range(start[row], start[row + 1]):
        j = neighbors[k]
        code = codes[k]
        dx = x[j, 0] + offsets[code, 0] - px
        dy = x[j, 1] + offsets[code, 1] - py
        dz = x[j, 2] + offsets[code, 2] - pz
        square = dx * dx + dy * dy + dz * dz
        scratch[X, n] = dx
        scratch[Y, n] = dy
        scratch[Z, n] = dz
        scratch[SQUARE, n] = square
        found[n] = j
        n += square < limit
    if excluded.shape[0] > 0:
        kept = 0
        for k in range(n):
            if not excluded[kinds[row], kinds[found[k]]]:
                for line in range(4):
                    scratch[line, kept] = scratch[line, k]
                found[kept] = found[k]
                kept += 1
        n = kept
    return n


@compiled
def environment(n: int, scratch: Any, shape: Any, mean: Any, std: Any) -> None:
    """Switch, radial and angular factors and their slopes of n neighbours.

    shape: (cutoff, cutoff_smooth, protection). S = (w / r' - mean) / std, row = (S, ratio * d) with
    ratio = w / r'^2 / std, r' = r + protection; the slopes are d/dr, divided by r.
    """
    cutoff, smooth, protection = shape
    scale = 1.0 / (cutoff - smooth)
    for k in range(n):
        r = np.sqrt(scratch[SQUARE, k])
        inverse = 1.0 / (r + protection)
        per_r = 1.0 / r
        u = min(max((r - smooth) * scale, 0.0), 1.0)
        w = 1.0 + u * u * u * (u * (15.0 - 6.0 * u) - 10.0)
        dw = -30.0 * scale * u * u * (1.0 - u) * (1.0 - u)
        radial = w * inverse
        slope = dw * inverse - radial * inverse
        scratch[S, k] = (radial - mean[0]) / std[0]
        scratch[RADIAL_SLOPE, k] = slope * per_r / std[0]
        scratch[RATIO, k] = radial * inverse / std[1]
        scratch[RATIO_SLOPE, k] = (slope - radial * inverse) * inverse * per_r / std[1]
        scratch[SWITCH, k] = w
        scratch[SWITCH_SLOPE, k] = dw * per_r


@compiled
def keep_closest(n: int, row: int, found: Any, scratch: Any, kinds: Any, limits: Any, best: Any) -> None:
    """Keep the closest pair, and the closest relative to a limit for its types.

    limits (n_types, n_types) 1 / Å^2; best (2, 4): what is compared, squared distance, the two rows.
    """
    for k in range(n):
        square = scratch[SQUARE, k]
        ratio = square * limits[kinds[row], kinds[found[k]]]
        if square < best[0, 0]:
            best[0, 0] = best[0, 1] = square
            best[0, 2] = row
            best[0, 3] = found[k]
        if ratio < best[1, 0]:
            best[1, 0] = ratio
            best[1, 1] = square
            best[1, 2] = row
            best[1, 3] = found[k]


@compiled
def begin_moments(
    row: int, n: int, found: Any, kinds: Any, counts: Any, most: Any, padding: Any, sel: Any, out: Any
) -> None:
    """Count a row's neighbours by section, keep the most; its moments begin with what empty slots add."""
    kind = kinds[row]
    for m in range(len(out)):
        out[m] = 0
    for k in range(len(counts)):
        counts[k] = 0
    for k in range(n):
        counts[kinds[found[k]] if len(counts) > 1 else 0] += 1
    for other in range(len(counts)):
        most[other] = max(most[other], counts[other])
    if padding.shape[0] > 0:
        for other in range(len(counts)):
            for m in range(len(out)):
                out[m] += padding[kind, other, m] * (sel[other] - counts[other])


@compiled
def fill_rows(n: int, scratch: Any, v: Any, weights: Any, rows: Any) -> None:
    """Hermite weights and environment rows (S, ratio * d) of n neighbours in the model's precision."""
    for k in range(n):
        for c in range(weights.shape[1]):
            weights[k, c] = v[c, k]
        ratio = scratch[RATIO, k]
        rows[k, 0] = scratch[S, k]
        rows[k, 1] = ratio * scratch[X, k]
        rows[k, 2] = ratio * scratch[Y, k]
        rows[k, 3] = ratio * scratch[Z, k]


@compiled
def silence(n: int, row: int, found: Any, kinds: Any, excluded: Any, rows: Any) -> None:
    """Neighbours of excluded type pairs add nothing to the moments."""
    if excluded.shape[0] > 0:
        for k in range(n):
            if excluded[kinds[row], kinds[found[k]]]:
                for c in range(4):
                    rows[k, c] = 0


@compiled
def add_by_one(
    row: int, n: int, found: Any, kinds: Any, nets: Any, scratch: Any, place: Any, out: Any, sizes: Any
) -> None:
    """Add n neighbours to a row's moments, strip mode.

    nets: (table, lines, strip, smooth) of the model; place: (node, weights, rows).
    """
    table, lines, strip, smooth = nets
    node, weights, rows = place
    size, one = width(sizes), table.dtype.type(1.0)
    for k in range(n):
        other = kinds[found[k]]
        at = (lines[kinds[row], other] + node[k]) * 3 * size
        factor = table.dtype.type(scratch[SWITCH, k]) if smooth else one
        part = strip[kinds[row], other]
        add_stripped(table[at : at + 6 * size], weights[k], rows[k], part, factor, out, sizes)


@compiled
def add_by_two(row: int, n: int, found: Any, kinds: Any, nets: Any, place: Any, out: Any, sizes: Any) -> None:
    """Add n neighbours to a row's moments, two at a time; an odd one beside one that weighs nothing."""
    table, of_types, _strip, _smooth = nets
    node, weights, rows = place
    size, lines = width(sizes), of_types[kinds[row]]
    if n % 2 == 1:
        found[n], node[n] = found[n - 1], node[n - 1]
        for c in range(5):
            weights[n, c] = weights[n - 1, c]
        for c in range(4):
            rows[n, c] = 0
    for k in range(0, n, 2):
        a = (lines[kinds[found[k]]] + node[k]) * 3 * size
        b = (lines[kinds[found[k + 1]]] + node[k + 1]) * 3 * size
        first, second = table[a : a + 6 * size], table[b : b + 6 * size]
        add_two(first, second, weights[k], weights[k + 1], rows[k], rows[k + 1], out, sizes)


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
    axis: int,
) -> None:
    """Moments and descriptors of rows first..last-1; a block's arrays begin at row `begin`.

    moments (block, 4 * size) = D; descriptors (block, axis * size), at a * size + m: sum_c D_ca D_cm.
    system: `tuples.System`.
    """
    kinds, longest, model = system.kinds, system.longest, system.model
    table, strip, grid, sel = model.table, model.strip, model.grid, model.sel
    size = width(sizes)
    scratch, found = empty((N_LINES, longest + 1), np.float64), empty(longest + 1, np.int64)
    node, v = empty(longest + 1, np.int64), empty((N_WEIGHTS, longest + 1), np.float64)
    weights = empty((longest + 1, 5), table.dtype)
    rows = empty((longest + 1, 4), table.dtype)
    counts = empty(sel.shape[0], np.int64)
    limit = model.shape[0] * model.shape[0]
    nets, place = (table, model.lines, strip, model.smooth), (node, weights, rows)
    for row in range(first, last):
        kind = kinds[row]
        n = near(row, system, limit, (scratch, found))
        keep_closest(n, row, found, scratch, kinds, limits, best)
        environment(n, scratch, model.shape, model.mean[kind], model.std[kind])
        out = moments[row - begin]
        begin_moments(row, n, found, kinds, counts, most, model.padding, sel, out)
        hermite(scratch[S], n, grid[0], grid[1], grid[2], np.int64(grid[3]), node, v)
        fill_rows(n, scratch, v, weights, rows)
        silence(n, row, found, kinds, model.excluded, rows)
        if strip.shape[0] > 0:
            add_by_one(row, n, found, kinds, nets, scratch, place, out, sizes)
        else:
            add_by_two(row, n, found, kinds, nets, place, out, sizes)
        for m in range(4 * size):
            out[m] *= model.normal
        products(out, descriptors[row - begin], sizes, axis)
    free((scratch, found, node, v, weights, rows, counts))


@compiled
def products(d: Any, out: Any, sizes: Any, axis: int) -> None:
    """out[a * size + m] = sum_c d[c, a] d[c, m] for a < axis."""
    size = width(sizes)
    for a in range(axis):
        c0, c1, c2, c3 = d[a], d[size + a], d[2 * size + a], d[3 * size + a]
        line = out[a * size : (a + 1) * size]
        for m in range(size):
            line[m] = c0 * d[m] + c1 * d[size + m] + c2 * d[2 * size + m] + c3 * d[3 * size + m]


@summing
def products_backward(d: Any, grad: Any, out: Any, scale: Any, sizes: Any, axis: int) -> None:
    """Gradient of the moments (4 * size,) from that of the descriptor, times `scale`."""
    size = width(sizes)
    for m in range(4 * size):
        out[m] = 0
    for a in range(axis):
        c0, c1, c2, c3 = d[a], d[size + a], d[2 * size + a], d[3 * size + a]
        line = grad[a * size : (a + 1) * size]
        for m in range(size):
            g = line[m]
            out[m] += c0 * g
            out[size + m] += c1 * g
            out[2 * size + m] += c2 * g
            out[3 * size + m] += c3 * g
    for a in range(axis):
        line = grad[a * size : (a + 1) * size]
        s0 = s1 = s2 = s3 = scale * 0
        for m in range(size):
            g = line[m]
            s0 += d[m] * g
            s1 += d[size + m] * g
            s2 += d[2 * size + m] * g
            s3 += d[3 * size + m] * g
        out[a] += s0
        out[size + a] += s1
        out[2 * size + a] += s2
        out[3 * size + a] += s3
    for m in range(4 * size):
        out[m] *= scale


@compiled
def push(j: int, p: Any, d: Any, forces: Any, virial: Any) -> None:
    """The force of a pair, p on the centre, as it acts on neighbour j at d, and its virial."""
    for a in range(3):
        forces[j, a] -= p[a]
        for b in range(3):
            virial[a, b] -= p[a] * d[b]


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
    axis: int,
) -> None:
    """Forces (n_atoms, 3) and virial (3, 3) are added from `grad`, the gradient of a block's descriptors."""
    kinds, longest, model = system.kinds, system.longest, system.model
    table, strip, grid, excluded = model.table, model.strip, model.grid, model.excluded
    size, one = width(sizes), table.dtype.type(1.0)
    scratch, found = empty((N_LINES, longest + 1), np.float64), empty(longest + 1, np.int64)
    node, v = empty(longest + 1, np.int64), empty((N_WEIGHTS, longest + 1), np.float64)
    weights = empty((longest + 1, N_WEIGHTS), table.dtype)
    rows, of_moments = empty((longest + 1, 4), table.dtype), empty(4 * size, table.dtype)
    limit = model.shape[0] * model.shape[0]
    for row in range(first, last):
        kind = kinds[row]
        n = near(row, system, limit, (scratch, found))
        environment(n, scratch, model.shape, model.mean[kind], model.std[kind])
        hermite(scratch[S], n, grid[0], grid[1], grid[2], np.int64(grid[3]), node, v)
        products_backward(moments[row - begin], grad[row - begin], of_moments, model.normal, sizes, axis)
        fill_rows(n, scratch, v, weights, rows)
        fx = fy = fz = 0.0
        for k in range(n):
            other, along = kinds[found[k]], 0.0
            if excluded.shape[0] > 0 and excluded[kind, other]:
                continue
            at = (model.lines[kind, other] + node[k]) * 3 * size
            nodes = table[at : at + 6 * size]
            if strip.shape[0] > 0:
                factor = table.dtype.type(scratch[SWITCH, k]) if model.smooth else one
                g0, g1, g2, g3, slope, of_factor = pull_back_stripped(
                    nodes, weights[k], rows[k], strip[kind, other], factor, of_moments, sizes
                )
                if model.smooth:
                    along = of_factor * scratch[SWITCH_SLOPE, k]
            else:
                g0, g1, g2, g3, slope = pull_back(nodes, weights[k], rows[k], of_moments, sizes)
            dx, dy, dz, ratio = scratch[X, k], scratch[Y, k], scratch[Z, k], scratch[RATIO, k]
            along += (np.float64(g0) + slope) * scratch[RADIAL_SLOPE, k]
            along += (g1 * dx + g2 * dy + g3 * dz) * scratch[RATIO_SLOPE, k]
            px, py, pz = along * dx + g1 * ratio, along * dy + g2 * ratio, along * dz + g3 * ratio
            fx, fy, fz = fx + px, fy + py, fz + pz
            push(found[k], (px, py, pz), (dx, dy, dz), forces, virial)
        forces[row, 0] += fx
        forces[row, 1] += fy
        forces[row, 2] += fz
    free((scratch, found, node, v, weights, rows, of_moments))
