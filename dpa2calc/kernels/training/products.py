"""Products of the two atoms of every pair, for training; derivatives by hand (see `second_order`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dpa2calc.kernels.blocks import total
from dpa2calc.kernels.native import Given, Native, constant
from dpa2calc.kernels.threads import WORKERS
from dpa2calc.kernels.training.pair_list import ListPairs
from dpa2calc.kernels.training.second_order import Grad, wanted

_PRODUCTS, _GRADIENTS = (Native("training.loops_numba", name) for name in ("products", "product_gradients"))


def pair_products(g1: Tensor, pairs: ListPairs) -> Tensor:
    """g1_i * g1_j, element by element: (n, d) -> (P, d)."""
    return _Products.apply(g1, pairs)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g1: Tensor, pairs: ListPairs) -> Tensor:
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
    def forward(ctx: Any, grad: Tensor, g1: Tensor, pairs: ListPairs) -> Tensor:
        ctx.save_for_backward(grad, g1)
        ctx.pairs = pairs
        return _gradient(grad, g1, pairs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, tangent: Tensor) -> tuple[Tensor, Grad, None]:
        grad, g1 = ctx.saved_tensors
        to_g1 = _gradient(grad, tangent, ctx.pairs) if wanted(ctx)[1] else None
        return _symmetric(tangent, g1, ctx.pairs), to_g1, None


def _symmetric(x: Tensor, y: Tensor, pairs: ListPairs) -> Tensor:
    """x_i * y_j + x_j * y_i: (n, d), (n, d) -> (P, d)."""
    out = x.new_empty(len(pairs.others), x.shape[1])
    lists = pairs.first, pairs.counts, pairs.others
    over_atoms(_PRODUCTS, len(x), lists, *flat(x, y, out), constant(x.shape[1]))
    return out


def _gradient(grad: Tensor, x: Tensor, pairs: ListPairs) -> Tensor:
    """Gradient of g1 from that of its products: (P, d), (n, d) -> (n, d)."""
    lists = pairs.first, pairs.counts, pairs.others
    return summed(_GRADIENTS, len(x), x, lists, *flat(grad, x))


def flat(*values: Grad) -> list[Tensor]:
    """As the loops take them, in the same memory where they are contiguous; None is empty."""
    like = next(x for x in values if x is not None)
    return [like.new_empty(0) if x is None else x.detach().reshape(-1) for x in values]


def over_atoms(kernel: Native, n: int, *given: Given, least: int = 16) -> None:
    """A kernel for n atoms, on all threads."""
    WORKERS.split(lambda start, stop: kernel(start, stop, *given), n, least=least)


def summed(kernel: Native, n: int, x: Tensor, *given: Given) -> Tensor:
    """What a kernel for n atoms adds to rows like x (rows, d): by thread, as pairs share neighbours."""
    parts, size = WORKERS.parts(n, least=16), constant(x.shape[1])
    out = x.new_zeros(len(parts), *x.shape)
    WORKERS.run(kernel, [(*bounds, *given, *flat(to), size) for bounds, to in zip(parts, out)])
    return total(out)
