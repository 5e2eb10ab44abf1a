"""Compiled inner loops of the tabulated embedding (Numba): Hermite weights, moments, their gradients.

A node of the table holds value, first and second derivative of all channels, 3 * size numbers in a row;
a point between two nodes reads 6 * size consecutive numbers. With the weights of `hermite`,

    G(s)  = f0 + (f1 - f0) v0 + f0' v1 + f0'' v2 + f1' v3 + f1'' v4        and dG/ds likewise,

so that float32 tables lose no digits where two nodes nearly agree. The number of channels comes in as
the lengths of two tuples (`constant`), which makes it a constant of the compiled code: the loops over
channels are then straight vector code.
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
    """Nodes and weights of `count` arguments s: node (count,) int64, v (10, count).

    Nodes lie at s_k = low + length (u_k^2 - 1), u_k = 1 + k step: close where s is small.
    """
    for k in range(count):
        u = np.sqrt(max(1.0 + (s[k] - low) / length, 1.0))
        at = min(np.int64((u - 1.0) / step), last)
        u0 = 1.0 + at * step
        h = length * step * (2.0 * u0 + step)
        t = (s[k] - low - length * (u0 * u0 - 1.0)) / h
        q = 1.0 - t
        t2, q2 = t * t, q * q
        node[k] = at
        v[0, k] = t2 * t * (10.0 - 15.0 * t + 6.0 * t2)
        v[1, k] = h * t * q2 * q * (1.0 + 3.0 * t)
        v[2, k] = 0.5 * h * h * t2 * q2 * q
        v[3, k] = -h * q * t2 * t * (1.0 + 3.0 * q)
        v[4, k] = 0.5 * h * h * q2 * t2 * t
        v[5, k] = 30.0 * t2 * q2 / h
        v[6, k] = q2 * (1.0 + 2.0 * t - 15.0 * t2)
        v[7, k] = 0.5 * h * t * q2 * (2.0 - 5.0 * t)
        v[8, k] = t2 * (1.0 + 2.0 * q - 15.0 * q2)
        v[9, k] = -0.5 * h * q * t2 * (2.0 - 5.0 * q)


@compiled
def add_two(a: Any, b: Any, va: Any, vb: Any, ra: Any, rb: Any, out: Any, sizes: Any) -> None:
    """Add ra (x) G_a + rb (x) G_b of two neighbours to the moments `out` (4 * size,)."""
    size = width(sizes)
    a0, a1, a2, a3, a4 = va[0], va[1], va[2], va[3], va[4]
    b0, b1, b2, b3, b4 = vb[0], vb[1], vb[2], vb[3], vb[4]
    p0, p1, p2, p3 = ra[0], ra[1], ra[2], ra[3]
    q0, q1, q2, q3 = rb[0], rb[1], rb[2], rb[3]
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
def add_stripped(a: Any, va: Any, ra: Any, strip: Any, factor: Any, out: Any, sizes: Any) -> None:
    """Add r (x) S (1 + factor * strip) of one neighbour to the moments `out` (4 * size,)."""
    size = width(sizes)
    a0, a1, a2, a3, a4 = va[0], va[1], va[2], va[3], va[4]
    p0, p1, p2, p3 = ra[0], ra[1], ra[2], ra[3]
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
def pull_back(a: Any, v: Any, r: Any, grad: Any, sizes: Any) -> Any:
    """Gradients of one neighbour: of its row (4 numbers) and, through G, of its argument s."""
    size = width(sizes)
    v0, v1, v2, v3, v4, w0, w1, w2, w3, w4 = v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9]
    r0, r1, r2, r3 = r[0], r[1], r[2], r[3]
    zero = r0 * 0
    s0, s1, s2, s3, slope = zero, zero, zero, zero, zero
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
    return s0, s1, s2, s3, slope


@summing
def pull_back_stripped(a: Any, v: Any, r: Any, strip: Any, factor: Any, grad: Any, sizes: Any) -> Any:
    """As `pull_back` with G = S (1 + factor * strip); the sixth number is the gradient of the factor."""
    size = width(sizes)
    v0, v1, v2, v3, v4, w0, w1, w2, w3, w4 = v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9]
    r0, r1, r2, r3 = r[0], r[1], r[2], r[3]
    zero = r0 * 0
    s0, s1, s2, s3, slope, of_factor = zero, zero, zero, zero, zero, zero
    for m in range(size):
        f = a[m]
        rise = a[3 * size + m] - f
        n1, n2, n4, n5 = a[size + m], a[2 * size + m], a[4 * size + m], a[5 * size + m]
        plain = f + rise * v0 + n1 * v1 + n2 * v2 + n4 * v3 + n5 * v4
        scale = 1 + factor * strip[m]
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
    return s0, s1, s2, s3, slope, of_factor


@compiled
def moments_of_rows(
    first: int,
    last: int,
    rows: Any,
    lines: Any,
    table: Any,
    grid: Any,
    strip: Any,
    factor: Any,
    strip_lines: Any,
    out: Any,
    sizes: Any,
) -> None:
    """out[i] = sum_j rows_ij (x) G_ij for atoms first..last-1 (dense rows, see `table_moments.TableMoments`).

    rows (n, k, 4); lines (n, k) int64, number of the table's first node for each neighbour's types;
    strip (p, size) or (0, size); out (n, 4 * size), overwritten.
    """
    size, k = width(sizes), rows.shape[1]
    node, v = empty(k + 1, np.int64), empty((N_WEIGHTS, k + 1), np.float64)
    s = empty(k + 1, np.float64)
    weights = empty((k + 1, 5), rows.dtype)
    padded = empty((k + 1, 4), rows.dtype)
    for i in range(first, last):
        for j in range(k):
            s[j] = rows[i, j, 0]
        s[k] = s[0]
        hermite(s, k + 1, grid[0], grid[1], grid[2], np.int64(grid[3]), node, v)
        for j in range(k + 1):
            for c in range(5):
                weights[j, c] = v[c, j]
        for c in range(4):
            for j in range(k):
                padded[j, c] = rows[i, j, c]
            padded[k, c] = 0
        for m in range(4 * size):
            out[i, m] = 0
        if strip.shape[0] > 0:
            for j in range(k):
                at = (lines[i, j] + node[j]) * 3 * size
                part = strip[strip_lines[i, j]]
                add_stripped(
                    table[at : at + 6 * size], weights[j], padded[j], part, factor[i, j], out[i], sizes
                )
        else:
            for j in range(0, k, 2):
                at = (lines[i, j] + node[j]) * 3 * size
                other = (lines[i, min(j + 1, k - 1)] + node[j + 1]) * 3 * size
                add_two(
                    table[at : at + 6 * size],
                    table[other : other + 6 * size],
                    weights[j],
                    weights[j + 1],
                    padded[j],
                    padded[j + 1],
                    out[i],
                    sizes,
                )
    free((node, v, s, weights, padded))


@compiled
def gradients_of_rows(
    first: int,
    last: int,
    rows: Any,
    lines: Any,
    table: Any,
    grid: Any,
    strip: Any,
    factor: Any,
    strip_lines: Any,
    grad: Any,
    grad_rows: Any,
    grad_factor: Any,
    sizes: Any,
) -> None:
    """Gradients of rows (n, k, 4) and factors (n, k) from those of the moments, `grad` (n, 4 * size)."""
    size, k = width(sizes), rows.shape[1]
    node, v = empty(k, np.int64), empty((N_WEIGHTS, k), np.float64)
    s = empty(k, np.float64)
    weights = empty((k, N_WEIGHTS), rows.dtype)
    for i in range(first, last):
        for j in range(k):
            s[j] = rows[i, j, 0]
        hermite(s, k, grid[0], grid[1], grid[2], np.int64(grid[3]), node, v)
        for j in range(k):
            for c in range(N_WEIGHTS):
                weights[j, c] = v[c, j]
        for j in range(k):
            at = (lines[i, j] + node[j]) * 3 * size
            nodes = table[at : at + 6 * size]
            if strip.shape[0] > 0:
                part = strip[strip_lines[i, j]]
                g0, g1, g2, g3, slope, of_factor = pull_back_stripped(
                    nodes, weights[j], rows[i, j], part, factor[i, j], grad[i], sizes
                )
                grad_factor[i, j] = of_factor
            else:
                g0, g1, g2, g3, slope = pull_back(nodes, weights[j], rows[i, j], grad[i], sizes)
            grad_rows[i, j, 0] = g0 + slope
            grad_rows[i, j, 1] = g1
            grad_rows[i, j, 2] = g2
            grad_rows[i, j, 3] = g3
    free((node, v, s, weights))
