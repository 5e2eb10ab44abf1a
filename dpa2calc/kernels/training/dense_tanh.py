"""Layers x -> tanh(xW + b) for training on forces: first and second derivatives by hand, in few passes.

`_Dense` and `_DenseGradient` are a pair as described in `second_order`; the values of tanh are what passes
from the first to the second.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dpa2calc.kernels.net import tanh_of, through
from dpa2calc.kernels.training.second_order import Grad, wanted


def tanh_dense(x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """tanh(x @ matrix + bias): (r, n_in) -> (r, n_out)."""
    return _Dense.apply(x, matrix, bias)


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
            torch.mul(t, grad).mul_(z).mul_(-2.0) if to_t else None,  # of sum(z * grad * (1 - t^2))
            tangent.t() @ inner if to_matrix else None,
        )
