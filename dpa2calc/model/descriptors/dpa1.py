"""The DPA-1 descriptor (se_atten), with or without attention layers (MATHS 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpa2calc.model.config import DPA1Config
from dpa2calc.model.descriptors.se_atten import Repinit
from dpa2calc.model.neighborhood import Neighborhood
from dpa2calc.model.type_embedding import TypeEmbedding


class DPA1(nn.Module):
    """Atomic representation of width m * axis (+ tebd_dim)."""

    message_passing = False

    def __init__(self, config: DPA1Config, type_map: tuple[str, ...]):
        super().__init__()
        self.config = config
        self.type_embedding = TypeEmbedding(
            type_map, config.tebd_dim, use_econf=config.use_econf_tebd, bias=config.use_tebd_bias
        )
        self.repinit = Repinit(
            config,
            len(type_map),
            smooth=config.smooth_type_embedding,
            exclude_types=config.exclude_types,
            env_protection=config.env_protection,
        )

    @property
    def width(self) -> int:
        """Number of components of the descriptor."""
        return self.repinit.width + (self.config.tebd_dim if self.config.concat_output_tebd else 0)

    def forward(self, hood: Neighborhood) -> Tensor:
        """(n_atoms, width)"""
        tebd = self.type_embedding()
        out = self.repinit(hood, tebd)
        return torch.cat([out, tebd[hood.graph.types]], dim=-1) if self.config.concat_output_tebd else out
