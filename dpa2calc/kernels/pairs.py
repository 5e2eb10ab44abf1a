"""The pairs of a repformer: one list, and one set of methods whatever its blocks are.

Values of pairs are (P, ...), block of atoms behind block. Formulas see blocks (b, c, ...) of b atoms with c
slots each, some of which may be padding. In the plain formulas all atoms are one block; other backends choose
blocks in which there is little padding, or none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from .blocks import Blocks, Cut, count_of

Table = TypeVar("Table", bound="PairTable")


class Neighbors(NamedTuple):
    """What pairs are made from: atoms (n, k), where they count (n, k), and their switch (n, k)."""

    atoms: Tensor
    mask: Tensor
    switch: Tensor


class PairBlock(NamedTuple):
    """Atoms (b,) or a range of them, with c slots each; where their pairs and squares are in the lists."""

    atoms: Tensor | slice
    width: int
    pairs: slice
    squares: slice

    def of(self, values: Tensor) -> Tensor:
        """Values of the pairs, (P, ...) -> (b, c, ...), a view."""
        return self.of_rows(values[self.pairs])

    def of_rows(self, rows: Tensor) -> Tensor:
        """Values of the pairs of this block alone, (b * c, ...) -> (b, c, ...), a view."""
        return rows.reshape(count_of(self.atoms), self.width, *rows.shape[1:])

    def square(self, values: Tensor) -> Tensor:
        """Values of all two pairs of an atom, (S,) -> (b, c, c), a view."""
        return self.of_square(values[self.squares])

    def of_square(self, squares: Tensor) -> Tensor:
        """Values of the squares of this block alone, (b * c * c,) -> (b, c, c), a view."""
        return squares.reshape(count_of(self.atoms), self.width, self.width)


@dataclass(frozen=True)
class PairTable:
    """The neighbours of all atoms, and what layers need of them.

    Attributes:
        switch: w(r) of every pair, 0 in padding. weight: the switch where the model is smooth, else 1.
        count: (n, 1), real neighbours.
        nsel: slots of deepmd-kit's list. smooth: sums have the constant normaliser, attentions the switch.
        cut: the blocks; an atom without neighbours may be in none.
        order: the atoms of all blocks; None: as they come. chosen (P,): where the pairs are in a flattened
            (n, k) table; None: everywhere, in its order.
        neighbors: (P,), the second atom of each pair.
    """

    switch: Tensor
    weight: Tensor
    count: Tensor
    nsel: int
    smooth: bool
    cut: Blocks[PairBlock]
    order: Tensor | None
    chosen: Tensor | None
    neighbors: Tensor

    @classmethod
    def cut_up(
        cls: type[Table], near: Neighbors, cuts: Blocks[Cut], *, nsel: int, smooth: bool,
        chosen: Tensor | None = None,
    ) -> Table:  # fmt: skip
        """Pairs of a table of neighbours in these blocks, of which there is at least one.

        chosen: as the attribute; None: the first slots of the atoms, as many as their block is wide.
        """
        k, rows, pair, square = near.mask.shape[1], [], 0, 0
        for atoms, width in cuts.rows:
            pairs, squares = pair + count_of(atoms) * width, square + count_of(atoms) * width**2
            rows.append(PairBlock(atoms, width, slice(pair, pairs), slice(square, squares)))
            pair, square = pairs, squares
        listed = [(atoms, width) for atoms, width in cuts.rows if isinstance(atoms, Tensor)]
        if listed and chosen is None:
            columns = torch.arange(k, device=near.mask.device)
            chosen = torch.cat([(a.unsqueeze(1) * k + columns[:width]).flatten() for a, width in listed])

        def taken(table: Tensor) -> Tensor:
            flat = table.reshape(-1)
            return flat if chosen is None else flat.index_select(0, chosen)

        switch, neighbors = taken(near.switch), taken(near.atoms)
        weight = switch if smooth else taken(near.mask.to(switch.dtype))
        order = torch.cat([atoms for atoms, _ in listed]) if listed else None
        count = near.mask.sum(dim=1, keepdim=True).to(near.switch.dtype)
        blocks = Blocks(tuple(rows), cuts.parts)
        return cls(switch, weight, count, nsel, smooth, blocks, order, chosen, neighbors)

    @classmethod
    def whole(cls: type[Table], near: Neighbors, *, nsel: int, smooth: bool) -> Table:
        """All atoms with all slots, padding included."""
        n, k = near.mask.shape
        return cls.cut_up(near, Blocks((Cut(slice(0, n), k),), 1), nsel=nsel, smooth=smooth)

    # --- between layouts --------------------------------------------------------------------------

    def take(self, table: Tensor) -> Tensor:
        """(n, k, ...) as values of pairs."""
        flat = table.flatten(0, 1)
        return flat if self.chosen is None else flat.index_select(0, self.chosen)

    def gather(self, x: Tensor) -> Tensor:
        """The neighbours' x: (n, d) -> (P, d)."""
        return x.index_select(0, self.neighbors)

    def blocks(self, values: Tensor) -> Sequence[Tensor]:
        """Values of pairs (P, ...) as (b, c, ...)."""
        # Split, whose gradient is one array; that of a slice is one of zeros for every block.
        parts = values.split([block.pairs.stop - block.pairs.start for block in self.cut.rows])
        return [block.of_rows(part) for block, part in zip(self.cut.rows, parts)]

    def square_blocks(self, values: Tensor) -> Sequence[Tensor]:
        """Values of all two pairs of an atom, as `overlaps` has them, as (b, c, c)."""
        parts = values.split([block.squares.stop - block.squares.start for block in self.cut.rows])
        return [block.of_square(part) for block, part in zip(self.cut.rows, parts)]

    def atom_blocks(self, x: Tensor) -> Sequence[Tensor]:
        """Values of the centres (n, ...) as (b, ...)."""
        ordered = x if self.order is None else x.index_select(0, self.order)
        return ordered.split([count_of(block.atoms) for block in self.cut.rows])

    def join(self, blocks: Sequence[Tensor]) -> Tensor:
        """The inverse of `blocks`."""
        return _join([block.flatten(0, 1) for block in blocks])

    def join_squares(self, blocks: Sequence[Tensor]) -> Tensor:
        """The inverse of `square_blocks`."""
        return _join([block.flatten() for block in blocks])

    def join_atoms(self, blocks: Sequence[Tensor]) -> Tensor:
        """The inverse of `atom_blocks`, 0 for atoms in no block."""
        joined = _join(blocks)
        if self.order is None:
            return joined
        return joined.new_zeros(len(self.count), *joined.shape[1:]).index_copy(0, self.order, joined)

    # --- what follows -----------------------------------------------------------------------------

    def sum(self, values: Tensor) -> Tensor:
        """Over the neighbours: (P, d) -> (n, d)."""
        return self.join_atoms([block.sum(dim=1) for block in self.blocks(values)])

    def moments(self, a: Tensor, x: Tensor) -> Tensor:
        """sum_j a_j (x) x_j: (P, c), (P, d) -> (n, c, d)."""
        both = zip(self.blocks(a), self.blocks(x))
        return self.join_atoms([torch.bmm(p.transpose(1, 2), q) for p, q in both])

    def overlaps(self, x: Tensor) -> Tensor:
        """Scalar products x_j . x_k of all two pairs of an atom, (P, d) -> (S,)."""
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


class _Join(torch.autograd.Function):
    """torch.cat, whose second derivative would make an array as long as the whole for every part."""

    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        ctx.sizes = [len(part) for part in parts]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad.split(ctx.sizes)


def _join(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else _Join.apply(*parts)
