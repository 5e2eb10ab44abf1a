"""Bridging to a tabulated pair potential (ZBL) at short distances (docs/maths.md 10)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpa2calc.errors import StructureError
from dpa2calc.model.config import BridgingConfig
from dpa2calc.model.neighborhood import Neighborhood, Shell
from dpa2calc.structures.graph import FAR


class Bridging(nn.Module):
    """Weight of the table and its energy for every atom.

    coefficients: (n_types, n_types, n_intervals, 4), float64: cubic pieces in (r - r_k) / h, highest
    power first.
    """

    coefficients: Tensor

    def __init__(self, config: BridgingConfig, n_types: int):
        super().__init__()
        self.config = config
        shape = (n_types, n_types, max(config.n_intervals, 1), 4)
        self.register_buffer("coefficients", torch.zeros(shape, dtype=torch.float64))

    def forward(self, hood: Neighborhood) -> tuple[Tensor, Tensor]:
        """Weight c (n,) and table energy (n,) in eV, both float64."""
        shell = hood.shell(self.config.cutoff, self.config.nsel)
        distances = shell.distances.to(torch.float64)
        return self._weight(distances, shell.mask), self._energy(distances, shell)

    def _weight(self, distances: Tensor, mask: Tensor) -> Tensor:
        c = self.config
        # Taken from the nearest neighbour's, which cancels: far neighbours alone would vanish.
        shortest = torch.where(mask, distances.detach(), FAR).amin(dim=1, keepdim=True)
        decay = torch.exp(torch.where(mask, (shortest - distances) / c.smin_alpha, -torch.inf))
        sigma = (distances * decay).sum(dim=1) / decay.sum(dim=1).clamp(min=1.0)
        u = ((sigma - c.switch_min) / (c.switch_max - c.switch_min)).clamp(0.0, 1.0)
        weight = 1.0 + u * u * u * (u * (15.0 - 6.0 * u) - 10.0)
        return torch.where(sigma == 0.0, 0.0, weight)

    def _energy(self, distances: Tensor, shell: Shell) -> Tensor:
        c = self.config
        position = (distances - c.r_min) / c.spacing
        if bool(((position < 0) & shell.mask).any()):
            shortest = float(distances[shell.mask].min())
            raise StructureError(
                f"two atoms are {shortest:.4f} Å apart, below the first point of the pair table ({c.r_min} Å)"
            )
        interval = position.detach().floor().clamp(0, c.n_intervals - 1).long()
        t = position - interval
        a3, a2, a1, a0 = self.coefficients[shell.types_i.unsqueeze(1), shell.types_j, interval].unbind(-1)
        values = ((a3 * t + a2) * t + a1) * t + a0
        inside = shell.mask & (position.detach() < c.n_intervals) & (distances.detach() < c.cutoff)
        return 0.5 * torch.where(inside, values, 0.0).sum(dim=1)
