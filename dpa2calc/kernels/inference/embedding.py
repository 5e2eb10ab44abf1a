"""Embedding nets of one scalar, for inference: blocks of atoms in the cache, a backward pass by hand.

`EmbeddedMoments` is repinit, DPA-1 without attention and DeepPot-SE up to the moments D = R^T G;
`AngleSums` is the three-body sum. Both give the numbers of the plain formulas up to rounding, keep no
(neighbours, channels) array over all atoms, and treat the weights as constants.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpa2calc.kernels.blocks import Blocks
from dpa2calc.kernels.training.dense_tanh import tanh_
from dpa2calc.model.layers import MLP

_BLOCK_BYTES = 600_000  # a thread; the widest array of a block
_KEEP_BYTES = 64_000_000  # activations up to this size are kept for the backward pass, else recomputed


class Net(NamedTuple):
    """The layers of an embedding net after the first, and how the first meets the scalar.

    First layer: x = tanh(s * slope + table[index]). `later` holds (matrix, bias, idt, skip) by layer.
    """

    slope: Tensor  # (m1,)
    idt: Tensor | None
    later: tuple[tuple[Tensor, Tensor, Tensor | None, int], ...]
    width: int


def net_of(mlp: MLP) -> Net | None:
    """The frozen net, or None when it is not of the supported kind (tanh, biased, fixed weights)."""
    layers = [mlp.layers[index] for index in range(len(mlp.layers))]
    if mlp.name != "tanh" or mlp.skips[0] or any(p.requires_grad for p in mlp.parameters()):
        return None
    later = []
    for layer, skip in zip(layers[1:], mlp.skips[1:]):
        if layer.bias is None or layers[0].bias is None:
            return None
        later.append((layer.matrix, layer.bias, layer.idt, skip))
    return Net(layers[0].matrix[0], layers[0].idt, tuple(later), layers[-1].matrix.shape[1])


def _add_skip(x: Tensor, before: Tensor, copies: int) -> Tensor:
    """Add `copies` copies of the layer's input to its output, in place; (r, width)."""
    if copies:
        x.view(-1, copies, before.shape[1]).add_(before.unsqueeze(1))
    return x


def _forward_rows(net: Net, first: Tensor) -> list[Tensor]:
    """tanh values and outputs of all layers from the first pre-activation (r, m1), which is overwritten.

    Returns [t1, x2, t2, x3, t3, ...] flattened as pairs (tanh value, layer output).
    """
    t = tanh_(first.mul_(2.0))
    x = t if net.idt is None else t * net.idt
    out = [t, x]
    for matrix, bias, idt, skip in net.later:
        t = tanh_(torch.addmm(bias, x, matrix).mul_(2.0))
        new = t * idt if idt is not None else (t.clone() if skip else t)
        x = _add_skip(new, x, skip)
        out += [t, x]
    return out


def _backward_rows(net: Net, kept: list[Tensor], grad: Tensor) -> Tensor:
    """Gradient of the scalar (r,) from that of the last output (r, width)."""
    for position in range(len(net.later) - 1, -1, -1):
        matrix, _, idt, skip = net.later[position]
        t = kept[2 * position + 2]
        inner = grad if idt is None else grad * idt
        before = torch.ops.aten.tanh_backward(inner, t) @ matrix.t()
        if skip:
            for part in grad.view(-1, skip, matrix.shape[0]).unbind(1):
                before.add_(part)
        grad = before
    if net.idt is not None:
        grad = grad * net.idt
    return torch.mv(torch.ops.aten.tanh_backward(grad, kept[0]), net.slope)


