"""The pairs of a repformer: one set of methods, whatever the layout.

Values of pairs are (n, k, ...) in the layout by rows, with padding, and (P, ...) in a list without. Both are
made of blocks (b, c, ...) of atoms with c slots each, in which formulas are written once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Neighbors(NamedTuple):
    """What pairs are made from: atoms (n, k), where they count (n, k), and their switch (n, k)."""

    atoms: Tensor
    mask: Tensor
    switch: Tensor


@dataclass(frozen=True)
class PairTable:
    """The neighbours of all atoms; what layers need of them, in either layout.

    Attributes:
        switch: w(r) of every pair, 0 in padding. weight: the switch where the model is smooth, else 1.
        count: (n, 1), real neighbours.
        nsel: slots of deepmd-kit's list. smooth: sums have the constant normaliser, attentions the switch.
    """

    switch: Tensor
    weight: Tensor
    count: Tensor
    nsel: int
    smooth: bool

    # What a layout has to say.

    def take(self, table: Tensor) -> Tensor:
        """(n, k, ...) as values of pairs."""
        raise NotImplementedError

    def gather(self, x: Tensor) -> Tensor:
        """The neighbours' x: (n, d) -> (pairs, d)."""
        raise NotImplementedError

    def blocks(self, values: Tensor) -> Sequence[Tensor]:
        """Values of pairs (pairs, ...) as (b, c, ...)."""
        raise NotImplementedError

    def square_blocks(self, values: Tensor) -> Sequence[Tensor]:
        """Values of all two pairs of an atom, as `overlaps` has them, as (b, c, c)."""
        raise NotImplementedError

    def atom_blocks(self, x: Tensor) -> Sequence[Tensor]:
        """Values of the centres (n, ...) as (b, ...)."""
        raise NotImplementedError

    def join(self, blocks: Sequence[Tensor]) -> Tensor:
        """The inverse of `blocks`."""
        raise NotImplementedError

    def join_squares(self, blocks: Sequence[Tensor]) -> Tensor:
        """The inverse of `square_blocks`."""
        raise NotImplementedError

    def join_atoms(self, blocks: Sequence[Tensor]) -> Tensor:
        """The inverse of `atom_blocks`, 0 for atoms in no block."""
        raise NotImplementedError

    # What follows.

    def sum(self, values: Tensor) -> Tensor:
        """Over the neighbours: (pairs, d) -> (n, d)."""
        return self.join_atoms([block.sum(dim=1) for block in self.blocks(values)])

    def moments(self, a: Tensor, x: Tensor) -> Tensor:
        """sum_j a_j (x) x_j: (pairs, c), (pairs, d) -> (n, c, d)."""
        both = zip(self.blocks(a), self.blocks(x))
        return self.join_atoms([torch.bmm(p.transpose(1, 2), q) for p, q in both])

    def overlaps(self, x: Tensor) -> Tensor:
        """Scalar products x_j . x_k of all two pairs of an atom."""
        return self.join_squares([_overlap(block) for block in self.blocks(x)])

    def real_blocks(self) -> Sequence[Tensor]:
        """Which slots hold a neighbour, (b, c)."""
        return [block > 0 for block in self.blocks(self.weight)]

    def conv_norm(self) -> Tensor | float:
        """Normaliser of the convolution: number or (n, 1)."""
        return 1.0 / self.nsel if self.smooth else 1.0 / (1e-4 + self.count)

    def sym_norm(self, root: bool) -> Tensor | float:
        """Normaliser of the symmetrisation, with a square root or without: number or (n, 1)."""
        if self.smooth:
            return 1.0 / math.sqrt(self.nsel) if root else 1.0 / self.nsel
        return 1.0 / (1e-4 + (self.count.sqrt() if root else self.count))


def _overlap(x: Tensor) -> Tensor:
    """(b, c, d) -> (b, c, c)"""
    return x * x.transpose(1, 2) if x.shape[2] == 1 else torch.bmm(x, x.transpose(1, 2))


@dataclass(frozen=True)
class RowPairs(PairTable):
    """Values of pairs are (n, k, ...): one row of k slots for every atom, padding included."""

    neighbors: Tensor  # (n, k)
    mask: Tensor  # (n, k)

    @classmethod
    def of(cls, near: Neighbors, *, nsel: int, smooth: bool) -> RowPairs:
        """Pairs of a table of neighbours."""
        count = near.mask.sum(dim=1, keepdim=True).to(near.switch.dtype)
        weight = near.switch if smooth else near.mask.to(near.switch.dtype)
        return cls(near.switch, weight, count, nsel, smooth, near.atoms.contiguous(), near.mask)

    def take(self, table: Tensor) -> Tensor:
        return table

    def gather(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.neighbors.reshape(-1)).view(*self.neighbors.shape, x.shape[-1])

    def blocks(self, values: Tensor) -> Sequence[Tensor]:
        return [values]

    def square_blocks(self, values: Tensor) -> Sequence[Tensor]:
        return [values]

    def atom_blocks(self, x: Tensor) -> Sequence[Tensor]:
        return [x]

    def join(self, blocks: Sequence[Tensor]) -> Tensor:
        return blocks[0]

    def join_squares(self, blocks: Sequence[Tensor]) -> Tensor:
        return blocks[0]

    def join_atoms(self, blocks: Sequence[Tensor]) -> Tensor:
        return blocks[0]

    def real_blocks(self) -> Sequence[Tensor]:
        return [self.mask]
