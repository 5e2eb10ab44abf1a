"""Embedded moments for training: net and sum in one, block by block; derivatives by hand.

D_i = sum_j R_ij (x) G(R_ij,0; types). `_Moments` and `_MomentsGradient` are a pair as described in
`second_order`; the values of tanh are what passes from the first to the second, and what comes back as their
gradient is that of what tanh is taken of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpa2calc.kernels.inference.compiled import Layers, has_loops, run
from dpa2calc.kernels.native import Native
from dpa2calc.kernels.net import ScalarNet
from dpa2calc.kernels.reference import Reference
from dpa2calc.kernels.threads import WORKERS
from dpa2calc.kernels.training.second_order import Grad, by_formula, by_weight, wanted

_ROWS = 256  # pairs of a block
_MOMENTS, _GRADIENTS, _SECOND = (
    Native("training.moment_loops", name) for name in ("moments", "gradients", "second")
)


def embedded_moments(net: ScalarNet, rows: Tensor, kinds: Tensor) -> Tensor | None:
    """D (n, 4, m) from rows (n, k, 4) and kinds (n, k); None where compiled code has no such net."""
    if not has_loops(rows) or not net.skips or net.strip is not None:
        return None
    return _Moments.apply(rows, kinds.expand(rows.shape[:2]), net, *net.weights)[0]


class _Pairs(NamedTuple):
    """The slots of a table (n, k, 4) that hold something, one behind the other, and how they are worked on.

    chosen (P,): slots of the flattened table; shape: of the table. For the loops, blocks: where the atoms of
    each block begin; begins (n + 1,): where the pairs of each atom do; rows (P, 4); kinds (P,).
    """

    chosen: Tensor
    shape: torch.Size
    lists: tuple[np.ndarray, np.ndarray, Tensor, Tensor]

    @staticmethod
    def of(rows: Tensor, kinds: Tensor) -> _Pairs:
        used = (rows != 0).any(dim=2)
        chosen = used.flatten().nonzero().squeeze(1)
        begins = np.concatenate([[0], used.sum(dim=1).cumsum(0).numpy()])
        number = begins[:-1] // _ROWS
        blocks = np.concatenate([[0], np.flatnonzero(np.diff(number)) + 1, [len(rows)]])
        flat = rows.detach().reshape(-1, 4).index_select(0, chosen)
        return _Pairs(chosen, rows.shape, (blocks, begins, flat, kinds.reshape(-1)[chosen]))

    @property
    def rows(self) -> Tensor:
        """(P, 4)"""
        return self.lists[2]

    @property
    def parts(self) -> int:
        """Threads."""
        return max(1, min(WORKERS.count, len(self.lists[0]) - 1))

    def taken(self, table: Tensor) -> Tensor:
        """(n, k, 4) -> (P, 4)"""
        return table.reshape(-1, 4).index_select(0, self.chosen)

    def padded(self, values: Tensor) -> Tensor:
        """(P, 4) -> (n, k, 4)"""
        return values.new_zeros(self.shape).view(-1, 4).index_copy_(0, self.chosen, values).view(self.shape)


class _Moments(torch.autograd.Function):
    """Returns the moments and the values of tanh of all layers."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, kinds: Tensor, net: ScalarNet, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        pairs = _Pairs.of(rows, kinds)
        values = rows.new_empty(len(pairs.rows) * sum(layer.matrix.shape[1] for layer in net.net.layers))
        out = rows.new_zeros(len(rows), 4, net.width)
        run(_MOMENTS, pairs.parts, rows, pairs.lists, Layers.of(weights, net.skips), values, out)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, kinds, *weights, values)
        ctx.pairs, ctx.net = pairs, net
        return out, values

    @staticmethod
    def backward(ctx: Any, grad: Grad, more: Grad) -> tuple[Any, ...]:
        if not torch.is_grad_enabled() or grad is None or more is not None:
            return _gradients(ctx, grad, more)
        rows, kinds, *weights, values = ctx.saved_tensors
        if any(wanted(ctx)[2:]):
            value = Reference().embedded_moments(ctx.net, rows, kinds, None)
            of_rows, *rest = by_formula(value, (rows, *weights), grad)
            return of_rows, None, None, *rest
        of_rows = _MomentsGradient.apply(grad, rows, values, ctx.pairs, ctx.net.skips, *weights)
        return of_rows, None, None, *[None] * len(weights)


