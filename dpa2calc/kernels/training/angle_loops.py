"""The three-body sum and its derivatives for training: three compiled passes, atom by atom (Numba).

For an atom with directions a_j, out = sum_jk c_jk G(c_jk; t_j, t_k) with c_jk = a_j . a_k. Neighbours come
sorted by type, those of atom i from begins[i] to begins[i + 1] - 1, directions as (3, neighbours). Two
neighbours of one type are the same in either order, and are taken once. A few rows j at a time give some
hundred cosines, whose net stays in the cache: a channel is a long row, and everything is made again in each
pass. Where an array may be empty, what it would hold is not asked for. Thread `part` of `parts` takes every
parts-th atom, and adds to its own row of `sums`, in double precision: slope, table, and matrix and bias of
each later layer.
"""

from __future__ import annotations

from typing import TypeAlias

from dpa2calc.kernels.blas import Floats
from dpa2calc.kernels.building import compiled, empty, free
from dpa2calc.kernels.inference.compiled import Layers, Tools
from dpa2calc.kernels.inference.embedding_loops import widths_of
from dpa2calc.kernels.inference.neighbor_loops import Ints
from dpa2calc.kernels.inference.softmax_loops import dot

from .channel_loops import (
    add_first,
    add_kinds,
    add_layers,
    backward,
    change,
    second_backward,
    values_of,
    zeros,
)

Near: TypeAlias = tuple[Ints, Ints, int]  # begins, types, number of types
_ROOM = 1024  # cosines


@compiled
def _room(begins: Ints) -> int:
    """Cosines that are worked on at once: of as many whole rows as go into `_ROOM`."""
    most = 1
    for i in range(begins.size - 1):
        most = max(most, begins[i + 1] - begins[i])
    return max(most, _ROOM)


@compiled
def _same_type(types: Ints, begin: int, j: int) -> int:
    """The first neighbour of the type of j."""
    while j > begin and types[j - 1] == types[j]:
        j -= 1
    return j


@compiled
def _kinds(
    begin: int, end: int, start: int, stop: int, n_types: int, types: Ints, kinds: Ints, weights: Floats
) -> int:
    """Kinds of the cosines of rows start..stop - 1 of one atom, and how often each counts; how many.

    Row j has the neighbours of other types before it, and those from j on.
    """
    n = 0
    for j in range(start, stop):
        own = types[j]
        for first, last in ((begin, _same_type(types, begin, j)), (j, end)):
            size = last - first
            others, kind, weight = types[first:last], kinds[n : n + size], weights[n : n + size]
            for k in range(size):
                kind[k] = own * n_types + others[k]
            for k in range(size):
                weight[k] = 2 if k > j - first and others[k] == own else 1
            n += size
    return n


@compiled
def _add_products(
    begin: int, end: int, start: int, stop: int, types: Ints, a: Floats, b: Floats, out: Floats
) -> None:
    """Add a_j . b_k, of rows and in order as `_kinds` has them."""
    n = 0
    for j in range(start, stop):
        u, v, w = a[0, j], a[1, j], a[2, j]
        for first, last in ((begin, _same_type(types, begin, j)), (j, end)):
            x, y, z, to = b[0, first:last], b[1, first:last], b[2, first:last], out[n : n + last - first]
            for k in range(to.size):
                to[k] += u * x[k] + v * y[k] + w * z[k]
            n += to.size


@compiled
def _scatter(
    begin: int, end: int, start: int, stop: int, types: Ints, p: Floats, a: Floats, to: Floats
) -> None:
    """Add the gradient of x in sum(p * c), with c of `_add_products`: of x and a, and of a and x.

    With x = a one of the two calls makes c.
    """
    n = 0
    for j in range(start, stop):
        for first, last in ((begin, _same_type(types, begin, j)), (j, end)):
            if last == first:
                continue
            mine = p[n : n + last - first]
            for axis in range(3):
                x, out, own = a[axis, first:last], to[axis, first:last], a[axis, j]
                for k in range(mine.size):
                    out[k] += mine[k] * own
                to[axis, j] += dot(mine, x)
            n += last - first


