"""A fitting net for a block of atoms as one compiled call, forward and backward (Numba)."""

from __future__ import annotations

import numpy as np

from dpa2calc.kernels.blas import Floats, gemm
from dpa2calc.kernels.building import compiled, empty, free, shaped

from .compiled import Tools
from .head import LoopNet
from .neighbor_loops import Ints
from .softmax_loops import dot, tanh


@compiled
def energies(
    tools: Tools, net: LoopNet, kinds: Ints, descriptors: Floats, features: Floats, found: Floats
) -> None:
    """Energies (b,) in eV and last hidden layer (b, m); their gradient overwrites descriptors."""
    n, last = len(kinds), len(net.skips) - 1
    total = widest = net.first.shape[1]
    for matrix in net.matrices:
        total, widest = total + matrix.shape[1], max(widest, matrix.shape[1])
    values, results = empty(n * total, features.dtype), empty(n * total, features.dtype)
    first_layer(tools, net, kinds, descriptors, values, results)
    begin = 0
    for layer in range(len(net.skips)):
        begin = next_layer(tools, net, layer, n, begin, values, results)
    keep(net, kinds, shaped(results, begin, features.shape), features, found)
    grad, inner = empty(n * widest, features.dtype), empty(n * widest, features.dtype)
    ends(net, kinds, shaped(grad, 0, features.shape))
    for layer in range(last, -1, -1):
        before, size = net.matrices[layer].shape
        through(net.scales[layer + 1], n, begin, values, grad, inner)
        to, own = shaped(grad, 0, (n, before)), shaped(inner, 0, (n, size))
        gemm(tools.product, own, net.matrices[layer], to, (n, before, size), (0, 1), net.skips[layer])
        begin -= n * before
    through(net.scales[0], n, 0, values, grad, inner)
    width, size = net.input.shape
    gemm(tools.product, shaped(inner, 0, (n, size)), net.input, descriptors, (n, width, size), (0, 1), 0)
    free((values, results, grad, inner))


@compiled
def first_layer(
    tools: Tools, net: LoopNet, kinds: Ints, descriptors: Floats, values: Floats, results: Floats
) -> None:
    """Values of tanh and the result of the layer that sees the descriptors and the types."""
    n, (width, size) = len(kinds), net.input.shape
    t = shaped(values, 0, (n, size))
    for row in range(n):
        to, of_type = t[row], net.first[kinds[row]]
        for c in range(size):
            to[c] = of_type[c]
    gemm(tools.product, descriptors, net.input, t, (n, size, width), (0, 0), 1)
    tanh(values[: n * size], tools.terms)
    x = shaped(results, 0, (n, size))
    for row in range(n):
        scaled(t[row], net.scales[0], x[row])


@compiled
def next_layer(
    tools: Tools, net: LoopNet, layer: int, n: int, begin: int, values: Floats, results: Floats
) -> int:
    """The same of a later layer, whose input begins at place `begin` of the results; where its own begin."""
    matrix, bias = net.matrices[layer], net.biases[layer]
    before, size = matrix.shape
    start = begin + n * before
    given, t, x = (
        shaped(results, begin, (n, before)),
        shaped(values, start, (n, size)),
        shaped(results, start, (n, size)),
    )
    for row in range(n):
        to = t[row]
        for c in range(size):
            to[c] = bias[c]
    gemm(tools.product, given, matrix, t, (n, size, before), (0, 0), 1)
    tanh(values[start : start + n * size], tools.terms)
    for row in range(n):
        scaled(t[row], net.scales[layer + 1], x[row])
        if net.skips[layer] > 0:
            to, own = x[row], given[row]
            for c in range(size):
                to[c] += own[c]
    return start


@compiled
def scaled(t: Floats, scale: Floats, x: Floats) -> None:
    for c in range(t.size):
        x[c] = t[c] * scale[c]


@compiled
def keep(net: LoopNet, kinds: Ints, x: Floats, features: Floats, found: Floats) -> None:
    """The last hidden layer and energies; zero, but for the constants, of types whose net does not count."""
    for row in range(len(kinds)):
        kind = kinds[row]
        to, own = features[row], x[row]
        counts = x.dtype.type(0.0 if net.silent[kind] else 1.0)
        for c in range(to.size):
            to[c] = own[c] * counts
        found[row] = net.added[kind]
        if not net.silent[kind]:
            found[row] += np.float64(dot(own, net.end)) + net.end_bias


@compiled
def ends(net: LoopNet, kinds: Ints, grad: Floats) -> None:
    """The gradient of the last hidden layer."""
    for row in range(len(kinds)):
        to, counts = grad[row], grad.dtype.type(0.0 if net.silent[kinds[row]] else 1.0)
        for c in range(to.size):
            to[c] = net.end[c] * counts


@compiled
def through(scale: Floats, n: int, begin: int, values: Floats, grad: Floats, inner: Floats) -> None:
    """inner = grad * scale * (1 - t^2) of a layer whose values of tanh begin at place `begin`."""
    size = scale.size
    t, own, to = shaped(values, begin, (n, size)), shaped(grad, 0, (n, size)), shaped(inner, 0, (n, size))
    for row in range(n):
        a, b, c = t[row], own[row], to[row]
        for i in range(size):
            c[i] = b[i] * scale[i] * (a.dtype.type(1.0) - a[i] * a[i])
