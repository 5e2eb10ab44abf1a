"""The tabulated embedding on CUDA devices (Triton): the kernels of `table_kernels.py`, an atom a program.

A program walks through the neighbours of its atom with the channels of the table side by side, so that
besides the moments (4, size) nothing of the width of the embedding is stored. Places and weights of the
nodes are worked out in float64, as on the CPU: they are few operations, and float32 loses the place in
fine tables. Triton comes with torch on Linux; `TRITON_INTERPRET=1` runs the same code on a CPU, slowly.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from dpa2calc.kernels.tables.table import EmbeddingTable


@triton.jit
def _interval(s, grid):
    """Number of the interval of an argument, its place t in it and the interval's length, see `hermite`."""
    low, length, step, last = tl.load(grid), tl.load(grid + 1), tl.load(grid + 2), tl.load(grid + 3)
    x = s.to(tl.float64) - low
    u = tl.sqrt(tl.maximum(1.0 + x / length, 1.0))
    at = tl.minimum(((u - 1.0) / step).to(tl.int32).to(tl.float64), last)
    u0 = 1.0 + at * step
    h = length * step * (2.0 * u0 + step)
    return at.to(tl.int64), (x - length * (u0 * u0 - 1.0)) / h, h


@triton.jit
def _nodes(table, at, channel, real, size):
    """Value and two derivatives at both ends of an interval, and the rise between them."""
    here = table + at * 3 * size + channel
    f = tl.load(here, mask=real, other=0.0)
    n1 = tl.load(here + size, mask=real, other=0.0)
    n2 = tl.load(here + 2 * size, mask=real, other=0.0)
    rise = tl.load(here + 3 * size, mask=real, other=0.0) - f
    n4 = tl.load(here + 4 * size, mask=real, other=0.0)
    n5 = tl.load(here + 5 * size, mask=real, other=0.0)
    return f, rise, n1, n2, n4, n5


@triton.jit
def _value(f, rise, n1, n2, n4, n5, t, h):
    """G between two nodes."""
    q = 1.0 - t
    v0 = (t * t * t * (10.0 - 15.0 * t + 6.0 * t * t)).to(f.dtype)
    v1 = (h * t * q * q * q * (1.0 + 3.0 * t)).to(f.dtype)
    v2 = (0.5 * h * h * t * t * q * q * q).to(f.dtype)
    v3 = (-h * q * t * t * t * (1.0 + 3.0 * q)).to(f.dtype)
    v4 = (0.5 * h * h * q * q * t * t * t).to(f.dtype)
    return f + rise * v0 + n1 * v1 + n2 * v2 + n4 * v3 + n5 * v4


@triton.jit
def _slope(f, rise, n1, n2, n4, n5, t, h):
    """dG/ds between two nodes."""
    q = 1.0 - t
    w0 = (30.0 * t * t * q * q / h).to(f.dtype)
    w1 = (q * q * (1.0 + 2.0 * t - 15.0 * t * t)).to(f.dtype)
    w2 = (0.5 * h * t * q * q * (2.0 - 5.0 * t)).to(f.dtype)
    w3 = (t * t * (1.0 + 2.0 * q - 15.0 * q * q)).to(f.dtype)
    w4 = (-0.5 * h * q * t * t * (2.0 - 5.0 * q)).to(f.dtype)
    return rise * w0 + n1 * w1 + n2 * w2 + n4 * w3 + n5 * w4


