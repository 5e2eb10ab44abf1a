"""Exponentials, and the softmax of the attentions with its gradient, for the compiled loops (Numba)."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import njit, types
from numba.extending import overload

from dpa2calc.kernels.attention import SHIFT
from dpa2calc.kernels.blas import Floats
from dpa2calc.kernels.building import compiled, reducing, shaped

Several: TypeAlias = tuple[Floats, ...]
Terms: TypeAlias = tuple[np.floating, ...]


def _power_of_two(rounded):
    """2^n from n + 1.5 * 2^23 (float32) or n + 1.5 * 2^52 (float64): n is in the last bits."""


@overload(_power_of_two)
def _power(rounded):
    if rounded == types.float32:
        return lambda rounded: np.int32((np.float32(rounded).view(np.int32) << 23) + (127 << 23)).view(
            np.float32
        )
    return lambda rounded: np.int64((np.float64(rounded).view(np.int64) << 52) + (1023 << 52)).view(
        np.float64
    )


def _polynomial(r, c):
    """c[0] + c[1] r + ..., of degree 7 in float32 and 13 in float64: all that counts for |r| < ln 2 / 2."""


@overload(_polynomial)
def _horner(r, c):
    def short(r, c):
        return ((((((c[7] * r + c[6]) * r + c[5]) * r + c[4]) * r + c[3]) * r + c[2]) * r + c[1]) * r + c[0]

    def long(r, c):
        p = (((((c[13] * r + c[12]) * r + c[11]) * r + c[10]) * r + c[9]) * r + c[8]) * r + c[7]
        return ((((((p * r + c[6]) * r + c[5]) * r + c[4]) * r + c[3]) * r + c[2]) * r + c[1]) * r + c[0]

    return short if len(c) == 8 else long


@njit(inline="always")
def _exponential(x: np.floating, terms: Terms) -> np.floating:
    """exp(x) of a number of at most 0: 2^n times a polynomial."""
    low, per, shift, high, rest = terms[:5]
    v = max(x, low)
    rounded = v * per + shift
    n = rounded - shift
    r = (v - n * high) - n * rest
    return _polynomial(r, terms[5:]) * _power_of_two(rounded)


@compiled
def exponentials(x: Floats, terms: Terms) -> None:
    """exp(x) in place for numbers of at most 0."""
    for i in range(x.size):
        x[i] = _exponential(x[i], terms)


@compiled
def tanh(x: Floats, terms: Terms) -> None:
    """tanh(x) in place, as good as 1 - 2 / (exp(2x) + 1)."""
    one = terms[5]
    for i in range(x.size):
        v = x[i]
        e = _exponential(min(v, -v) + min(v, -v), terms)
        t = (one - e) / (one + e)
        x[i] = t if v > 0 else -t


@reducing
def _largest(x: Floats) -> np.floating:
    top = x[0]
    for i in range(1, x.size):
        top = max(top, x[i])
    return top


@reducing
def sum_of(x: Floats) -> np.floating:
    total = x[0]
    for i in range(1, x.size):
        total += x[i]
    return total


@reducing
def dot(x: Floats, y: Floats) -> np.floating:
    total = x[0] * y[0]
    for i in range(1, x.size):
        total += x[i] * y[i]
    return total


@compiled
def softmax(
    scores: Floats, gate: Floats, shift: Floats, n_more: int, terms: Terms, tops: Floats, weights: Floats
) -> None:
    """weights = softmax(scores * gate + shift) of one atom, with `n_more` further columns at -20.

    scores, weights (m * heads, k); gate, shift (m, k); tops (m * heads,) is overwritten.
    """
    m, k = gate.shape
    heads = len(scores) // m
    for j in range(m):
        a, b = gate[j], shift[j]
        for r in range(j * heads, (j + 1) * heads):
            s, w = scores[r], weights[r]
            for c in range(k):
                w[c] = s[c] * a[c] + b[c]
            top = _largest(w)
            for c in range(k):
                w[c] -= top
            tops[r] = np.exp(-SHIFT - top)
    exponentials(shaped(weights, 0, weights.size), terms)
    for r in range(m * heads):
        w, column = weights[r], tops[r]
        inverse = terms[5] / max(sum_of(w) + n_more * column, column)
        for c in range(k):
            w[c] *= inverse


@compiled
def through(
    scores: Floats, weights: Floats, gate: Floats, scale: Floats, inner: Floats, scaled: Floats, of: Several
) -> None:
    """From the gradient of weights * scale to that of the scores, both `inner`; scaled = weights * scale.

    All (m * heads, k), but gate, scale and their gradients and that of the shift, `of`, (m, k).
    """
    of_gate, of_shift, of_scale = of
    m, k = gate.shape
    heads = len(scores) // m
    for j in range(m):
        a, by, to_gate, to_shift, to_scale = gate[j], scale[j], of_gate[j], of_shift[j], of_scale[j]
        for c in range(k):
            to_gate[c] = to_shift[c] = to_scale[c] = 0.0
        for r in range(j * heads, (j + 1) * heads):
            s, w, x, y = scores[r], weights[r], inner[r], scaled[r]
            for c in range(k):
                to_scale[c] += x[c] * w[c]
            for c in range(k):
                y[c] = w[c] * by[c]
            total = dot(x, y)
            for c in range(k):
                x[c] = y[c] * x[c] - w[c] * total
            for c in range(k):
                to_shift[c] += x[c]
            for c in range(k):
                to_gate[c] += x[c] * s[c]
            for c in range(k):
                x[c] *= a[c]
