"""The pairs of all atoms in blocks of atoms with similar numbers of neighbours, for inference."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from dpa2calc.kernels.blocks import by_width, count_of
from dpa2calc.kernels.native import Ready
from dpa2calc.kernels.pairs import Neighbors, PairTable
from dpa2calc.kernels.reference import RepformerKind

_BLOCK_BYTES = 400_000  # a thread; the widest array of a block, of which three to four are alive at a time


class BlockArrays(NamedTuple):
    """Blocks as compiled loops take them, int64.

    atoms: (n,), those of block b from begins[b] on. widths: slots of each. pairs, squares: where each begins
    in the lists. nsel: slots of deepmd-kit's list.
    """

    atoms: np.ndarray
    begins: np.ndarray
    widths: np.ndarray
    pairs: np.ndarray
    squares: np.ndarray
    nsel: int


@dataclass(frozen=True)
class BlockPairs(PairTable):
    """A block has as many slots as its atoms need; on a GPU it may be a range of atoms with all slots."""

    @classmethod
    def of(cls, near: Neighbors, *, kind: RepformerKind, nsel: int) -> BlockPairs:
        """Pairs of a table of neighbours, of a smooth model; at least one atom."""
        cuts = by_width(
            near.mask, near.switch, lambda w: w * torch.clamp(kind.heads * w, min=kind.width), _BLOCK_BYTES
        )
        return cls.cut_up(near, cuts, nsel=nsel, smooth=True)

    @functools.cached_property
    def arrays(self) -> Ready:
        """The blocks for compiled loops, packed; `BlockArrays`."""
        rows = self.cut.rows
        assert self.order is not None
        return Ready(
            BlockArrays(
                self.order.numpy(),
                np.cumsum([0, *(count_of(block.atoms) for block in rows)]),
                np.array([block.width for block in rows]),
                np.array([block.pairs.start for block in rows]),
                np.array([block.squares.start for block in rows]),
                self.nsel,
            )
        )
