"""Bridging to a tabulated pair potential (ZBL) at short distances (docs/maths.md 10)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dpa2calc.errors import DataError, StructureError
from dpa2calc.model.config import BridgingConfig
from dpa2calc.model.neighborhood import Neighborhood, Shell


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
        decay = torch.exp(-distances / c.smin_alpha) * mask
        sigma = (distances * decay).sum(dim=1) / decay.sum(dim=1).clamp(min=1e-20)
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


def table_coefficients(table: np.ndarray, n_types: int, cutoff: float) -> tuple[np.ndarray, float, float]:
    """Cubic pieces of a text table: column r, then the upper triangle of type pairs row by row.

    A table that has not reached zero before the cutoff is continued by one cubic to zero there.

    Returns:
        coefficients (n_types, n_types, n_intervals, 4), first r, spacing (Å).

    Raises:
        DataError: wrong number of columns or a grid that is not uniform.
    """
    from scipy.interpolate import CubicSpline  # here, because importing it takes a third of a second

    n_pairs = n_types * (n_types + 1) // 2
    if table.ndim != 2 or table.shape[1] != 1 + n_pairs:
        raise DataError(f"a pair table for {n_types} types needs {1 + n_pairs} columns, got {table.shape}")
    r = table[:, 0]
    h = float(r[1] - r[0])
    if not np.allclose(np.diff(r), h, rtol=1e-6, atol=1e-9):
        raise DataError("the distances of a pair table must be equally spaced")
    values = _extend(table[:, 1:], r, h, cutoff)
    grid = r[0] + h * np.arange(values.shape[0])
    out = np.zeros((n_types, n_types, len(grid) - 1, 4))
    column = 0
    for a in range(n_types):
        for b in range(a, n_types):
            spline = CubicSpline(grid, values[:, column], bc_type="clamped")
            pieces = (spline.c * h ** np.array([[3], [2], [1], [0]])).T  # in units of the spacing
            out[a, b] = out[b, a] = pieces
            column += 1
    return out, float(r[0]), h


def _extend(values: np.ndarray, r: np.ndarray, h: float, cutoff: float) -> np.ndarray:
    """Values on the grid up to the cutoff: unchanged where the table ends at 0, else one cubic to 0."""
    n_missing = round((cutoff - r[-1]) / h)
    if n_missing <= 0:
        return values
    last, slope = values[-1], (values[-1] - values[-2]) / h
    length = cutoff - r[-1]
    x = (h * np.arange(1, n_missing + 1) / length)[:, None]
    # Hermite cubic: value and slope of the table's end at x = 0, zero value and slope at the cutoff.
    tail = last * (1 + 2 * x) * (1 - x) ** 2 + slope * length * x * (1 - x) ** 2
    return np.vstack([values, np.where(np.abs(last) > 0, tail, 0.0)])
