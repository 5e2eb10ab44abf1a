"""Three-body part of the initialiser (docs/maths.md 4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from dpa2calc.model.config import Pairs, RepinitConfig, ThreeBodyConfig
from dpa2calc.model.embedding import PairEmbedding
from dpa2calc.model.layers import Operator
from dpa2calc.model.neighborhood import Environment, Neighborhood, type_pair_mask


class ThreeBody(Operator):
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
        """Number of components per atom."""
        return self.config.neuron[-1]

    def asked(self) -> Iterable[tuple[str, Any]]:
        return [("angle_sums", self.embedding.example())]

    def forward(self, hood: Neighborhood, tebd: Tensor) -> Tensor:
        """sum_jk c_jk G(c_jk; t_j, t_k) / nsel^2 with c_jk = R_j . R_k, (n, width) invariants."""
        shell = hood.shell(self.config.cutoff, self.config.nsel)
        excluded = None
        if self.excluded_pairs is not None:
            excluded = self.excluded_pairs[shell.types_i.unsqueeze(1), shell.types_j]
        rows, w = self.environment(shell, excluded)
        # With the constant normaliser, excluded and padding neighbours have zero directions.
        net = self.backend.folded(self.embedding.of_types, tebd)
        switch = w if self.smooth else None
        sums = self.backend.angle_sums(net, rows[..., 1:], shell.types_j, switch, shell.mask)
        return sums / self.config.nsel**2
