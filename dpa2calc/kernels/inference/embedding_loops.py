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
    """Layer behind layer, (k, width) each: the values of tanh, and the results with the copies added."""
    k, size = len(rows), slope.size
    first = shaped(values, 0, (k, size))
    for j in range(k):
        to, base, s = first[j], table[kinds[j]], rows[j, 0]
        for c in range(size):
            to[c] = base[c] + s * slope[c]
    tanh(values[: k * size], terms)
    for i in range(k * size):
        results[i] = values[i]
    begin = 0
    for layer in range(len(skips)):
        matrix, bias, skip = matrices[layer], biases[layer], skips[layer]
        before, size = matrix.shape
        start = begin + k * before
        x = shaped(results, begin, (k, before))
        t, y = shaped(values, start, (k, size)), shaped(results, start, (k, size))
        gemm(address, x, matrix, t, (k, size, before), (0, 0), 0)
        for j in range(k):
            to = t[j]
            for c in range(size):
                to[c] += bias[c]
        tanh(values[start : start + k * size], terms)
        for i in range(start, start + k * size):
            results[i] = values[i]
        add_copies(x, skip, y)
        begin = start


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
    m = out.shape[2]
    for block in range(part, widths.size, parts):
        width = widths[block]
        g = shaped(results, width * (size - m), (width, m))
        for atom in atoms[begins[block] : begins[block + 1]]:
            mine = rows[atom, :width]
            net_values(
                address, mine, kinds[atom], slope, table, matrices, biases, skips, terms, values, results
            )
            gemm(address, mine, g, out[atom], (4, m, width), (1, 0), 0)
    free((values, results))


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
    for block in range(part, widths.size, parts):
        width = widths[block]
        for atom in atoms[begins[block] : begins[block + 1]]:
            mine, to = rows[atom, :width], of_rows[atom, :width]
            net_values(
                address, mine, kinds[atom], slope, table, matrices, biases, skips, terms, values, results
            )
            _net_backward(
                address, mine, to, slope, matrices, skips, values[: width * size], results, grad[atom], above,
                below,
            )  # fmt: skip
    free((values, results, above, below))


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
) -> None:
    """The gradient of one atom's rows (k, 4), from that of its moments (4, m) and the layers' values."""
    (width, _), m, end = rows.shape, grad.shape[1], values.size
    gemm(address, shaped(results, end - width * m, (width, m)), grad, to, (width, 4, m), (0, 1), 0)
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
