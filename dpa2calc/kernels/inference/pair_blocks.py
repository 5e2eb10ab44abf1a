"""The pairs of all atoms in blocks of atoms with similar numbers of neighbours, for inference."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpa2calc.kernels.blocks import Blocks, as_arrays, by_width, count_of, of_atoms
from dpa2calc.kernels.native import Ready
from dpa2calc.kernels.pairs import Neighbors, PairTable
from dpa2calc.kernels.reference import RepformerKind

Values = TypeVar("Values", Tensor, npt.NDArray[np.generic])
_BLOCK_BYTES = 400_000  # a thread; the widest array of a block, of which three to four are alive at a time


class PairBlock(NamedTuple):
    """Atoms (b,) or a range of them, with c slots each; where their pairs and squares are in the lists."""

    atoms: Tensor | slice
    width: int
    pairs: slice
    squares: slice

    def of(self, values: Values) -> Values:
        """Values of the pairs, (P, ...) -> (b, c, ...), a view."""
        return self.of_rows(values[self.pairs])

    def of_rows(self, rows: Values) -> Values:
        """Values of the pairs of this block alone, (b * c, ...) -> (b, c, ...), a view."""
        return rows.reshape(count_of(self.atoms), self.width, *rows.shape[1:])

    def square(self, values: Values) -> Values:
        """Values of all two pairs of an atom, (S,) -> (b, c, c), a view."""
        return self.of_square(values[self.squares])

    def of_square(self, squares: Values) -> Values:
        """Values of the squares of this block alone, (b * c * c,) -> (b, c, c), a view."""
        return squares.reshape(count_of(self.atoms), self.width, self.width)


class BlockArrays(NamedTuple):
    """Blocks as compiled loops take them, int64.

    atoms: (n,), those of block b from begins[b] on. widths: slots of each. pairs, squares: where each begins
    in the lists. nsel: slots of deepmd-kit's list.
    """

    atoms: Tensor
    begins: np.ndarray
    widths: np.ndarray
    pairs: np.ndarray
    squares: np.ndarray
    nsel: int


@dataclass(frozen=True)
class BlockPairs(PairTable):
    """Values of pairs are (P, ...): block behind block, each with as many slots as its atoms need.

    chosen (P,): where the pairs are in a flattened (n, k) table; neighbors (P,); inverse (n,): where the
    atoms are in the blocks. Where blocks are ranges of atoms with all slots both are None: the order is that
    of the table.
    """

    cut: Blocks[PairBlock]
    chosen: Tensor | None
    neighbors: Tensor
    inverse: Tensor | None

    @classmethod
    def of(cls, near: Neighbors, *, kind: RepformerKind, nsel: int) -> BlockPairs:
        """Pairs of a table of neighbours, of a smooth model; at least one atom."""
        k = near.mask.shape[1]
        cuts = by_width(
            near.mask, near.switch, lambda w: w * torch.clamp(kind.heads * w, min=kind.width), _BLOCK_BYTES
        )
        rows, chosen, pair, square = [], [], 0, 0
        for atoms, width in cuts.rows:
            count = count_of(atoms)
            pairs, squares = pair + count * width, square + count * width**2
            rows.append(PairBlock(atoms, width, slice(pair, pairs), slice(square, squares)))
            if not isinstance(atoms, slice):
                columns = torch.arange(width, device=atoms.device)
                chosen.append((atoms.unsqueeze(1) * k + columns).flatten())
            pair, square = pairs, squares
        switch, neighbors, where, inverse = near.switch.reshape(-1), near.atoms.reshape(-1), None, None
        if chosen:
            where = torch.cat(chosen)
            switch, neighbors = (x.index_select(0, where) for x in (switch, neighbors))
            inverse = torch.argsort(
                torch.cat([of for block in rows if isinstance(of := block.atoms, Tensor)])
            )
        counts = near.mask.sum(dim=1, keepdim=True).to(near.switch.dtype)
        blocks = Blocks(tuple(rows), cuts.parts)
        return cls(switch, switch, counts, nsel, True, blocks, where, neighbors, inverse)

    @functools.cached_property
    def arrays(self) -> Ready:
        """The blocks for compiled loops, packed; `BlockArrays`."""
        rows = self.cut.rows
        places = ([block.pairs.start for block in rows], [block.squares.start for block in rows])
        return Ready(BlockArrays(*as_arrays(rows), *map(np.array, places), self.nsel))

    def take(self, table: Tensor) -> Tensor:
        flat = table.flatten(0, 1)
        return flat if self.chosen is None else flat.index_select(0, self.chosen)

    def gather(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.neighbors)

    def blocks(self, values: Tensor) -> Sequence[Tensor]:
        # Split, whose gradient is one array; that of a slice is one of zeros for every block.
        parts = values.split([block.pairs.stop - block.pairs.start for block in self.cut.rows])
        return [block.of_rows(part) for block, part in zip(self.cut.rows, parts)]

    def square_blocks(self, values: Tensor) -> Sequence[Tensor]:
        parts = values.split([block.squares.stop - block.squares.start for block in self.cut.rows])
        return [block.of_square(part) for block, part in zip(self.cut.rows, parts)]

    def atom_blocks(self, x: Tensor) -> Sequence[Tensor]:
        return [of_atoms(x, block.atoms) for block in self.cut.rows]

    def join(self, blocks: Sequence[Tensor]) -> Tensor:
        return _joined([block.flatten(0, 1) for block in blocks])

    def join_squares(self, blocks: Sequence[Tensor]) -> Tensor:
        return _joined([block.flatten() for block in blocks])

    def join_atoms(self, blocks: Sequence[Tensor]) -> Tensor:
        joined = _joined(blocks)
        return joined if self.inverse is None else joined.index_select(0, self.inverse)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat([*parts])
