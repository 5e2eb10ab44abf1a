"""The embedding net and its moments for training: three compiled passes over blocks of pairs (Numba).

Pairs come as a list, those of atom i are begins[i] to begins[i + 1] - 1; block b has the atoms from blocks[b]
on, some hundred pairs, whose layers stay in the cache. Arrays of layers hold for every block its layers one
after the other, (pairs, width) each: `values` those of tanh, `inners` and `more` gradients of what tanh is
taken of. Where an array may be empty, what it would hold is not asked for. Thread `part` of `parts` takes
every parts-th block, and adds to a row of its own of the gradients of weights: `of_matrices` the matrices
behind each other, `sums` in double precision slope, table and biases.
"""

from __future__ import annotations

from typing import TypeAlias

from dpa2calc.kernels.blas import Floats, gemm
from dpa2calc.kernels.building import compiled, empty, free, shaped
from dpa2calc.kernels.inference.compiled import Layers, Tools
from dpa2calc.kernels.inference.embedding_loops import (
    add_copies,
    copies_back,
    input_of,
    net_backward,
    net_values,
    of_moments,
    sum_moments,
    through_tanh,
    widths_of,
)
from dpa2calc.kernels.inference.neighbor_loops import Ints

Pairs: TypeAlias = tuple[Ints, Ints, Floats, Ints]  # blocks, begins, rows (pairs, 4), kinds (pairs,)


@compiled
def _longest(blocks: Ints, begins: Ints) -> int:
    """Pairs of the longest block."""
    longest = 0
    for b in range(blocks.size - 1):
        longest = max(longest, begins[blocks[b + 1]] - begins[blocks[b]])
    return longest


@compiled
def _inputs(values: Floats, n: int, net: Layers, to: Floats) -> None:
    """What the layers are given, from the values of tanh of one block."""
    begin = 0
    for layer in range(len(net.skips)):
        input_of(layer, n, begin, values, net, to)
        begin += n * net.matrices[layer].shape[0]


@compiled
def moments(
    tools: Tools, part: int, parts: int, pairs: Pairs, net: Layers, values: Floats, out: Floats
) -> None:
    """out_i = sum_j R_ij (x) G_ij, (atoms, 4, m)."""
    blocks, begins, rows, kinds = pairs
    (total, _), top = widths_of(net), len(net.skips) - 1
    copies, (before, m) = net.skips[top], net.matrices[top].shape
    results, line = empty(_longest(blocks, begins) * total, rows.dtype), empty(4 * before, rows.dtype)
    for block in range(part, blocks.size - 1, parts):
        first, last = begins[blocks[block]], begins[blocks[block + 1]]
        n, mine = last - first, values[first * total : last * total]
        net_values(tools, rows[first:last], kinds[first:last], net, mine, results)
        end = n * (total - m)
        x, t = shaped(results, end - n * before, (n, before)), shaped(mine, end, (n, m))
        for atom in range(blocks[block], blocks[block + 1]):
            a, b = begins[atom], begins[atom + 1]
            if b > a:
                own = slice(a - first, b - first)
                sum_moments(tools.product, rows[a:b], x[own], t[own], copies, line, out[atom], 0)
    free((results, line))


