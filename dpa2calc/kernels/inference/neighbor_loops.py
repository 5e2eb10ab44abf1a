"""What atoms take from their neighbours as one compiled call for each thread, forward and backward (Numba).

As in neighbor_sums.py, block by block, an atom after the other: the gathered rows of g1 stay in the first
cache for all that is done with them. Arrays of what is not asked for are empty.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from dpa2calc.kernels.attention import SHIFT
from dpa2calc.kernels.blas import Floats, gemm
from dpa2calc.kernels.building import compiled, empty, free, shaped

from .compiled import Tools
from .pair_blocks import BlockArrays
from .softmax_loops import Several, dot, softmax, through

Ints: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
# g1, neighbours, weight, g2, conv, directions, project, query of `NeighborMix`; empty: not asked for
Inputs: TypeAlias = tuple[Floats, Ints, Floats, Floats, Floats, Floats, Floats, Floats]


@compiled
def _gather(g1: Floats, index: Ints, gathered: Floats) -> None:
    for j in range(index.size):
        row, to = g1[index[j]], gathered[j]
        for d in range(row.size):
            to[d] = row[d]


@compiled
def _fill_factors(g2: Floats, weight: Floats, directions: Floats, factors: Floats) -> None:
    """Weighted g2 (k, d2), then directions (k, 3), either of them or both, beside each other."""
    d2 = g2.shape[1]
    for j in range(weight.size):
        to = factors[j]
        for c in range(d2):
            to[c] = g2[j, c] * weight[j]
        for c in range(directions.shape[1]):
            to[d2 + c] = directions[j, c]


@compiled
def _weigh(
    tools: Tools, query: Floats, gathered: Floats, switch: Floats, n_more: int, scores: Floats,
    weights: Floats, more: Floats,
) -> None:  # fmt: skip
    """Scores (heads, k) before the switch, and weights after the softmax, of the local attention.

    more (heads + 2 k,) is overwritten.
    """
    heads, k = scores.shape
    gemm(tools.product, query, gathered, scores, (heads, k, gathered.shape[1]), (0, 1), 0)
    tops, gate, shift = more[:heads], shaped(more, heads, (1, k)), shaped(more, heads + k, (1, k))
    for c in range(k):
        gate[0, c], shift[0, c] = switch[c], SHIFT * switch[c] - SHIFT
    softmax(scores, gate, shift, n_more, tools.terms, tops, weights)


@compiled
def sums(tools: Tools, part: int, parts: int, blocks: BlockArrays, given: Inputs, made: Several) -> None:
    """What `NeighborMix` returns, `made`, from its inputs, for the atoms of this thread's blocks."""
    g1, neighbors, weight, g2, conv, directions, project, query = given
    convolved, moments, of_pairs, products, mixed = made
    d1, d2, axes, columns = g1.shape[1], g2.shape[1], directions.shape[1], products.shape[1]
    address, heads = tools.product, query.shape[1]
    for block in range(part, blocks.widths.size, parts):
        first, k, begin = blocks.begins[block], blocks.widths[block], blocks.pairs[block]
        gathered, factors = empty((k, d1), g1.dtype), empty((k, d2 + axes), g1.dtype)
        total, more = empty((d2 + axes, d1), g1.dtype), empty(heads + 2 * k, g1.dtype)
        scores, weights = empty((heads, k), g1.dtype), empty((heads, k), g1.dtype)
        for i in range(blocks.begins[block + 1] - first):
            atom, p = blocks.atoms[first + i], begin + i * k
            w, own_g2 = weight[p : p + k], shaped(g2, p * d2, (k, d2))
            own_directions = shaped(directions, p * axes, (k, axes))
            _gather(g1, neighbors[p : p + k], gathered)
            if d2 + axes > 0:
                _fill_factors(own_g2, w, own_directions, factors)
                gemm(address, factors, gathered, total, (d2 + axes, d1, k), (1, 0), 0)
            if d2 > 0:
                to = convolved[atom]
                for d in range(d1):
                    to[d] = 0.0
                for c in range(d2):
                    row, by = total[c], conv[c]
                    for d in range(d1):
                        to[d] += row[d] * by[d]
            for t in range(axes):
                for d in range(d1):
                    moments[atom, t, d] = total[d2 + t, d]
            if d2 > 0 and axes > 0:
                gemm(address, own_directions, own_g2, of_pairs[atom], (axes, d2, k), (1, 0), 0)
            if heads > 0:
                _weigh(tools, query[atom], gathered, w, blocks.nsel - k, scores, weights, more)
                for h in range(heads):
                    for c in range(k):
                        weights[h, c] *= w[c]
                gemm(address, weights, gathered, mixed[atom], (heads, d1, k), (0, 0), 0)
            if project.size > 0:
                own, to_products = g1[atom], shaped(products, p * columns, (k, columns))
                for j in range(k):
                    row = gathered[j]
                    for d in range(d1):
                        row[d] *= own[d]
                gemm(address, gathered, project, to_products, (k, columns, d1), (0, 0), 0)
        free((gathered, factors, total, more, scores, weights))


@compiled
def _through_products(own: Floats, gathered: Floats, grad: Floats, to: Floats) -> None:
    """From the gradient of the products own * gathered to that of the gathered rows, both `grad`, and own."""
    for j in range(len(grad)):
        row, near = grad[j], gathered[j]
        for d in range(own.size):
            to[d] += row[d] * near[d]
        for d in range(own.size):
            row[d] *= own[d]


