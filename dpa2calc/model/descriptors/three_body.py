"""Three-body part of the initialiser (docs/maths.md 4)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from dpa2calc.model.config import RepinitConfig, ThreeBodyConfig
from dpa2calc.model.embedding import PairEmbedding
from dpa2calc.model.layers import Operator
from dpa2calc.model.neighborhood import Environment, Neighborhood


class ThreeBody(Operator):
    """Sum over pairs of neighbours of the product of their directions, embedded with both types."""

    def __init__(
        self, config: ThreeBodyConfig, repinit: RepinitConfig, environment: Environment, *, smooth: bool
    ):
        super().__init__()
        self.config, self.environment, self.smooth = config, environment, smooth
        self.embedding = PairEmbedding(config.neuron, repinit, one_side=False)  # types of both neighbours

    @property
    def width(self) -> int:
        """Number of components per atom."""
        return self.config.neuron[-1]

    def asked(self) -> Iterable[tuple[str, object]]:
        return [("angle_sums", self.embedding.example())]

    def forward(self, hood: Neighborhood, tebd: Tensor) -> Tensor:
        """sum_jk c_jk G(c_jk; t_j, t_k) / nsel^2 with c_jk = R_j . R_k, (n, width) invariants."""
        shell, rows, w = self.environment(hood)
        # With the constant normaliser, excluded and padding neighbours have zero directions.
        net = self.backend.folded(self.embedding.of_types, tebd)
        switch = w if self.smooth else None
        sums = self.backend.angle_sums(net, rows[..., 1:], shell.types_j, switch, shell.mask)
        return sums / self.config.nsel**2
