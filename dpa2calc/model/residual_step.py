"""The own update of the repformer's pairs for inference, x + scale * tanh(x W + b), in blocks.

Only the input is kept: the values of tanh are computed again in the backward pass, which costs less than
a fresh array of them. Same numbers as the plain formula up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dpa2calc.model.blocks import block_length
from dpa2calc.model.tanh_nets import tanh_of

_BLOCK_BYTES = 400_000  # a thread; one block of rows


class TanhStep(torch.autograd.Function):
    """x (r, d), matrix (d, d), bias (d,), scale (d,) -> x + scale * tanh(x @ matrix + bias).

    Only x gets a gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        out = torch.empty_like(x)
        ctx.step = block_length(x, x.shape[1], _BLOCK_BYTES)
        for block, result in zip(x.split(ctx.step), out.split(ctx.step)):
            torch.addcmul(block, tanh_of(block, matrix, bias), scale, out=result)
        ctx.save_for_backward(x, matrix, bias, scale)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix, bias, scale = ctx.saved_tensors
        out, back = torch.empty_like(x), matrix.t().contiguous()
        grad = grad.contiguous()
        for block, of_block, result in zip(*(a.split(ctx.step) for a in (x, grad, out))):
            t = tanh_of(block, matrix, bias)
            torch.addmm(of_block, torch.ops.aten.tanh_backward(of_block * scale, t), back, out=result)
        return out, None, None, None
