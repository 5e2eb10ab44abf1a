"""The pairs of all atoms in one list, for training: no work is done on padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IntArray = npt.NDArray[np.int64]


class Group(NamedTuple):
    """Atoms with the same number of neighbours: how many, and where they, their pairs and squares begin."""

    atoms: int
    neighbors: int
    first_atom: int
    first_pair: int
    first_square: int


@dataclass(frozen=True)
class FlatPairs:
    """The pairs of all atoms in one list, those of an atom behind each other, few neighbours first.

    order (n,): the atoms as they come; groups: of the same number of neighbours, without those that have
    none. chosen (P,): where the pairs are in a flattened (n, k) table; centers, neighbors (P,): the two
    atoms of each pair. As arrays for the kernels: first, count (n,): the pairs of each atom; others (P,):
    `neighbors`; rows (P,): 0, 1, 2 ...
    """

    order: Tensor
    groups: tuple[Group, ...]
    chosen: Tensor
    centers: Tensor
    neighbors: Tensor
    first: IntArray
    count: IntArray
    others: IntArray
    rows: IntArray

    @staticmethod
    def of(mask: Tensor, neighbors: Tensor) -> FlatPairs:
        """From a table: mask and neighbours (n, k)."""
        k = mask.shape[1]
        count = mask.sum(dim=1)
        sorted_count, order = torch.sort(count, stable=True)
        place, column = mask.index_select(0, order).nonzero(as_tuple=True)
        centers = order[place]
        chosen = centers * k + column
        first = torch.empty_like(count)
        first[order] = sorted_count.cumsum(0) - sorted_count
        flat = neighbors.reshape(-1)[chosen]
        groups, rows = _groups(sorted_count.cpu().numpy()), np.arange(len(chosen))
        begin, counts, others = (v.cpu().numpy() for v in (first, count, flat))
        return FlatPairs(order, groups, chosen, centers, flat, begin, counts, others, rows)

    def select(self, table: Tensor) -> Tensor:
        """(n, k, ...) -> (P, ...)"""
        return table.flatten(0, 1).index_select(0, self.chosen)

    def restore_order(self, values: Tensor) -> Tensor:
        """Rows that stand for the atoms in `order`, as the atoms themselves come."""
        return values.index_select(0, torch.argsort(self.order))

    def squares(self) -> tuple[Tensor, Tensor]:
        """First and second pair of all two pairs of one atom, (sum of count^2,) each, atom by atom."""
        rows = torch.arange(len(self.chosen), device=self.chosen.device)
        first, second = [rows[:0]], [rows[:0]]
        for mine in self._blocks(rows.unsqueeze(1)):  # (atoms, count, 1)
            c = mine.shape[1]
            first.append(mine.expand(-1, -1, c).flatten())
            second.append(mine.transpose(1, 2).expand(-1, c, -1).flatten())
        return torch.cat(first), torch.cat(second)

    def overlaps(self, rows: Tensor) -> Tensor:
        """Scalar products of the rows (P, d) of all two pairs of one atom, (sum of count^2,)."""
        blocks = self._blocks(rows)
        return torch.cat([rows.new_zeros(0), *(torch.bmm(x, x.transpose(1, 2)).flatten() for x in blocks)])

    def sum_squares(self, values: Tensor) -> Tensor:
        """Sums over all two pairs of each atom: (m, sum of count^2) -> (m, n), atoms as in `order`."""
        alone = len(self.order) - sum(g.atoms for g in self.groups)
        parts = values.split([g.atoms * g.neighbors**2 for g in self.groups], dim=1) if self.groups else ()
        sums = [part.unflatten(1, (g.atoms, -1)).sum(dim=2) for g, part in zip(self.groups, parts)]
        return torch.cat([values.new_zeros(len(values), alone), *sums], dim=1)

    def _blocks(self, rows: Tensor) -> list[Tensor]:
        """(P, d) -> (atoms, count, d) of each group."""
        if not self.groups:
            return []
        parts = rows.split([g.atoms * g.neighbors for g in self.groups])
        return [part.unflatten(0, (g.atoms, g.neighbors)) for g, part in zip(self.groups, parts)]


def _groups(counts: IntArray) -> tuple[Group, ...]:
    """From the numbers of neighbours in rising order."""
    groups, atom, pair, square = [], 0, 0, 0
    for count, atoms in zip(*(v.tolist() for v in np.unique(counts, return_counts=True))):
        if count:
            groups.append(Group(atoms, count, atom, pair, square))
        atom, pair, square = atom + atoms, pair + atoms * count, square + atoms * count * count
    return tuple(groups)
