"""One layer of the representation transformer (paper, section 4.1; MATHS 6).

The linear maps of gathered vectors are moved to the atoms, and products of weights are folded
(DESIGN 4); the numbers are those of the plain formulas up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpa2calc.kernels.inference.neighbor_sums import NeighborMix
from dpa2calc.kernels.inference.residual import TanhStep
from dpa2calc.kernels.training.neighbor_sums import Shape, surroundings
from dpa2calc.kernels.training.products import pair_products
from dpa2calc.model.config import RepformerConfig
from dpa2calc.model.descriptors.attention import LocalAttention, PairAttention, PairTerms, pair_terms
from dpa2calc.model.layers import Dense, activated
from dpa2calc.model.pair_context import PairContext


class RepformerLayer(nn.Module):
    """Parallel updates of atoms g1 (n, d1), pairs g2 (n, k, d2) and directions h2 (n, k, 3)."""

    def __init__(self, config: RepformerConfig, *, smooth: bool, last: bool):
        super().__init__()
        c = config
        self.config, self.smooth, self.last = c, smooth, last
        d1, d2, axis = c.g1_dim, c.g2_dim, c.axis_neuron
        n_cat = (0 if c.g1_out_mlp else d1) + (d2 if c.update_g1_has_conv and not c.g1_out_conv else 0)
        n_cat += (axis * d2 if c.update_g1_has_grrg else 0) + (axis * d1 if c.update_g1_has_drrd else 0)
        self.linear1 = Dense(n_cat, d1)
        self.g1_self_mlp = Dense(d1, d1) if c.g1_out_mlp else None
        self.proj_g1g2 = None
        if c.update_g1_has_conv:
            self.proj_g1g2 = Dense(*((d2, d1) if c.g1_out_conv else (d1, d2)), bias=False)
        self.loc_attn = LocalAttention(c, smooth=smooth) if c.update_g1_has_attn else None
        self.linear2 = None if last else Dense(d2, d2)
        self.proj_g1g1g2 = Dense(d1, d2, bias=False) if c.update_g2_has_g1g1 and not last else None
        uses_pairs = (c.update_g2_has_attn or c.update_h2) and not last
        self.attn2 = PairAttention(c, smooth=smooth) if uses_pairs else None
        n1 = 1 + sum(map(bool, (c.g1_out_mlp, c.update_g1_has_conv and c.g1_out_conv, c.update_g1_has_attn)))
        n2 = 0 if last else 1 + int(c.update_g2_has_g1g1) + int(c.update_g2_has_attn)
        nh = 1 if c.update_h2 and not last else 0
        residual = c.update_style == "res_residual"
        self.g1_residual = _residuals(c, n1 if residual else 0, d1)
        self.g2_residual = _residuals(c, n2 if residual else 0, d2)
        self.h2_residual = _residuals(c, nh if residual else 0, 1)

    def forward(
        self, g1: Tensor, g2: Tensor, h2: Tensor, context: PairContext, pair_terms: PairTerms | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New g1, g2, h2; the last layer returns g2 and h2 unchanged."""
        c = self.config
        around = self._look_around(g1, g2, h2, context)
        new_g1 = combine(g1, self._atom_updates(g1, g2, context, around), c.update_style, self.g1_residual)
        if self.last:
            return new_g1, g2, h2
        updates2, updates_h = self._pair_updates(g2, h2, context, pair_terms, around)
        new_g2 = self._new_pairs(g2, updates2)
        return new_g1, new_g2, combine(h2, updates_h, c.update_style, self.h2_residual)

    def _look_around(self, g1: Tensor, g2: Tensor, h2: Tensor, context: PairContext) -> Surroundings:
        """Everything that needs the neighbours' g1, from one gather."""
        c = self.config
        if context.flat is not None:
            return self._sum_around(g1, g2, h2, context)
        directions = h2 * context.weight.unsqueeze(-1)
        weighted_h2 = directions.transpose(1, 2)  # (n, 3, k)
        conv = self.proj_g1g2.matrix if self.proj_g1g2 is not None and c.g1_out_conv else None
        project = self.proj_g1g1g2.matrix if self.proj_g1g1g2 is not None else None
        query = self.loc_attn.query(g1) if self.loc_attn is not None else None
        used = (conv is not None, c.update_g1_has_drrd, project is not None, query is not None)
        if not any(used):
            return Surroundings(weighted_h2)
        if self.smooth and not self.linear1.matrix.requires_grad:
            n_more = context.nsel - context.neighbors.shape[1]
            parts = NeighborMix.apply(
                *(g1, context.neighbors, context.weight, context.switch),
                *(g2 if used[0] else None, conv, directions if used[1] else None, project, query, n_more),
            )
            made = (*used[:2], used[0] and used[1], *used[2:])
            return Surroundings(weighted_h2, *(part if m else None for part, m in zip(parts, made)))
        gathered = gather_rows(g1, context.neighbors)  # (n, k, d1)
        convolved = moments = products = mixed = None
        if conv is not None:
            weighted_g2 = (g2 * context.weight.unsqueeze(-1)).transpose(1, 2)
            convolved = (torch.bmm(weighted_g2, gathered) * conv).sum(dim=1)
        if c.update_g1_has_drrd:
            moments = torch.bmm(weighted_h2, gathered)
        if project is not None:
            # (g1_i * g1_j) W = g1_j (diag(g1_i) W): no (n, k, d1) intermediate.
            products = torch.bmm(gathered, g1.unsqueeze(-1) * project)
        if query is not None and self.loc_attn is not None:
            mixed = self.loc_attn.mix(query, gathered, context)
        return Surroundings(weighted_h2, convolved, moments, None, products, mixed)

    def _sum_around(self, g1: Tensor, g2: Tensor, h2: Tensor, context: PairContext) -> Surroundings:
        """The same from a list of pairs, by the training kernels."""
        c, pairs = self.config, context.flat
        assert self.proj_g1g2 is not None and pairs is not None
        norm = context.sym_norm(c.use_sqrt_nnei)
        assert isinstance(norm, float)
        shape = Shape(pairs, c.axis_neuron, norm * norm / 3.0)
        weighted_h2 = h2 * context.weight.unsqueeze(-1)
        project = self.proj_g1g2.matrix if c.g1_out_conv else None
        conv, invariants = surroundings(g1, g2, weighted_h2, context.weight, project, shape)
        products = mixed = None
        if self.proj_g1g1g2 is not None:
            products = self.proj_g1g1g2(pair_products(g1, pairs))
        if self.loc_attn is not None:
            mixed = self.loc_attn.mix_lists(self.loc_attn.query(g1), g1, context)
        return Surroundings(
            weighted_h2, conv if c.g1_out_conv else None, None, None, products, mixed, invariants
        )

    def _atom_updates(
        self, g1: Tensor, g2: Tensor, context: PairContext, around: Surroundings
    ) -> list[Tensor]:
        """Updates of g1 in the order of the residual vectors: own MLP, convolution, MLP, attention."""
        c = self.config
        updates: list[Tensor] = []
        cat: list[Tensor] = []
        sym = context.sym_norm(c.use_sqrt_nnei)
        if self.g1_self_mlp is not None:
            updates.append(activated(self.g1_self_mlp, g1, self.config.activation))
        else:
            cat.append(g1)
        if around.conv is not None:
            updates.append(around.conv * context.conv_norm())
        elif self.proj_g1g2 is not None and context.flat is not None:
            projected = self.proj_g1g2(g1).index_select(0, context.flat.neighbors)  # (P, d2)
            weighted = g2 * projected * context.weight.unsqueeze(-1)
            sums = weighted.new_zeros(len(g1), c.g2_dim).index_add(0, context.flat.centers, weighted)
            cat.append(sums * context.conv_norm())
        elif self.proj_g1g2 is not None:
            projected = gather_rows(self.proj_g1g2(g1), context.neighbors)  # (n, k, d2)
            weighted = g2 * projected * context.weight.unsqueeze(-1)
            cat.append(weighted.sum(dim=1) * context.conv_norm())
        if around.invariants is not None:
            cat.append(around.invariants)
        elif c.update_g1_has_grrg:
            moments2 = around.moments2
            if moments2 is None:
                moments2 = torch.bmm(around.weighted_h2, g2)
            cat.append(symmetrize(moments2, sym, c.axis_neuron))
        if around.moments1 is not None:
            cat.append(symmetrize(around.moments1, sym, c.axis_neuron))
        updates.append(activated(self.linear1, torch.cat(cat, dim=-1), self.config.activation))
        if self.loc_attn is not None and around.mixed is not None:
            updates.append(self.loc_attn.output(around.mixed))
        return updates

    def _pair_updates(
        self,
        g2: Tensor,
        h2: Tensor,
        context: PairContext,
        terms: PairTerms | None,
        around: Surroundings,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Updates of g2 but its own, and of h2."""
        updates: list[Tensor] = []
        updates_h: list[Tensor] = []
        if around.products is not None:
            updates.append(around.products * context.weight.unsqueeze(-1))
        if self.attn2 is not None:
            terms = terms if terms is not None else pair_terms(h2, context, self.config.attn2_has_gate)
            pair_update, h_update = self.attn2(g2, h2, terms, context)
            if pair_update is not None:
                updates.append(pair_update)
            if h_update is not None:
                updates_h.append(h_update)
        return updates, updates_h

    def _new_pairs(self, g2: Tensor, updates: list[Tensor]) -> Tensor:
        """g2 with its own update, that of a layer, and the others."""
        c, layer, residual = self.config, self.linear2, list(self.g2_residual)
        assert layer is not None
        plain = c.update_style == "res_residual" and c.activation == "tanh"
        if plain and layer.bias is not None and not layer.matrix.requires_grad:
            rows = TanhStep.apply(g2.flatten(0, -2), layer.matrix, layer.bias, residual[0])
            return combine(rows.view(g2.shape), updates, c.update_style, residual[1:])
        own = activated(layer, g2, c.activation)
        return combine(g2, [own, *updates], c.update_style, residual)


@dataclass(frozen=True)
class Surroundings:
    """What a layer gathers from the neighbours; None where the configuration has no such update."""

    weighted_h2: Tensor  # (n, 3, k)
    conv: Tensor | None = None  # (n, d1), not yet normalised
    moments1: Tensor | None = None  # (n, 3, d1)
    moments2: Tensor | None = None  # (n, 3, d2)
    products: Tensor | None = None  # (n, k, d2)
    mixed: Tensor | None = None  # (n, heads, d1)
    invariants: Tensor | None = None  # (n, axis * (d2 + d1)), of both moments, where already known


def _residuals(config: RepformerConfig, count: int, width: int) -> nn.ParameterList:
    scale = config.update_residual
    make = torch.ones if config.update_residual_init == "const" else torch.randn
    return nn.ParameterList(nn.Parameter(scale * make(width, dtype=torch.float32)) for _ in range(count))


def gather_rows(values: Tensor, index: Tensor) -> Tensor:
    """Row values[index]: (n, d), (n, k) -> (n, k, d)."""
    return values.index_select(0, index.reshape(-1)).view(*index.shape, values.shape[-1])


def symmetrize(moments: Tensor, norm: Tensor | float, n_axis: int) -> Tensor:
    """Invariants of (n, 3, d) moments: H[:, :A]^T H / 3, flattened (A, d) with the axis slowest."""
    scaled = moments * (norm.unsqueeze(-1) if isinstance(norm, Tensor) else norm)
    return torch.bmm(scaled[:, :, :n_axis].transpose(1, 2), scaled).flatten(1) / 3.0


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
