"""The pair attention as one compiled call for each thread, forward and backward (Numba).

Rows of scores are (slot, head), so that no array is ever permuted. Between two matrix products, what
belongs to an atom stays in the first cache, and no step goes back to Python.
"""

from __future__ import annotations

from dpa2calc.kernels.blas import Floats, gemm
from dpa2calc.kernels.building import compiled, empty, free, shaped

from .neighbor_loops import BlockInts
from .softmax_loops import Terms, softmax, through

_ATOMS = 8  # that share a product with the weights


@compiled
def _block_mix(
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
    queries = empty((_ATOMS, rows, d), g.dtype)
    scores, weights, tops = empty((rows, k), g.dtype), empty((rows, k), g.dtype), empty(rows, g.dtype)
    for first in range(0, b, _ATOMS):
        last = min(first + _ATOMS, b)
        m = (last - first) * k
        gemm(address, g[first:last], query_key, queries, (m, wide, d), (0, 0), 0)
        for i in range(first, last):
            query = queries[i - first]
            gemm(address, query, g[i], scores, (rows, k, d), (0, 1), 0)
            softmax(scores, gate[i], shift[i], heads, n_more, terms, tops, weights)
            for r in range(rows):
                w, by = weights[r], scale[i, r // heads]
                for c in range(k):
                    w[c] *= by[c]
            gemm(address, weights, g[i], query, (rows, d, k), (0, 0), 0)  # the query is no longer needed
        part = shaped(out, first * k * d, (m, d))
        for r in range(m):
            for c in range(d):
                part[r, c] = bias[c]
        gemm(address, queries, value_out, part, (m, d, wide), (0, 0), 1)
    free((queries, scores, weights, tops))


@compiled
def _block_backward(
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
    queries, mixed = empty((_ATOMS, rows, d), g.dtype), empty((_ATOMS, rows, d), g.dtype)
    scores, weights, tops = empty((rows, k), g.dtype), empty((rows, k), g.dtype), empty(rows, g.dtype)
    scaled, inner = empty((rows, k), g.dtype), empty((rows, k), g.dtype)
    for first in range(0, b, _ATOMS):
        last = min(first + _ATOMS, b)
        m = (last - first) * k
        gemm(address, g[first:last], query_key, queries, (m, wide, d), (0, 0), 0)
        gemm(address, grad[first:last], value_out, mixed, (m, wide, d), (0, 1), 0)
        for i in range(first, last):
            query, of_mixed = queries[i - first], mixed[i - first]
            gemm(address, query, g[i], scores, (rows, k, d), (0, 1), 0)
            softmax(scores, gate[i], shift[i], heads, n_more, terms, tops, weights)
            gemm(address, of_mixed, g[i], inner, (rows, k, d), (0, 1), 0)
            through(
                scores, weights, gate[i], scale[i], heads, inner, scaled, of_gate[i], of_shift[i], of_scale[i]
            )
            gemm(address, scaled, of_mixed, of_g[i], (k, d, rows), (1, 0), 0)
            gemm(address, inner, query, of_g[i], (k, d, rows), (1, 0), 1)
            gemm(address, inner, g[i], query, (rows, d, k), (0, 0), 0)  # now the gradient of the query
        gemm(address, queries, query_key, of_g[first:last], (m, d, wide), (0, 1), 1)
    free((queries, mixed, scores, weights, tops, scaled, inner))


@compiled
def mix(
    address: int,
    part: int,
    parts: int,
    blocks: BlockInts,
    g: Floats,
    gate: Floats,
    shift: Floats,
    scale: Floats,
    query_key: Floats,
    value_out: Floats,
    bias: Floats,
    nsel: int,
    terms: Terms,
    out: Floats,
) -> None:
    """Of every block that is this thread's: g, out (P, d); gate, shift, scale (S,)."""
    _atoms, begins, widths, pairs, squares = blocks
    d = g.shape[1]
    for block in range(part, widths.size, parts):
        b, k, p, s = begins[block + 1] - begins[block], widths[block], pairs[block], squares[block]
        rows, square = (b, k, d), (b, k, k)
        _block_mix(
            address,
            shaped(g, p * d, rows),
            shaped(gate, s, square),
            shaped(shift, s, square),
            shaped(scale, s, square),
            query_key,
            value_out,
            bias,
            nsel - k,
            terms,
            shaped(out, p * d, rows),
        )


@compiled
def mix_backward(
    address: int,
    part: int,
    parts: int,
    blocks: BlockInts,
    g: Floats,
    gate: Floats,
    shift: Floats,
    scale: Floats,
    query_key: Floats,
    value_out: Floats,
    nsel: int,
    terms: Terms,
    grad: Floats,
    of_g: Floats,
    of_gate: Floats,
    of_shift: Floats,
    of_scale: Floats,
) -> None:
    """From the gradient of what `mix` gives those of its inputs."""
    _atoms, begins, widths, pairs, squares = blocks
    d = g.shape[1]
    for block in range(part, widths.size, parts):
        b, k, p, s = begins[block + 1] - begins[block], widths[block], pairs[block], squares[block]
        rows, square = (b, k, d), (b, k, k)
        _block_backward(
            address,
            shaped(g, p * d, rows),
            shaped(gate, s, square),
            shaped(shift, s, square),
            shaped(scale, s, square),
            query_key,
            value_out,
            nsel - k,
            terms,
            shaped(grad, p * d, rows),
            shaped(of_g, p * d, rows),
            shaped(of_gate, s, square),
            shaped(of_shift, s, square),
            shaped(of_scale, s, square),
        )
