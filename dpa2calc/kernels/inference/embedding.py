"""Embedding nets of one scalar, for inference: blocks of atoms in the cache, a backward pass by hand.

`EmbeddedMoments` is repinit, DPA-1 without attention and DeepPot-SE up to the moments D = R^T G;
`AngleSums` is the three-body sum. Both give the numbers of the plain formulas up to rounding, keep no
(neighbours, channels) array over all atoms, and treat the weights as constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpa2calc.kernels.blocks import Blocks, Cut, by_width, of_atoms, to_atoms
from dpa2calc.kernels.native import Native
from dpa2calc.kernels.net import ScalarNet, backward, forward

from .compiled import Layers, has_loops, run

_MOMENTS = Native("inference.embedding_loops", "moments")
_BACKWARD = Native("inference.embedding_loops", "moments_backward")
_BLOCK_BYTES = 600_000  # a thread; the widest array of a block
_KEEP_BYTES = 64_000_000  # activations up to this size are kept for the backward pass, else recomputed


class EmbeddedMoments(torch.autograd.Function):
    """D_i = sum_j R_ij (x) G(R_ij,0; types), (n, 4, m).

    rows (n, k, 4); index (n, k) kinds of pairs; factor (n, k) of the strip part, or None.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, factor: Tensor | None, net: ScalarNet) -> Tensor:
        rows, index = rows.contiguous(), index.contiguous()
        n, k, _ = rows.shape
        used = (rows != 0).any(dim=2)
        moments = rows.new_empty(n, 4, net.width)
        blocks = by_width(used, rows, lambda width: width * net.width, _BLOCK_BYTES)
        channels = net.width + sum(layer.matrix.shape[1] for layer in net.net.layers)
        keep = ctx.needs_input_grad[0] and n * k * channels * rows.element_size() < _KEEP_BYTES
        ctx.kept = [None] * len(blocks.rows) if keep else []

        def work(number: int, block: Cut, part: int) -> None:
            mine, kinds = block.take(rows), block.take(index)
            kept = _embed(mine, kinds, net)
            g = kept[1]
            if net.strip is not None:
                g = g * (1.0 + _stripped(net.strip, kinds, factor, block))
            made = torch.bmm(mine.transpose(1, 2), g.view(-1, block.width, net.width))
            to_atoms(moments, block.atoms, made)
            if keep:
                ctx.kept[number] = kept

        if _compiled(net, rows):
            given = _lists(blocks), rows, index, Layers.of(net.weights, net.skips), moments
            run(_MOMENTS, blocks.parts, rows, *given)
        else:
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
        grad_rows = torch.zeros_like(rows)
        grad_factor = torch.zeros_like(factor) if factor is not None else None

        def work(number: int, block: Cut, part: int) -> None:
            mine, kinds, k = block.take(rows), block.take(index), block.width
            of_moments = of_atoms(grad_moments, block.atoms)
            values, g = ctx.kept[number] if ctx.kept else _embed(mine, kinds, net)
            grad_g = torch.bmm(mine, of_moments).view(-1, net.width)
            if strip is not None:
                strips = _stripped(strip, kinds, factor, block)
                if grad_factor is not None:
                    plain = strip[kinds.reshape(-1)]
                    block.put(grad_factor, (grad_g * g * plain).sum(dim=-1).view(-1, k))
                g = g * (1.0 + strips)
                grad_g = grad_g * (1.0 + strips)
            of_rows = torch.bmm(g.view(-1, k, net.width), of_moments.transpose(1, 2))
            inner = backward(net.net.layers, values, grad_g)
            of_rows[..., 0] += torch.mv(inner, net.slope).view(-1, k)
            block.put(grad_rows, of_rows)

        if _compiled(net, rows):
            given = _lists(ctx.blocks), rows, index, Layers.of(net.weights, net.skips)
            run(_BACKWARD, ctx.blocks.parts, rows, *given, grad_moments.contiguous(), grad_rows)
        else:
            ctx.blocks.each(work)
        ctx.kept = []
        return grad_rows, None, grad_factor, None


