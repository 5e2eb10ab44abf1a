"""The embedding net and its moments for training: three compiled passes over blocks of pairs (Numba).

Pairs come as a list, those of atom i are begins[i] to begins[i + 1] - 1; block b has the atoms from blocks[b]
on, some hundred pairs, whose layers stay in the cache. Arrays of layers hold for every block its layers one
after the other, (pairs, width) each: `values` those of tanh, `inners` and `more` gradients of what tanh is
taken of. Where an array may be empty, what it would hold is not asked for. Thread `part` of `parts` takes
every parts-th block, and adds to a row of its own of the gradients of weights: `of_matrices` the matrices
behind each other, `sums` in double precision slope, table and
biases.
"""

from __future__ import annotations

from dpa2calc.kernels.blas import Floats, gemm
from dpa2calc.kernels.building import compiled, empty, free, shaped
from dpa2calc.kernels.inference.embedding_loops import (
    Several,
    add_copies,
    copies_back,
    input_of,
    net_values,
    of_moments,
    sum_moments,
    through_tanh,
)
from dpa2calc.kernels.inference.neighbor_loops import Ints
from dpa2calc.kernels.inference.softmax_loops import Terms, dot


@compiled
def _widths(slope: Floats, matrices: Several) -> tuple[int, int]:
    """Of all layers together, and of the widest."""
    total = widest = slope.size
    for matrix in matrices:
        total, widest = total + matrix.shape[1], max(widest, matrix.shape[1])
    return total, widest


@compiled
def _longest(blocks: Ints, begins: Ints) -> int:
    """Pairs of the longest block."""
    longest = 0
    for b in range(blocks.size - 1):
        longest = max(longest, begins[blocks[b + 1]] - begins[blocks[b]])
    return longest


@compiled
def _copied(x: Floats, y: Floats) -> None:
    for i in range(y.size):
        y[i] = x[i]


@compiled
def _inputs(values: Floats, n: int, matrices: Several, skips: tuple[int, ...], to: Floats) -> None:
    """What the layers are given, from the values of tanh of one block."""
    begin = 0
    for layer in range(len(skips)):
        input_of(layer, n, begin, values, matrices, skips, to)
        begin += n * matrices[layer].shape[0]


@compiled
def moments(
    address: int,
    part: int,
    parts: int,
    blocks: Ints,
    begins: Ints,
    rows: Floats,
    kinds: Ints,
    slope: Floats,
    table: Floats,
    matrices: Several,
    biases: Several,
    skips: tuple[int, ...],
    terms: Terms,
    values: Floats,
    out: Floats,
) -> None:
    """out_i = sum_j R_ij (x) G_ij: rows (pairs, 4), kinds (pairs,), out (atoms, 4, m)."""
    total, _ = _widths(slope, matrices)
    copies, (before, m) = skips[len(skips) - 1], matrices[len(skips) - 1].shape
    results, line = empty(_longest(blocks, begins) * total, rows.dtype), empty(4 * before, rows.dtype)
    for block in range(part, blocks.size - 1, parts):
        first, last = begins[blocks[block]], begins[blocks[block + 1]]
        n = last - first
        net_values(
            address, rows[first:last], kinds[first:last], slope, table, matrices, biases, skips, terms,
            values[first * total : last * total], results,
        )  # fmt: skip
        end = n * (total - m)
        x, t = shaped(results, end - n * before, (n, before)), shaped(values, first * total + end, (n, m))
        for atom in range(blocks[block], blocks[block + 1]):
            a, b = begins[atom], begins[atom + 1]
            if b > a:
                mine = slice(a - first, b - first)
                sum_moments(address, rows[a:b], x[mine], t[mine], copies, line, out[atom], 0)
    free((results, line))


