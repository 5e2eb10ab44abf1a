"""The hot loop of the repformer for inference: pair attention with a backward pass of its own.

Same numbers as `PairAttention`'s plain formula (up to rounding), but atoms are walked in blocks whose
score matrices stay in the cache, every elementwise step works in place, and nothing of size
(heads, k, k) is kept for the backward pass: scores and weights are computed again there, which costs
less than writing them to memory and reading them back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dpa2calc.kernels.attention import padded_weights, through_softmax
from dpa2calc.kernels.blocks import Blocks

_BLOCK_BYTES = 400_000  # a thread; one (block, heads, k, k) array; three to four are alive at a time


def _heads_first(x: Tensor, k: int, heads: int) -> Tensor:
    """(b * k, heads * d) -> (b, heads * k, d), one copy."""
    b, d = x.shape[0] // k, x.shape[1] // heads
    return x.view(b, k, heads, d).transpose(1, 2).reshape(b, heads * k, d)


def _heads_last(x: Tensor, k: int, heads: int) -> Tensor:
    """(b, heads * k, d) -> (b * k, heads * d), one copy."""
    b, _, d = x.shape
    return x.view(b, heads, k, d).transpose(1, 2).reshape(b * k, heads * d)


class PairMix(torch.autograd.Function):
    """out = sum_h A^h g2 (W_v W_o)^h + bias for every pair; see `PairAttention.forward`.

    g2 (n, k, d2); gate, shift, scale (n, k, k); query_key (d2, heads * d2); value_out (heads * d2, d2).
    """

    @staticmethod
    def forward(
        ctx: Any,
        g2: Tensor,
        gate: Tensor,
        shift: Tensor,
        scale: Tensor,
        query_key: Tensor,
        value_out: Tensor,
        bias: Tensor,
        heads: int,
        n_more: int,
    ) -> Tensor:
        n, k, d2 = g2.shape
        out = torch.empty_like(g2)
        blocks = Blocks.of(n, g2, heads * k * k, _BLOCK_BYTES)

        def work(_: int, rows: slice, part: int) -> None:
            g = g2[rows]
            weights = _query_weights_scores(g, gate[rows], shift[rows], query_key, heads, n_more)[1]
            weights.mul_(scale[rows].unsqueeze(1))
            mixed = torch.bmm(weights.view(-1, heads * k, k), g)
            torch.addmm(bias, _heads_last(mixed, k, heads), value_out, out=out[rows].view(-1, d2))

        blocks.each(work)
        ctx.save_for_backward(g2, gate, shift, scale, query_key, value_out)
        ctx.heads, ctx.n_more = heads, n_more
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        g2, gate, shift, scale, query_key, value_out = ctx.saved_tensors
        heads = ctx.heads
        n, k, d2 = g2.shape
        grad_g2 = torch.empty_like(g2)
        grad_gate, grad_shift, grad_scale = (torch.empty_like(gate) for _ in range(3))
        query_key_t, value_out_t = query_key.t().contiguous(), value_out.t().contiguous()
        blocks = Blocks.of(n, g2, heads * k * k, _BLOCK_BYTES)

        def work(_: int, rows: slice, part: int) -> None:
            g = g2[rows]
            g_t = g.transpose(1, 2)
            query, weights, scores = _query_weights_scores(
                g, gate[rows], shift[rows], query_key, heads, ctx.n_more
            )
            b = g.shape[0]
            grad_mixed = _heads_first(grad_out[rows].reshape(b * k, d2) @ value_out_t, k, heads)
            grad_weights = torch.bmm(grad_mixed, g_t).view(b, heads, k, k)
            scaled = weights * scale[rows].unsqueeze(1)
            grad = torch.bmm(scaled.view(b, heads * k, k).transpose(1, 2), grad_mixed)  # (b, k, d2)
            torch.sum(torch.mul(grad_weights, weights, out=scaled), dim=1, out=grad_scale[rows])
            grad_weights.mul_(scale[rows].unsqueeze(1))
            grad_scores = through_softmax(grad_weights, weights)
            torch.sum(grad_scores, dim=1, out=grad_shift[rows])
            torch.sum(torch.mul(grad_scores, scores, out=scaled), dim=1, out=grad_gate[rows])
            grad_scores.mul_(gate[rows].unsqueeze(1))
            flat = grad_scores.view(b, heads * k, k)
            grad.baddbmm_(flat.transpose(1, 2), query)
            grad_query = _heads_last(torch.bmm(flat, g), k, heads)
            grad.view(b * k, d2).addmm_(grad_query, query_key_t)
            grad_g2[rows] = grad

        blocks.each(work)
        return grad_g2, grad_gate, grad_shift, grad_scale, None, None, None, None, None


def _query_weights_scores(
    g: Tensor, gate: Tensor, shift: Tensor, query_key: Tensor, heads: int, n_more: int
) -> tuple[Tensor, Tensor, Tensor]:
    b, k, d2 = g.shape
    query = _heads_first(g.reshape(b * k, d2) @ query_key, k, heads)
    scores = torch.bmm(query, g.transpose(1, 2)).view(b, heads, k, k)
    gated = torch.addcmul(shift.unsqueeze(1), scores, gate.unsqueeze(1))
    return query, padded_weights(gated, n_more), scores
