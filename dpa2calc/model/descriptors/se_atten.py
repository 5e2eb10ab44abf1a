"""The se_atten block: repinit of DPA-2, with attention layers the body of DPA-1 (docs/maths.md 3, 8)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dpa2calc.model.config import DPA1Config, RepinitConfig
from dpa2calc.model.descriptors import TabulatedPart
from dpa2calc.model.descriptors.gated_attention import NeighborAttention
from dpa2calc.model.embedding import PairEmbedding
from dpa2calc.model.layers import Operator
from dpa2calc.model.neighborhood import Environment, Neighborhood, Shell


def contract(moments: Tensor, axis: int) -> Tensor:
    """Rotation invariants of D (n, 4, m): D^T D[:, :axis], flattened (m, axis) row-major."""
    return torch.bmm(moments.transpose(1, 2), moments[:, :, :axis]).flatten(1)  # (n, m * axis)


class Repinit(Operator):
    """Radial embedding of every neighbour, summed with the environment matrix and contracted."""

    def __init__(self, config: RepinitConfig | DPA1Config, environment: Environment, *, smooth: bool):
        super().__init__()
        self.config, self.environment, self.smooth = config, environment, smooth
        self.n_types = len(environment.mean)
        self.embedding = PairEmbedding(config.neuron, config, one_side=config.type_one_side)
        self.attention = nn.ModuleList()  # DPA-1 adds its layers

    @property
    def width(self) -> int:
        """Number of components per atom."""
        return self.config.neuron[-1] * self.config.axis_neuron

    def asked(self) -> Iterable[tuple[str, object]]:
        return [] if self.attention else [("embedded_moments", self.embedding.example())]

    def forward(self, hood: Neighborhood, tebd: Tensor) -> Tensor:
        """(n, m * axis) invariants."""
        shell, rows, w = self.environment(hood)  # rows (n, k, 4), w (n, k)
        # An embedding net sees the neighbour's type first, then the centre's.
        index = self.embedding.pair_index(shell.types_j, shell.types_i.unsqueeze(1), self.n_types)
        switch = w if self.smooth else None
        padding = self._padding(hood, shell, tebd) if self.environment.shifted else None
        if not self.attention:
            moments = self.embedding.moments(rows, index, tebd, switch)  # (n, 4, m)
        else:
            g = self.embedding(rows[..., 0], index, tebd, switch)  # (n, k, m)
            for layer in self.attention:
                g = layer(g, shell, w, self.config.nsel - shell.occupied)
            moments = torch.bmm(rows.transpose(1, 2), g)  # (n, 4, m)
        if padding is not None:
            for layer in self.attention:
                assert isinstance(layer, NeighborAttention)
                padding = layer.padding_row(padding)
            n_padding = (self.config.nsel - shell.occupied).to(rows.dtype)
            weight = self.environment.padding_rows(shell.types_i) * n_padding.unsqueeze(-1)  # (n, 4)
            moments = moments + weight.unsqueeze(-1) * padding.unsqueeze(1)
        return contract(moments / self.config.nsel, self.config.axis_neuron)

    def _padding(self, hood: Neighborhood, shell: Shell, tebd: Tensor) -> Tensor:
        """Embedding of a padding slot of each centre (n, m), which counts where the mean is not zero.

        deepmd-kit gives a padding slot the type of the first atom of the structure.
        """
        graph = hood.graph
        s = self.environment.padding_rows(shell.types_i)[:, 0]
        starts = torch.searchsorted(
            graph.structure, torch.arange(graph.n_structures, device=graph.structure.device)
        )
        first_type = graph.types[starts][graph.structure]
        index = self.embedding.pair_index(first_type, shell.types_i, self.n_types)
        return self.embedding(s, index, tebd, torch.zeros_like(s) if self.smooth else None)

    def tabulated_part(self, tebd: Tensor) -> TabulatedPart:
        """The whole block without attention; tebd (n_types, tebd_dim)."""
        embedding, types = self.embedding, torch.arange(self.n_types)
        lines = embedding.pair_index(types.unsqueeze(0), types.unsqueeze(1), self.n_types)
        lines = lines.expand(self.n_types, self.n_types)
        inputs, factors = embedding.pair_inputs(tebd), None
        if embedding.strip is not None:
            factors = embedding.strip(inputs)[lines]
            inputs, lines = tebd.new_zeros(1, 0), torch.zeros_like(lines)

        def padding(first_type: int) -> Tensor:
            s = self.environment.padding_rows(types)[:, 0]
            index = embedding.pair_index(torch.tensor(first_type), types, self.n_types)
            return embedding(s, index, tebd, torch.zeros_like(s) if self.smooth else None).unsqueeze(1)

        return TabulatedPart(
            embedding,
            self.environment,
            [(embedding.net, inputs)],
            lines,
            self.config.neuron[-1],
            self.config.axis_neuron,
            padding,
            self.smooth,
            factors,
        )