@compiled
def gradients(
    address: int,
    part: int,
    parts: int,
    blocks: Ints,
    begins: Ints,
    rows: Floats,
    kinds: Ints,
    slope: Floats,
    matrices: Several,
    skips: tuple[int, ...],
    values: Floats,
    grad: Floats,
    more: Floats,
    inners: Floats,
    of_rows: Floats,
    of_matrices: Floats,
    sums: Floats,
) -> None:
    """What comes of the gradient (atoms, 4, m) of the moments; `more` is added to that inside of tanh."""
    (total, widest), longest = _widths(slope, matrices), _longest(blocks, begins)
    copies, (wide, m) = skips[len(skips) - 1], matrices[len(skips) - 1].shape
    results, line = empty(longest * total, rows.dtype), empty(4 * widest, rows.dtype)
    above, below = empty(longest * widest, rows.dtype), empty(longest * widest, rows.dtype)
    for block in range(part, blocks.size - 1, parts):
        first, last = begins[blocks[block]], begins[blocks[block + 1]]
        n, at, end = last - first, first * total, (last - first) * total
        t = values[at : last * total]
        _inputs(t, n, matrices, skips, results)
        start, of_g = end - n * m, shaped(above, 0, (n, m))
        x, y = shaped(results, start - n * wide, (n, wide)), shaped(t, start, (n, m))
        for atom in range(blocks[block], blocks[block + 1]):
            a, b = begins[atom], begins[atom + 1]
            if b > a:
                gemm(address, rows[a:b], grad[atom], of_g[a - first : b - first], (b - a, m, 4), (0, 0), 0)
                if of_rows.size > 0:
                    mine = slice(a - first, b - first)
                    of_moments(address, grad[atom], x[mine], y[mine], copies, line, of_rows[a:b])
        weight, number = of_matrices.shape[1], sums.shape[1]
        for back in range(len(skips)):
            layer = len(skips) - 1 - back
            matrix, skip = matrices[layer], skips[layer]
            before, now = matrix.shape
            start = end - n * now
            inner = shaped(above, 0, (n, now))
            copies_back(inner, skip, shaped(below, 0, (n, before)))
            _inside(above[: n * now], t[start:end], more, at + start, inners)
            if sums.size > 0:
                weight, number = weight - before * now, number - now
                x, to = shaped(results, start - n * before, (n, before)), of_matrices[part]
                gemm(address, x, inner, to[weight : weight + before * now], (before, now, n), (1, 0), 1)
                _add_columns(inner, line[:now], sums[part, number : number + now])
            gemm(address, above, matrix, below, (n, before, now), (0, 1), 1)
            above, below, end = below, above, start
        inner = shaped(above, 0, (n, slope.size))
        _inside(above[:end], t[:end], more, at, inners)
        if of_rows.size > 0:
            for j in range(n):
                of_rows[first + j, 0] += dot(inner[j], slope)
        if sums.size > 0:
            _first_layer(inner, rows[first:last], kinds[first:last], sums[part])
    free((results, line, above, below))


