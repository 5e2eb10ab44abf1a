"""Sums over the neighbours of every atom by compiled kernels, for training: differentiable any number of times.

Both sums are linear in each of their factors, so every derivative is again one of the two operations
below, and no array of gathered neighbours is ever made.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpa2calc.model.threads import Workers

_workers = Workers()


@functools.cache
def has_numba() -> bool:
    """Whether compiled kernels are at hand."""
    return importlib.util.find_spec("numba") is not None


@dataclass(frozen=True)
class FlatPairs:
    """The pairs of all atoms in one list, those of an atom behind each other.

    chosen (P,): where the pairs are in a flattened (n, k) table; first, count (n,): the pairs of each
    atom; neighbors (P,): the other atom of each pair.
    """

    chosen: Tensor
    first: Tensor
    count: Tensor
    neighbors: Tensor

    @staticmethod
    def of(mask: Tensor, neighbors: Tensor) -> FlatPairs:
        """From a table: mask and neighbours (n, k)."""
        chosen = mask.reshape(-1).nonzero().squeeze(1)
        count = mask.sum(dim=1)
        return FlatPairs(chosen, count.cumsum(0) - count, count, neighbors.reshape(-1)[chosen])

    def own(self) -> FlatPairs:
        """The same pairs looking at their own rows of an array (P, ...) instead of at atoms."""
        rows = torch.arange(len(self.neighbors), device=self.neighbors.device)
        return FlatPairs(self.chosen, self.first, self.count, rows)

    def select(self, table: Tensor) -> Tensor:
        """(n, k, ...) -> (P, ...)"""
        return table.flatten(0, 1).index_select(0, self.chosen)


def neighbor_sums(u: Tensor | None, a: Tensor, x: Tensor, pairs: FlatPairs) -> tuple[Tensor | None, Tensor]:
    """y_i = sum_j u_ij * x_j, element by element, (n, d), and m_i = sum_j a_ij (x) x_j, (n, 3, d).

    Args:
        u: (P, d), or None: no y. a: (P, 3). x: (rows, d), by `pairs.neighbors`.
    """
    y, m = _Sums.apply(x.new_empty(0, x.shape[1]) if u is None else u, a, x, pairs)
    return (None if u is None else y), m


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, a: Tensor, x: Tensor, pairs: FlatPairs) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(u, a, x)
        ctx.pairs = pairs
        return _run_sums(((u, a, x),), pairs)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_m: Tensor) -> tuple[Tensor | None, ...]:
        u, a, x = ctx.saved_tensors
        return *_Gradients.apply(u, a, x, grad_y, grad_m, ctx.pairs), None


class _Gradients(torch.autograd.Function):
    """Gradients of u, a and x."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, a: Tensor, x: Tensor, grad_y: Tensor, grad_m: Tensor, pairs: FlatPairs
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(u, a, x, grad_y, grad_m)
        ctx.pairs = pairs
        return _run_gradients(u, a, x, grad_y, grad_m, pairs)

    @staticmethod
    def backward(ctx: Any, tu: Tensor, ta: Tensor, tx: Tensor) -> tuple[Tensor | None, ...]:
        u, a, x, grad_y, grad_m = ctx.saved_tensors
        if torch.is_grad_enabled():
            y, m = (p + q for p, q in zip(_Sums.apply(tu, ta, x, ctx.pairs), _Sums.apply(u, a, tx, ctx.pairs)))
        else:
            y, m = _run_sums(((tu, ta, x), (u, a, tx)), ctx.pairs)
        return *_Gradients.apply(tu, ta, tx, grad_y, grad_m, ctx.pairs), y, m, None


def _run_sums(terms: tuple[tuple[Tensor, Tensor, Tensor], ...], pairs: FlatPairs) -> tuple[Tensor, Tensor]:
    """The sum of several sums."""
    from dpa2calc.model.neighbor_kernels import sums
    from dpa2calc.model.table_kernels import constant

    n, size = len(pairs.first), terms[0][2].shape[1]
    m = terms[0][2].new_zeros(n, 3, size)
    y = terms[0][2].new_zeros(n if len(terms[0][0]) else 0, size)
    for term in terms:
        arrays = [_array(v) for v in (pairs.first, pairs.count, pairs.neighbors, *term, y, m)]
        _workers.split(lambda i, j: sums(i, j, *arrays, constant(size)), n, least=16)
    return y, m


def _run_gradients(
    u: Tensor, a: Tensor, x: Tensor, grad_y: Tensor, grad_m: Tensor, pairs: FlatPairs
) -> tuple[Tensor, Tensor, Tensor]:
    from dpa2calc.model.neighbor_kernels import gradients
    from dpa2calc.model.table_kernels import constant

    n, size = len(pairs.first), x.shape[1]
    grad_u, grad_a = torch.empty_like(u), torch.empty_like(a)
    parts = _workers.parts(n, least=16)
    grad_x = x.new_zeros(len(parts), *x.shape)  # by thread: several pairs have the same neighbour
    given = [_array(v) for v in (pairs.first, pairs.count, pairs.neighbors, u, a, x)]
    given += [_array(v) for v in (grad_y, grad_m, grad_u, grad_a)]
    sizes = constant(size)
    _workers.run(
        lambda i, j, part: gradients(i, j, *given, _array(grad_x[part]), sizes),
        [(*bounds, part) for part, bounds in enumerate(parts)],
    )
    return grad_u, grad_a, grad_x[0] if len(parts) == 1 else grad_x.sum(dim=0)


def _array(values: Tensor) -> Any:
    """Flat, as the kernels take it; in the same memory where it is contiguous."""
    return values.detach().reshape(-1).numpy()