@torch.autograd.function.once_differentiable
def _gradients(ctx: Any, grad: Grad, more: Grad) -> tuple[Any, ...]:
    _, _, *weights, values = ctx.saved_tensors
    of_rows, _, *of_weights = wanted(ctx)
    pairs, net = ctx.pairs, Layers.of(weights, ctx.net.skips)
    if grad is None:
        grad = values.new_zeros(pairs.shape[0], 4, ctx.net.width)
    parts, matrices = pairs.parts if any(of_weights) else 0, weights[2::2]
    first = *weights[:2], *weights[3::2]
    to_rows = torch.empty_like(pairs.rows[: len(pairs.rows) * of_rows])
    to_matrices, sums = _room(parts, matrices), _room(parts, first, torch.float64)
    nothing = values.new_empty(0)
    given = values, grad.contiguous(), nothing if more is None else more, nothing, to_rows, to_matrices, sums
    run(_GRADIENTS, pairs.parts, values, pairs.lists, net, *given)
    to_weights: list[Grad] = [None] * len(weights)
    if parts:
        to_slope, to_table, *to_weights[3::2] = by_weight(sums, first)
        to_weights[:2] = to_slope, to_table
        to_weights[2::2] = by_weight(to_matrices, matrices)
    return pairs.padded(to_rows) if of_rows else None, None, None, *to_weights


def _room(parts: int, weights: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """Zeros to add gradients of weights to, by thread."""
    return weights[0].new_zeros(parts, sum(w.numel() for w in weights), dtype=dtype)


class _MomentsGradient(torch.autograd.Function):
    """Gradient of the rows, (n, k, 4)."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, rows: Tensor, values: Tensor, pairs: _Pairs, skips: tuple[int, ...],
        *weights: Tensor,
    ) -> Tensor:  # fmt: skip
        net, grad = Layers.of(weights, skips), grad.contiguous()
        inners, of_rows = torch.empty_like(values), torch.empty_like(pairs.rows)
        nothing, no_sums = values.new_empty(0), values.new_empty(0, 0, dtype=torch.float64)
        given = values, grad, nothing, inners, of_rows, values.new_empty(0, 0), no_sums
        run(_GRADIENTS, pairs.parts, values, pairs.lists, net, *given)
        ctx.save_for_backward(grad, values, *weights, inners)
        ctx.pairs, ctx.skips = pairs, skips
        return pairs.padded(of_rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, change: Tensor) -> tuple[Any, ...]:
        grad, values, *weights, inners = ctx.saved_tensors
        _, of_rows, of_values, *of_weights = wanted(ctx)
        pairs, slope, matrices = ctx.pairs, weights[:1], weights[2::2]
        to_grad = torch.zeros_like(grad)
        to_rows = torch.empty_like(pairs.rows[: len(pairs.rows) * of_rows])
        more = torch.empty_like(values) if of_values else values.new_empty(0)
        parts = pairs.parts if of_weights[0] or any(of_weights[2::2]) else 0
        to_matrices, to_slope = _room(parts, matrices), _room(parts, slope, torch.float64)
        given = values, grad, inners, pairs.taken(change), to_grad, to_rows, more, to_matrices, to_slope
        run(_SECOND, pairs.parts, values, pairs.lists, Layers.of(weights, ctx.skips), *given)
        to_weights: list[Grad] = [None] * len(weights)
        if parts:
            to_weights[:1] = by_weight(to_slope, slope)
            to_weights[2::2] = by_weight(to_matrices, matrices)
        of = pairs.padded(to_rows) if of_rows else None
        return to_grad, of, more if of_values else None, None, None, *to_weights