@compiled
def _inside(grad: Floats, t: Floats, more: Floats, at: int, inners: Floats) -> None:
    """The gradient of what tanh is taken of, in place; kept from place `at` on."""
    through_tanh(grad, t)
    if more.size > 0:
        extra = more[at : at + grad.size]
        for i in range(grad.size):
            grad[i] += extra[i]
    if inners.size > 0:
        _copied(grad, inners[at : at + grad.size])


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
def second(
    address: int,
    part: int,
    parts: int,
    blocks: Ints,
    begins: Ints,
    rows: Floats,
    slope: Floats,
    matrices: Several,
    skips: tuple[int, ...],
    values: Floats,
    grad: Floats,
    inners: Floats,
    change: Floats,
    to_grad: Floats,
    to_rows: Floats,
    more: Floats,
    of_matrices: Floats,
    of_slope: Floats,
) -> None:
    """The gradients of sum(change * of_rows), of_rows (pairs, 4) as `gradients` makes them of `grad`.

    That sum is sum(grad * M) of the change M_i = sum_j R_ij (x) G'_ij + R'_ij (x) G_ij of the moments by R',
    where G' is that of the embedding by s' = R'_0.
    """
    (total, widest), longest = _widths(slope, matrices), _longest(blocks, begins)
    copies, (wide, m) = skips[len(skips) - 1], matrices[len(skips) - 1].shape
    line = empty(4 * wide, rows.dtype)
    results, changes = empty(longest * total, rows.dtype), empty(longest * total, rows.dtype)
    above, below = empty(longest * widest, rows.dtype), empty(longest * widest, rows.dtype)
    for block in range(part, blocks.size - 1, parts):
        first, last = begins[blocks[block]], begins[blocks[block + 1]]
        n, at = last - first, first * total
        t, inner = values[at : last * total], inners[at : last * total]
        _inputs(t, n, matrices, skips, results)
        _change_of_first(
            change[first:last], slope, shaped(inner, 0, (n, slope.size)), of_slope, part, changes
        )
        begin, weight = 0, 0
        _change_through(changes[: n * slope.size], t[: n * slope.size], inner[: n * slope.size], more, at)
        for layer in range(len(skips)):
            matrix = matrices[layer]
            before, now = matrix.shape
            start = begin + n * before
            end = start + n * now
            x, z = shaped(changes, begin, (n, before)), shaped(changes, start, (n, now))
            gemm(address, x, matrix, z, (n, now, before), (0, 0), 0)
            if of_matrices.size > 0:
                to = of_matrices[part, weight : weight + before * now]
                gemm(address, x, inner[start:end], to, (before, now, n), (1, 0), 1)
            _change_through(changes[start:end], t[start:end], inner[start:end], more, at + start)
            if layer < len(skips) - 1:
                add_copies(x, skips[layer], z)
            begin, weight = start, weight + before * now
        y, changed, under = shaped(t, begin, (n, m)), shaped(changes, begin, (n, m)), begin - n * wide
        x, changed_x = shaped(results, under, (n, wide)), shaped(changes, under, (n, wide))
        for atom in range(blocks[block], blocks[block + 1]):
            a, b = begins[atom], begins[atom + 1]
            if b == a:
                continue
            mine = slice(a - first, b - first)
            sum_moments(address, rows[a:b], changed_x[mine], changed[mine], copies, line, to_grad[atom], 0)
            sum_moments(address, change[a:b], x[mine], y[mine], copies, line, to_grad[atom], 1)
            if to_rows.size > 0:
                of_moments(address, grad[atom], changed_x[mine], changed[mine], copies, line, to_rows[a:b])
            if more.size > 0:
                extra = shaped(above, (a - first) * m, (b - a, m))
                gemm(address, change[a:b], grad[atom], extra, (b - a, m, 4), (0, 0), 0)
        if more.size > 0:
            _from_results(above, below, t, slope, matrices, skips, n, more[at : last * total])
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
def _change_through(z: Floats, t: Floats, inner: Floats, more: Floats, at: int) -> None:
    """The change of tanh from that of what it is taken of, which gets -2 t z of `inner`."""
    if more.size > 0:
        to = more[at : at + z.size]
        for i in range(z.size):
            to[i] = -(t[i] + t[i]) * inner[i] * z[i]
    through_tanh(z, t)


@compiled
def _from_results(
    above: Floats,
    below: Floats,
    t: Floats,
    slope: Floats,
    matrices: Several,
    skips: tuple[int, ...],
    n: int,
    more: Floats,
) -> None:
    """Add to `more` a gradient `above` of the result of the net, without that through its products."""
    end, now = t.size, matrices[len(skips) - 1].shape[1]
    for back in range(len(skips) + 1):
        start = end - n * now
        tanh, to = t[start:end], more[start:end]
        for i in range(n * now):
            to[i] += above[i] - above[i] * tanh[i] * tanh[i]
        layer = len(skips) - 1 - back
        if layer < 0 or skips[layer] == 0:
            break
        before = matrices[layer].shape[0]
        copies_back(shaped(above, 0, (n, now)), skips[layer], shaped(below, 0, (n, before)))
        above, below, end, now = below, above, start, before
