"""Compiled inner loops of the tabulated embedding (Numba): Hermite weights, moments, their gradients.

A node of the table holds value, first and second derivative of all channels, 3 * size numbers in a row;
a point between two nodes reads 6 * size consecutive numbers. With the weights of `hermite`,

    G(s)  = f0 + (f1 - f0) v0 + f0' v1 + f0'' v2 + f1' v3 + f1'' v4        and dG/ds likewise,

so that float32 tables lose no digits where two nodes nearly agree. The number of channels comes in as
the lengths of two tuples (`constant`), which makes it a constant of the compiled code, and it fills whole
cache lines (`EmbeddingTable.width`): the loops over channels are then straight vector code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpa2calc.kernels.building import compiled, empty, free, summing


@compiled
def width(number: Any) -> int:
    """The number behind `constant`."""
    return 16 * len(number[0]) + len(number[1])


N_WEIGHTS = 10  # five for the value, five for the derivative


@compiled
def hermite(s: Any, count: int, low: Any, length: Any, step: Any, last: Any, node: Any, v: Any) -> None:
    """Nodes and weights of `count` arguments s: node (count,) int64, v (10, count) in the table's precision.

    Nodes lie at s_k = low + length (u_k^2 - 1), u_k = 1 + k step: close where s is small.
    """
    per_length, per_step = 1.0 / length, 1.0 / step
    for k in range(count):
        u = np.sqrt(max(1.0 + (s[k] - low) * per_length, 1.0))
        at = min(np.int64((u - 1.0) * per_step), last)
        u0 = 1.0 + at * step
        h = length * step * (2.0 * u0 + step)
        per_h = 1.0 / h
        t = (s[k] - low - length * (u0 * u0 - 1.0)) * per_h
        q = 1.0 - t
        t2, q2 = t * t, q * q
        node[k] = at
        v[0, k] = t2 * t * (10.0 - 15.0 * t + 6.0 * t2)
        v[1, k] = h * t * q2 * q * (1.0 + 3.0 * t)
        v[2, k] = 0.5 * h * h * t2 * q2 * q
        v[3, k] = -h * q * t2 * t * (1.0 + 3.0 * q)
        v[4, k] = 0.5 * h * h * q2 * t2 * t
        v[5, k] = 30.0 * t2 * q2 * per_h
        v[6, k] = q2 * (1.0 + 2.0 * t - 15.0 * t2)
        v[7, k] = 0.5 * h * t * q2 * (2.0 - 5.0 * t)
        v[8, k] = t2 * (1.0 + 2.0 * q - 15.0 * q2)
        v[9, k] = -0.5 * h * q * t2 * (2.0 - 5.0 * q)


@compiled
def add_two(a: Any, b: Any, i: int, j: int, v: Any, r: Any, out: Any, sizes: Any) -> None:
    """Add r_i (x) G_i + r_j (x) G_j of two neighbours, at nodes a and b, to the moments `out` (4 * size,).

    v (10, n), r (4, n): Hermite weights and environment rows of all neighbours.
    """
    size = width(sizes)
    a0, a1, a2, a3, a4 = v[0, i], v[1, i], v[2, i], v[3, i], v[4, i]
    b0, b1, b2, b3, b4 = v[0, j], v[1, j], v[2, j], v[3, j], v[4, j]
    p0, p1, p2, p3 = r[0, i], r[1, i], r[2, i], r[3, i]
    q0, q1, q2, q3 = r[0, j], r[1, j], r[2, j], r[3, j]
    for m in range(size):
        f, e = a[m], b[m]
        g = f + (a[3 * size + m] - f) * a0 + a[size + m] * a1 + a[2 * size + m] * a2
        g += a[4 * size + m] * a3 + a[5 * size + m] * a4
        h = e + (b[3 * size + m] - e) * b0 + b[size + m] * b1 + b[2 * size + m] * b2
        h += b[4 * size + m] * b3 + b[5 * size + m] * b4
        out[m] += p0 * g + q0 * h
        out[size + m] += p1 * g + q1 * h
        out[2 * size + m] += p2 * g + q2 * h
        out[3 * size + m] += p3 * g + q3 * h


@compiled
def add_stripped(a: Any, i: int, v: Any, r: Any, strip: Any, factor: Any, out: Any, sizes: Any) -> None:
    """Add r_i (x) S_i (1 + factor * strip) of neighbour i to the moments `out` (4 * size,)."""
    size = width(sizes)
    a0, a1, a2, a3, a4 = v[0, i], v[1, i], v[2, i], v[3, i], v[4, i]
    p0, p1, p2, p3 = r[0, i], r[1, i], r[2, i], r[3, i]
    for m in range(size):
        f = a[m]
        g = f + (a[3 * size + m] - f) * a0 + a[size + m] * a1 + a[2 * size + m] * a2
        g += a[4 * size + m] * a3 + a[5 * size + m] * a4
        g += g * factor * strip[m]
        out[m] += p0 * g
        out[size + m] += p1 * g
        out[2 * size + m] += p2 * g
        out[3 * size + m] += p3 * g


@summing
def pull_back(a: Any, i: int, v: Any, r: Any, grad: Any, to: Any, sizes: Any) -> None:
    """Gradients of neighbour i: of its row, to[:4, i], and, through G, of its argument s, to[4, i]."""
    size = width(sizes)
    v0, v1, v2, v3, v4 = v[0, i], v[1, i], v[2, i], v[3, i], v[4, i]
    w0, w1, w2, w3, w4 = v[5, i], v[6, i], v[7, i], v[8, i], v[9, i]
    r0, r1, r2, r3 = r[0, i], r[1, i], r[2, i], r[3, i]
    s0 = s1 = s2 = s3 = slope = grad.dtype.type(0)  # r0 * 0 would be a float64
    for m in range(size):
        f = a[m]
        rise = a[3 * size + m] - f
        n1, n2, n4, n5 = a[size + m], a[2 * size + m], a[4 * size + m], a[5 * size + m]
        g = f + rise * v0 + n1 * v1 + n2 * v2 + n4 * v3 + n5 * v4
        dg = rise * w0 + n1 * w1 + n2 * w2 + n4 * w3 + n5 * w4
        x0, x1, x2, x3 = grad[m], grad[size + m], grad[2 * size + m], grad[3 * size + m]
        s0 += x0 * g
        s1 += x1 * g
        s2 += x2 * g
        s3 += x3 * g
        slope += dg * (r0 * x0 + r1 * x1 + r2 * x2 + r3 * x3)
    to[0, i], to[1, i], to[2, i], to[3, i], to[4, i] = s0, s1, s2, s3, slope


@summing
def pull_back_stripped(
    a: Any, i: int, v: Any, r: Any, strip: Any, factor: Any, grad: Any, to: Any, sizes: Any
) -> None:
    """As `pull_back` with G = S (1 + factor * strip); to[5, i] is the gradient of the factor."""
    size = width(sizes)
    v0, v1, v2, v3, v4 = v[0, i], v[1, i], v[2, i], v[3, i], v[4, i]
    w0, w1, w2, w3, w4 = v[5, i], v[6, i], v[7, i], v[8, i], v[9, i]
    r0, r1, r2, r3 = r[0, i], r[1, i], r[2, i], r[3, i]
    s0 = s1 = s2 = s3 = slope = of_factor = grad.dtype.type(0)
    one = grad.dtype.type(1)
    for m in range(size):
        f = a[m]
        rise = a[3 * size + m] - f
        n1, n2, n4, n5 = a[size + m], a[2 * size + m], a[4 * size + m], a[5 * size + m]
        plain = f + rise * v0 + n1 * v1 + n2 * v2 + n4 * v3 + n5 * v4
        scale = one + factor * strip[m]
        g = plain * scale
        dg = (rise * w0 + n1 * w1 + n2 * w2 + n4 * w3 + n5 * w4) * scale
        x0, x1, x2, x3 = grad[m], grad[size + m], grad[2 * size + m], grad[3 * size + m]
        h = r0 * x0 + r1 * x1 + r2 * x2 + r3 * x3
        s0 += x0 * g
        s1 += x1 * g
        s2 += x2 * g
        s3 += x3 * g
        slope += dg * h
        of_factor += plain * strip[m] * h
    to[0, i], to[1, i], to[2, i], to[3, i], to[4, i], to[5, i] = s0, s1, s2, s3, slope, of_factor


@compiled
def add_neighbors(n: int, given: Any, table: Any, strip: Any, out: Any, sizes: Any) -> None:
    """Add n neighbours to the moments `out` (4 * size,), two at a time; an odd one beside one of no weight.

    given: where the nodes of each begin in the table; Hermite weights (10, n + 1) and environment rows
    (4, n + 1); with a strip (p, size), which of its lines each takes, and times which factor.
    """
    at, v, r, lines, factor = given
    size = width(sizes)
    if strip.shape[0] > 0:
        for k in range(n):
            add_stripped(table[at[k] : at[k] + 6 * size], k, v, r, strip[lines[k]], factor[k], out, sizes)
        return
    if n % 2 == 1:
        at[n] = at[n - 1]
        for c in range(5):
            v[c, n] = v[c, n - 1]
        for c in range(4):
            r[c, n] = 0
    for k in range(0, n, 2):
        a, b = at[k], at[k + 1]
        add_two(table[a : a + 6 * size], table[b : b + 6 * size], k, k + 1, v, r, out, sizes)


@compiled
def pull_back_neighbors(n: int, given: Any, table: Any, strip: Any, grad: Any, to: Any, sizes: Any) -> None:
    """Gradients of n neighbours, to (6, n), from that of the moments; as `add_neighbors`."""
    at, v, r, lines, factor = given
    size = width(sizes)
    for k in range(n):
        nodes = table[at[k] : at[k] + 6 * size]
        if strip.shape[0] > 0:
            pull_back_stripped(nodes, k, v, r, strip[lines[k]], factor[k], grad, to, sizes)
        else:
            pull_back(nodes, k, v, r, grad, to, sizes)


@compiled
def columns(rows: Any, s: Any, r: Any) -> None:
    """Rows (k, 4) of neighbours as four lines r (4, k or more), and the arguments s among them."""
    for j in range(rows.shape[0]):
        s[j] = rows[j, 0]
        for c in range(4):
            r[c, j] = rows[j, c]


@compiled
def moments_of_rows(first: int, last: int, given: Any, out: Any, sizes: Any) -> None:
    """out[i] = sum_j rows_ij (x) G_ij for atoms first..last-1 (dense rows, see `moments.TableMoments`).

    given: rows (n, k, 4); lines (n, k) int64, number of the table's first node for each neighbour's types;
    table; grid; strip (p, size) or (0, size); factor and line of the strip (n, k). out (n, 4 * size),
    overwritten.
    """
    rows, lines, table, grid, strip, factor, strip_lines = given
    size, k = width(sizes), rows.shape[1]
    at, v = empty(k + 1, np.int64), empty((N_WEIGHTS, k + 1), table.dtype)
    s, r = empty(k, np.float64), empty((4, k + 1), table.dtype)
    for i in range(first, last):
        columns(rows[i], s, r)
        hermite(s, k, grid[0], grid[1], grid[2], np.int64(grid[3]), at, v)
        for j in range(k):
            at[j] = (lines[i, j] + at[j]) * 3 * size
        for m in range(4 * size):
            out[i, m] = 0
        add_neighbors(k, (at, v, r, strip_lines[i], factor[i]), table, strip, out[i], sizes)
    free((at, v, s, r))


@compiled
def gradients_of_rows(
    first: int, last: int, given: Any, grad: Any, grad_rows: Any, grad_factor: Any, sizes: Any
) -> None:
    """Gradients of rows (n, k, 4) and factors (n, k) from those of the moments, `grad` (n, 4 * size)."""
    rows, lines, table, grid, strip, factor, strip_lines = given
    size, k = width(sizes), rows.shape[1]
    at, v = empty(k, np.int64), empty((N_WEIGHTS, k), table.dtype)
    s, r, to = empty(k, np.float64), empty((4, k), table.dtype), empty((6, k), table.dtype)
    for i in range(first, last):
        columns(rows[i], s, r)
        hermite(s, k, grid[0], grid[1], grid[2], np.int64(grid[3]), at, v)
        for j in range(k):
            at[j] = (lines[i, j] + at[j]) * 3 * size
        pull_back_neighbors(k, (at, v, r, strip_lines[i], factor[i]), table, strip, grad[i], to, sizes)
        for j in range(k):
            grad_rows[i, j, 0] = to[0, j] + to[4, j]
            for c in range(1, 4):
                grad_rows[i, j, c] = to[c, j]
            if strip.shape[0] > 0:
                grad_factor[i, j] = to[5, j]
    free((at, v, s, r, to))