@compiled
def _prepare(
    begin: int, end: int, start: int, stop: int, n_types: int, types: Ints, a: Floats, kinds: Ints,
    weights: Floats, s: Floats,
) -> int:  # fmt: skip
    """Kinds, weights and cosines of some rows of an atom; how many."""
    n = _kinds(begin, end, start, stop, n_types, types, kinds, weights)
    zeros(s[:n])
    _add_products(begin, end, start, stop, types, a, a, s)
    return n


@compiled
def sums(tools: Tools, part: int, parts: int, near: Near, a: Floats, net: Layers, out: Floats) -> None:
    """Add the three-body sums to out (atoms, m)."""
    begins, types, n_types = near
    room, channels, m = _room(begins), widths_of(net)[0], out.shape[1]
    kinds, weights, s = empty(room, types.dtype), empty(room, a.dtype), empty(room, a.dtype)
    values, results = empty(room * channels, a.dtype), empty(room * channels, a.dtype)
    for atom in range(part, begins.size - 1, parts):
        begin, end = begins[atom], begins[atom + 1]
        rows = room // max(1, end - begin)
        for start in range(begin, end, rows):
            stop = min(end, start + rows)
            n = _prepare(begin, end, start, stop, n_types, types, a, kinds, weights, s)
            values_of(s[:n], kinds, net, tools.terms, values[: n * channels], results)
            for i in range(n):
                s[i] *= weights[i]
            g, to = results[n * (channels - m) : n * channels], out[atom]
            for o in range(m):
                to[o] += dot(s[:n], g[o * n : (o + 1) * n])
    free((kinds, weights, s, values, results))


@compiled
def _spread(by: Floats, s: Floats, n: int, to: Floats) -> None:
    """to = by (x) s"""
    for o in range(by.size):
        row, factor = to[o * n : (o + 1) * n], by[o]
        for i in range(n):
            row[i] = factor * s[i]


@compiled
def _gathered(by: Floats, x: Floats, n: int, to: Floats) -> None:
    """Add sum_o by_o x_o to `to`."""
    for o in range(by.size):
        row, factor = x[o * n : (o + 1) * n], by[o]
        for i in range(n):
            to[i] += factor * row[i]


@compiled
def gradients(
    tools: Tools, part: int, parts: int, near: Near, a: Floats, net: Layers, grad: Floats, to: Floats,
    sums: Floats,
) -> None:  # fmt: skip
    """From the gradient (atoms, m) of the sums that of the directions, added to `to`, and of the weights."""
    begins, types, n_types = near
    room, channels, m, first = _room(begins), widths_of(net)[0], grad.shape[1], net.slope.size
    kinds, weights = empty(room, types.dtype), empty(room, a.dtype)
    s, p = empty(room, a.dtype), empty(room, a.dtype)
    values, results = empty(room * channels, a.dtype), empty(room * channels, a.dtype)
    inners = empty(room * channels, a.dtype)
    above, below = empty(room * channels, a.dtype), empty(room * channels, a.dtype)
    for atom in range(part, begins.size - 1, parts):
        begin, end, of = begins[atom], begins[atom + 1], grad[atom]
        rows = room // max(1, end - begin)
        for start in range(begin, end, rows):
            stop = min(end, start + rows)
            n = _prepare(begin, end, start, stop, n_types, types, a, kinds, weights, s)
            size = n * channels
            t, x, inner = values[:size], results[:size], inners[:size]
            values_of(s[:n], kinds, net, tools.terms, t, x)
            for i in range(n):
                p[i] = weights[i] * s[i]
            _spread(of, p, n, above)
            backward(above, below, t, net, n, inner)
            if to.size > 0:
                _from_sums(of, x[n * (channels - m) :], weights, net.slope, inner, n, p)
                _scatter(begin, end, start, stop, types, p, a, to)
            if sums.size > 0:
                row = sums[part]
                add_layers(x, inner, net, n, True, row)
                add_first(s[:n], inner[: n * first], row[:first])
                add_kinds(kinds[:n], inner, first, row[first:])
    free((kinds, weights, s, p, values, results, inners, above, below))


