"""The DeepPot-SE descriptor (se_e2_a): one embedding net for each pair of types (docs/maths.md 8)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dpa2calc.kernels.net import ScalarNet
from dpa2calc.kernels.tables.moments import TabulatedEmbedding
from dpa2calc.model.config import DeepPotSEConfig
from dpa2calc.model.descriptors import Descriptor, TabulatedPart
from dpa2calc.model.descriptors.se_atten import contract
from dpa2calc.model.embedding import scalar_net
from dpa2calc.model.layers import MLP
from dpa2calc.model.neighborhood import Environment, Neighborhood, Shell


class DeepPotSE(Descriptor):
    """Atomic representation of width m * axis; `sel` neighbours of each type."""

    config: DeepPotSEConfig

    def __init__(self, config: DeepPotSEConfig, type_map: tuple[str, ...]):
        super().__init__(config, type_map)
        self.environment = Environment(config, config, self.n_types, mean_is_zero=config.set_davg_zero)
        n_nets = self.n_types if config.type_one_side else self.n_types**2
        self.nets: nn.ModuleList = nn.ModuleList(
            MLP(1, config.neuron, config.activation, resnet_dt=config.resnet_dt) for _ in range(n_nets)
        )
        self.tabulated: TabulatedEmbedding | None = None  # set by `compress`

    @property
    def width(self) -> int:
        """Number of components of the descriptor."""
        return self.config.neuron[-1] * self.config.axis_neuron

    def net_index(self, center: int, kind: int) -> int:
        """Number of the embedding net for neighbours of type `kind` around a type."""
        return kind if self.config.type_one_side else center + self.n_types * kind

    def forward(self, hood: Neighborhood) -> Tensor:
        """(n_atoms, width)"""
        shell, rows, _ = self.environment(hood)
        kept = self._kept(shell, hood.nearest)
        lines = shell.types_j
        if not self.config.type_one_side:
            lines = shell.types_i.unsqueeze(1) + self.n_types * shell.types_j
        moments = self.backend.moments_by_net(self.scalar_nets(), rows, lines, kept, self.tabulated)
        if self.environment.shifted:
            moments = moments + self._padding(shell, kept)
        return contract(moments / self.config.nsel, self.config.axis_neuron)

    def _kept(self, shell: Shell, nearest: bool) -> Tensor:
        """(n, k), the neighbours that have a slot: under the rule "nearest" the first of each type."""
        kept = shell.mask
        if nearest:
            for kind, most in enumerate(self.config.sel):
                of_kind = kept & (shell.types_j == kind)
                kept = kept & ~(of_kind & (of_kind.cumsum(dim=1) > most))
        return kept

    def _padding(self, shell: Shell, kept: Tensor) -> Tensor:
        """What empty slots add to the moments, (n, 4, m)."""
        count = torch.stack([(kept & (shell.types_j == t)).sum(dim=1) for t in range(self.n_types)], dim=1)
        rows = self.environment.padding_rows(shell.types_i)  # (n, 4)
        empty = count.new_tensor(self.config.sel) - count  # (n, n_types)
        values = self.backend.folded(self.padding_values)[shell.types_i]  # (n, n_types, m)
        return rows.unsqueeze(2) * torch.bmm(empty.to(rows).unsqueeze(1), values)

    def why_not_tabulated(self) -> str | None:
        """Every net is a function of one number."""
        return None

    def tabulated_part(self) -> TabulatedPart:
        """The whole descriptor; a table for each net, in their order."""
        types = range(self.n_types)
        return TabulatedPart(
            self,
            self.environment,
            [(net, torch.zeros(1, 0)) for net in self.nets],  # type: ignore[misc]
            torch.tensor([[self.net_index(i, j) for j in types] for i in types]),
            self.config.neuron[-1],
            self.config.axis_neuron,
            lambda first_type: self.padding_values(),
        )

    def padding_values(self) -> Tensor:
        """Embedding of an empty slot, by the types of the centre and of the slot, (n_types, n_types, m)."""
        types = range(self.n_types)
        s = self.environment.padding_rows(torch.arange(self.n_types, device=self.environment.mean.device))
        nets = [[self.nets[self.net_index(i, j)] for j in types] for i in types]
        return torch.stack([torch.stack([net(s[i, :1]) for net in nets[i]]) for i in types])

    def scalar_nets(self) -> list[ScalarNet]:
        """The nets in their order."""
        return [scalar_net(net) for net in self.nets if isinstance(net, MLP)]

    def asked(self) -> Iterable[tuple[str, object]]:
        return [("embedded_moments", net) for net in self.scalar_nets()[:1]]
