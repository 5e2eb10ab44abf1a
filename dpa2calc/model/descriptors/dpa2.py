"""The DPA-2 descriptor: repinit, optional three-body part, repformers (paper, section 4.1; MATHS 3 to 6)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dpa2calc.kernels.training.attention import Blocks
from dpa2calc.kernels.training.pair_list import FlatPairs
from dpa2calc.kernels.training.second_order import has_numba
from dpa2calc.model.config import DPA2Config
from dpa2calc.model.descriptors import Descriptor, StatisticsBlock, TabulatedPart
from dpa2calc.model.descriptors.attention import pair_terms
from dpa2calc.model.descriptors.repformer import RepformerLayer
from dpa2calc.model.descriptors.se_atten import Repinit
from dpa2calc.model.descriptors.three_body import ThreeBody
from dpa2calc.model.layers import Dense, activation
from dpa2calc.model.neighborhood import Environment, Neighborhood, Shell, type_pair_mask
from dpa2calc.model.pair_context import PairContext
from dpa2calc.model.type_embedding import TypeEmbedding


class DPA2(Descriptor):
    """Atomic representation of width g1_dim (+ tebd_dim) from a structure."""

    message_passing = True
    freezable = "repformer.layers"
    config: DPA2Config

    def __init__(self, config: DPA2Config, type_map: tuple[str, ...]):
        super().__init__(config, type_map)
        n_types = self.n_types
        shared = {
            "smooth": config.smooth,
            "exclude_types": config.exclude_types,
            "env_protection": config.env_protection,
        }
        self.type_embedding = TypeEmbedding(
            type_map, config.tebd_dim, use_econf=config.use_econf_tebd, bias=config.use_tebd_bias
        )
        self.repinit = Repinit(config.repinit, n_types, **shared)  # type: ignore[arg-type]
        self.three_body = None
        if config.three_body is not None:
            self.three_body = ThreeBody(config.three_body, config.repinit, n_types, **shared)  # type: ignore[arg-type]
        n_in = self.repinit.width + (self.three_body.width if self.three_body else 0)
        d1 = config.repformer.g1_dim
        # No weights when the sizes already agree (MATHS 5).
        self.g1_shape = Dense(n_in, d1, bias=False) if n_in != d1 else None
        self.tebd_transform = (
            Dense(config.tebd_dim, d1, bias=False) if config.add_tebd_to_repinit_out else None
        )
        self.repformer = Repformer(config, n_types)

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

    def statistics_blocks(self) -> list[StatisticsBlock]:
        """Repinit, the repformers and the three-body part, which follows repinit's choice of the mean."""
        c, zero = self.config, self.config.repinit.set_davg_zero
        blocks = [
            StatisticsBlock(self.repinit.environment, c.repinit.nsel, zero),
            StatisticsBlock(self.repformer.environment, c.repformer.nsel, c.repformer.set_davg_zero),
        ]
        if self.three_body is not None:
            blocks.append(StatisticsBlock(self.three_body.environment, self.three_body.config.nsel, zero))
        return blocks

    def why_not_tabulated(self) -> str | None:
        """Repinit can always be."""
        return None

    def tabulated_part(self) -> TabulatedPart:
        """Repinit."""
        return self.repinit.tabulated_part(self.type_embedding())


class Repformer(nn.Module):
    """All layers of the representation transformer on one neighbour shell."""

    excluded_pairs: Tensor | None

    def __init__(self, config: DPA2Config, n_types: int):
        super().__init__()
        c = config.repformer
        self.config, self.smooth, self.n_types = c, config.smooth, n_types
        self.environment = Environment(n_types, c.cutoff, c.cutoff_smooth, protection=config.env_protection)
        self.g2_embedding = Dense(1, c.g2_dim)
        self.layers = nn.ModuleList(
            RepformerLayer(c, smooth=config.smooth, last=layer == c.nlayers - 1) for layer in range(c.nlayers)
        )
        self.act = activation(c.activation)
        self.register_buffer(
            "excluded_pairs", type_pair_mask(config.exclude_types, n_types), persistent=False
        )

    def forward(self, g1: Tensor, hood: Neighborhood) -> Tensor:
        """(n, d1) -> (n, d1)"""
        c = self.config
        if self.excluded_pairs is not None:
            hood = hood.without(self.excluded_pairs)
        shell = hood.shell(c.cutoff, c.nsel)
        rows, w = self.environment(shell)
        if c.direct_dist:
            radial = (shell.distances / c.cutoff * shell.mask).unsqueeze(-1)
            h2 = shell.vectors / c.cutoff * shell.mask.unsqueeze(-1)
        else:
            radial, h2 = rows[..., :1], rows[..., 1:]
        flat, lists = None, dict[str, Any]()
        if self._takes_lists(g1):
            flat = FlatPairs.of(shell.mask, shell.neighbors)
            lists = self._for_attention(flat, shell, w)
            radial, h2, w = flat.select(radial), flat.select(h2), flat.select(w)
        g2 = self.act(self.g2_embedding(radial))  # (n, k, d2)
        g1 = self.act(g1)
        context = PairContext(
            neighbors=shell.neighbors.contiguous(),
            switch=w,
            mask=shell.mask,
            weight=w if self.smooth else shell.mask.to(w.dtype),
            nsel=c.nsel,
            smooth=self.smooth,
            flat=flat,
            **lists,
        )
        # Without updates of h2 the gates of the pair attention are the same in every layer.
        needs_terms = c.update_g2_has_attn and not c.update_h2 and c.nlayers > 1
        terms = pair_terms(h2, context, c.attn2_has_gate) if needs_terms else None
        for layer in self.layers:
            g1, g2, h2 = layer(g1, g2, h2, context, terms)
        return g1

    def _for_attention(self, flat: FlatPairs, shell: Shell, switch: Tensor) -> dict[str, Any]:
        """How the attentions over a list of pairs go over its atoms."""
        c = self.config
        out: dict[str, Any] = {}
        if c.update_g2_has_attn:
            out["pair_blocks"] = Blocks.of_pairs(flat, c.attn2_nhead, c.nsel, itemsize=switch.element_size())
        if c.update_g1_has_attn:
            given = {"mask": shell.mask, "neighbors": shell.neighbors}
            out["atom_blocks"] = Blocks.of_atoms(flat, c.attn1_nhead, c.nsel, **given)
            out["ordered_switch"] = switch.index_select(0, flat.order)
        return out

    def _takes_lists(self, g1: Tensor) -> bool:
        """Whether training goes over lists of pairs, with compiled kernels and derivatives by hand.

        Plain autograd on tables has: sums without the constant normaliser, directions that change, layers
        without convolution or without the invariants of both moments, other devices.
        """
        c = self.config
        around = c.update_g1_has_conv and c.update_g1_has_grrg and c.update_g1_has_drrd
        training = self.g2_embedding.matrix.requires_grad and g1.is_cpu and has_numba()
        return training and self.smooth and around and not c.update_h2
