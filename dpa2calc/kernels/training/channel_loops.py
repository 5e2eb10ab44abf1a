"""A small net of many scalars for training, channel by channel (Numba).

Rows of two to eight features are slow to multiply and to walk; long rows of one feature are not. Arrays are
flat: channel behind channel, and of all layers together layer behind layer.
"""

from __future__ import annotations

from dpa2calc.kernels.blas import Floats
from dpa2calc.kernels.building import compiled
from dpa2calc.kernels.inference.compiled import Layers
from dpa2calc.kernels.inference.embedding_loops import through_tanh
from dpa2calc.kernels.inference.neighbor_loops import Ints
from dpa2calc.kernels.inference.softmax_loops import Terms, dot, sum_of, tanh


@compiled
def zeros(x: Floats) -> None:
    for i in range(x.size):
        x[i] = 0.0


@compiled
def _add_times(x: Floats, by: Floats, i: int, y: Floats) -> None:
    """y += x * by[i]"""
    factor = by[i]
    for k in range(y.size):
        y[k] += x[k] * factor


@compiled
def _multiplied(x: Floats, matrix: Floats, y: Floats) -> None:
    """Add x W to y: rows of (n_in, n) and of (n_out, n), both flat."""
    before, size = matrix.shape
    n = x.size // before
    for o in range(size):
        for c in range(before):
            _add_times(x[c * n : (c + 1) * n], matrix[c], o, y[o * n : (o + 1) * n])


@compiled
def _multiplied_back(x: Floats, matrix: Floats, y: Floats) -> None:
    """Add x W^T to y."""
    before, size = matrix.shape
    n = x.size // size
    for c in range(before):
        for o in range(size):
            _add_times(x[o * n : (o + 1) * n], matrix[c], o, y[c * n : (c + 1) * n])


@compiled
def _copies(x: Floats, copies: int, y: Floats) -> None:
    """Add so many copies of x to y."""
    for copy in range(copies):
        to = y[copy * x.size : (copy + 1) * x.size]
        for i in range(x.size):
            to[i] += x[i]


@compiled
def _sum_copies(x: Floats, copies: int, y: Floats) -> None:
    """y is the gradient of what was added to x so many times."""
    zeros(y)
    for copy in range(copies):
        part = x[copy * y.size : (copy + 1) * y.size]
        for i in range(y.size):
            y[i] += part[i]


@compiled
def values_of(s: Floats, kinds: Ints, net: Layers, terms: Terms, values: Floats, results: Floats) -> None:
    """Channel behind channel, layer behind layer: the values of tanh, and the results."""
    n, size = s.size, net.slope.size
    for c in range(size):
        to, by = values[c * n : (c + 1) * n], net.slope[c]
        for i in range(n):
            to[i] = net.table[kinds[i], c] + s[i] * by
    tanh(values[: size * n], terms)
    for i in range(size * n):
        results[i] = values[i]
    begin = 0
    for layer in range(len(net.skips)):
        before, size = net.matrices[layer].shape
        start, bias = begin + before * n, net.biases[layer]
        end = start + size * n
        x, t, y = results[begin:start], values[start:end], results[start:end]
        for o in range(size):
            to, constant = t[o * n : (o + 1) * n], bias[o]
            for i in range(n):
                to[i] = constant
        _multiplied(x, net.matrices[layer], t)
        tanh(t, terms)
        for i in range(t.size):
            y[i] = t[i]
        _copies(x, net.skips[layer], y)
        begin = start


@compiled
def _add_weights(x: Floats, inner: Floats, matrix: Floats, to: Floats) -> None:
    """Add the gradient of a matrix, (n_in * n_out,), from its input and that of x W."""
    before, size = matrix.shape
    n = x.size // before
    for c in range(before):
        for o in range(size):
            to[c * size + o] += dot(x[c * n : (c + 1) * n], inner[o * n : (o + 1) * n])


