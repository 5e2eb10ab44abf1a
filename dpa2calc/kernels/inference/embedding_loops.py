"""The embedding net and its moments as one compiled call for each thread, forward and backward (Numba).

An atom after the other: the values of all layers for its neighbours stay in the cache, and are computed again
in the backward pass.
"""

from __future__ import annotations

from typing import TypeAlias

from dpa2calc.kernels.blas import Floats, gemm
from dpa2calc.kernels.building import compiled, empty, free, shaped

from .compiled import Layers, Tools
from .neighbor_loops import Ints
from .softmax_loops import Several, dot, tanh

Blocks: TypeAlias = tuple[Ints, Ints, Ints]  # atoms, begins, widths


@compiled
def widths_of(net: Layers) -> tuple[int, int]:
    """Of all layers together, and of the widest."""
    total = widest = net.slope.size
    for matrix in net.matrices:
        total, widest = total + matrix.shape[1], max(widest, matrix.shape[1])
    return total, widest


@compiled
def net_values(tools: Tools, rows: Floats, kinds: Ints, net: Layers, values: Floats, results: Floats) -> None:
    """Layer behind layer, (k, width) each: the values of tanh, and the results of all but the last."""
    k, size, slope = len(rows), net.slope.size, net.slope
    first = shaped(values, 0, (k, size))
    for j in range(k):
        to, base, s = first[j], net.table[kinds[j]], rows[j, 0]
        for c in range(size):
            to[c] = base[c] + s * slope[c]
    tanh(values[: k * size], tools.terms)
    begin = 0
    for layer in range(len(net.skips)):
        matrix, bias = net.matrices[layer], net.biases[layer]
        before, size = matrix.shape
        start = begin + k * before
        input_of(layer, k, begin, values, net, results)
        t = shaped(values, start, (k, size))
        for j in range(k):
            to = t[j]
            for c in range(size):
                to[c] = bias[c]
        gemm(tools.product, shaped(results, begin, (k, before)), matrix, t, (k, size, before), (0, 0), 1)
        tanh(values[start : start + k * size], tools.terms)
        begin = start


@compiled
def input_of(layer: int, k: int, begin: int, values: Floats, net: Layers, results: Floats) -> None:
    """What a layer is given, from place `begin` on: values of the one before and copies of its own input."""
    size = net.matrices[layer].shape[0]
    own, to = values[begin : begin + k * size], results[begin : begin + k * size]
    for i in range(own.size):  # from 0, or else every index is asked whether it is negative
        to[i] = own[i]
    if layer > 0:
        before = net.matrices[layer - 1].shape[0]
        x, y = shaped(results, begin - k * before, (k, before)), shaped(results, begin, (k, size))
        add_copies(x, net.skips[layer - 1], y)


@compiled
def add_copies(x: Floats, copies: int, y: Floats) -> None:
    """Add so many copies of x (k, before) to y, beside each other."""
    before = x.shape[1]
    for j in range(len(x) if copies > 0 else 0):
        for copy in range(copies):
            to, own = y[j, copy * before : (copy + 1) * before], x[j]
            for c in range(before):
                to[c] += own[c]


@compiled
def sum_moments(
    address: int, rows: Floats, x: Floats, t: Floats, copies: int, line: Floats, out: Floats, add: int
) -> None:
    """out = R^T G (4, m), or added to it, for rows R (k, 4), where G is t (k, m) and copies of x (k, before).

    line: room for 4 * before numbers.
    """
    (k, before), m = x.shape, t.shape[1]
    gemm(address, rows, t, out, (4, m, k), (1, 0), add)
    if copies > 0:
        of_x = shaped(line, 0, (4, before))
        gemm(address, rows, x, of_x, (4, before, k), (1, 0), 0)
        add_copies(of_x, copies, out)


@compiled
def of_moments(
    address: int, grad: Floats, x: Floats, t: Floats, copies: int, line: Floats, to: Floats
) -> None:
    """to = G grad^T, the gradient (k, 4) of the rows from that of the moments (4, m), with G as above."""
    (k, before), m = x.shape, t.shape[1]
    gemm(address, t, grad, to, (k, 4, m), (0, 1), 0)
    if copies > 0:
        of_x = shaped(line, 0, (4, before))
        copies_back(grad, copies, of_x)
        gemm(address, x, of_x, to, (k, 4, before), (0, 1), 1)


@compiled
def moments(
    tools: Tools, part: int, parts: int, blocks: Blocks, rows: Floats, kinds: Ints, net: Layers, out: Floats
) -> None:
    """out_i = sum_j R_ij (x) G_ij of this thread's blocks: rows (n, k, 4), kinds (n, k), out (n, 4, m).

    Block b has the atoms from begins[b] on, each with widths[b] slots.
    """
    atoms, begins, widths = blocks
    (size, _), last = widths_of(net), len(net.skips) - 1
    values, results = empty(rows.shape[1] * size, rows.dtype), empty(rows.shape[1] * size, rows.dtype)
    before, m = net.matrices[last].shape
    line = empty(4 * before, rows.dtype)
    for block in range(part, widths.size, parts):
        width = widths[block]
        end = width * (size - m)
        x, t = shaped(results, end - width * before, (width, before)), shaped(values, end, (width, m))
        for atom in atoms[begins[block] : begins[block + 1]]:
            mine = rows[atom, :width]
            net_values(tools, mine, kinds[atom], net, values, results)
            sum_moments(tools.product, mine, x, t, net.skips[last], line, out[atom], 0)
    free((values, results, line))


