"""Embedded moments for training: net and sum in one, block by block; derivatives by hand.

D_i = sum_j R_ij (x) G(R_ij,0; types). `_Moments` and `_MomentsGradient` are a pair as described in
`second_order`; the values of tanh are what passes from the first to the second, and what comes back as their
gradient is that of what tanh is taken of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpa2calc.kernels.blocks import total
from dpa2calc.kernels.inference.compiled import Loops, loops
from dpa2calc.kernels.native import Given, Native, Ready
from dpa2calc.kernels.net import Layer, ScalarNet
from dpa2calc.kernels.threads import WORKERS
from dpa2calc.kernels.training.dense_tanh import tanh_embedding
from dpa2calc.kernels.training.second_order import Grad, by_formula, wanted

_ROWS = 256  # pairs of a block
MOMENTS, GRADIENTS, SECOND = (
    Native("training.moment_loops", name) for name in ("moments", "gradients", "second")
)


def embedded_moments(net: ScalarNet, rows: Tensor, kinds: Tensor) -> Tensor | None:
    """D (n, 4, m) from rows (n, k, 4) and kinds (n, k); None where compiled code has no such net."""
    later = net.net.layers[1:]
    if loops(rows) is None or not later or net.strip is not None:
        return None
    weights = [w for layer in later for w in (layer.matrix, layer.bias)]
    return _Moments.apply(rows, kinds.expand(rows.shape[:2]), later, net.table, net.slope, *weights)[0]


def _loops(like: Tensor) -> Loops:
    found = loops(like)
    assert found is not None
    return found


class _Pairs(NamedTuple):
    """The slots of a table (n, k, 4) that hold something, one behind the other, and how they are worked on.

    chosen (P,): slots of the flattened table; rows (P, 4); kinds (P,); begins (n + 1,): where the pairs of
    each atom begin; blocks: where the atoms of each block begin; shape: of the table.
    """

    chosen: Tensor
    rows: Tensor
    kinds: Tensor
    begins: np.ndarray
    blocks: np.ndarray
    shape: torch.Size

    @staticmethod
    def of(rows: Tensor, kinds: Tensor) -> _Pairs:
        used = (rows != 0).any(dim=2)
        chosen = used.flatten().nonzero().squeeze(1)
        begins = np.concatenate([[0], used.sum(dim=1).cumsum(0).numpy()])
        number = begins[:-1] // _ROWS
        blocks = np.concatenate([[0], np.flatnonzero(np.diff(number)) + 1, [len(rows)]])
        flat = rows.reshape(-1, 4).index_select(0, chosen)
        return _Pairs(chosen, flat, kinds.reshape(-1)[chosen], begins, blocks, rows.shape)

    @property
    def parts(self) -> int:
        """Threads."""
        return max(1, min(WORKERS.count, len(self.blocks) - 1))

    def run(self, kernel: Callable[..., None], *given: Given) -> None:
        """A kernel over all blocks, on all threads."""
        product = _loops(self.rows).product
        parts, lists = self.parts, (Ready(self.blocks), Ready(self.begins), Ready(self.rows))
        WORKERS.run(lambda part: kernel(product, part, parts, *lists, *given), [(k,) for k in range(parts)])

    def taken(self, table: Tensor) -> Tensor:
        """(n, k, 4) -> (P, 4)"""
        return table.reshape(-1, 4).index_select(0, self.chosen)

    def padded(self, values: Tensor) -> Tensor:
        """(P, 4) -> (n, k, 4)"""
        return values.new_zeros(self.shape).view(-1, 4).index_copy_(0, self.chosen, values).view(self.shape)


class _Weights(NamedTuple):
    """The net as the loops take it."""

    slope: Tensor
    matrices: tuple[Tensor, ...]
    skips: tuple[int, ...]

    @staticmethod
    def of(slope: Tensor, matrices: Sequence[Tensor], layers: Sequence[Layer]) -> _Weights:
        skips = tuple(layer.skip for layer in layers)
        return _Weights(slope.contiguous(), tuple(w.contiguous() for w in matrices), skips)

    def empty(self, rows: int) -> Tensor:
        """Room for the layers of so many pairs, one behind the other."""
        return self.slope.new_empty(rows * (len(self.slope) + sum(w.shape[1] for w in self.matrices)))

    def zeros(self, parts: int) -> Tensor:
        """Room for the gradients of the matrices."""
        return self.slope.new_zeros(parts, sum(w.numel() for w in self.matrices))

    def split(self, of_matrices: Tensor) -> list[Tensor]:
        """The gradient of each matrix."""
        flat = total(of_matrices).split([w.numel() for w in self.matrices])
        return [part.view(w.shape) for part, w in zip(flat, self.matrices)]


class _Moments(torch.autograd.Function):
    """Returns the moments and the values of tanh of all layers."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, kinds: Tensor, layers: Sequence[Layer], table: Tensor, slope: Tensor,
        *later: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        pairs, net = _Pairs.of(rows, kinds), _Weights.of(slope, later[::2], layers)
        values = net.empty(len(pairs.rows))
        out = rows.new_zeros(len(rows), 4, later[-1].shape[0])
        biases = tuple(bias.contiguous() for bias in later[1::2])
        terms = _loops(rows).terms
        given = (net.slope, table.contiguous(), net.matrices, biases, net.skips, terms)
        pairs.run(MOMENTS, pairs.kinds, *given, values, out)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, kinds, table, slope, *later, values)
        ctx.pairs, ctx.layers = pairs, layers
        return out, values

    @staticmethod
    def backward(ctx: Any, grad: Grad, more: Grad) -> tuple[Any, ...]:
        if not torch.is_grad_enabled() or grad is None or more is not None:
            return _gradients(ctx, grad, more)
        rows, kinds, table, slope, *later, values = ctx.saved_tensors
        if any(wanted(ctx)[2:]):
            g = tanh_embedding(rows[..., 0].reshape(-1), kinds.reshape(-1), table, slope, ctx.layers)
            value = torch.bmm(rows.transpose(1, 2), g.view(*kinds.shape, -1))
            of_rows, *rest = by_formula(value, (rows, table, slope, *later), grad)
            return of_rows, None, None, *rest
        of_rows = _MomentsGradient.apply(grad, rows, values, ctx.pairs, ctx.layers, slope, *later[::2])
        return of_rows, *[None] * (4 + len(later))


