"""The attentions of the repformer, an atom after the other: three compiled passes (Numba).

Letters are those of attention.py, as are `Atoms`; inputs: query, keys, gate, shift and scale. Rows of scores
are (query, head), so that no array is ever permuted. Thread `part` of `parts` takes every parts-th atom.
"""

from __future__ import annotations

from dpa2calc.kernels.blas import Floats, gemm
from dpa2calc.kernels.building import compiled, empty, free, reducing, shaped
from dpa2calc.kernels.inference.compiled import Tools
from dpa2calc.kernels.inference.neighbor_loops import Ints
from dpa2calc.kernels.inference.softmax_loops import Several, Terms, softmax

from .attention import Atoms


@compiled
def _widest(atoms: Atoms) -> tuple[int, int]:
    """The largest numbers of neighbours, and of rows of scores."""
    k = m = 0
    for i in range(atoms.counts.size):
        k, m = max(k, atoms.counts[i]), max(m, atoms.queries[i] * atoms.heads)
    return k, m


@compiled
def _take(keys: Floats, index: Ints, first: int, to: Floats) -> None:
    for j in range(len(to)):
        row, out = keys[index[first + j] if index.size > 0 else first + j], to[j]
        for c in range(row.size):
            out[c] = row[c]


@compiled
def _give(values: Floats, index: Ints, first: int, to: Floats) -> None:
    """What `_take` took, back: added where several pairs have the same neighbour."""
    for j in range(len(values)):
        row, out = values[j], to[index[first + j] if index.size > 0 else first + j]
        for c in range(row.size):
            out[c] += row[c]