@compiled
def _fill_total(of_convolved: Floats, conv: Floats, of_moments: Floats, total: Floats) -> None:
    """The gradient of the sums of an atom (d2 + axes, d1) from those of its convolution and its moments."""
    d2 = len(conv)
    for c in range(d2):
        row, by = total[c], conv[c]
        for d in range(row.size):
            row[d] = of_convolved[d] * by[d]
    for t in range(len(total) - d2):
        for d in range(total.shape[1]):
            total[d2 + t, d] = of_moments[t, d]


@compiled
def _through_weights(
    scores: Floats, weights: Floats, switch: Floats, inner: Floats, scaled: Floats, of_switch: Floats,
    to_switch: Floats,
) -> None:  # fmt: skip
    """From the gradient of the switched weights to that of the scores, both `inner`, and of the switch."""
    gate, k = of_switch[3], switch.size
    for c in range(k):
        gate[0, c] = switch[c]
    through(scores, weights, gate, gate, inner, scaled, (of_switch[0], of_switch[1], of_switch[2]))
    for c in range(k):
        to_switch[c] += of_switch[0, 0, c] + SHIFT * of_switch[1, 0, c] + of_switch[2, 0, c]


@compiled
def gradients(
    tools: Tools, part: int, parts: int, blocks: BlockArrays, given: Inputs, grads: Several, to: Several,
    to_g1: Floats,
) -> None:  # fmt: skip
    """From the gradients of what `sums` gives those of its inputs; to `to_g1` they are added."""
    g1, neighbors, weight, g2, conv, directions, project, query = given
    of_convolved, of_moments, of_pairs, of_products, of_mixed = grads
    to_weight, to_g2, to_directions, to_query = to
    d1, d2, axes, columns = g1.shape[1], g2.shape[1], directions.shape[1], of_products.shape[1]
    address, heads = tools.product, query.shape[1]
    for block in range(part, blocks.widths.size, parts):
        first, k, begin = blocks.begins[block], blocks.widths[block], blocks.pairs[block]
        gathered, grad = empty((k, d1), g1.dtype), empty((k, d1), g1.dtype)
        factors, of_factors = empty((k, d2 + axes), g1.dtype), empty((k, d2 + axes), g1.dtype)
        total, more = empty((d2 + axes, d1), g1.dtype), empty(heads + 2 * k, g1.dtype)
        scores, weights = empty((heads, k), g1.dtype), empty((heads, k), g1.dtype)
        inner, scaled = empty((heads, k), g1.dtype), empty((heads, k), g1.dtype)
        of_switch = empty((4, 1, k), g1.dtype)
        for i in range(blocks.begins[block + 1] - first):
            atom, p = blocks.atoms[first + i], begin + i * k
            index, w, of_w = neighbors[p : p + k], weight[p : p + k], to_weight[p : p + k]
            for c in range(k):
                of_w[c] = 0.0
            _gather(g1, index, gathered)
            if project.size > 0:
                own = shaped(of_products, p * columns, (k, columns))
                gemm(address, own, project, grad, (k, d1, columns), (0, 1), 0)
                _through_products(g1[atom], gathered, grad, to_g1[atom])
            else:
                for j in range(k):
                    for d in range(d1):
                        grad[j, d] = 0.0
            if d2 + axes > 0:
                pairs = shaped(g2, p * d2, (k, d2)), shaped(directions, p * axes, (k, axes))
                of_own = shaped(to_g2, p * d2, (k, d2)), shaped(to_directions, p * axes, (k, axes))
                _fill_total(of_convolved[atom], conv, of_moments[atom], total)
                _fill_factors(pairs[0], w, pairs[1], factors)
                gemm(address, gathered, total, of_factors, (k, d2 + axes, d1), (0, 1), 0)
                gemm(address, factors, total, grad, (k, d1, d2 + axes), (0, 0), 1)
                _through_factors(of_factors, w, pairs, of_pairs, atom, of_w, of_own)
            if heads > 0:
                of, asked = of_mixed[atom], query[atom]
                _weigh(tools, asked, gathered, w, blocks.nsel - k, scores, weights, more)
                gemm(address, of, gathered, inner, (heads, k, d1), (0, 1), 0)
                _through_weights(scores, weights, w, inner, scaled, of_switch, of_w)
                gemm(address, scaled, of, grad, (k, d1, heads), (1, 0), 1)
                gemm(address, inner, asked, grad, (k, d1, heads), (1, 0), 1)
                gemm(address, inner, gathered, to_query[atom], (heads, d1, k), (0, 0), 0)
            for j in range(k):
                row, out = grad[j], to_g1[index[j]]
                for d in range(d1):
                    out[d] += row[d]
        free((gathered, grad, factors, of_factors, total, more, scores, weights, inner, scaled, of_switch))


@compiled
def _through_factors(
    of_factors: Floats,
    weight: Floats,
    pairs: Several,
    of_pairs: Floats,
    atom: int,
    to_weight: Floats,
    to: Several,
) -> None:
    """From the gradient of an atom's factors, and of sum_j directions_j (x) g2_j, to those of its pairs.

    pairs: g2 and directions; to: their gradients.
    """
    (g2, directions), (to_g2, to_directions) = pairs, to
    k, d2 = g2.shape
    axes = directions.shape[1]
    for j in range(k):
        for c in range(d2):
            to_g2[j, c] = of_factors[j, c] * weight[j]
        if d2 > 0:
            to_weight[j] = dot(of_factors[j, :d2], g2[j])
        for t in range(axes):
            to_directions[j, t] = of_factors[j, d2 + t]
        if d2 > 0:
            for t in range(axes):
                own, by = of_pairs[atom, t], directions[j, t]
                for c in range(d2):
                    to_g2[j, c] += by * own[c]
                to_directions[j, t] += dot(own, g2[j])
