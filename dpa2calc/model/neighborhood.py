"""Switch function and environment matrix of one block (docs/maths.md 1)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpa2calc.model.config import EnvironmentConfig, Pairs, ShellConfig
from dpa2calc.model.layers import Operator
from dpa2calc.structures.graph import Graph


def switch(distances: Tensor, cutoff: float, cutoff_smooth: float) -> Tensor:
    """w(r): 1 below `cutoff_smooth`, 0 beyond `cutoff`, with two continuous derivatives in between."""
    return _Switch.apply(distances, cutoff, cutoff_smooth)


class _Switch(torch.autograd.Function):
    """Its slope -30 u^2 (1 - u)^2 / (cutoff - cutoff_smooth) by hand: a quarter of the operations."""

    @staticmethod
    def forward(ctx: Any, distances: Tensor, cutoff: float, cutoff_smooth: float) -> Tensor:
        ctx.save_for_backward(distances)
        ctx.ends = cutoff, cutoff_smooth
        u = _way(distances, cutoff, cutoff_smooth)
        return u * u * u * (u * (15.0 - 6.0 * u) - 10.0) + 1.0

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (distances,), (cutoff, cutoff_smooth) = ctx.saved_tensors, ctx.ends
        u = _way(distances, cutoff, cutoff_smooth)
        v = u - u * u
        return grad * (v * v * (-30.0 / (cutoff - cutoff_smooth))), None, None


def _way(distances: Tensor, cutoff: float, cutoff_smooth: float) -> Tensor:
    """u: from 0 at `cutoff_smooth` to 1 at `cutoff`."""
    return ((distances - cutoff_smooth) * (1.0 / (cutoff - cutoff_smooth))).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Shell:
    """The neighbours that one block sees: a leading part of the graph's table.

    `mask` marks slots holding a neighbour, `counted` those of them that are not excluded from the block;
    `occupied` (n,) is the number of slots in `mask`: the other nsel - occupied slots of deepmd-kit's padded
    list are padding.
    """

    neighbors: Tensor  # (n, k)
    types_i: Tensor  # (n,)
    types_j: Tensor  # (n, k)
    vectors: Tensor  # (n, k, 3)
    distances: Tensor  # (n, k)
    mask: Tensor  # (n, k)
    counted: Tensor  # (n, k)
    occupied: Tensor  # (n,)

    def rows(self, rows: slice) -> Shell:
        """The same of some of the atoms."""
        return Shell(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


@dataclass(frozen=True)
class Neighborhood:
    """Graph plus what all blocks share: differentiable vectors and distances in the model's dtype."""

    graph: Graph
    vectors: Tensor  # (n, k, 3)
    distances: Tensor  # (n, k)
    types_j: Tensor  # (n, k)
    mask: Tensor  # (n, k), excluded pairs of the whole model taken out
    nearest: bool

    def shell(self, cutoff: float, nsel: int, excluded_pairs: Tensor | None = None) -> Shell:
        """The neighbours within `cutoff`, under the rule "nearest" only the first `nsel` slots.

        Args:
            excluded_pairs: (n_types, n_types) bool; such neighbours keep their slot, but do not count.
        """
        table = self.graph
        width = min(self.mask.shape[1], nsel) if self.nearest else self.mask.shape[1]
        inside = self.mask[:, :width] & (self.distances.detach()[:, :width] <= cutoff)
        if table.widths is not None:
            width = min(width, table.widths[cutoff])
        else:
            # The last used column, not a count: excluded pairs leave holes in the list.
            used = inside.any(dim=0).nonzero()
            width = int(used[-1]) + 1 if used.numel() else 1
        inside = counted = inside[:, :width]
        if excluded_pairs is not None:
            counted = inside & ~excluded_pairs[table.types.unsqueeze(1), self.types_j[:, :width]]
        return Shell(
            neighbors=table.neighbors[:, :width],
            types_i=table.types,
            types_j=self.types_j[:, :width],
            vectors=self.vectors[:, :width],
            distances=self.distances[:, :width],
            mask=inside,
            counted=counted,
            occupied=inside.sum(dim=1),
        )

    def without(self, excluded_pairs: Tensor) -> Neighborhood:
        """The same with neighbours of excluded type pairs (n_types, n_types) turned into padding."""
        keep = ~excluded_pairs[self.graph.types.unsqueeze(1), self.types_j]
        return dataclasses.replace(self, mask=self.mask & keep)


class Environment(Operator):
    """Normalised environment matrix of one block, with the statistics of the training data.

    mean, std: (n_types, 4), by the type of the centre; deepmd-kit stores them once for every slot. They are
    measured on the data before training, but for the mean of the distances where `mean_is_zero`.
    """

    mean: Tensor
    std: Tensor
    excluded_pairs: Tensor | None

    def __init__(
        self,
        shell: ShellConfig,
        descriptor: EnvironmentConfig,
        n_types: int,
        *,
        mean_is_zero: bool,
    ):
        super().__init__()
        self.cutoff, self.cutoff_smooth, self.nsel = shell.cutoff, shell.cutoff_smooth, shell.nsel
        self.protection, self.mean_is_zero = descriptor.env_protection, mean_is_zero
        excluded = type_pair_mask(descriptor.exclude_types, n_types)
        self.register_buffer("excluded_pairs", excluded, persistent=False)
        self.register_buffer("mean", torch.zeros(n_types, 4, dtype=torch.float32))
        self.register_buffer("std", torch.full((n_types, 4), 0.1, dtype=torch.float32))

    @property
    def shifted(self) -> bool:
        """Whether the mean is not zero, so that padding slots contribute (docs/maths.md 1)."""
        return self.backend.folded(self._has_mean)

    def _has_mean(self) -> bool:
        return bool(self.mean.any())

    def forward(self, hood: Neighborhood) -> tuple[Shell, Tensor, Tensor]:
        """The neighbours, their rows (n, k, 4) and switch (n, k); both are 0 where none counts."""
        shell = hood.shell(self.cutoff, self.nsel, self.excluded_pairs)
        w = switch(shell.distances, self.cutoff, self.cutoff_smooth) * shell.counted
        inverse = 1.0 / (shell.distances + self.protection)
        radial = w * inverse
        angular = (radial * inverse).unsqueeze(-1) * shell.vectors
        rows = torch.cat([radial.unsqueeze(-1), angular], dim=-1)
        if self.shifted:
            rows = (rows - self.mean[shell.types_i].unsqueeze(1)) * shell.counted.unsqueeze(-1)
        return shell, rows / self.std[shell.types_i].unsqueeze(1), w

    def padding_rows(self, types: Tensor) -> Tensor:
        """What a padding slot holds for a centre of each type: -mean/std, (n, 4)."""
        return (-self.mean / self.std)[types]


def type_pair_mask(pairs: Pairs, n_types: int) -> Tensor | None:
    """(n_types, n_types) bool table of excluded pairs (both orders), or None when there is none."""
    if not pairs:
        return None
    table = torch.zeros(n_types, n_types, dtype=torch.bool)
    for a, b in pairs:
        table[a, b] = table[b, a] = True
    return table
