"""The DeepPot-SE descriptor (se_e2_a): one embedding net for each pair of types (MATHS 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpa2calc.kernels.inference.embedding import EmbeddedMoments, net_of
from dpa2calc.kernels.tables.moments import TabulatedEmbedding
from dpa2calc.model.config import DeepPotSEConfig
from dpa2calc.model.descriptors import Descriptor, StatisticsBlock, TabulatedPart
from dpa2calc.model.descriptors.se_atten import contract
from dpa2calc.model.layers import MLP
from dpa2calc.model.neighborhood import Environment, Neighborhood, Shell, type_pair_mask


class DeepPotSE(Descriptor):
    """Atomic representation of width m * axis; `sel` neighbours of each type."""

    config: DeepPotSEConfig
    excluded_pairs: Tensor | None

    def __init__(self, config: DeepPotSEConfig, type_map: tuple[str, ...]):
        super().__init__(config, type_map)
        self.environment = Environment(
            self.n_types, config.cutoff, config.cutoff_smooth, protection=config.env_protection
        )
        n_nets = self.n_types if config.type_one_side else self.n_types**2
        self.nets: nn.ModuleList = nn.ModuleList(
            MLP(1, config.neuron, config.activation, resnet_dt=config.resnet_dt) for _ in range(n_nets)
        )
        self.tabulated: TabulatedEmbedding | None = None  # set by `compress`
        self.register_buffer(
            "excluded_pairs", type_pair_mask(config.exclude_types, self.n_types), persistent=False
        )

    @property
    def width(self) -> int:
        """Number of components of the descriptor."""
        return self.config.neuron[-1] * self.config.axis_neuron

    def net_index(self, center: int, kind: int) -> int:
        """Number of the embedding net for neighbours of type `kind` around a type."""
        return kind if self.config.type_one_side else center + self.n_types * kind

    def forward(self, hood: Neighborhood) -> Tensor:
        """(n_atoms, width)"""
        shell = hood.shell(self.config.cutoff, self.config.nsel)
        excluded = None
        if self.excluded_pairs is not None:
            excluded = self.excluded_pairs[shell.types_i.unsqueeze(1), shell.types_j]
        rows, _ = self.environment(shell, excluded)
        out = rows.new_zeros(rows.shape[0], self.width)
        tabulated = self._tabulated_moments(shell, rows, hood.nearest)
        for center in range(self.n_types):
            atoms = (shell.types_i == center).nonzero().squeeze(1)
            if atoms.numel():
                moments = self._moments(center, atoms, shell, rows, hood.nearest, tabulated)
                out = out.index_copy(0, atoms, contract(moments, self.config.axis_neuron))
        return out

    def _tabulated_moments(self, shell: Shell, rows: Tensor, nearest: bool) -> Tensor | None:
        """The sum over real neighbours of every atom (n, 4, m) by tables, or None without tables."""
        if self.tabulated is None or next(self.nets.parameters()).requires_grad:
            return None
        kept = shell.mask
        if nearest:
            for kind, most in enumerate(self.config.sel):
                of_kind = kept & (shell.types_j == kind)
                kept = kept & ~(of_kind & (of_kind.cumsum(dim=1) > most))
        centers = shell.types_i.unsqueeze(1).expand_as(shell.types_j)
        lines = shell.types_j if self.config.type_one_side else centers + self.n_types * shell.types_j
        return self.tabulated.moments(rows * kept.unsqueeze(-1), lines)

    def _moments(
        self,
        center: int,
        atoms: Tensor,
        shell: Shell,
        rows: Tensor,
        nearest: bool,
        tabulated: Tensor | None,
    ) -> Tensor:
        """Sum over neighbours of all types for the atoms of one type, (n_center, 4, m)."""
        c = self.config
        total = rows.new_zeros(atoms.numel(), 4, c.neuron[-1]) if tabulated is None else tabulated[atoms]
        padding_rows = self.environment.padding_rows(shell.types_i[atoms])  # (n_center, 4)
        for kind in range(self.n_types):
            of_kind = shell.mask[atoms] & (shell.types_j[atoms] == kind)  # (n_center, k)
            if nearest:
                of_kind &= of_kind.cumsum(dim=1) <= c.sel[kind]
            count = of_kind.sum(dim=1)
            net = self.nets[self.net_index(center, kind)]
            widest = int(count.max()) if tabulated is None else 0
            if widest:
                # Slots of this type first, in their order, cut to the largest count.
                slots = of_kind.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :widest]
                used = of_kind.gather(1, slots).unsqueeze(-1)
                section = rows[atoms.unsqueeze(1), slots] * used  # (n_center, widest, 4)
                total = total + embedded_moments(net, section)
            if self.environment.shifted:
                n_padding = (c.sel[kind] - count).to(rows.dtype)
                value = net(padding_rows[:, :1])  # (n_center, m)
                weight = (padding_rows * n_padding.unsqueeze(-1)).unsqueeze(-1)  # (n_center, 4, 1)
                total = total + weight * value.unsqueeze(1)
        return total / c.nsel

    def statistics_blocks(self) -> list[StatisticsBlock]:
        """The one block."""
        return [StatisticsBlock(self.environment, self.config.nsel, self.config.set_davg_zero)]

    def why_not_tabulated(self) -> str | None:
        """Every net is a function of one number."""
        return None

    def tabulated_part(self) -> TabulatedPart:
        """The whole descriptor; a table for each net, in their order."""
        types = range(self.n_types)

        def padding(first_type: int) -> Tensor:
            s = self.environment.padding_rows(torch.arange(self.n_types))[:, :1]
            values = [self.nets[self.net_index(i, j)](s[i]) for i in types for j in types]
            return torch.stack(values).view(self.n_types, self.n_types, -1)

        return TabulatedPart(
            self,
            self.environment,
            [(net, torch.zeros(1, 0)) for net in self.nets],  # type: ignore[misc]
            torch.tensor([[self.net_index(i, j) for j in types] for i in types]),
            self.config.neuron[-1],
            self.config.axis_neuron,
            padding,
            self.excluded_pairs,
        )


def embedded_moments(net: nn.Module, rows: Tensor) -> Tensor:
    """sum_j rows_j (x) net(rows_j,0): (n, k, 4) -> (n, 4, m)."""
    assert isinstance(net, MLP)
    frozen = net_of(net)
    if frozen is None:
        return torch.bmm(rows.transpose(1, 2), net(rows[..., :1]))
    index = torch.zeros(rows.shape[:2], dtype=torch.int64, device=rows.device)
    return EmbeddedMoments.apply(
        rows, index, torch.as_tensor(net.layers[0].bias).unsqueeze(0), None, None, frozen
    )