@compiled
def gradients(
    tools: Tools, part: int, parts: int, pairs: Pairs, net: Layers, values: Floats, grad: Floats,
    more: Floats, inners: Floats, of_rows: Floats, of_matrices: Floats, sums: Floats,
) -> None:  # fmt: skip
    """What comes of the gradient (atoms, 4, m) of the moments; `more` is added to that inside of tanh."""
    blocks, begins, rows, kinds = pairs
    (total, widest), longest, top = widths_of(net), _longest(blocks, begins), len(net.skips) - 1
    copies, (wide, m) = net.skips[top], net.matrices[top].shape
    results, line = empty(longest * total, rows.dtype), empty(4 * widest, rows.dtype)
    above, below = empty(longest * widest, rows.dtype), empty(longest * widest, rows.dtype)
    own_matrices = shaped(of_matrices, part * of_matrices.shape[1], of_matrices.size // parts)
    own_sums = shaped(sums, part * sums.shape[1], sums.size // parts)
    for block in range(part, blocks.size - 1, parts):
        first, last = begins[blocks[block]], begins[blocks[block + 1]]
        n, mine = last - first, slice(first * total, last * total)
        t = values[mine]
        _inputs(t, n, net, results)
        start, of_g = n * (total - m), shaped(above, 0, (n, m))
        x, y = shaped(results, start - n * wide, (n, wide)), shaped(t, start, (n, m))
        for atom in range(blocks[block], blocks[block + 1]):
            a, b = begins[atom], begins[atom + 1]
            if b > a:
                own = slice(a - first, b - first)
                gemm(tools.product, rows[a:b], grad[atom], of_g[own], (b - a, m, 4), (0, 0), 0)
                if of_rows.size > 0:
                    of_moments(tools.product, grad[atom], x[own], y[own], copies, line, of_rows[a:b])
        net_backward(
            tools, rows[first:last], kinds[first:last], net, t, results, (above, below, line), more[mine],
            inners[mine], of_rows[first:last], own_matrices, own_sums,
        )  # fmt: skip
    free((results, line, above, below))


@compiled
def second(
    tools: Tools, part: int, parts: int, pairs: Pairs, net: Layers, values: Floats, grad: Floats,
    inners: Floats, change: Floats, to_grad: Floats, to_rows: Floats, more: Floats, of_matrices: Floats,
    of_slope: Floats,
) -> None:  # fmt: skip
    """The gradients of sum(change * of_rows), of_rows (pairs, 4) as `gradients` makes them of `grad`.

    That sum is sum(grad * M) of the change M_i = sum_j R_ij (x) G'_ij + R'_ij (x) G_ij of the moments by R',
    where G' is that of the embedding by s' = R'_0.
    """
    blocks, begins, rows, _kinds = pairs
    (total, widest), longest, top = widths_of(net), _longest(blocks, begins), len(net.skips) - 1
    copies, (wide, m) = net.skips[top], net.matrices[top].shape
    address, size, line = tools.product, net.slope.size, empty(4 * wide, rows.dtype)
    results, changes = empty(longest * total, rows.dtype), empty(longest * total, rows.dtype)
    above, below = empty(longest * widest, rows.dtype), empty(longest * widest, rows.dtype)
    for block in range(part, blocks.size - 1, parts):
        first, last = begins[blocks[block]], begins[blocks[block + 1]]
        n, mine = last - first, slice(first * total, last * total)
        t, inner, to_inner = values[mine], inners[mine], more[mine]
        _inputs(t, n, net, results)
        _change_of_first(change[first:last], net.slope, shaped(inner, 0, (n, size)), of_slope, part, changes)
        begin, weight = 0, 0
        _change_through(changes[: n * size], t[: n * size], inner[: n * size], to_inner[: n * size])
        for layer in range(len(net.skips)):
            matrix = net.matrices[layer]
            before, now = matrix.shape
            start = begin + n * before
            end = start + n * now
            x, z = shaped(changes, begin, (n, before)), shaped(changes, start, (n, now))
            gemm(address, x, matrix, z, (n, now, before), (0, 0), 0)
            if of_matrices.size > 0:
                to = of_matrices[part, weight : weight + before * now]
                gemm(address, x, inner[start:end], to, (before, now, n), (1, 0), 1)
            _change_through(changes[start:end], t[start:end], inner[start:end], to_inner[start:end])
            if layer < top:
                add_copies(x, net.skips[layer], z)
            begin, weight = start, weight + before * now
        y, changed, under = shaped(t, begin, (n, m)), shaped(changes, begin, (n, m)), begin - n * wide
        x, changed_x = shaped(results, under, (n, wide)), shaped(changes, under, (n, wide))
        for atom in range(blocks[block], blocks[block + 1]):
            a, b = begins[atom], begins[atom + 1]
            if b == a:
                continue
            own = slice(a - first, b - first)
            sum_moments(address, rows[a:b], changed_x[own], changed[own], copies, line, to_grad[atom], 0)
            sum_moments(address, change[a:b], x[own], y[own], copies, line, to_grad[atom], 1)
            if to_rows.size > 0:
                of_moments(address, grad[atom], changed_x[own], changed[own], copies, line, to_rows[a:b])
            if more.size > 0:
                extra = shaped(above, (a - first) * m, (b - a, m))
                gemm(address, change[a:b], grad[atom], extra, (b - a, m, 4), (0, 0), 0)
        if more.size > 0:
            _from_results(above, below, t, net, n, to_inner)
    free((results, changes, above, below, line))


@compiled
def _change_of_first(
    change: Floats, slope: Floats, inner: Floats, of_slope: Floats, part: int, to: Floats
) -> None:
    """What the first layer's tanh is taken of changes by, and what its slope gets."""
    n, m = inner.shape
    for j in range(n):
        s, row = change[j, 0], to[j * m : (j + 1) * m]
        for c in range(m):
            row[c] = s * slope[c]
    if of_slope.size > 0:
        sums = of_slope[part]
        for j in range(n):
            s, own = change[j, 0], inner[j]
            for c in range(m):
                sums[c] += s * own[c]


@compiled
def _change_through(z: Floats, t: Floats, inner: Floats, to: Floats) -> None:
    """The change of tanh from that of what it is taken of, which gets `to` = -2 t z of `inner`."""
    for i in range(to.size):
        to[i] = -(t[i] + t[i]) * inner[i] * z[i]
    through_tanh(z, t)


@compiled
def _from_results(above: Floats, below: Floats, t: Floats, net: Layers, n: int, more: Floats) -> None:
    """Add to `more` a gradient `above` of the result of the net, without that through its products."""
    end, now = t.size, net.matrices[len(net.skips) - 1].shape[1]
    for back in range(len(net.skips) + 1):
        start = end - n * now
        tanh, to = t[start:end], more[start:end]
        for i in range(n * now):
            to[i] += above[i] - above[i] * tanh[i] * tanh[i]
        layer = len(net.skips) - 1 - back
        if layer < 0 or net.skips[layer] == 0:
            break
        before = net.matrices[layer].shape[0]
        copies_back(shaped(above, 0, (n, now)), net.skips[layer], shaped(below, 0, (n, before)))
        above, below, end, now = below, above, start, before
