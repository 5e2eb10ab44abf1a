"""Products of the two atoms of every pair, for training; derivatives by hand (see `second_order`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dpa2calc.kernels.threads import WORKERS
from dpa2calc.kernels.training.pair_list import FlatPairs
from dpa2calc.kernels.training.second_order import Grad, wanted


def pair_products(g1: Tensor, pairs: FlatPairs) -> Tensor:
    """g1_i * g1_j, element by element: (n, d) -> (P, d)."""
    return _Products.apply(g1, pairs)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g1: Tensor, pairs: FlatPairs) -> Tensor:
        ctx.save_for_backward(g1)
        ctx.pairs = pairs
        return _symmetric(g1, 0.5 * g1, pairs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (g1,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _ProductsGradient.apply(grad, g1, ctx.pairs), None
        return _gradient(grad, g1, ctx.pairs), None


class _ProductsGradient(torch.autograd.Function):
    """Linear in each of grad and g1, and symmetric: the tangent takes the place of g1."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, g1: Tensor, pairs: FlatPairs) -> Tensor:
        ctx.save_for_backward(grad, g1)
        ctx.pairs = pairs
        return _gradient(grad, g1, pairs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, tangent: Tensor) -> tuple[Tensor, Grad, None]:
        grad, g1 = ctx.saved_tensors
        to_g1 = _gradient(grad, tangent, ctx.pairs) if wanted(ctx)[1] else None
        return _symmetric(tangent, g1, ctx.pairs), to_g1, None


def _flat(values: Tensor) -> Any:
    return values.detach().reshape(-1).numpy()


def _symmetric(x: Tensor, y: Tensor, pairs: FlatPairs) -> Tensor:
    """x_i * y_j + x_j * y_i: (n, d), (n, d) -> (P, d)."""
    from dpa2calc.kernels.native import constant
    from dpa2calc.kernels.training.loops_numba import products

    out = x.new_empty(len(pairs.others), x.shape[1])
    kernel: Any = products
    given = (pairs.first, pairs.count, pairs.others, _flat(x), _flat(y), _flat(out), constant(x.shape[1]))
    WORKERS.split(lambda start, stop: kernel(start, stop, *given), len(x), least=16)
    return out


def _gradient(grad: Tensor, x: Tensor, pairs: FlatPairs) -> Tensor:
    """Gradient of g1 from that of its products: (P, d), (n, d) -> (n, d)."""
    from dpa2calc.kernels.native import constant
    from dpa2calc.kernels.training.loops_numba import product_gradients

    parts = WORKERS.parts(len(x), least=16)
    out = x.new_zeros(len(parts), *x.shape)  # by thread: several pairs have the same neighbour
    given = (pairs.first, pairs.count, pairs.others, _flat(grad), _flat(x))
    kernel: Any = product_gradients
    tasks = [(*bounds, *given, _flat(out[part]), constant(x.shape[1])) for part, bounds in enumerate(parts)]
    WORKERS.run(kernel, tasks)
    return out[0] if len(parts) == 1 else out.sum(dim=0)
