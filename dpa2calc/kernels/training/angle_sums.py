"""The three-body sum for training: without padding, feature by feature; derivatives by hand.

`_AngleSums` and `_AngleSumsGradient` are a pair as described in `second_order`, but nothing passes from one
to the other: the loops make everything again, which costs less than to keep it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpa2calc.kernels.inference.compiled import Layers, has_loops, run
from dpa2calc.kernels.native import Given, Native
from dpa2calc.kernels.net import Net, ScalarNet, activation
from dpa2calc.kernels.pairs import Neighbors
from dpa2calc.kernels.threads import WORKERS
from dpa2calc.kernels.training.pair_list import ListPairs
from dpa2calc.kernels.training.second_order import Grad, by_formula, by_weight, wanted

_SUMS, _GRADIENTS, _SECOND = (
    Native("training.angle_loops", name) for name in ("sums", "gradients", "second")
)


def angle_sums(net: ScalarNet, directions: Tensor, types: Tensor, mask: Tensor) -> Tensor:
    """sum_jk c_jk G(c_jk; t_j, t_k), (n, m), as `Reference.angle_sums` has it.

    With compiled loops differentiable twice, else any number of times.
    """
    by_hand = net.net.why_not_by_hand() is None and all(layer.idt is None for layer in net.net.layers)
    if not has_loops(directions) or not by_hand or not net.skips:
        return _plain(net, directions, types, mask)
    return _AngleSums.apply(directions, _Given.of(net, types, mask), *net.weights)


def _plain(net: ScalarNet, directions: Tensor, types: Tensor, mask: Tensor) -> Tensor:
    pairs = ListPairs.of(Neighbors(types, mask, mask.to(directions.dtype)), nsel=1)
    angles, n_types = pairs.overlaps(pairs.take(directions)), math.isqrt(len(net.table))
    own = pairs.blocks(pairs.neighbors)  # the types, instead of numbers of atoms
    kinds = pairs.join_squares([t.unsqueeze(2) * n_types + t.unsqueeze(1) for t in own])
    table = net.table.t()  # (m1, kinds)
    # `gather` has a quick gradient, unlike table[:, kinds].
    z = torch.addcmul(table.gather(1, kinds.expand(len(table), -1)), net.slope.unsqueeze(1), angles)
    shapes = [(len(t), t.shape[1] ** 2) for t in own]
    parts = (_columns(net.net, z) * angles).split([n * size for n, size in shapes], dim=1)
    return pairs.join_atoms([part.unflatten(1, shape).sum(dim=2).t() for part, shape in zip(parts, shapes)])


def _columns(net: Net, z: Tensor) -> Tensor:
    """The net of many scalars, from the first layer's x W + b, (m1, L) -> (m, L).

    Rows of two to eight features are slow to multiply and to walk; long rows of one feature are not.
    """
    act = activation(net.activation)
    x = act(z) if net.layers[0].idt is None else act(z) * net.layers[0].idt.unsqueeze(1)
    for layer in net.layers[1:]:
        y = layer.matrix.t() @ x
        y = act(y if layer.bias is None else y + layer.bias.unsqueeze(1))
        if layer.idt is not None:
            y = y * layer.idt.unsqueeze(1)
        x = y if layer.skip == 0 else y + x if layer.skip == 1 else y + torch.cat([x, x])
    return x


class _Given(NamedTuple):
    """What is no input to differentiate for: the net, and neighbours behind each other, sorted by type.

    types, mask: the table (n, k). chosen (P,): where the neighbours are in it, flattened; sorted_types (P,);
    begins (n + 1,): the first of each atom.
    """

    net: ScalarNet
    types: Tensor
    mask: Tensor
    chosen: Tensor
    sorted_types: Tensor
    begins: np.ndarray

    @staticmethod
    def of(net: ScalarNet, types: Tensor, mask: Tensor) -> _Given:
        chosen = mask.flatten().nonzero().squeeze(1)
        mine, n_types = types.reshape(-1)[chosen], math.isqrt(len(net.table))
        order = torch.argsort(chosen // mask.shape[1] * n_types + mine, stable=True)
        begins = np.concatenate([[0], mask.sum(dim=1).cumsum(0).numpy()])
        return _Given(net, types, mask, chosen[order], mine[order], begins)

    def taken(self, directions: Tensor) -> Tensor:
        """(n, k, 3) -> (3, P)"""
        return directions.reshape(-1, 3).index_select(0, self.chosen).t().contiguous()

    def padded(self, values: Tensor) -> Tensor:
        """(3, P) -> (n, k, 3)"""
        table = values.new_zeros(self.mask.numel(), 3)
        return table.index_copy_(0, self.chosen, values.t()).view(*self.mask.shape, 3)

    def run(self, kernel: Native, a: Tensor, weights: Sequence[Tensor], *given: Given) -> None:
        """A kernel over all atoms, on all threads."""
        near = self.begins, self.sorted_types, math.isqrt(len(self.net.table))
        run(kernel, WORKERS.count, a, near, a, Layers.of(weights, self.net.skips), *given)


def _room(weights: Sequence[Tensor], some: bool) -> Tensor:
    """Room for the gradients of weights, by thread."""
    parts = WORKERS.count if some else 0
    return weights[0].new_zeros(parts, sum(w.numel() for w in weights), dtype=torch.float64)


def _split(sums: Tensor, weights: Sequence[Tensor]) -> Sequence[Grad]:
    return by_weight(sums, weights) if len(sums) else [None] * len(weights)


class _AngleSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, directions: Tensor, given: _Given, *weights: Tensor) -> Tensor:
        out = directions.new_zeros(len(directions), weights[-2].shape[1])
        given.run(_SUMS, given.taken(directions), weights, out)
        ctx.save_for_backward(directions, *weights)
        ctx.given = given
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        directions, *weights = ctx.saved_tensors
        given, (of_directions, *of_weights) = ctx.given, wanted(ctx)
        if torch.is_grad_enabled() and any(of_weights):
            value = _plain(given.net, directions, given.types, given.mask)
            first, *rest = by_formula(value, ctx.saved_tensors, grad)
            return first, None, *rest
        if torch.is_grad_enabled():
            of = _AngleSumsGradient.apply(grad, directions, given, *weights)
            return of, None, *[None] * len(weights)
        a, sums = given.taken(directions), _room(weights, any(of_weights))
        to = torch.zeros_like(a) if of_directions else a.new_empty(0, 0)
        given.run(_GRADIENTS, a, weights, grad.contiguous(), to, sums)
        return given.padded(to) if of_directions else None, None, *_split(sums, weights)


class _AngleSumsGradient(torch.autograd.Function):
    """Gradient of the directions, (n, k, 3)."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, directions: Tensor, given: _Given, *weights: Tensor) -> Tensor:
        a, grad = given.taken(directions), grad.contiguous()
        to = torch.zeros_like(a)
        given.run(_GRADIENTS, a, weights, grad, to, _room(weights, False))
        ctx.save_for_backward(grad, directions, *weights)
        ctx.given = given
        return given.padded(to)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, change: Tensor) -> tuple[Any, ...]:
        grad, directions, *weights = ctx.saved_tensors
        given, (_, of_directions, *of_weights) = ctx.given, wanted(ctx)
        a, sums = given.taken(directions), _room(weights, any(of_weights))
        to_grad, to = torch.zeros_like(grad), torch.zeros_like(a) if of_directions else a.new_empty(0, 0)
        given.run(_SECOND, a, weights, grad, given.taken(change), to_grad, to, sums)
        return to_grad, given.padded(to) if of_directions else None, None, *_split(sums, weights)
