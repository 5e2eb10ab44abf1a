"""The DPA-1 descriptor (se_atten), with or without attention layers (docs/maths.md 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from dpa2calc.model.config import DPA1Config
from dpa2calc.model.descriptors import Descriptor, TabulatedPart
from dpa2calc.model.descriptors.gated_attention import NeighborAttention
from dpa2calc.model.descriptors.se_atten import Repinit
from dpa2calc.model.neighborhood import Environment, Neighborhood
from dpa2calc.model.type_embedding import TypeEmbedding


class DPA1(Descriptor):
    """Atomic representation of width m * axis (+ tebd_dim)."""

    config: DPA1Config

    def __init__(self, config: DPA1Config, type_map: tuple[str, ...]):
        super().__init__(config, type_map)
        self.type_embedding = TypeEmbedding(type_map, config)
        environment = Environment(config, config, self.n_types, mean_is_zero=config.set_davg_zero)
        self.repinit = Repinit(config, environment, smooth=config.smooth_type_embedding)
        self.repinit.attention.extend(NeighborAttention(config) for _ in range(config.attn_layer))

    @property
    def width(self) -> int:
        """Number of components of the descriptor."""
        return self.repinit.width + (self.config.tebd_dim if self.config.concat_output_tebd else 0)

    def forward(self, hood: Neighborhood) -> Tensor:
        """(n_atoms, width)"""
        tebd = self.type_embedding()
        out = self.repinit(hood, tebd)
        return torch.cat([out, tebd[hood.graph.types]], dim=-1) if self.config.concat_output_tebd else out

    def appended(self) -> Tensor | None:
        """The type embedding, where the output has it."""
        return self.type_embedding().detach() if self.config.concat_output_tebd else None

    def why_not_tabulated(self) -> str | None:
        """Attention layers see more than one number."""
        n = self.config.attn_layer
        if n == 0:
            return None
        return (
            f"this DPA-1 has {n} attention layers over neighbours, and only models without can be tabulated; "
            "distil it into a student of the preset 'dpa1-l0'"
        )

    def tabulated_part(self) -> TabulatedPart:
        """Its one block."""
        return self.repinit.tabulated_part(self.type_embedding())
