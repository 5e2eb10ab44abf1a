"""The pair attention of a block of atoms as one compiled call, forward and backward (Numba).

Rows of scores are (slot, head), so that no array is ever permuted. Between two matrix products, what
belongs to an atom stays in the first cache, and no step goes back to Python.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numba import njit, types
from numba.extending import overload

from dpa2calc.kernels.attention import SHIFT
from dpa2calc.kernels.blas import Floats, gemm
from dpa2calc.kernels.compiling import announce_compilation

Terms: TypeAlias = tuple[np.floating, ...]
announce_compilation()
_compiled = njit(cache=True, nogil=True, fastmath={"contract", "nsz"}, error_model="numpy")
_reducing = njit(
    cache=True, nogil=True, fastmath={"contract", "nsz", "nnan", "reassoc", "arcp"}, error_model="numpy"
)
_ATOMS = 8  # that share a product with the weights


def exponential_terms(dtype: np.dtype[np.floating]) -> Terms:
    """What `_exponentials` needs: smallest argument, 1 / ln 2, what rounds a sum, ln 2 in
    two parts, and 1 / k!."""
    single = dtype == np.float32
    high = 355.0 / 512.0 if single else float.fromhex("0x1.62e42fee00000p-1")
    low = math.log(2.0) - high if single else float.fromhex("0x1.a39ef35793c76p-33")
    given = (-87.0 if single else -708.0, 1.0 / math.log(2.0), 1.5 * 2.0 ** (23 if single else 52), high, low)
    return tuple(dtype.type(x) for x in (*given, *(1.0 / math.factorial(k) for k in range(14))))


def _power_of_two(rounded):  # type: ignore[no-untyped-def]
    """2^n from n + 1.5 * 2^23 (float32) or n + 1.5 * 2^52 (float64): n is in the last bits."""


@overload(_power_of_two)
def _power(rounded):  # type: ignore[no-untyped-def]
    if rounded == types.float32:
        return lambda rounded: np.int32((np.float32(rounded).view(np.int32) << 23) + (127 << 23)).view(np.float32)
    return lambda rounded: np.int64((np.float64(rounded).view(np.int64) << 52) + (1023 << 52)).view(np.float64)


@_compiled
def _exponentials(x: Floats, terms: Terms) -> None:
    """exp(x) in place for numbers of at most 0: 2^n times a polynomial."""
    low, per, shift, high, rest, c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = terms
    for i in range(x.size):
        v = max(x[i], low)
        rounded = v * per + shift
        n = rounded - shift
        r = (v - n * high) - n * rest
        p = c13 * r + c12
        p = p * r + c11
        p = p * r + c10
        p = p * r + c9
        p = p * r + c8
        p = p * r + c7
        p = p * r + c6
        p = p * r + c5
        p = p * r + c4
        p = p * r + c3
        p = p * r + c2
        p = p * r + c1
        x[i] = (p * r + c0) * _power_of_two(rounded)


@_reducing
def _largest(x: Floats) -> np.floating:
    top = x[0]
    for i in range(1, x.size):
        top = max(top, x[i])
    return top


@_reducing
def _sum(x: Floats) -> np.floating:
    total = x[0]
    for i in range(1, x.size):
        total += x[i]
    return total


@_reducing
def _dot(x: Floats, y: Floats) -> np.floating:
    total = x[0] * y[0]
    for i in range(1, x.size):
        total += x[i] * y[i]
    return total


@_compiled
def _softmax(
    scores: Floats,
    gate: Floats,
    shift: Floats,
    heads: int,
    n_more: int,
    terms: Terms,
    tops: Floats,
    weights: Floats,
) -> None:
    """weights = softmax(scores * gate + shift) of one atom, with `n_more` further columns at -20.

    scores, weights (k * heads, k); gate, shift (k, k); tops (k * heads,) is overwritten.
    """
    k = gate.shape[0]
    for j in range(k):
        a, b = gate[j], shift[j]
        for r in range(j * heads, (j + 1) * heads):
            s, w = scores[r], weights[r]
            for c in range(k):
                w[c] = s[c] * a[c] + b[c]
            top = _largest(w)
            for c in range(k):
                w[c] -= top
            tops[r] = np.exp(-SHIFT - top)
    _exponentials(weights.reshape(-1), terms)
    for r in range(k * heads):
        w, column = weights[r], tops[r]
        inverse = terms[5] / max(_sum(w) + n_more * column, column)
        for c in range(k):
            w[c] *= inverse


@_compiled
def mix(
    address: int,
    g: Floats,
    gate: Floats,
    shift: Floats,
    scale: Floats,
    query_key: Floats,
    value_out: Floats,
    bias: Floats,
    n_more: int,
    terms: Terms,
    out: Floats,
) -> None:
    """out = sum_h (A^h * scale) g (W_v W_o)^h + bias of every slot.

    g, out (b, k, d); gate, shift, scale (b, k, k); query_key (d, heads * d); value_out (heads * d, d).
    """
    b, k, d = g.shape
    wide = query_key.shape[1]
    heads = wide // d
    rows = k * heads
    queries = np.empty((_ATOMS, rows, d), g.dtype)
    scores, weights, tops = np.empty((rows, k), g.dtype), np.empty((rows, k), g.dtype), np.empty(rows, g.dtype)
    for first in range(0, b, _ATOMS):
        last = min(first + _ATOMS, b)
        m = (last - first) * k
        gemm(address, g[first:last], query_key, queries, (m, wide, d), (0, 0), 0)
        for i in range(first, last):
            query = queries[i - first]
            gemm(address, query, g[i], scores, (rows, k, d), (0, 1), 0)
            _softmax(scores, gate[i], shift[i], heads, n_more, terms, tops, weights)
            for r in range(rows):
                w, by = weights[r], scale[i, r // heads]
                for c in range(k):
                    w[c] *= by[c]
            gemm(address, weights, g[i], query, (rows, d, k), (0, 0), 0)  # the query is no longer needed
        part = out[first:last].reshape(m, d)
        for r in range(m):
            part[r] = bias
        gemm(address, queries, value_out, part, (m, d, wide), (0, 0), 1)


@_compiled
def mix_backward(
    address: int,
    g: Floats,
    gate: Floats,
    shift: Floats,
    scale: Floats,
    query_key: Floats,
    value_out: Floats,
    n_more: int,
    terms: Terms,
    grad: Floats,
    of_g: Floats,
    of_gate: Floats,
    of_shift: Floats,
    of_scale: Floats,
) -> None:
    """Gradients of g, gate, shift and scale from that of `out`, `grad` (b, k, d)."""
    b, k, d = g.shape
    wide = query_key.shape[1]
    heads = wide // d
    rows = k * heads
    queries, mixed = np.empty((_ATOMS, rows, d), g.dtype), np.empty((_ATOMS, rows, d), g.dtype)
    scores, weights, tops = np.empty((rows, k), g.dtype), np.empty((rows, k), g.dtype), np.empty(rows, g.dtype)
    scaled, inner = np.empty((rows, k), g.dtype), np.empty((rows, k), g.dtype)
    for first in range(0, b, _ATOMS):
        last = min(first + _ATOMS, b)
        m = (last - first) * k
        gemm(address, g[first:last], query_key, queries, (m, wide, d), (0, 0), 0)
        gemm(address, grad[first:last], value_out, mixed, (m, wide, d), (0, 1), 0)
        for i in range(first, last):
            query, of_mixed = queries[i - first], mixed[i - first]
            gemm(address, query, g[i], scores, (rows, k, d), (0, 1), 0)
            _softmax(scores, gate[i], shift[i], heads, n_more, terms, tops, weights)
            gemm(address, of_mixed, g[i], inner, (rows, k, d), (0, 1), 0)
            _through(scores, weights, gate[i], scale[i], heads, inner, scaled, of_gate[i], of_shift[i], of_scale[i])
            gemm(address, scaled, of_mixed, of_g[i], (k, d, rows), (1, 0), 0)
            gemm(address, inner, query, of_g[i], (k, d, rows), (1, 0), 1)
            gemm(address, inner, g[i], query, (rows, d, k), (0, 0), 0)  # now the gradient of the query
        gemm(address, queries, query_key, of_g[first:last], (m, d, wide), (0, 1), 1)


@_compiled
def _through(
    scores: Floats,
    weights: Floats,
    gate: Floats,
    scale: Floats,
    heads: int,
    inner: Floats,
    scaled: Floats,
    of_gate: Floats,
    of_shift: Floats,
    of_scale: Floats,
) -> None:
    """From the gradient of weights * scale to that of the scores, both `inner`; scaled = weights * scale.

    All (k * heads, k), but gate, scale and their gradients, which are overwritten, (k, k).
    """
    k = gate.shape[0]
    for j in range(k):
        a, by, to_gate, to_shift, to_scale = gate[j], scale[j], of_gate[j], of_shift[j], of_scale[j]
        for c in range(k):
            to_gate[c] = to_shift[c] = to_scale[c] = 0.0
        for r in range(j * heads, (j + 1) * heads):
            s, w, x, y = scores[r], weights[r], inner[r], scaled[r]
            for c in range(k):
                to_scale[c] += x[c] * w[c]
            for c in range(k):
                y[c] = w[c] * by[c]
            total = _dot(x, y)
            for c in range(k):
                x[c] = y[c] * x[c] - w[c] * total
            for c in range(k):
                to_shift[c] += x[c]
            for c in range(k):
                to_gate[c] += x[c] * s[c]
            for c in range(k):
                x[c] *= a[c]