class EmbeddedMoments(torch.autograd.Function):
    """D_i = sum_j R_ij (x) G(R_ij,0; types), (n, 4, m).

    rows (n, k, 4); index (n, k) rows of `table` (p, m1), the type part of the first layer;
    strip (p, m) or None: G is multiplied by 1 + strip[index] * factor, factor (n, k).
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        index: Tensor,
        table: Tensor,
        strip: Tensor | None,
        factor: Tensor | None,
        net: Net,
    ) -> Tensor:
        n, k, _ = rows.shape
        moments = rows.new_empty(n, 4, net.width)
        blocks = Blocks.of(n, rows, k * net.width, _BLOCK_BYTES)
        channels = 2 * sum((net.slope.numel(), *(layer[0].shape[1] for layer in net.later)))
        keep = ctx.needs_input_grad[0] and n * k * channels * rows.element_size() < _KEEP_BYTES
        ctx.kept = [None] * len(blocks.rows) if keep else []

        def work(number: int, block: slice, part: int) -> None:
            kept, g = _embed(rows[block], index[block], table, net)
            if strip is not None:
                g = g * (1.0 + _stripped(strip, index[block], factor, block))
            torch.bmm(rows[block].transpose(1, 2), g.view(-1, k, net.width), out=moments[block])
            if keep:
                ctx.kept[number] = kept

        blocks.each(work)
        ctx.save_for_backward(rows, index, table, strip, factor)
        ctx.net, ctx.blocks = net, blocks
        return moments

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_moments: Tensor) -> tuple[Tensor | None, ...]:
        rows, index, table, strip, factor = ctx.saved_tensors
        net: Net = ctx.net
        k = rows.shape[1]
        grad_rows = torch.empty_like(rows)
        grad_factor = torch.empty_like(factor) if factor is not None else None

        def work(number: int, block: slice, part: int) -> None:
            kept = ctx.kept[number] if ctx.kept else _embed(rows[block], index[block], table, net)[0]
            g = kept[-1]
            grad_g = torch.bmm(rows[block], grad_moments[block]).view(-1, net.width)
            if strip is not None:
                strips = _stripped(strip, index[block], factor, block)
                if grad_factor is not None:
                    plain = strip[index[block].reshape(-1)]
                    grad_factor[block] = (grad_g * g * plain).sum(dim=-1).view(-1, k)
                g = g * (1.0 + strips)
                grad_g = grad_g * (1.0 + strips)
            torch.bmm(g.view(-1, k, net.width), grad_moments[block].transpose(1, 2), out=grad_rows[block])
            grad_rows[block][..., 0] += _backward_rows(net, kept, grad_g).view(-1, k)

        ctx.blocks.each(work)
        ctx.kept = []
        return grad_rows, None, None, None, grad_factor, None


def _embed(rows: Tensor, index: Tensor, table: Tensor, net: Net) -> tuple[list[Tensor], Tensor]:
    first = table.index_select(0, index.reshape(-1))
    first.addcmul_(rows[..., :1].reshape(-1, 1), net.slope)
    kept = _forward_rows(net, first)
    return kept, kept[-1]


def _stripped(strip: Tensor, index: Tensor, factor: Tensor | None, block: slice) -> Tensor:
    values = strip.index_select(0, index.reshape(-1))
    return values if factor is None else values * factor[block].reshape(-1, 1)


class AngleSums(torch.autograd.Function):
    """sum_jk c_jk G(c_jk; t_j, t_k) with c = a a^T for directions a (n, k, 3); result (n, m).

    first, second (n, m1, k): type parts of the first layer for the roles j and k, bias in one of them.
    Channels come before pairs, so that every product has one long side.
    """

    @staticmethod
    def forward(ctx: Any, directions: Tensor, first: Tensor, second: Tensor, net: Net) -> Tensor:
        n, k, _ = directions.shape
        out = directions.new_empty(n, net.width)
        ctx.blocks = Blocks.of(n, directions, k * k * net.width, _BLOCK_BYTES)

        def work(_: int, block: slice, part: int) -> None:
            angles = torch.bmm(directions[block], directions[block].transpose(1, 2)).view(-1, 1, k * k)
            g = _forward_channels(net, angles, first[block], second[block])[-1]
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
            kept = _forward_channels(ctx.net, angles, first[block], second[block])
            weight = grad_out[block].unsqueeze(1)  # (b, 1, m)
            grad_angles = torch.bmm(weight, kept[-1])  # (b, 1, k * k)
            grad_angles += _backward_channels(ctx.net, kept, weight.transpose(1, 2) * angles)
            square = grad_angles.view(-1, k, k)
            torch.bmm(square + square.transpose(1, 2), a, out=grad_directions[block])

        ctx.blocks.each(work)
        return grad_directions, None, None, None


def _forward_channels(net: Net, angles: Tensor, first: Tensor, second: Tensor) -> list[Tensor]:
    """As `_forward_rows`, with arrays (b, channels, pairs)."""
    b, m1, k = first.shape
    z = first.unsqueeze(3) + second.unsqueeze(2)  # (b, m1, k, k)
    z = z.view(b, m1, k * k).addcmul_(angles, net.slope.view(1, m1, 1))
    t = tanh_(z.mul_(2.0))
    x = t if net.idt is None else t * net.idt.unsqueeze(1)
    out = [t, x]
    for matrix, bias, idt, skip in net.later:
        z = torch.bmm(matrix.t().expand(b, -1, -1), x)
        t = tanh_(z.add_(bias.unsqueeze(1)).mul_(2.0))
        new = t * idt.unsqueeze(1) if idt is not None else (t.clone() if skip else t)
        if skip:
            new.view(b, skip, x.shape[1], -1).add_(x.unsqueeze(1))
        x = new
        out += [t, x]
    return out


def _backward_channels(net: Net, kept: list[Tensor], grad: Tensor) -> Tensor:
    """Gradient of the angles (b, 1, pairs) from that of the last output (b, m, pairs)."""
    b = grad.shape[0]
    for position in range(len(net.later) - 1, -1, -1):
        matrix, _, idt, skip = net.later[position]
        inner = grad if idt is None else grad * idt.unsqueeze(1)
        inner = torch.ops.aten.tanh_backward(inner, kept[2 * position + 2])
        before = torch.bmm(matrix.expand(b, -1, -1), inner)
        if skip:
            for part in grad.view(b, skip, matrix.shape[0], -1).unbind(1):
                before.add_(part)
        grad = before
    if net.idt is not None:
        grad = grad * net.idt.unsqueeze(1)
    grad = torch.ops.aten.tanh_backward(grad, kept[0])
    return (grad * net.slope.view(1, -1, 1)).sum(dim=1, keepdim=True)
