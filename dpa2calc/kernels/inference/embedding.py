"""Embedding nets of one scalar, for inference: blocks of atoms in the cache, a backward pass by hand.

`EmbeddedMoments` is repinit, DPA-1 without attention and DeepPot-SE up to the moments D = R^T G;
`AngleSums` is the three-body sum. Both give the numbers of the plain formulas up to rounding, keep no
(neighbours, channels) array over all atoms, and treat the weights as constants.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dpa2calc.kernels.blocks import Blocks
from dpa2calc.kernels.net import ScalarNet, backward, forward

_BLOCK_BYTES = 600_000  # a thread; the widest array of a block
_KEEP_BYTES = 64_000_000  # activations up to this size are kept for the backward pass, else recomputed


class EmbeddedMoments(torch.autograd.Function):
    """D_i = sum_j R_ij (x) G(R_ij,0; types), (n, 4, m).

    rows (n, k, 4); index (n, k) kinds of pairs; factor (n, k) of the strip part, or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        index: Tensor,
        factor: Tensor | None,
        net: ScalarNet,
    ) -> Tensor:
        n, k, _ = rows.shape
        moments = rows.new_empty(n, 4, net.width)
        blocks = Blocks.of(n, rows, k * net.width, _BLOCK_BYTES)
        channels = net.width + sum(layer.matrix.shape[1] for layer in net.net.layers)
        keep = ctx.needs_input_grad[0] and n * k * channels * rows.element_size() < _KEEP_BYTES
        ctx.kept = [None] * len(blocks.rows) if keep else []

        def work(number: int, block: slice, part: int) -> None:
            kept = _embed(rows[block], index[block], net)
            g = kept[1]
            if net.strip is not None:
                g = g * (1.0 + _stripped(net.strip, index[block], factor, block))
            torch.bmm(rows[block].transpose(1, 2), g.view(-1, k, net.width), out=moments[block])
            if keep:
                ctx.kept[number] = kept

        blocks.each(work)
        ctx.save_for_backward(rows, index, factor)
        ctx.net, ctx.blocks = net, blocks
        return moments

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_moments: Tensor) -> tuple[Tensor | None, ...]:
        rows, index, factor = ctx.saved_tensors
        net: ScalarNet = ctx.net
        strip = net.strip
        k = rows.shape[1]
        grad_rows = torch.empty_like(rows)
        grad_factor = torch.empty_like(factor) if factor is not None else None

        def work(number: int, block: slice, part: int) -> None:
            values, g = ctx.kept[number] if ctx.kept else _embed(rows[block], index[block], net)
            grad_g = torch.bmm(rows[block], grad_moments[block]).view(-1, net.width)
            if strip is not None:
                strips = _stripped(strip, index[block], factor, block)
                if grad_factor is not None:
                    plain = strip[index[block].reshape(-1)]
                    grad_factor[block] = (grad_g * g * plain).sum(dim=-1).view(-1, k)
                g = g * (1.0 + strips)
                grad_g = grad_g * (1.0 + strips)
            torch.bmm(g.view(-1, k, net.width), grad_moments[block].transpose(1, 2), out=grad_rows[block])
            inner = backward(net.net.layers, values, grad_g)
            grad_rows[block][..., 0] += torch.mv(inner, net.slope).view(-1, k)

        ctx.blocks.each(work)
        ctx.kept = []
        return grad_rows, None, grad_factor, None


def _embed(rows: Tensor, index: Tensor, net: ScalarNet) -> tuple[list[Tensor], Tensor]:
    """Values of tanh, and G, of the neighbours one after the other."""
    first = net.table.index_select(0, index.reshape(-1))
    first.addcmul_(rows[..., :1].reshape(-1, 1), net.slope)
    return forward(net.net.layers, first.mul_(2.0))


def _stripped(strip: Tensor, index: Tensor, factor: Tensor | None, block: slice) -> Tensor:
    values = strip.index_select(0, index.reshape(-1))
    return values if factor is None else values * factor[block].reshape(-1, 1)


class AngleSums(torch.autograd.Function):
    """sum_jk c_jk G(c_jk; t_j, t_k) with c = a a^T for directions a (n, k, 3); result (n, m).

    first, second (n, m1, k): type parts of the first layer for the roles j and k, bias in one of them.
    Channels come before pairs, so that every product has one long side.
    """

    @staticmethod
    def forward(ctx: Any, directions: Tensor, first: Tensor, second: Tensor, net: ScalarNet) -> Tensor:
        n, k, _ = directions.shape
        out = directions.new_empty(n, net.width)
        ctx.blocks = Blocks.of(n, directions, k * k * net.width, _BLOCK_BYTES)

        def work(_: int, block: slice, part: int) -> None:
            angles = torch.bmm(directions[block], directions[block].transpose(1, 2)).view(-1, 1, k * k)
            g = _embed_angles(net, angles, first[block], second[block])[1]
            torch.sum(g.mul_(angles), dim=-1, out=out[block])

        ctx.blocks.each(work)
        ctx.save_for_backward(directions, first, second)
        ctx.net = net
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        directions, first, second = ctx.saved_tensors
        k = directions.shape[1]
        grad_directions = torch.empty_like(directions)

        def work(_: int, block: slice, part: int) -> None:
            a = directions[block]
            angles = torch.bmm(a, a.transpose(1, 2)).view(-1, 1, k * k)
            values, g = _embed_angles(ctx.net, angles, first[block], second[block])
            weight = grad_out[block].unsqueeze(1)  # (b, 1, m)
            grad_angles = torch.bmm(weight, g)  # (b, 1, k * k)
            inner = backward(ctx.net.net.layers, values, weight.transpose(1, 2) * angles)
            grad_angles += (inner * ctx.net.slope.view(1, -1, 1)).sum(dim=1, keepdim=True)
            square = grad_angles.view(-1, k, k)
            torch.bmm(square + square.transpose(1, 2), a, out=grad_directions[block])

        ctx.blocks.each(work)
        return grad_directions, None, None, None


def _embed_angles(
    net: ScalarNet, angles: Tensor, first: Tensor, second: Tensor
) -> tuple[list[Tensor], Tensor]:
    """As `_embed`, with arrays (b, channels, pairs)."""
    b, m1, k = first.shape
    z = first.unsqueeze(3) + second.unsqueeze(2)  # (b, m1, k, k)
    z = z.view(b, m1, k * k).addcmul_(angles, net.slope.view(1, m1, 1))
    return forward(net.net.layers, z.mul_(2.0))
