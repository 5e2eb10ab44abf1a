"""The pairs of all atoms in one list, for training: no work is done on padding."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpa2calc.kernels.blocks import Blocks, Cut
from dpa2calc.kernels.pairs import Neighbors, PairTable

Made = TypeVar("Made")
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ListPairs(PairTable):
    """A block has the atoms with the same number of neighbours, and no padding; few neighbours come first.

    As arrays for the kernels: first, counts (n,): the pairs of each atom; others, own (P,): second atom and
    number of each pair.
    """

    _made: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, near: Neighbors, *, nsel: int) -> ListPairs:
        """Pairs of a table of neighbours, of a smooth model."""
        counts, order = torch.sort(near.mask.sum(dim=1), stable=True)
        found = torch.unique_consecutive(counts, return_counts=True)
        groups = [(of, n) for of, n in zip(order.split(found[1].tolist()), found[0].tolist()) if n]
        cuts = tuple(Cut(atoms, n) for atoms, n in groups or [(order[:0], 1)])
        place, column = near.mask.index_select(0, order).nonzero(as_tuple=True)
        chosen = order[place] * near.mask.shape[1] + column
        return cls.cut_up(near, Blocks(cuts, 1), nsel=nsel, smooth=True, chosen=chosen)

    @functools.cached_property
    def counts(self) -> IntArray:
        return self.count[:, 0].numpy().astype(np.int64)

    @functools.cached_property
    def first(self) -> IntArray:
        return self.begins(self.counts)

    @functools.cached_property
    def others(self) -> IntArray:
        return self.neighbors.numpy()

    @functools.cached_property
    def own(self) -> IntArray:
        return np.arange(len(self.others))

    @functools.cached_property
    def centers(self) -> Tensor:
        """(P,), the first atom of each pair."""
        assert self.order is not None
        return self.order.repeat_interleave(self.count[self.order, 0].long())

    def sum(self, values: Tensor) -> Tensor:
        return values.new_zeros(len(self.count), values.shape[1]).index_add(0, self.centers, values)

    def begins(self, sizes: IntArray) -> IntArray:
        """Where each atom's part of a list begins, in which the atoms have parts of these sizes (n,)."""
        order, first = np.argsort(self.counts, kind="stable"), np.empty_like(sizes)
        first[order] = sizes[order].cumsum() - sizes[order]
        return first

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """What `make` returns, made at the first call with this key and kept."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]
