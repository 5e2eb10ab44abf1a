"""What compiled passes do with the neighbours of one atom, in lines of a small array (Numba)."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpa2calc.kernels.building import compiled, summing
from dpa2calc.kernels.tables.numba_loops import hermite, width

# Lines of the scratch array of one atom's neighbours.
X, Y, Z, SQUARE, S, RADIAL_SLOPE, RATIO, RATIO_SLOPE, SWITCH, SWITCH_SLOPE, PX, PY, PZ, N_LINES = range(14)


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
    scale, per_radial, per_ratio = 1.0 / (cutoff - smooth), 1.0 / std[0], 1.0 / std[1]
    for k in range(n):
        r = np.sqrt(scratch[SQUARE, k])
        inverse = 1.0 / (r + protection)
        per_r = 1.0 / r
        u = min(max((r - smooth) * scale, 0.0), 1.0)
        w = 1.0 + u * u * u * (u * (15.0 - 6.0 * u) - 10.0)
        dw = -30.0 * scale * u * u * (1.0 - u) * (1.0 - u)
        radial = w * inverse
        slope = dw * inverse - radial * inverse
        scratch[S, k] = (radial - mean[0]) * per_radial
        scratch[RADIAL_SLOPE, k] = slope * per_r * per_radial
        scratch[RATIO, k] = radial * inverse * per_ratio
        scratch[RATIO_SLOPE, k] = (slope - radial * inverse) * inverse * per_r * per_ratio
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
def fill_rows(n: int, scratch: Any, rows: Any) -> None:
    """Environment rows (S, ratio * d) of n neighbours in the model's precision, (4, n)."""
    for k in range(n):
        ratio = scratch[RATIO, k]
        rows[0, k] = scratch[S, k]
        rows[1, k] = ratio * scratch[X, k]
        rows[2, k] = ratio * scratch[Y, k]
        rows[3, k] = ratio * scratch[Z, k]


@compiled
def silence(n: int, row: int, found: Any, kinds: Any, excluded: Any, lines: Any) -> None:
    """Neighbours of excluded type pairs add nothing: their column of `lines` is zero."""
    if excluded.shape[0] > 0:
        for k in range(n):
            if excluded[kinds[row], kinds[found[k]]]:
                for c in range(lines.shape[0]):
                    lines[c, k] = 0


@compiled
def look_up(row: int, n: int, found: Any, system: Any, scratch: Any, places: Any, sizes: Any) -> None:
    """Places: where the nodes of n neighbours begin in the table, Hermite weights, types, strip's factors."""
    at, v, others, factor = places
    kinds, model, size = system.kinds, system.model, width(sizes)
    grid, lines = model.grid, model.lines[kinds[row]]
    hermite(scratch[S], n, grid[0], grid[1], grid[2], np.int64(grid[3]), at, v)
    for k in range(n):
        others[k] = kinds[found[k]]
        at[k] = (lines[others[k]] + at[k]) * 3 * size
        factor[k] = scratch[SWITCH, k] if model.smooth else 1.0


@compiled
def products(d: Any, out: Any, sizes: Any, channels: Any) -> None:
    """out[a * channels + m] = sum_c d[c, a] d[c, m] for a < axis."""
    size, m_all = width(sizes), width(channels)
    for a in range(len(out) // m_all):
        c0, c1, c2, c3 = d[a], d[size + a], d[2 * size + a], d[3 * size + a]
        line = out[a * m_all : (a + 1) * m_all]
        for m in range(m_all):
            line[m] = c0 * d[m] + c1 * d[size + m] + c2 * d[2 * size + m] + c3 * d[3 * size + m]


@summing
def products_backward(d: Any, grad: Any, out: Any, scale: Any, sizes: Any, channels: Any) -> None:
    """Gradient of the moments (4 * size,) from that of the descriptor, times `scale`."""
    size, m_all = width(sizes), width(channels)
    for m in range(4 * size):
        out[m] = 0
    for a in range(len(grad) // m_all):
        c0, c1, c2, c3 = d[a], d[size + a], d[2 * size + a], d[3 * size + a]
        line = grad[a * m_all : (a + 1) * m_all]
        s0 = s1 = s2 = s3 = grad.dtype.type(0)
        for m in range(m_all):
            g = line[m]
            out[m] += c0 * g
            out[size + m] += c1 * g
            out[2 * size + m] += c2 * g
            out[3 * size + m] += c3 * g
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
def pair_forces(n: int, to: Any, smooth: bool, scratch: Any) -> None:
    """Lines PX, PY, PZ: what n neighbours put on their centre, from the gradients that `pull_back` left."""
    for k in range(n):
        dx, dy, dz, ratio = scratch[X, k], scratch[Y, k], scratch[Z, k], scratch[RATIO, k]
        along = (np.float64(to[0, k]) + to[4, k]) * scratch[RADIAL_SLOPE, k]
        along += (to[1, k] * dx + to[2, k] * dy + to[3, k] * dz) * scratch[RATIO_SLOPE, k]
        if smooth:
            along += to[5, k] * scratch[SWITCH_SLOPE, k]
        scratch[PX, k] = along * dx + to[1, k] * ratio
        scratch[PY, k] = along * dy + to[2, k] * ratio
        scratch[PZ, k] = along * dz + to[3, k] * ratio


@summing
def _add_up(n: int, scratch: Any, own: Any, virial: Any) -> None:
    for a in range(3):
        p, total, w0, w1, w2 = scratch[PX + a], 0.0, 0.0, 0.0, 0.0
        for k in range(n):
            total += p[k]
            w0 += p[k] * scratch[X, k]
            w1 += p[k] * scratch[Y, k]
            w2 += p[k] * scratch[Z, k]
        own[a] += total
        virial[a, 0] -= w0
        virial[a, 1] -= w1
        virial[a, 2] -= w2


@compiled
def push(n: int, row: int, found: Any, scratch: Any, forces: Any, virial: Any) -> None:
    """Forces of a row's pairs on the centre and on its neighbours, and their virial, are added."""
    _add_up(n, scratch, forces[row], virial)
    for k in range(n):
        on = forces[found[k]]
        on[0] -= scratch[PX, k]
        on[1] -= scratch[PY, k]
        on[2] -= scratch[PZ, k]
