"""One layer of the representation transformer (paper, section 4.2.3, equations 24 to 33; docs/maths.md 6).

Linear maps of gathered vectors are moved to the atoms, and products of weights are folded; the numbers are
those of the equations up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dpa2calc.kernels import NeighborMaps, PairTable, PairTerms, RepformerKind
from dpa2calc.kernels.net import Net
from dpa2calc.model.config import RepformerConfig
from dpa2calc.model.descriptors.attention import LocalAttention, PairAttention, pair_terms
from dpa2calc.model.layers import Dense, Operator


class RepformerLayer(Operator):
    """Parallel updates of atoms g1 (n, d1), pairs g2 (pairs, d2) and directions h2 (pairs, 3).

    In the paper's letters: f_i = g1, g_ij = g2, h_ij = h2, s(r_ij) = w.
    """

    def __init__(self, config: RepformerConfig, kind: RepformerKind, *, last: bool):
        super().__init__()
        c = config
        self.config, self.kind, self.last = c, kind, last
        d1, d2, axis = c.g1_dim, c.g2_dim, c.axis_neuron
        n_cat = (0 if c.g1_out_mlp else d1) + (d2 if c.update_g1_has_conv and not c.g1_out_conv else 0)
        n_cat += (axis * d2 if c.update_g1_has_grrg else 0) + (axis * d1 if c.update_g1_has_drrd else 0)
        self.linear1 = Dense(n_cat, d1)
        self.g1_self_mlp = Dense(d1, d1) if c.g1_out_mlp else None
        self.proj_g1g2 = None
        if c.update_g1_has_conv:
            self.proj_g1g2 = Dense(*((d2, d1) if c.g1_out_conv else (d1, d2)), bias=False)
        self.loc_attn = LocalAttention(c) if c.update_g1_has_attn else None
        self.linear2 = None if last else Dense(d2, d2)
        self.proj_g1g1g2 = Dense(d1, d2, bias=False) if c.update_g2_has_g1g1 and not last else None
        uses_pairs = (c.update_g2_has_attn or c.update_h2) and not last
        self.attn2 = PairAttention(c, kind) if uses_pairs else None
        n1 = 1 + sum(map(bool, (c.g1_out_mlp, c.update_g1_has_conv and c.g1_out_conv, c.update_g1_has_attn)))
        n2 = 0 if last else 1 + int(c.update_g2_has_g1g1) + int(c.update_g2_has_attn)
        nh = 1 if c.update_h2 and not last else 0
        residual = c.update_style == "res_residual"
        self.g1_residual = _residuals(c, n1 if residual else 0, d1)
        self.g2_residual = _residuals(c, n2 if residual else 0, d2)
        self.h2_residual = _residuals(c, nh if residual else 0, 1)

    def asked(self) -> Iterable[tuple[str, object]]:
        steps = [] if self.linear2 is None else [Net((self.linear2.weights(),), self.config.activation)]
        return [("neighbor_sums", self.kind), *(("residual_step", net) for net in steps)]

    def forward(
        self, g1: Tensor, g2: Tensor, h2: Tensor, pairs: PairTable, terms: PairTerms | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New g1, g2, h2, all from the old ones; the last layer returns g2 and h2 unchanged."""
        c, style = self.config, self.config.update_style
        # Convolution and invariants of (25), attention (26) to (28), dot products of (29): in one operation,
        # because the neighbours' g1 are gathered once for all.
        near = self.backend.neighbor_sums(g1, g2, h2, pairs, self._maps(g1))

        # (25): beside each other g1, sum_j w g2_ij * (g1_j W), and the invariants of the moments of g2_ij and
        # of g1_j, (n, n_cat). Later models take g1 and the convolution out of it, as updates of their own.
        inner, updates = [], []
        if self.g1_self_mlp is not None:
            updates.append(self._phi(self.g1_self_mlp, g1))
        else:
            inner.append(g1)
        if near.convolution is not None:
            (updates if c.g1_out_conv else inner).append(near.convolution)
        inner += near.invariants

        # (24): g1 <- g1, phi(linear(25)), local attention; (n, d1) each
        updates.append(self._phi(self.linear1, torch.cat(inner, dim=-1)))
        if self.loc_attn is not None and near.attended is not None:
            updates.append(self.loc_attn.output(near.attended))
        new_g1 = combine(g1, updates, style, self.g1_residual)
        if self.last:
            return new_g1, g2, h2

        # (29): g2 <- g2, phi(linear(g2)), (g1_i * g1_j) W w, gated attention (30) to (32); (pairs, d2) each
        others = [] if near.products is None else [near.products]
        moved: list[Tensor] = []
        if self.attn2 is not None:
            terms = terms if terms is not None else pair_terms(h2, pairs, c.attn2_has_gate)
            attended, update = self.attn2(g2, h2, terms, pairs)
            others += [] if attended is None else [attended]
            moved += [] if update is None else [update]  # (33)
        return new_g1, self._new_pairs(g2, others), combine(h2, moved, style, self.h2_residual)

    def _maps(self, g1: Tensor) -> NeighborMaps:
        """What the layer takes from the neighbours."""
        c = self.config
        conv = None if self.proj_g1g2 is None else self.proj_g1g2.matrix
        return NeighborMaps(
            conv if c.g1_out_conv else None,
            None if c.g1_out_conv else conv,
            c.update_g1_has_grrg,
            c.update_g1_has_drrd,
            c.axis_neuron,
            c.use_sqrt_nnei,
            None if self.proj_g1g1g2 is None else self.proj_g1g1g2.matrix,
            None if self.loc_attn is None else self.loc_attn.query(g1),
        )

    def _phi(self, layer: Dense, x: Tensor) -> Tensor:
        return self.backend.dense(layer.weights(), x, self.config.activation)

    def _new_pairs(self, g2: Tensor, others: list[Tensor]) -> Tensor:
        """g2 with the update by a layer of its own, and the other updates."""
        c, layer = self.config, self.linear2
        assert layer is not None
        if c.update_style != "res_residual":
            return combine(g2, [self._phi(layer, g2), *others], c.update_style, ())
        own, *residual = self.g2_residual
        stepped = self.backend.residual_step(layer.weights(), g2, own, c.activation)
        return combine(stepped, others, c.update_style, residual)


def _residuals(config: RepformerConfig, count: int, width: int) -> nn.ParameterList:
    scale = config.update_residual
    make = torch.ones if config.update_residual_init == "const" else torch.randn
    return nn.ParameterList(nn.Parameter(scale * make(width, dtype=torch.float32)) for _ in range(count))


def combine(x: Tensor, updates: list[Tensor], style: str, residual: Iterable[Tensor]) -> Tensor:
    """Join the old value and its updates by the configured residual rule."""
    n = len(updates)
    if style == "res_residual":
        for vector, update in zip(residual, updates):
            x = torch.addcmul(x, update, vector)
        return x
    if n == 0:
        return x
    total = updates[0]
    for update in updates[1:]:
        total = total + update
    if style == "res_avg":
        return (x + total) * (1.0 / math.sqrt(n + 1))
    return x + total * (1.0 / math.sqrt(n))
