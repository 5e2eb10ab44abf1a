"""What a model wants of its graph: elements, cutoffs, and how many neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from dpa2calc.errors import ElementError


@dataclass(frozen=True)
class GraphSpec:
    """What a model wants of its graph; models with equal specs can share one.

    Attributes:
        type_map: symbols, in the order of the types.
        blocks: (cutoff in Å, nsel) of each part of the model, by increasing cutoff.
        nearest: True if a block keeps its nsel nearest neighbours, False if all within its cutoff.
        type_sel: how many neighbours of each type are kept, where a model counts them apart; else empty.
    """

    type_map: tuple[str, ...]
    blocks: tuple[tuple[float, int], ...]
    nearest: bool
    type_sel: tuple[int, ...] = ()

    @property
    def cutoff(self) -> float:
        """The largest cutoff, Å."""
        return self.blocks[-1][0]

    @property
    def nsel(self) -> int | None:
        """The longest row any block reads, or None for no limit."""
        return max(nsel for _, nsel in self.blocks) if self.nearest else None

    @cached_property
    def shells(self) -> tuple[float, ...]:
        """Different cutoffs by increasing size, Å."""
        return tuple(sorted({cutoff for cutoff, _ in self.blocks}))

    @cached_property
    def type_of_number(self) -> np.ndarray:
        """See `type_table`."""
        return type_table(self.type_map)


def type_table(type_map: Sequence[str]) -> np.ndarray:
    """(119,) int64: type of each atomic number, -1 where the type map lacks it."""
    table = np.full(max(atomic_numbers.values()) + 1, -1, dtype=np.int64)
    for index, symbol in enumerate(type_map):
        if atomic_numbers.get(symbol, 0) > 0:  # user-made type names have no atomic number
            table[atomic_numbers[symbol]] = index
    return table


def type_indices(atoms: Atoms, spec: GraphSpec) -> np.ndarray:
    """Index of each atom's element in the type map, (n_atoms,) int64.

    Raises:
        ElementError: an element is not in the type map.
    """
    numbers = atoms.numbers
    table = spec.type_of_number
    known = (numbers >= 0) & (numbers < len(table))
    types = table[np.where(known, numbers, 0)]
    if len(types) and types.min() < 0:
        bad = np.flatnonzero(types < 0)
        names = sorted({atoms[int(k)].symbol if known[k] else f"Z = {numbers[k]}" for k in bad})
        raise ElementError(
            f"this model has no type for {', '.join(names)} (first at atom {bad[0]}); "
            f"it knows {', '.join(spec.type_map)}"
        )
    return types
