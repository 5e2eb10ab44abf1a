"""Compiled inner loops of sums over neighbours for training (Numba), any number of neighbours an atom.

Pairs are rows s of flat arrays; those of atom i are rows first[i] to first[i] + count[i] - 1, and index[s]
is the row of `x` that the pair looks at. The width comes in as a type (`constant`), so that the loops over
channels are straight vector code. All arrays are flat, because making a row of an array costs as much as
working on it; loops write one array at a time, because with more the compiler gives up proving that they do
not overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from dpa2calc.model.table_kernels import FUSED, REORDERED, width

_compiled = njit(cache=True, nogil=True, fastmath=FUSED, error_model="numpy")
_summing = njit(cache=True, nogil=True, fastmath=REORDERED, error_model="numpy")


@_compiled
def sums(
    start: int, stop: int, first: Any, count: Any, index: Any, u: Any, a: Any, x: Any, y: Any, m: Any, sizes: Any
) -> None:
    """y_i += sum_s u_s * x_s (element by element) and m_i += sum_s a_s (x) x_s for atoms start..stop-1.

    u (pairs, size), or nothing: no y; a (pairs, 3); x (rows, size); y (n, size); m (n, 3, size); all flat.
    """
    size = np.uint64(width(sizes))
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


@_summing
def _overlaps(x: Any, row: int, grad: Any, to: int, sizes: Any) -> Any:
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


@_compiled
def gradients(
    start: int,
    stop: int,
    first: Any,
    count: Any,
    index: Any,
    u: Any,
    a: Any,
    x: Any,
    grad_y: Any,
    grad_m: Any,
    grad_u: Any,
    grad_a: Any,
    grad_x: Any,
    sizes: Any,
) -> None:
    """Gradients of u, a (set) and x (added to) from those of y and m; all flat."""
    size = np.uint64(width(sizes))
    for i in range(start, stop):
        of_y = size * np.uint64(i)
        of_m = of_y + of_y + of_y
        for s in range(first[i], first[i] + count[i]):
            row, at = size * np.uint64(index[s]), size * np.uint64(s)
            a0, a1, a2 = _overlaps(x, row, grad_m, of_m, sizes)
            grad_a[3 * s] = a0
            grad_a[3 * s + 1] = a1
            grad_a[3 * s + 2] = a2
            a0, a1, a2 = a[3 * s], a[3 * s + 1], a[3 * s + 2]
            if u.size > 0:
                for d in range(size):
                    grad_u[at + d] = x[row + d] * grad_y[of_y + d]
                for d in range(size):
                    v = a0 * grad_m[of_m + d] + a1 * grad_m[of_m + size + d] + a2 * grad_m[of_m + size + size + d]
                    grad_x[row + d] += v + u[at + d] * grad_y[of_y + d]
            else:
                for d in range(size):
                    v = a0 * grad_m[of_m + d] + a1 * grad_m[of_m + size + d] + a2 * grad_m[of_m + size + size + d]
                    grad_x[row + d] += v
