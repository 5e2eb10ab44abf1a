"""The two attentions of the repformer: over neighbours of an atom, and over pairs of neighbours (MATHS 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpa2calc.kernels.inference.folded_weights import folded
from dpa2calc.kernels.inference.pair_attention import PairMix
from dpa2calc.kernels.training.attention import Blocks, attend
from dpa2calc.model.config import RepformerConfig
from dpa2calc.model.descriptors.gated_attention import SHIFT, padded_softmax
from dpa2calc.model.layers import Dense, LayerNorm
from dpa2calc.model.pair_context import PairContext


@dataclass(frozen=True)
class PairTerms:
    """Functions of two neighbours j, k of one atom that enter the pair attention, each (n, k, k).

    score = (q . k) * gate + shift; after the softmax the weights are multiplied by `scale`.
    With a list of pairs (sum of counts^2,) each, as `FlatPairs.squares` has them.
    """

    gate: Tensor | None
    shift: Tensor | None
    scale: Tensor
    mask: Tensor | None  # columns that count; only without smooth attention


def pair_terms(h2: Tensor, context: PairContext, has_gate: bool) -> PairTerms:
    """Gate, shift and scale from the directions h2 (n, k, 3); they change only when h2 does."""
    if context.flat is not None:
        switched = context.flat.overlaps(context.switch.unsqueeze(1))
        return _smooth_terms(context.flat.overlaps(h2), switched, has_gate)
    overlap = torch.bmm(h2, h2.transpose(1, 2))  # (n, k, k)
    if not context.smooth:
        both = context.mask.unsqueeze(2) & context.mask.unsqueeze(1)
        return PairTerms(overlap if has_gate else None, None, overlap * both / math.sqrt(3.0), context.mask)
    switched = context.switch.unsqueeze(2) * context.switch.unsqueeze(1)
    return _smooth_terms(overlap, switched, has_gate)


def _smooth_terms(overlap: Tensor, switched: Tensor, has_gate: bool) -> PairTerms:
    gate = overlap * switched if has_gate else switched
    return PairTerms(gate, SHIFT * switched - SHIFT, overlap * switched * (1.0 / math.sqrt(3.0)), None)


def _bias(layer: Dense) -> Tensor:
    assert layer.bias is not None
    return layer.bias


class PairAttention(nn.Module):
    """Gated self-attention of the pairs (i, j), j over the neighbours of i; updates g2 and h2."""

    def __init__(self, config: RepformerConfig, *, smooth: bool):
        super().__init__()
        c = config
        self.config, self.smooth = c, smooth
        self.mapqk = Dense(c.g2_dim, 2 * c.attn2_hidden * c.attn2_nhead, bias=False)
        self.mapv: Dense | None = None
        self.head_map: Dense | None = None
        self.norm: LayerNorm | None = None
        self.ev: Dense | None = None
        if c.update_g2_has_attn:
            self.mapv = Dense(c.g2_dim, c.g2_dim * c.attn2_nhead, bias=False)
            self.head_map = Dense(c.g2_dim * c.attn2_nhead, c.g2_dim)
            self.norm = LayerNorm(c.g2_dim, eps=c.ln_eps, trainable=c.trainable_ln)
        if c.update_h2:
            self.ev = Dense(c.attn2_nhead, 1, bias=False)

    @folded
    def folded_query_key(self) -> Tensor:
        """W_q W_k^T / sqrt(nd) of every head, (d2, heads * d2): one map gives what meets g2 itself."""
        c = self.config
        d2, nd, nh = c.g2_dim, c.attn2_hidden, c.attn2_nhead
        qk = self.mapqk.matrix.view(d2, nd, 2 * nh)  # head index fastest: queries first, then keys
        q, k = qk[:, :, :nh], qk[:, :, nh:]
        return (torch.einsum("adh,bdh->ahb", q, k) * (1.0 / math.sqrt(nd))).reshape(d2, nh * d2)

    @folded
    def folded_value_out(self) -> Tensor:
        """W_v W_o of every head, (heads * d2, d2)."""
        c = self.config
        d2, nh = c.g2_dim, c.attn2_nhead
        assert self.mapv is not None and self.head_map is not None
        v = self.mapv.matrix.view(d2, d2, nh)  # (in, out, head)
        o = self.head_map.matrix.view(d2, nh, d2)  # rows: (channel, head), head fastest
        return torch.einsum("ach,chb->hab", v, o).reshape(nh * d2, d2)

    def _in_blocks(self, terms: PairTerms) -> bool:
        """Whether the blocked inference path applies: fixed weights, smooth, no update of h2."""
        plain = terms.gate is None or terms.shift is None or self.ev is not None or self.norm is None
        return not plain and not self.mapqk.matrix.requires_grad

    def forward(
        self, g2: Tensor, h2: Tensor, terms: PairTerms, context: PairContext
    ) -> tuple[Tensor | None, Tensor | None]:
        """Updates of g2 (n, k, d2) and h2 (n, k, 3), or None where the configuration has none."""
        nh = self.config.attn2_nhead
        if context.pair_blocks is not None:
            return self._in_lists(g2, terms, context.pair_blocks), None
        n, k, d2 = g2.shape
        if self.norm is not None and self.head_map is not None and self._in_blocks(terms):
            out = PairMix.apply(
                g2, terms.gate, terms.shift, terms.scale, self.folded_query_key(), self.folded_value_out(),
                _bias(self.head_map), nh, context.nsel - k,
            )  # fmt: skip
            return self.norm(out), None
        query = (g2.reshape(n * k, d2) @ self.folded_query_key()).view(n, k * nh, d2)
        # Heads stay inside the row index: one product for all of them, no permuted copies.
        scores = torch.bmm(query, g2.transpose(1, 2)).view(n, k, nh, k)
        if terms.gate is not None:
            scores = scores * terms.gate.unsqueeze(2)
        if terms.shift is not None:
            n_more = context.nsel - k
            weights = padded_softmax(scores + terms.shift.unsqueeze(2), n_more)
        else:
            assert terms.mask is not None
            weights = torch.softmax(scores.masked_fill(~terms.mask[:, None, None, :], -1e30), dim=-1)
        weights = weights * terms.scale.unsqueeze(2)  # (n, k, nh, k)
        pair_update = h_update = None
        if self.norm is not None and self.head_map is not None:
            mixed = torch.bmm(weights.view(n, k * nh, k), g2)  # (n, k * nh, d2)
            out = mixed.view(n * k, nh * d2) @ self.folded_value_out() + _bias(self.head_map)
            pair_update = self.norm(out).view(n, k, d2)
        if self.ev is not None:
            one = torch.einsum("njhk,h->njk", weights, self.ev.matrix[:, 0])
            h_update = torch.bmm(one, h2)
        return pair_update, h_update

    def _in_lists(self, g2: Tensor, terms: PairTerms, blocks: Blocks) -> Tensor:
        """The same from a list of pairs, by the training function."""
        assert self.norm is not None and self.head_map is not None
        assert terms.gate is not None and terms.shift is not None
        query = g2 @ self.folded_query_key()
        mixed = attend(query, g2, (terms.gate, terms.shift, terms.scale), blocks)
        return self.norm(torch.addmm(_bias(self.head_map), mixed, self.folded_value_out()))


class LocalAttention(nn.Module):
    """Attention of an atom to its neighbours, with keys and values mapped on the atom's side."""

    def __init__(self, config: RepformerConfig, *, smooth: bool):
        super().__init__()
        c = config
        self.config, self.smooth = c, smooth
        self.mapq = Dense(c.g1_dim, c.attn1_hidden * c.attn1_nhead, bias=False)
        self.mapkv = Dense(c.g1_dim, (c.attn1_hidden + c.g1_dim) * c.attn1_nhead, bias=False)
        self.head_map = Dense(c.g1_dim * c.attn1_nhead, c.g1_dim)

    @folded
    def folded_query_key(self) -> Tensor:
        """W_q W_k^T / sqrt(nd) of every head, (d1, heads * d1)."""
        c = self.config
        d1, nd, nh = c.g1_dim, c.attn1_hidden, c.attn1_nhead
        q = self.mapq.matrix.view(d1, nd, nh)
        k = self.mapkv.matrix.view(d1, nd + d1, nh)[:, :nd]
        return (torch.einsum("adh,bdh->ahb", q, k) * (1.0 / math.sqrt(nd))).reshape(d1, nh * d1)

    @folded
    def folded_value_out(self) -> Tensor:
        """W_v W_o of every head, (heads * d1, d1); here the heads are the slow index on both sides."""
        c = self.config
        d1, nd, nh = c.g1_dim, c.attn1_hidden, c.attn1_nhead
        v = self.mapkv.matrix.view(d1, nd + d1, nh)[:, nd:]  # (in, out, head)
        o = self.head_map.matrix.view(nh, d1, d1)
        return torch.einsum("ach,hcb->hab", v, o).reshape(nh * d1, d1)

    def query(self, g1: Tensor) -> Tensor:
        """What meets the neighbours' g1 itself: (n, d1) -> (n, heads, d1)."""
        return (g1 @ self.folded_query_key()).view(-1, self.config.attn1_nhead, self.config.g1_dim)

    def mix(self, query: Tensor, gathered: Tensor, context: PairContext) -> Tensor:
        """Attention-weighted neighbours: query (n, heads, d1), gathered (n, k, d1) -> (n, heads, d1)."""
        scores = torch.bmm(query, gathered.transpose(1, 2))  # (n, heads, k)
        if self.smooth:
            sw = context.switch.unsqueeze(1)
            scores = (scores + SHIFT) * sw - SHIFT
            weights = padded_softmax(scores, context.nsel - gathered.shape[1]) * sw
        else:
            weights = torch.softmax(scores.masked_fill(~context.mask.unsqueeze(1), -1e30), dim=-1)
            weights = weights * context.mask.unsqueeze(1)
        return torch.bmm(weights, gathered)

    def mix_lists(self, query: Tensor, g1: Tensor, context: PairContext) -> Tensor:
        """The same from a list of pairs, by the training function; g1 (n, d1)."""
        assert context.flat is not None and context.atom_blocks is not None
        assert context.ordered_switch is not None
        sw = context.ordered_switch
        ordered = query.flatten(1).index_select(0, context.flat.order)
        mixed = attend(ordered, g1, (sw, SHIFT * sw - SHIFT, sw), context.atom_blocks)
        return context.flat.restore_order(mixed)

    def output(self, mixed: Tensor) -> Tensor:
        """(n, heads, d1) -> update (n, d1)"""
        return torch.addmm(_bias(self.head_map), mixed.flatten(1), self.folded_value_out())