@torch.autograd.function.once_differentiable
def _gradients(ctx: Any, grad: Grad, more: Grad) -> tuple[Any, ...]:
    _, _, table, slope, *later, values = ctx.saved_tensors
    of_rows, _, *of_weights = wanted(ctx)
    pairs, net = ctx.pairs, _Weights.of(slope, later[::2], ctx.layers)
    if grad is None:
        grad = values.new_zeros(pairs.shape[0], 4, later[-1].shape[0])
    parts = pairs.parts if any(of_weights) else 0
    numbers = [slope.numel(), table.numel(), *map(len, later[1::2])]
    to_rows, to_matrices = torch.empty_like(pairs.rows[: len(pairs.rows) * of_rows]), net.zeros(parts)
    sums = values.new_zeros(parts, sum(numbers), dtype=torch.float64)
    nothing = values.new_empty(0)
    given = (pairs.kinds, *net, values, grad.contiguous(), nothing if more is None else more, nothing)
    pairs.run(GRADIENTS, *given, to_rows, to_matrices, sums)
    to_weights: list[Grad] = [None] * (2 + len(later))
    if parts:
        to_slope, to_table, *to_biases = total(sums).to(values.dtype).split(numbers)
        layers = zip(net.split(to_matrices), to_biases)
        to_weights = [to_table.view(table.shape), to_slope, *(w for layer in layers for w in layer)]
    return pairs.padded(to_rows) if of_rows else None, None, None, *to_weights


class _MomentsGradient(torch.autograd.Function):
    """Gradient of the rows, (n, k, 4)."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, rows: Tensor, values: Tensor, pairs: _Pairs, layers: Sequence[Layer],
        slope: Tensor, *matrices: Tensor,
    ) -> Tensor:  # fmt: skip
        net, grad = _Weights.of(slope, matrices, layers), grad.contiguous()
        inners, of_rows = torch.empty_like(values), torch.empty_like(pairs.rows)
        nothing = values.new_empty(0)
        given = (pairs.kinds, *net, values, grad, nothing, inners, of_rows)
        pairs.run(GRADIENTS, *given, net.zeros(0), values.new_empty(0, 0, dtype=torch.float64))
        ctx.save_for_backward(grad, values, slope, *matrices, inners)
        ctx.pairs, ctx.layers = pairs, layers
        return pairs.padded(of_rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, change: Tensor) -> tuple[Any, ...]:
        grad, values, slope, *matrices, inners = ctx.saved_tensors
        _, of_rows, of_values, of_slope, *of_matrices = wanted(ctx)
        pairs, net = ctx.pairs, _Weights.of(slope, matrices, ctx.layers)
        to_grad = torch.zeros_like(grad)
        to_rows = torch.empty_like(pairs.rows[: len(pairs.rows) * of_rows])
        more = torch.empty_like(values) if of_values else values.new_empty(0)
        parts = pairs.parts if of_slope or any(of_matrices) else 0
        to_matrices, to_slope = net.zeros(parts), values.new_zeros(parts, len(slope), dtype=torch.float64)
        given = (*net, values, grad, inners, pairs.taken(change), to_grad, to_rows, more)
        pairs.run(SECOND, *given, to_matrices, to_slope)
        to_weights: list[Grad] = [None] * (1 + len(matrices))
        if parts:
            to_weights = [total(to_slope).to(values.dtype), *net.split(to_matrices)]
        of = pairs.padded(to_rows) if of_rows else None
        return to_grad, of, more if of_values else None, None, None, *to_weights
