"""Tabulated embedding fused with its contraction, for dense rows of neighbours (autograd, CPU and CUDA)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dpa2calc.kernels.native import Native, constant
from dpa2calc.kernels.tables.table import EmbeddingTable
from dpa2calc.kernels.threads import Workers

_MOMENTS = Native("tables.numba_loops", "moments_of_rows")
_GRADIENTS = Native("tables.numba_loops", "gradients_of_rows")


class TabulatedEmbedding:
    """A table with the threads that work on it; `moments` is sum_j R_j (x) G_j."""

    def __init__(self, table: EmbeddingTable) -> None:
        self.table = table
        self.workers = Workers()

    def moments(
        self, rows: Tensor, lines: Tensor, strip: Tensor | None = None, factor: Tensor | None = None
    ) -> Tensor:
        """(n, 4, size) from rows (n, k, 4), the number of each neighbour's table line (n, k).

        Args:
            strip: (p, size); then there is one line, `lines` picks a row of `strip`, and G is
                S (1 + strip * factor).
            factor: (n, k), or None for 1.

        Raises:
            StructureError: a neighbour closer than the table begins.
        """
        apply = TableMoments.apply if rows.is_cpu else DeviceMoments.apply
        return apply(rows, lines, strip, factor, self)

    def __deepcopy__(self, memo: dict[int, Any]) -> TabulatedEmbedding:
        return TabulatedEmbedding(self.table)  # a table is never changed


class TableMoments(torch.autograd.Function):
    """Forward and backward by the compiled kernels; may be differentiated once."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        lines: Tensor,
        strip: Tensor | None,
        factor: Tensor | None,
        embedding: TabulatedEmbedding,
    ) -> Tensor:
        table = embedding.table
        table.check(rows.detach())
        rows = rows.detach().contiguous()
        width = table.width(rows.dtype)
        out = rows.new_empty(rows.shape[0], 4 * width)
        ctx.arrays = _arrays(rows, lines, strip, factor, table)
        ctx.embedding, ctx.like = embedding, rows
        ctx.has_factor = strip is not None and factor is not None
        arrays = (*ctx.arrays, out, constant(width))
        embedding.workers.split(lambda a, b: _MOMENTS(a, b, *arrays), rows.shape[0], least=16)
        return out.view(-1, 4, width)[..., : table.size]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_moments: Tensor) -> tuple[Tensor | None, ...]:
        table = ctx.embedding.table
        width = table.width(grad_moments.dtype)
        grad = F.pad(grad_moments, (0, width - table.size)).reshape(-1, 4 * width)
        grad_rows = torch.empty_like(ctx.like)
        grad_factor = torch.empty_like(ctx.like[..., 0])
        arrays = (*ctx.arrays, grad, grad_rows, grad_factor, constant(width))
        ctx.embedding.workers.split(lambda a, b: _GRADIENTS(a, b, *arrays), grad.shape[0], least=16)
        ctx.arrays = None
        return grad_rows, None, None, grad_factor if ctx.has_factor else None, None


class DeviceMoments(torch.autograd.Function):
    """The same on a CUDA device, by `table_triton.py`."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        lines: Tensor,
        strip: Tensor | None,
        factor: Tensor | None,
        embedding: TabulatedEmbedding,
    ) -> Tensor:
        from dpa2calc.kernels.tables.triton_loops import TableArguments

        if not torch.cuda.is_current_stream_capturing():  # whoever records looks at the distances
            embedding.table.check(rows.detach())
        ctx.arguments = TableArguments.of(rows, lines, strip, factor, embedding.table)
        return ctx.arguments.moments()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_moments: Tensor) -> tuple[Tensor | None, ...]:
        arguments = ctx.arguments
        grad_rows, grad_factor = arguments.gradients(grad_moments)
        return grad_rows, None, None, None if arguments.factor is None else grad_factor, None


def _arrays(
    rows: Tensor, lines: Tensor, strip: Tensor | None, factor: Tensor | None, table: EmbeddingTable
) -> tuple[Any, ...]:
    """The arguments that both kernels share."""
    index = lines.expand(rows.shape[:2]).contiguous()
    if strip is None:
        first, strips = index * table.n_nodes, rows.new_empty(0, 0)
        factors = rows.new_empty(0, 0)
    else:
        more = table.width(rows.dtype) - table.size
        first, strips = torch.zeros_like(index), F.pad(strip.detach().to(rows.dtype), (0, more)).contiguous()
        factors = torch.ones_like(rows[..., 0]) if factor is None else factor.detach().contiguous()
    return (
        rows,
        first,
        table.flat(rows.dtype),
        table.grid,
        strips,
        factors,
        index,
    )