@compiled
def moments_backward(
    tools: Tools, part: int, parts: int, blocks: Blocks, rows: Floats, kinds: Ints, net: Layers, grad: Floats,
    of_rows: Floats,
) -> None:  # fmt: skip
    """The gradient of the rows (n, k, 4) from that of the moments (n, 4, m)."""
    atoms, begins, widths = blocks
    (size, widest), last = widths_of(net), len(net.skips) - 1
    values, results = empty(rows.shape[1] * size, rows.dtype), empty(rows.shape[1] * size, rows.dtype)
    above, below = empty(rows.shape[1] * widest, rows.dtype), empty(rows.shape[1] * widest, rows.dtype)
    line, (before, m) = empty(4 * widest, rows.dtype), net.matrices[last].shape
    nothing = line[:0]
    for block in range(part, widths.size, parts):
        width = widths[block]
        end = width * (size - m)
        x, t = shaped(results, end - width * before, (width, before)), shaped(values, end, (width, m))
        for atom in atoms[begins[block] : begins[block + 1]]:
            mine, to = rows[atom, :width], of_rows[atom, :width]
            net_values(tools, mine, kinds[atom], net, values, results)
            of_moments(tools.product, grad[atom], x, t, net.skips[last], line, to)
            gemm(tools.product, mine, grad[atom], above, (width, m, 4), (0, 0), 0)
            net_backward(
                tools, mine, kinds[atom], net, values[: width * size], results, (above, below, line), nothing,
                nothing, to, nothing, nothing,
            )  # fmt: skip
    free((values, results, above, below, line))


@compiled
def net_backward(
    tools: Tools, rows: Floats, kinds: Ints, net: Layers, values: Floats, results: Floats, room: Several,
    more: Floats, inners: Floats, of_rows: Floats, of_matrices: Floats, sums: Floats,
) -> None:  # fmt: skip
    """The gradients of the scalars rows[:, 0] and of the weights, added to arrays that are not empty.

    room: the gradient (n, m) of the net's results, overwritten; as much again; a line. more: added to the
    gradient of what tanh is taken of, layer behind layer; inners: where that is kept. of_matrices: the
    matrices behind each other; sums: slope, table and biases.
    """
    above, below, line = room
    n, end, weight, number = len(rows), values.size, of_matrices.size, sums.size
    for back in range(len(net.skips)):
        layer = len(net.skips) - 1 - back
        matrix = net.matrices[layer]
        before, now = matrix.shape
        start = end - n * now
        inner = shaped(above, 0, (n, now))
        copies_back(inner, net.skips[layer], shaped(below, 0, (n, before)))
        _inside(above[: n * now], values[start:end], more[start:end], inners[start:end])
        if sums.size > 0:
            weight, number = weight - before * now, number - now
            x, to = (
                shaped(results, start - n * before, (n, before)),
                shaped(of_matrices, weight, (before, now)),
            )
            gemm(tools.product, x, inner, to, (before, now, n), (1, 0), 1)
            _add_columns(inner, line[:now], sums[number : number + now])
        gemm(tools.product, above, matrix, below, (n, before, now), (0, 1), 1)
        above, below, end = below, above, start
    inner = shaped(above, 0, (n, net.slope.size))
    _inside(above[:end], values[:end], more[:end], inners[:end])
    for j in range(len(of_rows)):
        of_rows[j, 0] += dot(inner[j], net.slope)
    if sums.size > 0:
        _first_layer(inner, rows, kinds, sums)


@compiled
def _inside(grad: Floats, t: Floats, more: Floats, inners: Floats) -> None:
    """The gradient of what tanh is taken of, in place; kept in `inners`."""
    through_tanh(grad, t)
    for i in range(more.size):
        grad[i] += more[i]
    for i in range(inners.size):
        inners[i] = grad[i]


@compiled
def _add_columns(x: Floats, line: Floats, to: Floats) -> None:
    """Add the sums of columns of a block."""
    for c in range(line.size):
        line[c] = 0.0
    for j in range(len(x)):
        row = x[j]
        for c in range(line.size):
            line[c] += row[c]
    for c in range(line.size):
        to[c] += line[c]


@compiled
def _first_layer(inner: Floats, rows: Floats, kinds: Ints, sums: Floats) -> None:
    """Add what slope and table get, which are the first of `sums`."""
    n, m = inner.shape
    of_slope = sums[:m]
    for j in range(n):
        s, row, begin = rows[j, 0], inner[j], m * (1 + kinds[j])
        of_kind = sums[begin : begin + m]
        for c in range(m):
            of_slope[c] += s * row[c]
        for c in range(m):
            of_kind[c] += row[c]


@compiled
def copies_back(grad: Floats, copies: int, to: Floats) -> None:
    """The gradient of a layer's input from the copies of it that were added."""
    before = to.shape[1]
    for j in range(len(to)):
        for c in range(before):
            to[j, c] = 0.0
        for copy in range(copies):
            row, by = to[j], grad[j, copy * before : (copy + 1) * before]
            for c in range(before):
                row[c] += by[c]


@compiled
def through_tanh(grad: Floats, t: Floats) -> None:
    for i in range(grad.size):
        grad[i] -= grad[i] * t[i] * t[i]