@compiled
def _from_sums(
    grad: Floats, g: Floats, weights: Floats, slope: Floats, inner: Floats, n: int, p: Floats
) -> None:
    """p: the gradient of the cosines, as factors of weights * G and through the net."""
    zeros(p[:n])
    _gathered(grad, g, n, p)
    for i in range(n):
        p[i] *= weights[i]
    _gathered(slope, inner, n, p)


@compiled
def second(
    tools: Tools, part: int, parts: int, near: Near, a: Floats, net: Layers, grad: Floats, tangents: Floats,
    to_grad: Floats, to: Floats, sums: Floats,
) -> None:  # fmt: skip
    """The gradients of sum(tangents * to), `to` as `gradients` makes it of `grad`: of grad, a and weights."""
    begins, types, n_types = near
    room, channels, m, first = _room(begins), widths_of(net)[0], grad.shape[1], net.slope.size
    kinds, weights = empty(room, types.dtype), empty(room, a.dtype)
    s, p, c, q = empty(room, a.dtype), empty(room, a.dtype), empty(room, a.dtype), empty(room, a.dtype)
    values, results = empty(room * channels, a.dtype), empty(room * channels, a.dtype)
    moves, changes = empty(room * channels, a.dtype), empty(room * channels, a.dtype)
    inners, seconds = empty(room * channels, a.dtype), empty(room * channels, a.dtype)
    above, below = empty(room * channels, a.dtype), empty(room * channels, a.dtype)
    for atom in range(part, begins.size - 1, parts):
        begin, end, of, of_grad = begins[atom], begins[atom + 1], grad[atom], to_grad[atom]
        rows = room // max(1, end - begin)
        for start in range(begin, end, rows):
            stop = min(end, start + rows)
            n = _prepare(begin, end, start, stop, n_types, types, a, kinds, weights, s)
            zeros(c[:n])
            _add_products(begin, end, start, stop, types, a, tangents, c)
            _add_products(begin, end, start, stop, types, tangents, a, c)
            size, last = n * channels, n * (channels - m)
            t, x, inner, z, y, more = (
                values[:size], results[:size], inners[:size], moves[:size], changes[:size], seconds[:size],
            )  # fmt: skip
            values_of(s[:n], kinds, net, tools.terms, t, x)
            _spread(net.slope, c, n, z)
            change(z, t, net, n, y)
            for i in range(n):
                p[i] = weights[i] * s[i]
            for i in range(n):
                q[i] = weights[i] * c[i]
            for o in range(m):
                place = last + o * n
                of_grad[o] += dot(q[:n], x[place : place + n]) + dot(p[:n], y[place : place + n])
            if to.size + sums.size == 0:
                continue
            _spread(of, p, n, above)
            backward(above, below, t, net, n, inner)
            _spread(of, q, n, above)
            second_backward(above, below, t, z, net, n, inner, more)
            if to.size > 0:
                _from_sums(of, x[last:], weights, net.slope, inner, n, p)
                _scatter(begin, end, start, stop, types, p, tangents, to)
                _from_sums(of, y[last:], weights, net.slope, more, n, p)
                _scatter(begin, end, start, stop, types, p, a, to)
            if sums.size > 0:
                row = sums[part]
                add_layers(x, more, net, n, True, row)
                add_layers(y, inner, net, n, False, row)
                add_first(s[:n], more[: n * first], row[:first])
                add_first(c[:n], inner[: n * first], row[:first])
                add_kinds(kinds[:n], more, first, row[first:])
    free((kinds, weights, s, p, c, q, values, results, moves, changes, inners, seconds, above, below))
