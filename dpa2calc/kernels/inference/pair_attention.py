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
from dpa2calc.kernels.blocks import kept_for_backward
from dpa2calc.kernels.native import Native
from dpa2calc.kernels.pairs import PairBlock
from dpa2calc.kernels.reference import PairMaps

from .compiled import has_loops, run
from .pair_blocks import BlockPairs

_MIX, _BACKWARD = (Native("inference.pair_loops", name) for name in ("mix", "mix_backward"))


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

    g2 (P, d2); gate, shift, scale (S,), as `BlockPairs` has them; maps with values, and none of directions.
    """

    @staticmethod
    def forward(
        ctx: Any, g2: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, maps: PairMaps, pairs: BlockPairs
    ) -> Tensor:
        (query_key, value_out, bias), heads = _weights(maps), maps.heads
        out, ctx.made = torch.empty_like(g2), []
        keep = kept_for_backward(g2, heads * len(gate))

        def work(_: int, block: PairBlock, part: int) -> None:
            g, k = block.of(g2), block.width
            gates = block.square(gate), block.square(shift)
            made = _query_weights_scores(g, *gates, query_key, heads, pairs.nsel - k)
            if keep:
                ctx.made.append(made)
            scales, into = block.square(scale).unsqueeze(1), None if keep else made[1]
            w = torch.mul(made[1], scales, out=into)
            mixed = torch.bmm(w.view(-1, heads * k, k), g)
            torch.addmm(bias, _heads_last(mixed, k, heads), value_out, out=out[block.pairs])

        if has_loops(g2):
            given = g2.contiguous(), (gate, shift, scale), _weights(maps)
            run(_MIX, pairs.cut.parts, g2, pairs.arrays, *given, out)
        else:
            pairs.cut.each(work)
        ctx.save_for_backward(g2, gate, shift, scale)
        ctx.maps, ctx.pairs = maps, pairs
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        (g2, gate, shift, scale), (query_key, value_out, _) = ctx.saved_tensors, _weights(ctx.maps)
        heads, pairs, d2, grad_out = ctx.maps.heads, ctx.pairs, g2.shape[1], grad_out.contiguous()
        grad_g2 = torch.empty_like(g2)
        grad_gate, grad_shift, grad_scale = (torch.empty_like(gate) for _ in range(3))
        query_key_t, value_out_t = query_key.t().contiguous(), value_out.t().contiguous()

        def work(number: int, block: PairBlock, part: int) -> None:
            g, k = block.of(g2), block.width
            b, g_t = len(g), g.transpose(1, 2)
            gates, scales = block.square(gate), block.square(scale).unsqueeze(1)
            given = g, gates, block.square(shift), query_key, heads, pairs.nsel - k
            query, weights, scores = ctx.made[number] if ctx.made else _query_weights_scores(*given)
            grad_mixed = _heads_first(grad_out[block.pairs] @ value_out_t, k, heads)
            grad_weights = torch.bmm(grad_mixed, g_t).view(b, heads, k, k)
            scaled = weights * scales
            grad = block.of(grad_g2)
            torch.bmm(scaled.view(b, heads * k, k).transpose(1, 2), grad_mixed, out=grad)
            torch.sum(torch.mul(grad_weights, weights, out=scaled), dim=1, out=block.square(grad_scale))
            grad_weights.mul_(scales)
            grad_scores = through_softmax(grad_weights, weights)
            torch.sum(grad_scores, dim=1, out=block.square(grad_shift))
            torch.sum(torch.mul(grad_scores, scores, out=scaled), dim=1, out=block.square(grad_gate))
            flat = grad_scores.mul_(gates.unsqueeze(1)).view(b, heads * k, k)
            grad.baddbmm_(flat.transpose(1, 2), query)
            grad_query = _heads_last(torch.bmm(flat, g), k, heads)
            grad.view(b * k, d2).addmm_(grad_query, query_key_t)

        if has_loops(g2):
            given = g2.contiguous(), (gate, shift, scale), _weights(ctx.maps), grad_out, grad_g2
            run(_BACKWARD, pairs.cut.parts, g2, pairs.arrays, *given, (grad_gate, grad_shift, grad_scale))
        else:
            pairs.cut.each(work)
        ctx.made = []
        return grad_g2, grad_gate, grad_shift, grad_scale, None, None


def _weights(maps: PairMaps) -> tuple[Tensor, Tensor, Tensor]:
    assert maps.value_out is not None and maps.bias is not None
    return maps.query_key, maps.value_out, maps.bias


def _query_weights_scores(
    g: Tensor, gate: Tensor, shift: Tensor, query_key: Tensor, heads: int, n_more: int
) -> tuple[Tensor, Tensor, Tensor]:
    b, k, d2 = g.shape
    query = _heads_first(g.reshape(b * k, d2) @ query_key, k, heads)
    scores = torch.bmm(query, g.transpose(1, 2)).view(b, heads, k, k)
    gated = torch.addcmul(shift.unsqueeze(1), scores, gate.unsqueeze(1))
    return query, padded_weights(gated, n_more), scores