@triton.jit
def _moments(
    rows, lines, table, grid, strip, factor, out, k, n_nodes, size,
    STRIP: tl.constexpr, FACTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out (n, 4, size) of one atom; arguments as in `TabulatedEmbedding.moments`."""
    i = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    real = channel < size
    p0 = tl.zeros((BLOCK,), dtype=out.dtype.element_ty)
    p1, p2, p3 = p0, p0, p0
    for j in range(k):
        slot = i * k + j
        s = tl.load(rows + slot * 4)
        line = tl.load(lines + slot)
        at, t, h = _interval(s, grid)
        if not STRIP:
            at += line * n_nodes
        f, rise, n1, n2, n4, n5 = _nodes(table, at, channel, real, size)
        g = _value(f, rise, n1, n2, n4, n5, t, h)
        if STRIP:
            part = tl.load(strip + line * size + channel, mask=real, other=0.0)
            if FACTOR:
                part = part * tl.load(factor + slot)
            g += g * part
        p0 += s * g
        p1 += tl.load(rows + slot * 4 + 1) * g
        p2 += tl.load(rows + slot * 4 + 2) * g
        p3 += tl.load(rows + slot * 4 + 3) * g
    to = out + i * 4 * size + channel
    tl.store(to, p0, mask=real)
    tl.store(to + size, p1, mask=real)
    tl.store(to + 2 * size, p2, mask=real)
    tl.store(to + 3 * size, p3, mask=real)


@triton.jit
def _gradients(
    rows, lines, table, grid, strip, factor, grad, grad_rows, grad_factor, k, n_nodes, size,
    STRIP: tl.constexpr, FACTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of rows (n, k, 4) and factors (n, k) of one atom from those of its moments."""
    i = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    real = channel < size
    of = grad + i * 4 * size + channel
    x0, x1 = tl.load(of, mask=real, other=0.0), tl.load(of + size, mask=real, other=0.0)
    x2, x3 = (
        tl.load(of + 2 * size, mask=real, other=0.0),
        tl.load(of + 3 * size, mask=real, other=0.0),
    )
    for j in range(k):
        slot = i * k + j
        s = tl.load(rows + slot * 4)
        line = tl.load(lines + slot)
        at, t, h = _interval(s, grid)
        if not STRIP:
            at += line * n_nodes
        f, rise, n1, n2, n4, n5 = _nodes(table, at, channel, real, size)
        g = _value(f, rise, n1, n2, n4, n5, t, h)
        dg = _slope(f, rise, n1, n2, n4, n5, t, h)
        pull = s * x0 + tl.load(rows + slot * 4 + 1) * x1
        pull += tl.load(rows + slot * 4 + 2) * x2 + tl.load(rows + slot * 4 + 3) * x3
        if STRIP:
            part = tl.load(strip + line * size + channel, mask=real, other=0.0)
            scale = 1.0 + part
            if FACTOR:
                scale = 1.0 + part * tl.load(factor + slot)
                tl.store(grad_factor + slot, tl.sum(g * part * pull, axis=0))
            g *= scale
            dg *= scale
        to = grad_rows + slot * 4
        tl.store(to, tl.sum(x0 * g, axis=0) + tl.sum(dg * pull, axis=0))
        tl.store(to + 1, tl.sum(x1 * g, axis=0))
        tl.store(to + 2, tl.sum(x2 * g, axis=0))
        tl.store(to + 3, tl.sum(x3 * g, axis=0))


@dataclass(frozen=True)
class TableArguments:
    """What both kernels read: rows (n, k, 4), lines (n, k), strip (p, size), factor (n, k), or None."""

    rows: Tensor
    lines: Tensor
    strip: Tensor | None
    factor: Tensor | None
    table: EmbeddingTable

    @classmethod
    def of(
        cls, rows: Tensor, lines: Tensor, strip: Tensor | None, factor: Tensor | None, table: EmbeddingTable
    ) -> TableArguments:
        """Contiguous and without history, as kernels need them."""
        index = lines.expand(rows.shape[:2]).contiguous()
        if strip is not None:
            strip = strip.detach().to(rows.dtype).contiguous()
            factor = None if factor is None else factor.detach().contiguous()
        return cls(rows.detach().contiguous(), index, strip, None if strip is None else factor, table)

    def moments(self) -> Tensor:
        """sum_j R_j (x) G_j, (n, 4, size)."""
        out = self.rows.new_empty(self.rows.shape[0], 4, self.table.size)
        self._launch(_moments, out)
        return out

    def gradients(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of rows and factors from those of the moments; without factors the second is empty."""
        grad_rows = torch.empty_like(self.rows)
        grad_factor = self.rows.new_empty(self.lines.shape if self.factor is not None else (0,))
        self._launch(_gradients, grad.contiguous(), grad_rows, grad_factor)
        return grad_rows, grad_factor

    def _launch(self, kernel: object, *tensors: Tensor) -> None:
        rows, table = self.rows, self.table
        n, k = rows.shape[:2]
        if n == 0:
            return
        grid = table.grid_on(rows.device)
        block = triton.next_power_of_2(table.size)
        strip = rows if self.strip is None else self.strip
        factor = rows if self.factor is None else self.factor
        flat = table.flat(rows.dtype, rows.device)
        place = torch.cuda.device(rows.device) if rows.is_cuda else nullcontext()
        with place:
            kernel[(n,)](  # type: ignore[index]
                rows, self.lines, flat, grid, strip, factor, *tensors, k, table.n_nodes, table.size,
                STRIP=self.strip is not None, FACTOR=self.factor is not None, BLOCK=block,
                num_warps=max(1, block // 128),
            )  # fmt: skip
