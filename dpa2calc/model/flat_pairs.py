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
    count: int
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
        groups = _groups(sorted_count.numpy())
        rows = np.arange(len(chosen))
        return FlatPairs(
            order, groups, chosen, centers, flat, first.numpy(), count.numpy(), flat.numpy(), rows
        )

    def select(self, table: Tensor) -> Tensor:
        """(n, k, ...) -> (P, ...)"""
        return table.flatten(0, 1).index_select(0, self.chosen)

    def restore_order(self, values: Tensor) -> Tensor:
        """Rows that stand for the atoms in `order`, as the atoms themselves come."""
        return values.index_select(0, torch.argsort(self.order))

    def squares(self) -> tuple[Tensor, Tensor]:
        """First and second pair of all two pairs of one atom, (sum of count^2,) each, atom by atom."""
        first, second = [], []
        for group in self.groups:
            c = group.count
            begin = group.first_pair + c * torch.arange(group.atoms).view(-1, 1, 1)
            j, k = torch.arange(c).view(1, c, 1), torch.arange(c).view(1, 1, c)
            first.append((begin + j).expand(-1, -1, c).flatten())
            second.append((begin + k).expand(-1, c, -1).flatten())
        none = self.chosen.new_zeros(0)
        return torch.cat([none, *first]), torch.cat([none, *second])


def _groups(counts: IntArray) -> tuple[Group, ...]:
    """From the numbers of neighbours in rising order."""
    groups, atom, pair, square = [], 0, 0, 0
    for count, atoms in zip(*(v.tolist() for v in np.unique(counts, return_counts=True))):
        if count:
            groups.append(Group(atoms, count, atom, pair, square))
        atom, pair, square = atom + atoms, pair + atoms * count, square + atoms * count * count
    return tuple(groups)