def _compiled(net: ScalarNet, rows: Tensor) -> bool:
    """Whether compiled loops take the net: they know no strip and no scale of a layer."""
    layers = net.net.layers
    plain = net.strip is None and len(layers) > 1 and all(layer.idt is None for layer in layers)
    return plain and len(rows) > 0 and has_loops(rows)


def _lists(blocks: Blocks[Cut]) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Atoms of all blocks (n,), where each block begins among them (blocks + 1,), slots of its atoms."""
    atoms = [block.atoms for block in blocks.rows if isinstance(block.atoms, Tensor)]
    begins = np.cumsum([0, *map(len, atoms)])
    return torch.cat(atoms), begins, np.array([block.width for block in blocks.rows])


def _embed(rows: Tensor, index: Tensor, net: ScalarNet) -> tuple[list[Tensor], Tensor]:
    """Values of tanh, and G, of the neighbours one after the other."""
    first = net.table.index_select(0, index.reshape(-1))
    first.addcmul_(rows[..., :1].reshape(-1, 1), net.slope)
    return forward(net.net.layers, first.mul_(2.0))


def _stripped(strip: Tensor, index: Tensor, factor: Tensor | None, block: Cut) -> Tensor:
    values = strip.index_select(0, index.reshape(-1))
    return values if factor is None else values * block.take(factor).reshape(-1, 1)


class AngleSums(torch.autograd.Function):
    """sum_jk c_jk G(c_jk; t_j, t_k) with c = a a^T for directions a (n, k, 3); result (n, m).

    first, second (n, k, m1): type parts of the first layer for the roles j and k, bias in one of them.
    Channels come before pairs, so that every product has one long side.
    """

    @staticmethod
    def forward(ctx: Any, directions: Tensor, first: Tensor, second: Tensor, net: ScalarNet) -> Tensor:
        out = directions.new_empty(len(directions), net.width)
        used = (directions != 0).any(dim=2)
        ctx.blocks = by_width(used, directions, lambda width: width**2 * net.width, _BLOCK_BYTES)

        def work(number: int, block: Cut, part: int) -> None:
            angles, _, g = _embed_angles(net, block.take(directions), first, second, block)
            to_atoms(out, block.atoms, g.mul_(angles).sum(dim=-1))

        ctx.blocks.each(work)
        ctx.save_for_backward(directions, first, second)
        ctx.net = net
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        directions, first, second = ctx.saved_tensors
        grad_directions = torch.zeros_like(directions)

        def work(_: int, block: Cut, part: int) -> None:
            a, k = block.take(directions), block.width
            angles, values, g = _embed_angles(ctx.net, a, first, second, block)
            weight = of_atoms(grad_out, block.atoms).unsqueeze(1)  # (b, 1, m)
            grad_angles = torch.bmm(weight, g)  # (b, 1, k * k)
            inner = backward(ctx.net.net.layers, values, weight.transpose(1, 2) * angles)
            grad_angles += (inner * ctx.net.slope.view(1, -1, 1)).sum(dim=1, keepdim=True)
            square = grad_angles.view(-1, k, k)
            block.put(grad_directions, torch.bmm(square + square.transpose(1, 2), a))

        ctx.blocks.each(work)
        return grad_directions, None, None, None


def _embed_angles(
    net: ScalarNet, directions: Tensor, first: Tensor, second: Tensor, block: Cut
) -> tuple[Tensor, list[Tensor], Tensor]:
    """c = a a^T (b, 1, pairs), and as `_embed` with arrays (b, channels, pairs)."""
    b, k = directions.shape[:2]
    angles = torch.bmm(directions, directions.transpose(1, 2)).view(b, 1, k * k)
    rows, columns = (block.take(x).transpose(1, 2) for x in (first, second))  # (b, m1, k)
    z = (rows.unsqueeze(3) + columns.unsqueeze(2)).view(b, -1, k * k)
    values, g = forward(net.net.layers, z.addcmul_(angles, net.slope.view(1, -1, 1)).mul_(2.0))
    return angles, values, g
