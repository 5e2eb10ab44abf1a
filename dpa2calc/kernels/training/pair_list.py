"""The pairs of all atoms in one list, for training: no work is done on padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpa2calc.kernels.pairs import Neighbors, PairTable

Made = TypeVar("Made")
IntArray = npt.NDArray[np.int64]


class _Join(torch.autograd.Function):
    """torch.cat, whose second derivative would make an array as long as the whole for every part."""

    @staticmethod
    def forward(ctx: Any, dim: int, *parts: Tensor) -> Tensor:
        ctx.dim, ctx.sizes = dim, [part.shape[dim] for part in parts]
        return torch.cat(parts, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return None, *grad.split(ctx.sizes, ctx.dim)


def _join(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    return _Join.apply(dim, *parts)


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
    none; at least one. chosen (P,): where the pairs are in a flattened (n, k) table; centers, neighbors
    (P,): the two atoms of each pair. As arrays for the kernels: first, count (n,): the pairs of each atom;
    others (P,): `neighbors`; rows (P,): 0, 1, 2 ...
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
        first, second = [], []
        for mine in self.blocks(rows):  # (atoms, count)
            c = mine.shape[1]
            first.append(mine.unsqueeze(2).expand(-1, -1, c).flatten())
            second.append(mine.unsqueeze(1).expand(-1, c, -1).flatten())
        return torch.cat(first), torch.cat(second)

    def overlaps(self, rows: Tensor) -> Tensor:
        """Scalar products of the rows (P, d) of all two pairs of one atom, (sum of count^2,)."""
        return _join([torch.bmm(x, x.transpose(1, 2)).flatten() for x in self.blocks(rows)])

    def sum_squares(self, values: Tensor) -> Tensor:
        """Sums over all two pairs of each atom: (m, sum of count^2) -> (m, n), atoms as in `order`."""
        parts = values.split([g.atoms * g.neighbors**2 for g in self.groups], dim=1)
        sums = [
            part.unflatten(1, (g.atoms, g.neighbors**2)).sum(dim=2) for g, part in zip(self.groups, parts)
        ]
        return _join([values.new_zeros(len(values), self.alone), *sums], dim=1)

    @property
    def alone(self) -> int:
        """Number of atoms without neighbours, the first ones in `order`."""
        return self.groups[0].first_atom

    def blocks(self, rows: Tensor) -> list[Tensor]:
        """(P, ...) -> (atoms, count, ...) of each group."""
        parts = rows.split([g.atoms * g.neighbors for g in self.groups])
        return [part.unflatten(0, (g.atoms, g.neighbors)) for g, part in zip(self.groups, parts)]

    def square_blocks(self, values: Tensor) -> list[Tensor]:
        """(sum of count^2,) -> (atoms, count, count) of each group."""
        parts = values.split([g.atoms * g.neighbors**2 for g in self.groups])
        shapes = [(g.atoms, g.neighbors, g.neighbors) for g in self.groups]
        return [part.view(shape) for part, shape in zip(parts, shapes)]


def _groups(counts: IntArray) -> tuple[Group, ...]:
    """From the numbers of neighbours in rising order."""
    groups, atom, pair, square = [], 0, 0, 0
    for count, atoms in zip(*(v.tolist() for v in np.unique(counts, return_counts=True))):
        if count:
            groups.append(Group(atoms, count, atom, pair, square))
        atom, pair, square = atom + atoms, pair + atoms * count, square + atoms * count * count
    return tuple(groups) or (Group(0, 1, atom, 0, 0),)  # one without atoms, so that there is always one


@dataclass(frozen=True)
class ListPairs(PairTable):
    """Values of pairs are (P, ...): one list without padding, in the order of `flat`."""

    flat: FlatPairs
    near: Neighbors
    _made: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, near: Neighbors, *, nsel: int) -> ListPairs:
        """Pairs of a table of neighbours, of a smooth model."""
        flat = FlatPairs.of(near.mask, near.atoms)
        switch = flat.select(near.switch)
        count = near.mask.sum(dim=1, keepdim=True).to(switch.dtype)
        return cls(switch, switch, count, nsel, True, flat, near)

    def take(self, table: Tensor) -> Tensor:
        return self.flat.select(table)

    def gather(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.flat.neighbors)

    def blocks(self, values: Tensor) -> Sequence[Tensor]:
        return self.flat.blocks(values)

    def square_blocks(self, values: Tensor) -> Sequence[Tensor]:
        return self.flat.square_blocks(values)

    def atom_blocks(self, x: Tensor) -> Sequence[Tensor]:
        ordered = x.index_select(0, self.flat.order)
        return [ordered[g.first_atom : g.first_atom + g.atoms] for g in self.flat.groups]

    def join(self, blocks: Sequence[Tensor]) -> Tensor:
        return _join([block.flatten(0, 1) for block in blocks])

    def join_squares(self, blocks: Sequence[Tensor]) -> Tensor:
        return _join([block.flatten() for block in blocks])

    def join_atoms(self, blocks: Sequence[Tensor]) -> Tensor:
        alone = blocks[0].new_zeros(self.flat.alone, *blocks[0].shape[1:])
        return self.flat.restore_order(_join([alone, *blocks]))

    def sum(self, values: Tensor) -> Tensor:
        return values.new_zeros(len(self.count), values.shape[1]).index_add(0, self.flat.centers, values)

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """What `make` returns, made at the first call with this key and kept."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]
