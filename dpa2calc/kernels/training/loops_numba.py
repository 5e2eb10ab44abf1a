"""Compiled inner loops of the repformer's sums over neighbours, for training (Numba).

Pairs are rows s of flat arrays; those of atom i are rows first[i] to first[i] + count[i] - 1, and index[s]
is the row of `x` that the pair looks at. The width comes in as a type (`constant`), so that the loops over
channels are straight vector code. All arrays are flat and all offsets unsigned, because making a row of an
array, or asking whether an offset is negative, costs as much as the work on it. Loops write one array at a
time; with more the compiler gives up proving that they do not overlap.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from dpa2calc.kernels.blas import Floats
from dpa2calc.kernels.building import compiled, summing
from dpa2calc.kernels.inference.neighbor_loops import Ints
from dpa2calc.kernels.tables.numba_loops import width

Constant: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
Lists: TypeAlias = tuple[Ints, Ints, Ints]  # first, count, index


@compiled
def sums(
    start: int,
    stop: int,
    pairs: Lists,
    u: Floats,
    a: Floats,
    x: Floats,
    y: Floats,
    m: Floats,
    sizes: Constant,
) -> None:
    """y_i += sum_s u_s * x_s (element by element) and m_i += sum_s a_s (x) x_s for atoms start..stop-1.

    u (pairs, size), or nothing: no y; a (pairs, 3); x (rows, size); y (n, size); m (n, 3, size).
    """
    (first, count, index), size = pairs, np.uint64(width(sizes))
    for i in range(start, stop):
        to = size * np.uint64(i)
        out = to + to + to
        for s in range(first[i], first[i] + count[i]):
            row, at = size * np.uint64(index[s]), size * np.uint64(s)
            a0, a1, a2 = a[3 * s], a[3 * s + 1], a[3 * s + 2]
            for d in range(size):
                v = x[row + d]
                m[out + d] += a0 * v
                m[out + size + d] += a1 * v
                m[out + size + size + d] += a2 * v
            if u.size > 0:
                for d in range(size):
                    y[to + d] += u[at + d] * x[row + d]


@summing
def _overlaps(
    x: Floats, row: np.uint64, grad: Floats, to: np.uint64, sizes: Constant
) -> tuple[float, float, float]:
    """Scalar products of one row of x with three of `grad`."""
    size = np.uint64(width(sizes))
    zero = x[row] * 0
    s0, s1, s2 = zero, zero, zero
    for d in range(size):
        v = x[row + d]
        s0 += v * grad[to + d]
        s1 += v * grad[to + size + d]
        s2 += v * grad[to + size + size + d]
    return s0, s1, s2


@compiled
def gradients(
    start: int, stop: int, pairs: Lists, u: Floats, a: Floats, x: Floats, grad_y: Floats, grad_m: Floats,
    grad_u: Floats, grad_a: Floats, grad_x: Floats, sizes: Constant,
) -> None:  # fmt: skip
    """Gradients of u (set), a and x (added to) from those of y and m; that of a is left out if empty."""
    (first, count, index), size = pairs, np.uint64(width(sizes))
    for i in range(start, stop):
        of_y = size * np.uint64(i)
        of_m = of_y + of_y + of_y
        for s in range(first[i], first[i] + count[i]):
            row, at = size * np.uint64(index[s]), size * np.uint64(s)
            if grad_a.size > 0:
                a0, a1, a2 = _overlaps(x, row, grad_m, of_m, sizes)
                grad_a[3 * s] += a0
                grad_a[3 * s + 1] += a1
                grad_a[3 * s + 2] += a2
            a0, a1, a2 = a[3 * s], a[3 * s + 1], a[3 * s + 2]
            if u.size > 0:
                for d in range(size):
                    grad_u[at + d] = x[row + d] * grad_y[of_y + d]
                for d in range(size):
                    v = (
                        a0 * grad_m[of_m + d]
                        + a1 * grad_m[of_m + size + d]
                        + a2 * grad_m[of_m + size + size + d]
                    )
                    grad_x[row + d] += v + u[at + d] * grad_y[of_y + d]
            else:
                for d in range(size):
                    v = (
                        a0 * grad_m[of_m + d]
                        + a1 * grad_m[of_m + size + d]
                        + a2 * grad_m[of_m + size + size + d]
                    )
                    grad_x[row + d] += v


@compiled
def invariants(
    start: int, stop: int, m: Floats, p: Floats, factor: float, out: Floats, stride: int, offset: int,
    axis: int, sizes: Constant,
) -> None:  # fmt: skip
    """out[i, offset + b * size + d] += factor * sum_c m[i, c, b] p[i, c, d], b < axis; m, p (n, 3, size)."""
    size = np.uint64(width(sizes))
    by = m.dtype.type(factor)
    for i in range(start, stop):
        of = size * np.uint64(3 * i)
        for b in range(axis):
            to = np.uint64(stride * i + offset) + size * np.uint64(b)
            at = of + np.uint64(b)
            m0, m1, m2 = by * m[at], by * m[at + size], by * m[at + size + size]
            for d in range(size):
                out[to + d] += m0 * p[of + d] + m1 * p[of + size + d] + m2 * p[of + size + size + d]


@summing
def _overlap(x: Floats, at: np.uint64, y: Floats, to: np.uint64, sizes: Constant) -> float:
    total = x[at] * 0
    for d in range(np.uint64(width(sizes))):
        total += x[at + d] * y[to + d]
    return total


@compiled
def invariant_gradients(
    start: int, stop: int, grad: Floats, m: Floats, factor: float, out: Floats, stride: int, offset: int,
    axis: int, sizes: Constant,
) -> None:  # fmt: skip
    """Add to `out` (n, 3, size) the gradient of m, where invariants(m, m) has the gradient `grad`."""
    size = np.uint64(width(sizes))
    by = m.dtype.type(factor)
    for i in range(start, stop):
        for c in range(3):
            of = size * np.uint64(3 * i + c)
            for b in range(axis):
                at = np.uint64(stride * i + offset) + size * np.uint64(b)
                v = by * m[of + np.uint64(b)]
                for d in range(size):
                    out[of + d] += v * grad[at + d]
            for b in range(axis):
                at = np.uint64(stride * i + offset) + size * np.uint64(b)
                out[of + np.uint64(b)] += by * _overlap(grad, at, m, of, sizes)


@compiled
def products(start: int, stop: int, pairs: Lists, x: Floats, y: Floats, out: Floats, sizes: Constant) -> None:
    """out_s = x_i * y_j + x_j * y_i for pairs s = (i, j); x, y (rows, size), out (pairs, size)."""
    (first, count, index), size = pairs, np.uint64(width(sizes))
    for i in range(start, stop):
        own = size * np.uint64(i)
        for s in range(first[i], first[i] + count[i]):
            row, at = size * np.uint64(index[s]), size * np.uint64(s)
            for d in range(size):
                out[at + d] = x[own + d] * y[row + d] + x[row + d] * y[own + d]


@compiled
def product_gradients(
    start: int, stop: int, pairs: Lists, u: Floats, x: Floats, out: Floats, sizes: Constant
) -> None:
    """Add the gradient of y in sum(u * products(x, y)) to out (rows, size)."""
    (first, count, index), size = pairs, np.uint64(width(sizes))
    for i in range(start, stop):
        own = size * np.uint64(i)
        for s in range(first[i], first[i] + count[i]):
            row, at = size * np.uint64(index[s]), size * np.uint64(s)
            for d in range(size):
                out[own + d] += u[at + d] * x[row + d]
            for d in range(size):
                out[row + d] += u[at + d] * x[own + d]
