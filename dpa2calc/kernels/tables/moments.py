"""Tabulated embedding fused with its contraction, for dense rows of neighbours (autograd, CPU and CUDA)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

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
        if rows.is_cpu or not torch.cuda.is_current_stream_capturing():  # whoever records looks at distances
            self.table.check(rows.detach())
        of_strip = None if strip is None else factor
        return _Moments.apply(rows, of_strip, self.sums(rows.detach(), lines, strip, of_strip))

    def sums(self, rows: Tensor, lines: Tensor, strip: Tensor | None, factor: Tensor | None) -> Sums:
        """The kernels of the device, with their arguments."""
        if rows.is_cpu:
            return RowSums.of(rows, lines, strip, factor, self)
        from .triton_loops import TableArguments

        return TableArguments.of(rows, lines, strip, factor, self.table)

    def __deepcopy__(self, memo: dict[int, Any]) -> TabulatedEmbedding:
        return TabulatedEmbedding(self.table)  # a table is never changed


class Sums(Protocol):
    """Sums over neighbours on some device."""

    def moments(self) -> Tensor:
        """sum_j R_j (x) G_j, (n, 4, size)."""

    def gradients(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of rows (n, k, 4) and factors, if there are any, from those of the moments."""


class _Moments(torch.autograd.Function):
    """Forward and backward by the kernels; may be differentiated once."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, factor: Tensor | None, sums: Sums) -> Tensor:
        ctx.sums, ctx.has_factor = sums, factor is not None
        return sums.moments()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_moments: Tensor) -> tuple[Tensor | None, ...]:
        grad_rows, grad_factor = ctx.sums.gradients(grad_moments)
        return grad_rows, grad_factor if ctx.has_factor else None, None


@dataclass(frozen=True)
class RowSums:
    """The compiled kernels on a CPU; arrays: what both read, see `moments_of_rows`."""

    arrays: tuple[Any, ...]
    embedding: TabulatedEmbedding

    @staticmethod
    def of(
        rows: Tensor,
        lines: Tensor,
        strip: Tensor | None,
        factor: Tensor | None,
        embedding: TabulatedEmbedding,
    ) -> RowSums:
        """Contiguous, channels in whole cache lines."""
        table, index = embedding.table, lines.expand(rows.shape[:2]).contiguous()
        first, strips, factors = index * table.n_nodes, rows.new_empty(0, 0), rows.new_empty(0, 0)
        if strip is not None:
            more = table.width(rows.dtype) - table.size
            first, strips = torch.zeros_like(index), F.pad(strip.detach().to(rows.dtype), (0, more))
            factors = torch.ones_like(rows[..., 0]) if factor is None else factor.detach()
        rest = strips.contiguous(), factors.contiguous(), index
        return RowSums((rows.contiguous(), first, table.flat(rows.dtype), table.grid, *rest), embedding)

    def moments(self) -> Tensor:
        """sum_j R_j (x) G_j, (n, 4, size)."""
        rows, table = self.arrays[0], self.embedding.table
        width = table.width(rows.dtype)
        out = rows.new_empty(len(rows), 4 * width)
        self._run(_MOMENTS, out)
        return out.view(-1, 4, width)[..., : table.size]

    def gradients(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of rows and factors from those of the moments."""
        rows, table = self.arrays[0], self.embedding.table
        width = table.width(rows.dtype)
        padded = F.pad(grad, (0, width - table.size)).reshape(-1, 4 * width)
        out = torch.empty_like(rows), torch.empty_like(rows[..., 0])
        self._run(_GRADIENTS, padded, *out)
        return out

    def _run(self, kernel: Native, *given: Tensor) -> None:
        rows, size = self.arrays[0], constant(self.embedding.table.width(self.arrays[0].dtype))
        self.embedding.workers.split(
            lambda a, b: kernel(a, b, self.arrays, *given, size), len(rows), least=16
        )
