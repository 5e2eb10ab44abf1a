"""The attentions of the repformer: over neighbours, and over pairs of neighbours (docs/maths.md 6)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from dpa2calc.kernels import PairMaps, PairTable, PairTerms, RepformerKind
from dpa2calc.kernels.attention import SHIFT
from dpa2calc.model.config import RepformerConfig
from dpa2calc.model.layers import Dense, LayerNorm, Operator


def pair_terms(h2: Tensor, pairs: PairTable, has_gate: bool) -> PairTerms:
    """Gate, shift and scale from the directions h2 (pairs, 3); they change only when h2 does."""
    overlap, switched = pairs.overlaps(h2), pairs.overlaps(pairs.weight.unsqueeze(-1))
    scale = overlap * switched * (1.0 / math.sqrt(3.0))
    if not pairs.smooth:
        return PairTerms(overlap if has_gate else None, None, scale)
    return PairTerms(overlap * switched if has_gate else switched, SHIFT * switched - SHIFT, scale)


def _bias(layer: Dense) -> Tensor:
    assert layer.bias is not None
    return layer.bias


class PairAttention(Operator):
    """Gated self-attention of the pairs (i, j), j over the neighbours of i; updates g2 and h2."""

    def __init__(self, config: RepformerConfig, kind: RepformerKind):
        super().__init__()
        c = config
        self.config, self.kind = c, kind
        self.mapqk = Dense(c.g2_dim, 2 * c.attn2_hidden * c.attn2_nhead, bias=False)
        self.mapv: Dense | None = None
        self.head_map: Dense | None = None
        self.norm: LayerNorm | None = None
        self.ev: Dense | None = None  # heads to one number
        if c.update_g2_has_attn:
            self.mapv = Dense(c.g2_dim, c.g2_dim * c.attn2_nhead, bias=False)
            self.head_map = Dense(c.g2_dim * c.attn2_nhead, c.g2_dim)
            self.norm = LayerNorm(c.g2_dim, eps=c.ln_eps, trainable=c.trainable_ln)
        if c.update_h2:
            self.ev = Dense(c.attn2_nhead, 1, bias=False)

    def query_key(self) -> Tensor:
        """W_q W_k^T / sqrt(nd) of every head, (d2, heads * d2): one map gives what meets g2 itself."""
        c = self.config
        d2, nd, nh = c.g2_dim, c.attn2_hidden, c.attn2_nhead
        qk = self.mapqk.matrix.view(d2, nd, 2 * nh)  # head index fastest: queries first, then keys
        q, k = qk[:, :, :nh], qk[:, :, nh:]
        return (torch.einsum("adh,bdh->ahb", q, k) * (1.0 / math.sqrt(nd))).reshape(d2, nh * d2)

    def value_out(self) -> Tensor:
        """W_v W_o of every head, (heads * d2, d2)."""
        c = self.config
        d2, nh = c.g2_dim, c.attn2_nhead
        assert self.mapv is not None and self.head_map is not None
        v = self.mapv.matrix.view(d2, d2, nh)  # (in, out, head)
        o = self.head_map.matrix.view(d2, nh, d2)  # rows: (channel, head), head fastest
        return torch.einsum("ach,chb->hab", v, o).reshape(nh * d2, d2)

    def asked(self) -> Iterable[tuple[str, object]]:
        return [("pair_attention", self.kind)]

    def maps(self) -> PairMaps:
        """Products of the weights, and what else the operation needs of them."""
        has_values = self.head_map is not None
        return PairMaps(
            self.query_key(),
            self.value_out() if has_values else None,
            _bias(self.head_map) if self.head_map is not None else None,
            self.ev.matrix[:, 0] if self.ev is not None else None,
            self.config.attn2_nhead,
        )

    def forward(
        self, g2: Tensor, h2: Tensor, terms: PairTerms, pairs: PairTable
    ) -> tuple[Tensor | None, Tensor | None]:
        """Updates of g2 (pairs, d2) and h2 (pairs, 3), or None where the configuration has none.

        With y = g2 W_qk / sqrt(nd) for every head: A_jk = softmax_k(y_j . g2_k gate_jk + shift_jk) scale_jk;
        the update is LayerNorm(sum_k A_jk g2_k W_v W_o + b), and that of h2 sum_k A_jk h2_k.
        """
        maps = self.backend.folded(self.maps)
        attended, moved = self.backend.pair_attention(g2, h2, terms, pairs, maps)
        return None if attended is None or self.norm is None else self.norm(attended), moved


class LocalAttention(Operator):
    """Attention of an atom to its neighbours, with keys and values mapped on the atom's side."""

    def __init__(self, config: RepformerConfig):
        super().__init__()
        c = config
        self.config = c
        self.mapq = Dense(c.g1_dim, c.attn1_hidden * c.attn1_nhead, bias=False)
        self.mapkv = Dense(c.g1_dim, (c.attn1_hidden + c.g1_dim) * c.attn1_nhead, bias=False)
        self.head_map = Dense(c.g1_dim * c.attn1_nhead, c.g1_dim)

    def query_key(self) -> Tensor:
        """W_q W_k^T / sqrt(nd) of every head, (d1, heads * d1)."""
        c = self.config
        d1, nd, nh = c.g1_dim, c.attn1_hidden, c.attn1_nhead
        q = self.mapq.matrix.view(d1, nd, nh)
        k = self.mapkv.matrix.view(d1, nd + d1, nh)[:, :nd]
        return (torch.einsum("adh,bdh->ahb", q, k) * (1.0 / math.sqrt(nd))).reshape(d1, nh * d1)

    def value_out(self) -> Tensor:
        """W_v W_o of every head, (heads * d1, d1); here the heads are the slow index on both sides."""
        c = self.config
        d1, nd, nh = c.g1_dim, c.attn1_hidden, c.attn1_nhead
        v = self.mapkv.matrix.view(d1, nd + d1, nh)[:, nd:]  # (in, out, head)
        o = self.head_map.matrix.view(nh, d1, d1)
        return torch.einsum("ach,hcb->hab", v, o).reshape(nh * d1, d1)

    def query(self, g1: Tensor) -> Tensor:
        """What meets the neighbours' g1 itself: (n, d1) -> (n, heads, d1)."""
        folded = self.backend.folded(self.query_key)
        return (g1 @ folded).view(-1, self.config.attn1_nhead, self.config.g1_dim)

    def output(self, attended: Tensor) -> Tensor:
        """(n, heads, d1) -> update (n, d1)"""
        return torch.addmm(_bias(self.head_map), attended.flatten(1), self.backend.folded(self.value_out))
