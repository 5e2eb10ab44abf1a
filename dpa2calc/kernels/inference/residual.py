"""The own update of the repformer's pairs for inference, x + scale * tanh(x W + b), in blocks.

Only the input is kept: the values of tanh are computed again in the backward pass, which costs less than
a fresh array of them. Same numbers as the plain formula up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dpa2calc.kernels.blocks import consecutive
from dpa2calc.kernels.net import tanh_of, through

_BLOCK_BYTES = 400_000  # a thread; one block of rows


class TanhStep(torch.autograd.Function):
    """x (r, d), matrix (d, d), bias (d,), scale (d,) -> x + scale * tanh(x @ matrix + bias).

    Only x gets a gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        out = torch.empty_like(x)
        ctx.blocks = consecutive(len(x), x, x.shape[1], _BLOCK_BYTES)

        def work(_: int, rows: slice, part: int) -> None:
            torch.addcmul(x[rows], tanh_of(x[rows], matrix, bias), scale, out=out[rows])

        ctx.blocks.each(work)
        ctx.save_for_backward(x, matrix, bias, scale)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix, bias, scale = ctx.saved_tensors
        out, back = torch.empty_like(x), matrix.t().contiguous()
        grad = grad.contiguous()

        def work(_: int, rows: slice, part: int) -> None:
            inner = through(grad[rows] * scale, tanh_of(x[rows], matrix, bias))
            torch.addmm(grad[rows], inner, back, out=out[rows])

        ctx.blocks.each(work)
        return out, None, None, None
