"""The elements of deepmd-kit's types."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers

from dpa2calc.errors import DataError
from dpa2calc.files.extxyz import ISOTOPES


@dataclass(frozen=True)
class TypeMap:
    """What each type is. Names that are no elements are an error only where an atom has them.

    Attributes:
        symbols: as they are written. numbers: atomic numbers, 0 for a name that is no element. masses: u, of
            all types where there are deuterium or tritium, else None. name: of the file, for messages.
    """

    symbols: tuple[str, ...]
    numbers: np.ndarray
    masses: np.ndarray | None
    name: str

    @classmethod
    def of(cls, given: Iterable[object], name: str) -> TypeMap:
        """From the names of the types."""
        symbols = tuple(str(symbol) for symbol in given)
        numbers = np.array([1 if s in ISOTOPES else atomic_numbers.get(s, 0) for s in symbols], dtype=int)
        masses = None
        if set(symbols) & set(ISOTOPES):
            masses = np.array([ISOTOPES.get(s, atomic_masses[z]) for s, z in zip(symbols, numbers)])
        return cls(symbols, numbers, masses, name)

    def __len__(self) -> int:
        return len(self.symbols)

    def atoms(self, types: np.ndarray, positions: np.ndarray) -> Atoms:
        """A structure of these types; a DataError names those that are no elements."""
        numbers = self.numbers[types]
        if not numbers.all():
            unknown = dict.fromkeys(self.symbols[kind] for kind in types[numbers == 0])
            raise DataError(f"{self.name} names {', '.join(unknown)}, which are no elements")
        atoms = Atoms(numbers=numbers, positions=positions)
        if self.masses is not None:
            atoms.set_masses(self.masses[types])
        return atoms
