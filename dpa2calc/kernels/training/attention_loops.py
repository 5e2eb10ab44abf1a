"""The attentions of the repformer, an atom after the other: three compiled passes (Numba).

Letters are those of attention.py. `rows` says for every atom where its queries, pairs and terms begin and how
many it has: first query, queries, first pair, count, first term, (n,) each. Rows of scores are (query, head),
so that no array is ever permuted. `index` (P,) is the row of `keys` that a pair looks at; when it is empty,
the keys are the pairs themselves. Thread `part` of `parts` takes every parts-th atom.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import njit

from dpa2calc.kernels.blas import Floats, gemm
from dpa2calc.kernels.building import FUSED
from dpa2calc.kernels.inference.softmax_loops import Terms, softmax

Ints: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Rows: TypeAlias = tuple[Ints, Ints, Ints, Ints, Ints]

_compiled = njit(cache=True, nogil=True, fastmath=FUSED, error_model="numpy")
# Sums over neighbours only vectorise when they may be reordered.
_summing = njit(
    cache=True, nogil=True, fastmath={"contract", "nsz", "nnan", "reassoc", "arcp"}, error_model="numpy"
)


@_compiled
def _widest(rows: Rows, heads: int) -> tuple[int, int]:
    """The largest numbers of neighbours, and of rows of scores."""
    count = rows[3]
    k = m = 0
    for i in range(count.size):
        k, m = max(k, count[i]), max(m, rows[1][i] * heads)
    return k, m


@_compiled
def _take(keys: Floats, index: Ints, first: int, to: Floats) -> None:
    for j in range(len(to)):
        row, out = keys[index[first + j] if index.size > 0 else first + j], to[j]
        for c in range(row.size):
            out[c] = row[c]


@_compiled
def _give(values: Floats, index: Ints, first: int, to: Floats) -> None:
    """What `_take` took, back: added where several pairs have the same neighbour."""
    for j in range(len(values)):
        row, out = values[j], to[index[first + j] if index.size > 0 else first + j]
        for c in range(row.size):
            out[c] += row[c]


@_compiled
def _softmax(
    scores: Floats, gate: Floats, shift: Floats, k: int, heads: int, nsel: int, terms: Terms, tops: Floats,
    weights: Floats,
) -> None:  # fmt: skip
    """A of one atom; all arrays flat."""
    by = (gate.size // k, k)
    rows = (heads * by[0], k)
    given = scores.reshape(rows), gate.reshape(by), shift.reshape(by), heads, nsel - k, terms, tops
    softmax(*given, weights.reshape(rows))


@_summing
def _through(
    scores: Floats, weights: Floats, gate: Floats, scale: Floats, k: int, heads: int, inner: Floats,
    scaled: Floats, of_terms: Floats, begin: int,
) -> None:  # fmt: skip
    """Of one atom: `inner` from gW to gS, scaled = W, and those of its terms, from `begin` on."""
    for r in range(scores.size // k):
        row, slot = slice(r * k, (r + 1) * k), slice(r // heads * k, (r // heads + 1) * k)
        s, a, x, w, on, by = scores[row], weights[row], inner[row], scaled[row], gate[slot], scale[slot]
        total = s[0] * 0
        for c in range(k):
            w[c] = a[c] * by[c]
            total += x[c] * w[c]
        if of_terms.size == 0:
            for c in range(k):
                x[c] = (w[c] * x[c] - a[c] * total) * on[c]
            continue
        mine = slice(begin + slot.start, begin + slot.stop)
        of_gate, of_shift, of_scale = of_terms[0, mine], of_terms[1, mine], of_terms[2, mine]
        for c in range(k):
            of_scale[c] += x[c] * a[c]
        for c in range(k):
            x[c] = w[c] * x[c] - a[c] * total
        for c in range(k):
            of_shift[c] += x[c]
        for c in range(k):
            of_gate[c] += x[c] * s[c]
        for c in range(k):
            x[c] *= on[c]


@_summing
def _changes(
    weights: Floats, scores: Floats, ds: Floats, gate: Floats, scale: Floats, t_terms: Floats, begin: int,
    k: int, heads: int, du: Floats, dw: Floats, scaled: Floats, sums: Floats,
) -> None:  # fmt: skip
    """Of one atom: dU, dW, W, and r of each row."""
    for r in range(scores.size // k):
        row, slot = slice(r * k, (r + 1) * k), slice(r // heads * k, (r // heads + 1) * k)
        s, a, d, on, by = scores[row], weights[row], ds[row], gate[slot], scale[slot]
        mine = slice(begin + slot.start, begin + slot.stop)
        t_on, t_shift, t_by = t_terms[0, mine], t_terms[1, mine], t_terms[2, mine]
        u, v, w = du[row], dw[row], scaled[row]
        total = s[0] * 0
        for c in range(k):
            u[c] = d[c] * on[c] + s[c] * t_on[c] + t_shift[c]
            total += a[c] * u[c]
        for c in range(k):
            v[c] = a[c] * ((u[c] - total) * by[c] + t_by[c])
        for c in range(k):
            w[c] = a[c] * by[c]
        sums[r] = total


@_summing
def _second_gradients(
    weights: Floats, scores: Floats, ds: Floats, gate: Floats, scale: Floats, t_terms: Floats, begin: int,
    k: int, heads: int, du: Floats, sums: Floats, gw: Floats, of_w: Floats, of_s: Floats, gs: Floats,
    to_terms: Floats,
) -> None:  # fmt: skip
    """Of one atom: the gradients of S, once by itself and once by dS; of the terms where asked for."""
    for r in range(scores.size // k):
        row, slot = slice(r * k, (r + 1) * k), slice(r // heads * k, (r // heads + 1) * k)
        s, a, d, u, on, by = scores[row], weights[row], ds[row], du[row], gate[slot], scale[slot]
        mine = slice(begin + slot.start, begin + slot.stop)
        t_on, t_by = t_terms[0, mine], t_terms[2, mine]
        x, y, of_u, b, sum_du = gw[row], of_w[row], of_s[row], gs[row], sums[r]
        sum_ga, total = s[0] * 0, s[0] * 0
        for c in range(k):
            sum_ga += a[c] * by[c] * x[c]
        for c in range(k):
            of_u[c] = y[c] * by[c] + x[c] * t_by[c] + (x[c] * by[c] - sum_ga) * u[c] - x[c] * by[c] * sum_du
            total += a[c] * of_u[c]
        for c in range(k):
            of_u[c] = a[c] * (of_u[c] - total)
        for c in range(k):
            b[c] = a[c] * (x[c] * by[c] - sum_ga)
        if to_terms.size > 0:
            to_gate, to_shift, to_scale = to_terms[0, mine], to_terms[1, mine], to_terms[2, mine]
            for c in range(k):
                to_gate[c] += of_u[c] * s[c] + b[c] * d[c]
            for c in range(k):
                to_shift[c] += of_u[c]
            for c in range(k):
                to_scale[c] += a[c] * (x[c] * (u[c] - sum_du) + y[c])
        for c in range(k):
            of_u[c] = of_u[c] * on[c] + b[c] * t_on[c]
        for c in range(k):
            b[c] *= on[c]


@_compiled
def mixed(
    part: int,
    parts: int,
    address: int,
    rows: Rows,
    index: Ints,
    heads: int,
    nsel: int,
    terms: Terms,
    query: Floats,
    keys: Floats,
    gate: Floats,
    shift: Floats,
    scale: Floats,
    out: Floats,
) -> None:
    """M = W X."""
    first_query, queries, first_pair, count, first_term = rows
    (widest, most), d = _widest(rows, heads), keys.shape[1]
    near, tops = np.empty((widest, d), keys.dtype), np.empty(most, keys.dtype)
    scores, weights = np.empty(most * widest, keys.dtype), np.empty(most * widest, keys.dtype)
    for i in range(part, count.size, parts):
        k, n = count[i], queries[i]
        m, at, term = n * heads, first_query[i], slice(first_term[i], first_term[i] + n * k)
        if k == 0:
            continue
        x, s, w = near[:k], scores[: m * k], weights[: m * k]
        _take(keys, index, first_pair[i], x)
        gemm(address, query[at : at + n], x, s, (m, k, d), (0, 1), 0)
        _softmax(s, gate[term], shift[term], k, heads, nsel, terms, tops, w)
        by = scale[term]
        for r in range(m):
            row, factor = w[r * k : (r + 1) * k], by[r // heads * k : (r // heads + 1) * k]
            for c in range(k):
                row[c] *= factor[c]
        gemm(address, w, x, out[at : at + n], (m, d, k), (0, 0), 0)


@_compiled
def gradients(
    part: int,
    parts: int,
    address: int,
    rows: Rows,
    index: Ints,
    heads: int,
    nsel: int,
    terms: Terms,
    grad: Floats,
    query: Floats,
    keys: Floats,
    gate: Floats,
    shift: Floats,
    scale: Floats,
    of_query: Floats,
    of_keys: Floats,
    of_terms: Floats,
) -> None:
    """From g the gradients of Q, of X (added), and of gate, shift, scale (3, terms) unless that is empty."""
    first_query, queries, first_pair, count, first_term = rows
    (widest, most), d = _widest(rows, heads), keys.shape[1]
    near, of_near = np.empty((widest, d), keys.dtype), np.empty((widest, d), keys.dtype)
    scratch, tops = np.empty((4, most * widest), keys.dtype), np.empty(most, keys.dtype)
    for i in range(part, count.size, parts):
        k, n = count[i], queries[i]
        m, at, begin, end = n * heads, first_query[i], first_term[i], first_term[i] + n * k
        if k == 0:
            continue
        x, to, q, g = near[:k], of_near[:k], query[at : at + n], grad[at : at + n]
        s, w, inner, scaled = (
            scratch[0, : m * k],
            scratch[1, : m * k],
            scratch[2, : m * k],
            scratch[3, : m * k],
        )
        a, by = gate[begin:end], scale[begin:end]
        _take(keys, index, first_pair[i], x)
        gemm(address, q, x, s, (m, k, d), (0, 1), 0)
        _softmax(s, a, shift[begin:end], k, heads, nsel, terms, tops, w)
        gemm(address, g, x, inner, (m, k, d), (0, 1), 0)
        _through(s, w, a, by, k, heads, inner, scaled, of_terms, begin)
        gemm(address, scaled, g, to, (k, d, m), (1, 0), 0)
        gemm(address, inner, q, to, (k, d, m), (1, 0), 1)
        _give(to, index, first_pair[i], of_keys)
        gemm(address, inner, x, of_query[at : at + n], (m, d, k), (0, 0), 0)


@_compiled
def second(
    part: int,
    parts: int,
    address: int,
    rows: Rows,
    index: Ints,
    heads: int,
    nsel: int,
    terms: Terms,
    grad: Floats,
    query: Floats,
    keys: Floats,
    gate: Floats,
    shift: Floats,
    scale: Floats,
    t_query: Floats,
    t_keys: Floats,
    t_terms: Floats,
    to_grad: Floats,
    to_query: Floats,
    to_keys: Floats,
    to_terms: Floats,
) -> None:
    """dM, and the gradients of sum(g * dM): of Q, of X (added), of the terms (3, terms).

    t_terms (3, terms). Without an array for Q only dM is made, without one for the terms not theirs.
    """
    first_query, queries, first_pair, count, first_term = rows
    (widest, most), d = _widest(rows, heads), keys.shape[1]
    near = np.empty((3, widest, d), keys.dtype)
    scratch, tops = np.empty((10, most * widest), keys.dtype), np.empty(most, keys.dtype)
    for i in range(part, count.size, parts):
        k, n = count[i], queries[i]
        m, at, begin, end = n * heads, first_query[i], first_term[i], first_term[i] + n * k
        if k == 0:
            continue
        x, tx, to, size = near[0, :k], near[1, :k], near[2, :k], m * k
        q, tq, g = query[at : at + n], t_query[at : at + n], grad[at : at + n]
        s, a, ds, du = scratch[0, :size], scratch[1, :size], scratch[2, :size], scratch[3, :size]
        dw, w, on, by = scratch[4, :size], scratch[5, :size], gate[begin:end], scale[begin:end]
        _take(keys, index, first_pair[i], x)
        _take(t_keys, index, first_pair[i], tx)
        gemm(address, q, x, s, (m, k, d), (0, 1), 0)
        gemm(address, tq, x, ds, (m, k, d), (0, 1), 0)
        gemm(address, q, tx, ds, (m, k, d), (0, 1), 1)
        _softmax(s, on, shift[begin:end], k, heads, nsel, terms, tops, a)
        _changes(a, s, ds, on, by, t_terms, begin, k, heads, du, dw, w, tops)
        gemm(address, dw, x, to_grad[at : at + n], (m, d, k), (0, 0), 0)
        gemm(address, w, tx, to_grad[at : at + n], (m, d, k), (0, 0), 1)
        if to_query.size == 0:
            continue
        gw, of_w, of_s, gs = scratch[6, :size], scratch[7, :size], scratch[8, :size], scratch[9, :size]
        gemm(address, g, x, gw, (m, k, d), (0, 1), 0)
        gemm(address, g, tx, of_w, (m, k, d), (0, 1), 0)
        _second_gradients(a, s, ds, on, by, t_terms, begin, k, heads, du, tops, gw, of_w, of_s, gs, to_terms)
        gemm(address, of_s, x, to_query[at : at + n], (m, d, k), (0, 0), 0)
        gemm(address, gs, tx, to_query[at : at + n], (m, d, k), (0, 0), 1)
        gemm(address, dw, g, to, (k, d, m), (1, 0), 0)
        gemm(address, gs, tq, to, (k, d, m), (1, 0), 1)
        gemm(address, of_s, q, to, (k, d, m), (1, 0), 1)
        _give(to, index, first_pair[i], to_keys)
