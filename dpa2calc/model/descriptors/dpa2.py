"""The DPA-2 descriptor: repinit, optional three-body part, repformers (docs/maths.md 3 to 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpa2calc.kernels import Neighbors, RepformerKind
from dpa2calc.kernels.net import activation
from dpa2calc.model.config import DPA2Config, RepinitConfig, ThreeBodyConfig
from dpa2calc.model.descriptors import Descriptor, TabulatedPart
from dpa2calc.model.descriptors.attention import pair_terms
from dpa2calc.model.descriptors.repformer import RepformerLayer
from dpa2calc.model.descriptors.se_atten import Repinit
from dpa2calc.model.descriptors.three_body import ThreeBody
from dpa2calc.model.layers import Dense, Operator
from dpa2calc.model.neighborhood import Environment, Neighborhood
from dpa2calc.model.type_embedding import TypeEmbedding


class DPA2(Descriptor):
    """Atomic representation of width g1_dim (+ tebd_dim) from a structure."""

    message_passing = True
    freezable = "repformer.layers"
    config: DPA2Config

    def __init__(self, config: DPA2Config, type_map: tuple[str, ...]):
        super().__init__(config, type_map)
        i, t = config.repinit, config.three_body

        def environment(shell: RepinitConfig | ThreeBodyConfig) -> Environment:
            return Environment(shell, config, self.n_types, mean_is_zero=i.set_davg_zero)

        self.type_embedding = TypeEmbedding(type_map, config)
        self.repinit = Repinit(i, environment(i), smooth=config.smooth)
        self.three_body = ThreeBody(t, i, environment(t), smooth=config.smooth) if t is not None else None
        n_in = self.repinit.width + (self.three_body.width if self.three_body else 0)
        d1 = config.repformer.g1_dim
        # No weights when the sizes already agree (docs/maths.md 5).
        self.g1_shape = Dense(n_in, d1, bias=False) if n_in != d1 else None
        self.tebd_transform = (
            Dense(config.tebd_dim, d1, bias=False) if config.add_tebd_to_repinit_out else None
        )
        self.repformer = Repformer(config, self.n_types)

    @property
    def width(self) -> int:
        """Number of components of the descriptor."""
        return self.config.repformer.g1_dim + (self.config.tebd_dim if self.config.concat_output_tebd else 0)

    def forward(self, hood: Neighborhood) -> Tensor:
        """(n_atoms, width)"""
        tebd = self.type_embedding()
        g1 = self.repinit(hood, tebd)
        if self.three_body is not None:
            g1 = torch.cat([g1, self.three_body(hood, tebd)], dim=-1)
        if self.g1_shape is not None:
            g1 = self.g1_shape(g1)
        own_tebd = tebd[hood.graph.types]
        if self.tebd_transform is not None:
            g1 = g1 + self.tebd_transform(own_tebd)
        g1 = self.repformer(g1, hood)
        return torch.cat([g1, own_tebd], dim=-1) if self.config.concat_output_tebd else g1

    def why_not_tabulated(self) -> str | None:
        """Repinit can always be."""
        return None

    def tabulated_part(self) -> TabulatedPart:
        """Repinit."""
        return self.repinit.tabulated_part(self.type_embedding())


class Repformer(Operator):
    """All layers of the representation transformer on one neighbour shell."""

    def __init__(self, config: DPA2Config, n_types: int):
        super().__init__()
        c = config.repformer
        self.config = c
        updates = (c.update_g1_has_conv, c.update_g1_has_grrg, c.update_g1_has_drrd, c.update_h2)
        self.kind = RepformerKind(config.smooth, *updates)
        self.environment = Environment(c, config, n_types, mean_is_zero=c.set_davg_zero)
        self.g2_embedding = Dense(1, c.g2_dim)
        self.layers = nn.ModuleList(
            RepformerLayer(c, self.kind, last=layer == c.nlayers - 1) for layer in range(c.nlayers)
        )
        self.act = activation(c.activation)

    def forward(self, g1: Tensor, hood: Neighborhood) -> Tensor:
        """(n, d1) -> (n, d1)"""
        c = self.config
        if self.environment.excluded_pairs is not None:
            hood = hood.without(self.environment.excluded_pairs)
        shell, rows, w = self.environment(hood)
        if c.direct_dist:
            radial = (shell.distances / c.cutoff * shell.mask).unsqueeze(-1)
            h2 = shell.vectors / c.cutoff * shell.mask.unsqueeze(-1)
        else:
            radial, h2 = rows[..., :1], rows[..., 1:]
        near = Neighbors(shell.neighbors, shell.mask, w)
        pairs = self.backend.pair_table(near, self.kind, c.nsel)
        h2 = pairs.take(h2)  # (pairs, 3)
        g2 = self.act(self.g2_embedding(pairs.take(radial)))  # (pairs, d2)
        g1 = self.act(g1)
        # Without updates of h2 the gates of the pair attention are the same in every layer.
        needs_terms = c.update_g2_has_attn and not c.update_h2 and c.nlayers > 1
        terms = pair_terms(h2, pairs, c.attn2_has_gate) if needs_terms else None
        for layer in self.layers:
            g1, g2, h2 = layer(g1, g2, h2, pairs, terms)
        return g1
