"""The pair attention as one compiled call for each thread, forward and backward (Numba).

Rows of scores are (slot, head), so that no array is ever permuted. Between two matrix products, what
belongs to an atom stays in the first cache, and no step goes back to Python. Values of pairs g2 (P, d) and of
two pairs gate, shift, scale (S,) are as `BlockPairs` has them; `maps`: query_key (d, heads * d),
value_out (heads * d, d), bias (d,).
"""

from __future__ import annotations

from dpa2calc.kernels.blas import Floats, gemm
from dpa2calc.kernels.building import compiled, empty, free, shaped

from .compiled import Tools
from .pair_blocks import BlockArrays
from .softmax_loops import Several, softmax, through

_ATOMS = 8  # that share a product with the weights


@compiled
def mix(
    tools: Tools, part: int, parts: int, blocks: BlockArrays, g2: Floats, terms: Several, maps: Several,
    out: Floats,
) -> None:  # fmt: skip
    """out = sum_h (A^h * scale) g2 (W_v W_o)^h + bias of every slot, in every block that is this thread's."""
    (gate, shift, scale), (query_key, value_out, bias) = terms, maps
    address, (d, wide) = tools.product, query_key.shape
    heads = wide // d
    for block in range(part, blocks.widths.size, parts):
        b, k = blocks.begins[block + 1] - blocks.begins[block], blocks.widths[block]
        rows, at, square = k * heads, blocks.pairs[block] * d, blocks.squares[block]
        g, of_two = shaped(g2, at, (b, k, d)), (b, k, k)
        on, more, by = (
            shaped(gate, square, of_two),
            shaped(shift, square, of_two),
            shaped(scale, square, of_two),
        )
        queries = empty((_ATOMS, rows, d), g.dtype)
        scores, weights, tops = empty((rows, k), g.dtype), empty((rows, k), g.dtype), empty(rows, g.dtype)
        for first in range(0, b, _ATOMS):
            last = min(first + _ATOMS, b)
            m = (last - first) * k
            gemm(address, g[first:last], query_key, queries, (m, wide, d), (0, 0), 0)
            for i in range(first, last):
                query = queries[i - first]
                gemm(address, query, g[i], scores, (rows, k, d), (0, 1), 0)
                softmax(scores, on[i], more[i], blocks.nsel - k, tools.terms, tops, weights)
                for r in range(rows):
                    w, factor = weights[r], by[i, r // heads]
                    for c in range(k):
                        w[c] *= factor[c]
                gemm(address, weights, g[i], query, (rows, d, k), (0, 0), 0)  # the query is no longer needed
            to = shaped(out, at + first * k * d, (m, d))
            for r in range(m):
                for c in range(d):
                    to[r, c] = bias[c]
            gemm(address, queries, value_out, to, (m, d, wide), (0, 0), 1)
        free((queries, scores, weights, tops))


@compiled
def mix_backward(
    tools: Tools, part: int, parts: int, blocks: BlockArrays, g2: Floats, terms: Several, maps: Several,
    grad: Floats, of_g2: Floats, of_terms: Several,
) -> None:  # fmt: skip
    """From the gradient of what `mix` gives those of g2, gate, shift and scale."""
    (gate, shift, scale), (query_key, value_out, _bias) = terms, maps
    (of_gate, of_shift, of_scale), address, (d, wide) = of_terms, tools.product, query_key.shape
    heads = wide // d
    for block in range(part, blocks.widths.size, parts):
        b, k = blocks.begins[block + 1] - blocks.begins[block], blocks.widths[block]
        rows, at, square = k * heads, blocks.pairs[block] * d, blocks.squares[block]
        of_one, of_two = (b, k, d), (b, k, k)
        g, of_g, of_out = shaped(g2, at, of_one), shaped(of_g2, at, of_one), shaped(grad, at, of_one)
        on, more, by = (
            shaped(gate, square, of_two),
            shaped(shift, square, of_two),
            shaped(scale, square, of_two),
        )
        to_on, to_more = shaped(of_gate, square, of_two), shaped(of_shift, square, of_two)
        to_by = shaped(of_scale, square, of_two)
        queries, mixed = empty((_ATOMS, rows, d), g.dtype), empty((_ATOMS, rows, d), g.dtype)
        scores, weights, tops = empty((rows, k), g.dtype), empty((rows, k), g.dtype), empty(rows, g.dtype)
        scaled, inner = empty((rows, k), g.dtype), empty((rows, k), g.dtype)
        for first in range(0, b, _ATOMS):
            last = min(first + _ATOMS, b)
            m = (last - first) * k
            gemm(address, g[first:last], query_key, queries, (m, wide, d), (0, 0), 0)
            gemm(address, of_out[first:last], value_out, mixed, (m, wide, d), (0, 1), 0)
            for i in range(first, last):
                query, of_mixed = queries[i - first], mixed[i - first]
                gemm(address, query, g[i], scores, (rows, k, d), (0, 1), 0)
                softmax(scores, on[i], more[i], blocks.nsel - k, tools.terms, tops, weights)
                gemm(address, of_mixed, g[i], inner, (rows, k, d), (0, 1), 0)
                through(scores, weights, on[i], by[i], inner, scaled, (to_on[i], to_more[i], to_by[i]))
                gemm(address, scaled, of_mixed, of_g[i], (k, d, rows), (1, 0), 0)
                gemm(address, inner, query, of_g[i], (k, d, rows), (1, 0), 1)
                gemm(address, inner, g[i], query, (rows, d, k), (0, 0), 0)  # now the gradient of the query
            gemm(address, queries, query_key, of_g[first:last], (m, d, wide), (0, 1), 1)
        free((queries, mixed, scores, weights, tops, scaled, inner))