@compiled
def _softmax(
    scores: Floats,
    gate: Floats,
    shift: Floats,
    k: int,
    nsel: int,
    terms: Terms,
    tops: Floats,
    weights: Floats,
) -> None:
    """A of one atom; all arrays flat."""
    by, rows = (gate.size // k, k), (scores.size // k, k)
    on, more = shaped(gate, 0, by), shaped(shift, 0, by)
    softmax(shaped(scores, 0, rows), on, more, nsel - k, terms, tops, shaped(weights, 0, rows))


@reducing
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


@reducing
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


@reducing
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


@compiled
def mixed(tools: Tools, part: int, parts: int, atoms: Atoms, inputs: Several, out: Floats) -> None:
    """M = W X."""
    (query, keys, gate, shift, scale), address, heads = inputs, tools.product, atoms.heads
    (widest, most), d = _widest(atoms), keys.shape[1]
    near, tops = empty((widest, d), keys.dtype), empty(most, keys.dtype)
    scores, weights = empty(most * widest, keys.dtype), empty(most * widest, keys.dtype)
    for i in range(part, atoms.counts.size, parts):
        k, n, at, first = atoms.counts[i], atoms.queries[i], atoms.first_query[i], atoms.first_pair[i]
        m, term = n * heads, slice(atoms.first_term[i], atoms.first_term[i] + n * k)
        if k == 0:
            continue
        x, s, w, by = near[:k], scores[: m * k], weights[: m * k], scale[term]
        _take(keys, atoms.key_rows, first, x)
        gemm(address, query[at : at + n], x, s, (m, k, d), (0, 1), 0)
        _softmax(s, gate[term], shift[term], k, atoms.nsel, tools.terms, tops, w)
        for r in range(m):
            row, factor = w[r * k : (r + 1) * k], by[r // heads * k : (r // heads + 1) * k]
            for c in range(k):
                row[c] *= factor[c]
        gemm(address, w, x, out[at : at + n], (m, d, k), (0, 0), 0)
    free((near, tops, scores, weights))


@compiled
def gradients(
    tools: Tools, part: int, parts: int, atoms: Atoms, inputs: Several, grad: Floats, of_query: Floats,
    of_terms: Floats, of_keys: Floats,
) -> None:  # fmt: skip
    """From g the gradients of Q, of X (added), and of gate, shift, scale (3, terms) unless that is empty."""
    (query, keys, gate, shift, scale), address, heads = inputs, tools.product, atoms.heads
    (widest, most), d = _widest(atoms), keys.shape[1]
    near, of_near = empty((widest, d), keys.dtype), empty((widest, d), keys.dtype)
    scratch, tops = empty((4, most * widest), keys.dtype), empty(most, keys.dtype)
    for i in range(part, atoms.counts.size, parts):
        k, n, at, first = atoms.counts[i], atoms.queries[i], atoms.first_query[i], atoms.first_pair[i]
        m, begin, end = n * heads, atoms.first_term[i], atoms.first_term[i] + n * k
        if k == 0:
            continue
        x, to, q, g, size = near[:k], of_near[:k], query[at : at + n], grad[at : at + n], m * k
        s, w, inner, scaled = scratch[0, :size], scratch[1, :size], scratch[2, :size], scratch[3, :size]
        a, by = gate[begin:end], scale[begin:end]
        _take(keys, atoms.key_rows, first, x)
        gemm(address, q, x, s, (m, k, d), (0, 1), 0)
        _softmax(s, a, shift[begin:end], k, atoms.nsel, tools.terms, tops, w)
        gemm(address, g, x, inner, (m, k, d), (0, 1), 0)
        _through(s, w, a, by, k, heads, inner, scaled, of_terms, begin)
        gemm(address, scaled, g, to, (k, d, m), (1, 0), 0)
        gemm(address, inner, q, to, (k, d, m), (1, 0), 1)
        _give(to, atoms.key_rows, first, of_keys)
        gemm(address, inner, x, of_query[at : at + n], (m, d, k), (0, 0), 0)
    free((near, of_near, scratch, tops))


@compiled
def second(
    tools: Tools, part: int, parts: int, atoms: Atoms, inputs: Several, grad: Floats, tangents: Several,
    to_grad: Floats, to_query: Floats, to_terms: Floats, to_keys: Floats,
) -> None:  # fmt: skip
    """dM, and the gradients of sum(g * dM): of Q, of X (added), of the terms (3, terms).

    tangents: of queries, keys and terms (3, terms). Without an array for Q only dM is made, without one for
    the terms not theirs.
    """
    (query, keys, gate, shift, scale), (t_query, t_keys, t_terms) = inputs, tangents
    (widest, most), d, address, heads = _widest(atoms), keys.shape[1], tools.product, atoms.heads
    near = empty((3, widest, d), keys.dtype)
    scratch, tops = empty((10, most * widest), keys.dtype), empty(most, keys.dtype)
    for i in range(part, atoms.counts.size, parts):
        k, n, at, first = atoms.counts[i], atoms.queries[i], atoms.first_query[i], atoms.first_pair[i]
        m, begin, end = n * heads, atoms.first_term[i], atoms.first_term[i] + n * k
        if k == 0:
            continue
        x, tx, to, size = near[0, :k], near[1, :k], near[2, :k], m * k
        q, tq, g = query[at : at + n], t_query[at : at + n], grad[at : at + n]
        s, a, ds, du = scratch[0, :size], scratch[1, :size], scratch[2, :size], scratch[3, :size]
        dw, w, on, by = scratch[4, :size], scratch[5, :size], gate[begin:end], scale[begin:end]
        _take(keys, atoms.key_rows, first, x)
        _take(t_keys, atoms.key_rows, first, tx)
        gemm(address, q, x, s, (m, k, d), (0, 1), 0)
        gemm(address, tq, x, ds, (m, k, d), (0, 1), 0)
        gemm(address, q, tx, ds, (m, k, d), (0, 1), 1)
        _softmax(s, on, shift[begin:end], k, atoms.nsel, tools.terms, tops, a)
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
        _give(to, atoms.key_rows, first, to_keys)
    free((near, scratch, tops))
