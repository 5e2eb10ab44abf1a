"""A fourth descriptor, as another package would add it: radial symmetry functions of each element."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from dpa2calc.model.config import DescriptorConfig, check
from dpa2calc.model.descriptors import Descriptor, register
from dpa2calc.model.neighborhood import Neighborhood, switch


@dataclass(frozen=True, kw_only=True)
class RadialConfig(DescriptorConfig):
    """Gaussians of the distance, one set for each element of the neighbour."""

    title: ClassVar[str] = "radial symmetry functions"

    kind: Literal["radial"] = "radial"
    cutoff: float = 5.0
    nsel: int = 100
    n_radial: int = 8

    def __post_init__(self) -> None:
        check(self.n_radial > 0, "radial.n_radial", self.n_radial, "1 or more")

    def n_arrays(self, n_types: int) -> int:
        """Only the exponent."""
        return 1


class Radial(Descriptor):
    """G_i,kt = sum_j [t_j = t] exp(-eta_k (r_ij - R_k)^2) w(r_ij); the eta_k are trained."""

    config: RadialConfig
    centers: Tensor

    def __init__(self, config: RadialConfig, type_map: tuple[str, ...]):
        super().__init__(config, type_map)
        centers = torch.linspace(0.8, config.cutoff, config.n_radial, dtype=torch.float32)
        self.register_buffer("centers", centers)
        self.eta = nn.Parameter(torch.full_like(centers, (config.n_radial / config.cutoff) ** 2))

    @property
    def width(self) -> int:
        """A function of every element."""
        return self.config.n_radial * self.n_types

    def forward(self, hood: Neighborhood) -> Tensor:
        """(n_atoms, width)"""
        shell = hood.shell(self.config.cutoff, self.config.nsel)
        w = switch(shell.distances, self.config.cutoff, 0.5) * shell.mask
        bumps = torch.exp(-self.eta * (shell.distances.unsqueeze(-1) - self.centers) ** 2)  # (n, k, K)
        kinds = nn.functional.one_hot(shell.types_j, self.n_types).to(w) * w.unsqueeze(-1)  # (n, k, T)
        return torch.bmm(bumps.transpose(1, 2), kinds).flatten(1)


register(RadialConfig, Radial)
