"""Three-body part of the initialiser (MATHS 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpa2calc.kernels.training.pair_list import FlatPairs
from dpa2calc.model.config import Pairs, RepinitConfig, ThreeBodyConfig
from dpa2calc.model.embedding import PairEmbedding
from dpa2calc.model.neighborhood import Environment, Neighborhood, Shell, type_pair_mask


class ThreeBody(nn.Module):
    """Sum over pairs of neighbours of the product of their directions, embedded with both types."""

    excluded_pairs: Tensor | None

    def __init__(
        self,
        config: ThreeBodyConfig,
        repinit: RepinitConfig,
        n_types: int,
        *,
        smooth: bool,
        exclude_types: Pairs,
        env_protection: float,
    ):
        super().__init__()
        self.config, self.n_types, self.smooth = config, n_types, smooth
        self.environment = Environment(
            n_types, config.cutoff, config.cutoff_smooth, protection=env_protection
        )
        self.embedding = PairEmbedding(
            config.neuron,
            repinit.tebd_dim,
            repinit.tebd_input_mode,
            one_side=False,  # always the types of both neighbours
            activation=repinit.activation,
            resnet_dt=repinit.resnet_dt,
        )
        self.register_buffer("excluded_pairs", type_pair_mask(exclude_types, n_types), persistent=False)

    @property
    def width(self) -> int:
        """Number of components an atom."""
        return self.config.neuron[-1]

    def forward(self, hood: Neighborhood, tebd: Tensor) -> Tensor:
        """(n, width) invariants."""
        shell = hood.shell(self.config.cutoff, self.config.nsel)
        excluded = None
        if self.excluded_pairs is not None:
            excluded = self.excluded_pairs[shell.types_i.unsqueeze(1), shell.types_j]
        rows, w = self.environment(shell, excluded)
        directions = rows[..., 1:]
        # With the constant normaliser, excluded and padding neighbours have zero directions.
        sums = self.embedding.angle_sums(directions, shell.types_j, tebd)
        if sums is not None:
            return sums / self.config.nsel**2
        if self.embedding.takes_columns:
            return self._sums_of_list(shell, directions, tebd) / self.config.nsel**2
        angles = torch.bmm(directions, directions.transpose(1, 2))  # (n, k, k)
        index = self.embedding.pair_index(
            shell.types_j.unsqueeze(2), shell.types_j.unsqueeze(1), self.n_types
        )
        both = w.unsqueeze(2) * w.unsqueeze(1) if self.smooth else None
        g = self.embedding(angles, index, tebd, both)  # (n, k, k, m)
        n = g.shape[0]
        total = torch.bmm(angles.reshape(n, 1, -1), g.reshape(n, -1, g.shape[-1]))  # (n, 1, m)
        return total.squeeze(1) / self.config.nsel**2

    def _sums_of_list(self, shell: Shell, directions: Tensor, tebd: Tensor) -> Tensor:
        """sum_jk c_jk G(c_jk; t_j, t_k), (n, width), without padding."""
        pairs = FlatPairs.of(shell.mask, shell.neighbors)
        first, second = pairs.squares()
        types = pairs.select(shell.types_j)
        angles = pairs.overlaps(pairs.select(directions))
        index = self.embedding.pair_index(types[first], types[second], self.n_types)
        columns = self.embedding.of_angles(angles, index, tebd)
        return pairs.restore_order(pairs.sum_squares(columns * angles).t())
