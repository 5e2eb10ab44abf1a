"""A short name for the bonding environment of every atom, such as "C:C1 H3"."""

from __future__ import annotations

from collections import Counter

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

_STRETCH = 1.2  # two atoms are bonded within this multiple of the sum of their covalent radii


def environment_labels(atoms: Atoms) -> list[str]:
    """Name each atom by its element and its bonded neighbours, periodic images included.

    Two atoms are bonded within 1.2 times the sum of their covalent radii: water's oxygen is "O:H2", its
    hydrogen "H:O1", an atom of fcc copper "Cu:Cu12", an isolated atom "He:-".
    """
    radii = covalent_radii[atoms.numbers]
    symbols = atoms.get_chemical_symbols()
    from vesin import NeighborList  # imports torch where it is installed: when needed, not before

    search = NeighborList(cutoff=2.0 * _STRETCH * float(radii.max(initial=0.1)), full_list=True)
    i, j, d = search.compute(atoms.positions, atoms.cell.array, atoms.pbc, "ijd")
    i, j = i.astype(np.int64), j.astype(np.int64)
    bonded = d < _STRETCH * (radii[i] + radii[j])
    neighbours: list[Counter[str]] = [Counter() for _ in symbols]
    for first, second in zip(i[bonded], j[bonded]):
        neighbours[first][symbols[second]] += 1
    names = (" ".join(f"{element}{n}" for element, n in sorted(counts.items())) for counts in neighbours)
    return [f"{symbol}:{name or '-'}" for symbol, name in zip(symbols, names)]
