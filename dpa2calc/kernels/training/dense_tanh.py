"""Layers x -> tanh(xW + b) for training on forces: first and second derivatives by hand, in few passes.

`_Dense` and `_DenseGradient`, `_Embedding` and `_EmbeddingGradient` are pairs as described in
`second_order`; the values of tanh are what passes from the first to the second.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dpa2calc.kernels.net import ScalarNet, add_copies, sum_copies, tanh_, tanh_of, through
from dpa2calc.kernels.training.second_order import Grad, wanted


def tanh_dense(x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """tanh(x @ matrix + bias): (r, n_in) -> (r, n_out)."""
    return _Dense.apply(x, matrix, bias)


def tanh_embedding(s: Tensor, index: Tensor, net: ScalarNet) -> Tensor:
    """Embedding of scalars: (r,) -> (r, width).

    x_1 = tanh(s slope + table[index]); x_l = tanh(x_{l-1} W_l + b_l) + `skip` copies of x_{l-1}.

    Args:
        s: (r,). index: (r,) rows of the net's table (p, m1). net: without scales and strip.
    """
    return _Embedding.apply(s, index, net.skips, *net.weights)[0]


def _curvature(grad: Tensor, t: Tensor, z: Tensor) -> Tensor:
    """Gradient of sum(z * grad * (1 - t^2)) with respect to t."""
    return torch.mul(t, grad).mul_(z).mul_(-2.0)


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        t = tanh_of(x, matrix, bias)
        ctx.save_for_backward(x, matrix, t)
        return t

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Grad, Grad, Grad]:
        x, matrix, t = ctx.saved_tensors
        of_x, of_matrix, of_bias = wanted(ctx)
        recorded = torch.is_grad_enabled() and of_x
        inner = through(grad, t) if of_matrix or of_bias or not recorded else t
        return (
            _DenseGradient.apply(grad, t, matrix) if recorded else inner @ matrix.t() if of_x else None,
            x.t() @ inner if of_matrix else None,
            inner.sum(dim=0) if of_bias else None,
        )


class _DenseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, t: Tensor, matrix: Tensor) -> Tensor:
        inner = through(grad, t)
        ctx.save_for_backward(grad, t, matrix, inner)
        return inner @ matrix.t()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, tangent: Tensor) -> tuple[Grad, Grad, Grad]:
        grad, t, matrix, inner = ctx.saved_tensors
        to_grad, to_t, to_matrix = wanted(ctx)
        z = tangent @ matrix
        return (
            through(z, t) if to_grad else None,
            _curvature(grad, t, z) if to_t else None,
            tangent.t() @ inner if to_matrix else None,
        )


class _Embedding(torch.autograd.Function):
    """Returns the embedding and the values of tanh of all layers."""

    @staticmethod
    def forward(
        ctx: Any,
        s: Tensor,
        index: Tensor,
        skips: tuple[int, ...],
        slope: Tensor,
        table: Tensor,
        *later: Tensor,
    ) -> tuple[Tensor, ...]:
        z = table.index_select(0, index).addcmul_(s.unsqueeze(1), slope)
        x = tanh_(z.mul_(2.0))
        values, inputs = [x], []
        for matrix, bias, skip in zip(later[::2], later[1::2], skips):
            t = tanh_of(x, matrix, bias)
            values.append(t)
            inputs.append(x)
            x = add_copies(t.clone(), x, skip)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(s, index, slope, table, *later, *values, *inputs)
        ctx.skips = skips
        return x, *values

    @staticmethod
    def backward(ctx: Any, grad: Grad, *of_values: Grad) -> tuple[Any, ...]:
        n = len(ctx.skips)
        _, _, slope, _, *rest = ctx.saved_tensors
        if any(part is not None for part in of_values):
            return torch.autograd.function.once_differentiable(_embedding_gradients)(ctx, grad, *of_values)
        if not torch.is_grad_enabled() or any(wanted(ctx)[2:]):
            return _embedding_gradients(ctx, grad, *of_values)
        later, values = rest[: 2 * n], rest[2 * n : 3 * n + 1]
        of_s = _EmbeddingGradient.apply(grad, ctx.skips, slope, *later[::2], *values)
        return of_s, *[None] * (4 + 2 * n)


def _embedding_gradients(ctx: Any, grad: Grad, *of_values: Grad) -> tuple[Any, ...]:
    n = len(ctx.skips)
    s, index, slope, table, *rest = ctx.saved_tensors
    later, values, inputs = rest[: 2 * n], rest[2 * n : 3 * n + 1], rest[3 * n + 1 :]
    if grad is None:
        grad = values[-1].new_zeros(values[-1].shape)
    if torch.is_grad_enabled():  # by plain operations on what has a derivative
        inputs = [values[0]]
        for t, skip in zip(values[1:], ctx.skips):
            inputs.append(t + torch.cat([inputs[-1]] * skip, dim=1) if skip else t)
    weights: list[Tensor] = []
    for layer in range(n - 1, -1, -1):
        inner = through(_joined(grad, of_values[layer + 1]), values[layer + 1])
        weights[:0] = [inputs[layer].t() @ inner, inner.sum(dim=0)]
        grad = sum_copies(grad, ctx.skips[layer], inner @ later[2 * layer].t())
    inner = through(_joined(grad, of_values[0]), values[0])
    of_s = inner @ slope if wanted(ctx)[0] else None
    of_table = torch.zeros_like(table).index_add(0, index, inner)
    return of_s, None, None, _weighted_sum(s, inner), of_table, *weights


def _joined(grad: Tensor, more: Grad) -> Tensor:
    return grad if more is None else grad + more


def _weighted_sum(weights: Tensor, rows: Tensor) -> Tensor:
    """weights @ rows; in float32 a hundred times more exact for thousands of rows."""
    return (weights.unsqueeze(1) * rows).sum(dim=0)


class _EmbeddingGradient(torch.autograd.Function):
    """Gradient of the scalars, (r,)."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, skips: tuple[int, ...], slope: Tensor, *rest: Tensor) -> Tensor:
        n = len(skips)
        matrices, values = rest[:n], rest[n:]
        grads, inners = [grad], [through(grad, values[n])]
        for layer in range(n - 1, -1, -1):
            grads.append(sum_copies(grads[-1], skips[layer], inners[-1] @ matrices[layer].t()))
            inners.append(through(grads[-1], values[layer]))
        ctx.save_for_backward(slope, *matrices, *values, *reversed(grads), *reversed(inners))
        ctx.skips = skips
        return inners[-1] @ slope

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, tangent: Tensor) -> tuple[Any, ...]:
        n = len(ctx.skips)
        slope, *rest = ctx.saved_tensors
        matrices, values = rest[:n], rest[n : 2 * n + 1]
        grads, inners = rest[2 * n + 1 : 3 * n + 2], rest[3 * n + 2 :]
        _, to_slope, *to_rest = wanted(ctx)
        to_matrices, to_values = to_rest[:n], to_rest[n:]
        z = tangent.unsqueeze(1) * slope
        of_values = [_curvature(grads[0], values[0], z) if to_values[0] else None]
        of_matrices: list[Grad] = []
        x = through(z, values[0])
        for layer, skip in enumerate(ctx.skips):
            of_matrices.append(x.t() @ inners[layer + 1] if to_matrices[layer] else None)
            z, t = x @ matrices[layer], values[layer + 1]
            of_values.append(_curvature(grads[layer + 1], t, z) if to_values[layer + 1] else None)
            x = add_copies(through(z, t), x, skip)
        of_slope = _weighted_sum(tangent, inners[0]) if to_slope else None
        return x, None, of_slope, *of_matrices, *of_values
