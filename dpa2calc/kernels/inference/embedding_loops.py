"""The embedding net and its moments as one compiled call for each thread, forward and backward (Numba).

An atom after the other: the values of all layers for its neighbours stay in the cache, and are computed again
in the backward pass. Layers come as tuples of matrices, biases and numbers of copies; the first layer is
slope and table.
"""

from __future__ import annotations

from typing import TypeAlias

from dpa2calc.kernels.blas import Floats, gemm
from dpa2calc.kernels.building import compiled, empty, free, shaped

from .neighbor_loops import Ints
from .softmax_loops import Terms, dot, tanh

Several: TypeAlias = tuple[Floats, ...]


@compiled
def net_values(
    address: int,
    rows: Floats,
    kinds: Ints,
    slope: Floats,
    table: Floats,
    matrices: Several,
    biases: Several,
    skips: tuple[int, ...],
    terms: Terms,
    values: Floats,
    results: Floats,
) -> None:
    """Layer behind layer, (k, width) each: the values of tanh, and the results of all but the last."""
    k, size = len(rows), slope.size
    first = shaped(values, 0, (k, size))
    for j in range(k):
        to, base, s = first[j], table[kinds[j]], rows[j, 0]
        for c in range(size):
            to[c] = base[c] + s * slope[c]
    tanh(values[: k * size], terms)
    begin = 0
    for layer in range(len(skips)):
        matrix, bias = matrices[layer], biases[layer]
        before, size = matrix.shape
        start = begin + k * before
        input_of(layer, k, begin, values, matrices, skips, results)
        t = shaped(values, start, (k, size))
        for j in range(k):
            to = t[j]
            for c in range(size):
                to[c] = bias[c]
        gemm(address, shaped(results, begin, (k, before)), matrix, t, (k, size, before), (0, 0), 1)
        tanh(values[start : start + k * size], terms)
        begin = start


@compiled
def input_of(
    layer: int, k: int, begin: int, values: Floats, matrices: Several, skips: tuple[int, ...], results: Floats
) -> None:
    """What a layer is given, from place `begin` on: values of the one before and copies of its own input."""
    size = matrices[layer].shape[0]
    own, to = values[begin : begin + k * size], results[begin : begin + k * size]
    for i in range(own.size):  # from 0, or else every index is asked whether it is negative
        to[i] = own[i]
    if layer > 0:
        before = matrices[layer - 1].shape[0]
        x, y = shaped(results, begin - k * before, (k, before)), shaped(results, begin, (k, size))
        add_copies(x, skips[layer - 1], y)


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
    address: int,
    part: int,
    parts: int,
    atoms: Ints,
    begins: Ints,
    widths: Ints,
    rows: Floats,
    kinds: Ints,
    slope: Floats,
    table: Floats,
    matrices: Several,
    biases: Several,
    skips: tuple[int, ...],
    terms: Terms,
    out: Floats,
) -> None:
    """out_i = sum_j R_ij (x) G_ij of this thread's blocks: rows (n, k, 4), kinds (n, k), out (n, 4, m).

    Block b has the atoms from begins[b] on, each with widths[b] slots.
    """
    size = slope.size
    for matrix in matrices:
        size += matrix.shape[1]
    values, results = empty(rows.shape[1] * size, rows.dtype), empty(rows.shape[1] * size, rows.dtype)
    copies, (before, m) = skips[len(skips) - 1], matrices[len(skips) - 1].shape
    line = empty(4 * before, rows.dtype)
    for block in range(part, widths.size, parts):
        width = widths[block]
        end = width * (size - m)
        x, t = shaped(results, end - width * before, (width, before)), shaped(values, end, (width, m))
        for atom in atoms[begins[block] : begins[block + 1]]:
            mine = rows[atom, :width]
            net_values(
                address, mine, kinds[atom], slope, table, matrices, biases, skips, terms, values, results
            )
            sum_moments(address, mine, x, t, copies, line, out[atom], 0)
    free((values, results, line))


@compiled
def moments_backward(
    address: int,
    part: int,
    parts: int,
    atoms: Ints,
    begins: Ints,
    widths: Ints,
    rows: Floats,
    kinds: Ints,
    slope: Floats,
    table: Floats,
    matrices: Several,
    biases: Several,
    skips: tuple[int, ...],
    terms: Terms,
    grad: Floats,
    of_rows: Floats,
) -> None:
    """The gradient of the rows (n, k, 4) from that of the moments (n, 4, m)."""
    size, widest = slope.size, slope.size
    for matrix in matrices:
        size, widest = size + matrix.shape[1], max(widest, matrix.shape[1])
    values, results = empty(rows.shape[1] * size, rows.dtype), empty(rows.shape[1] * size, rows.dtype)
    above, below = empty(rows.shape[1] * widest, rows.dtype), empty(rows.shape[1] * widest, rows.dtype)
    line = empty(4 * widest, rows.dtype)
    for block in range(part, widths.size, parts):
        width = widths[block]
        for atom in atoms[begins[block] : begins[block + 1]]:
            mine, to = rows[atom, :width], of_rows[atom, :width]
            net_values(
                address, mine, kinds[atom], slope, table, matrices, biases, skips, terms, values, results
            )
            _net_backward(
                address, mine, to, slope, matrices, skips, values[: width * size], results, grad[atom], above,
                below, line,
            )  # fmt: skip
    free((values, results, above, below, line))


@compiled
def _net_backward(
    address: int,
    rows: Floats,
    to: Floats,
    slope: Floats,
    matrices: Several,
    skips: tuple[int, ...],
    values: Floats,
    results: Floats,
    grad: Floats,
    above: Floats,
    below: Floats,
    line: Floats,
) -> None:
    """The gradient of one atom's rows (k, 4), from that of its moments (4, m) and the layers' values."""
    (width, _), (before, m), end = rows.shape, matrices[len(skips) - 1].shape, values.size
    start = end - width * m
    x, t = shaped(results, start - width * before, (width, before)), shaped(values, start, (width, m))
    of_moments(address, grad, x, t, skips[len(skips) - 1], line, to)
    gemm(address, rows, grad, above, (width, m, 4), (0, 0), 0)
    for back in range(len(skips)):
        layer = len(skips) - 1 - back
        matrix, skip = matrices[layer], skips[layer]
        before, now = matrix.shape
        copies_back(shaped(above, 0, (width, now)), skip, shaped(below, 0, (width, before)))
        through_tanh(above[: width * now], values[end - width * now : end])
        gemm(address, above, matrix, below, (width, before, now), (0, 1), 1)
        above, below = below, above
        end -= width * now
    through_tanh(above[:end], values[:end])
    for j in range(width):
        to[j, 0] += dot(above[j * slope.size : (j + 1) * slope.size], slope)


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