@compiled
def _add_constants(inner: Floats, to: Floats) -> None:
    """Add the gradient of a bias."""
    n = inner.size // to.size
    for o in range(to.size):
        to[o] += sum_of(inner[o * n : (o + 1) * n])


@compiled
def add_first(s: Floats, inner: Floats, to: Floats) -> None:
    """Add the gradient of the slope."""
    n = s.size
    for c in range(to.size):
        to[c] += dot(s, inner[c * n : (c + 1) * n])


@compiled
def add_kinds(kinds: Ints, inner: Floats, size: int, to: Floats) -> None:
    """Add the gradient of the table, (kinds * size,)."""
    n = kinds.size
    for c in range(size):
        row = inner[c * n : (c + 1) * n]
        for i in range(n):
            to[kinds[i] * size + c] += row[i]


@compiled
def backward(above: Floats, below: Floats, values: Floats, net: Layers, n: int, inners: Floats) -> None:
    """From the gradient `above` of the results those of what tanh is taken of, in all layers."""
    end = values.size
    for back in range(len(net.skips) + 1):
        layer = len(net.skips) - 1 - back
        start = end - net.matrices[layer].shape[1] * n if layer >= 0 else 0
        inner = inners[start:end]
        for i in range(inner.size):
            inner[i] = above[i]
        through_tanh(inner, values[start:end])
        if layer >= 0:
            to = below[: net.matrices[layer].shape[0] * n]
            _sum_copies(above[: end - start], net.skips[layer], to)
            _multiplied_back(inner, net.matrices[layer], to)
        above, below, end = below, above, start


@compiled
def add_layers(results: Floats, inners: Floats, net: Layers, n: int, biased: bool, sums: Floats) -> None:
    """Add the gradients of matrices and, if `biased`, of biases, the last of `sums`: from what the layers
    are given, which are results, and from `inners`."""
    end, at = results.size, sums.size
    for back in range(len(net.skips)):
        matrix = net.matrices[len(net.skips) - 1 - back]
        before, size = matrix.shape
        start = end - size * n
        if biased:
            _add_constants(inners[start:end], sums[at - size : at])
        at -= size * (before + 1)
        _add_weights(
            results[start - before * n : start], inners[start:end], matrix, sums[at : at + before * size]
        )
        end = start


@compiled
def change(z: Floats, values: Floats, net: Layers, n: int, to: Floats) -> None:
    """Changes of the results, `to`, by a change z of what tanh is taken of: given the first layer's."""
    begin, end = 0, net.slope.size * n
    for layer in range(len(net.skips) + 1):
        t, moved, own = values[begin:end], z[begin:end], to[begin:end]
        if layer > 0:
            x = to[begin - net.matrices[layer - 1].shape[0] * n : begin]
            zeros(moved)
            _multiplied(x, net.matrices[layer - 1], moved)
        for i in range(own.size):
            own[i] = moved[i]
        through_tanh(own, t)
        if layer > 0:
            _copies(x, net.skips[layer - 1], own)
        if layer < len(net.skips):
            begin, end = end, end + net.matrices[layer].shape[1] * n


@compiled
def second_backward(
    above: Floats,
    below: Floats,
    values: Floats,
    z: Floats,
    net: Layers,
    n: int,
    inners: Floats,
    seconds: Floats,
) -> None:
    """As `backward`, where sum(inners * z) of the changes z counts too."""
    end = values.size
    for back in range(len(net.skips) + 1):
        layer = len(net.skips) - 1 - back
        start = end - net.matrices[layer].shape[1] * n if layer >= 0 else 0
        inner, t, to, moved = inners[start:end], values[start:end], seconds[start:end], z[start:end]
        for i in range(to.size):
            to[i] = above[i]
        through_tanh(to, t)
        for i in range(to.size):
            to[i] -= (t[i] + t[i]) * inner[i] * moved[i]
        if layer >= 0:
            under = below[: net.matrices[layer].shape[0] * n]
            _sum_copies(above[: end - start], net.skips[layer], under)
            _multiplied_back(to, net.matrices[layer], under)
        above, below, end = below, above, start
