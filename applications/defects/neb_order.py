"""Do two states list their equal atoms in the same order?"""

from __future__ import annotations

import warnings

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from scipy.optimize import linear_sum_assignment

_MOVED = 0.5  # Å; an atom that has another's place has moved further than this
_SHORTER = 0.25  # Å²; by so much the sum of squared steps must fall before an order counts as another
_NAMED = 12  # atoms that a message spells out


def exchanged_atoms(start: Atoms, stop: Atoms) -> list[list[int]]:
    """Cycles of equal atoms whose exchange makes the way from `start` to `stop` shorter; none: [].

    Among the atoms of one element that move by more than 0.5 Å, places are given out anew so that the sum of
    squared steps (minimum images) is least. A hop, a chain of hops and the exchange of an adatom with an atom
    of the surface keep their order by that rule; atoms that were only listed in another order do not. In
    [i, j] atom i ends where j is listed, and j where i is.
    """
    steps = find_mic(stop.positions - start.positions, start.cell, start.pbc)[0]
    far = np.linalg.norm(steps, axis=1) > _MOVED
    order = np.arange(len(start))
    for number in np.unique(start.numbers[far]):
        atoms = np.flatnonzero(far & (start.numbers == number))
        ways = (stop.positions[atoms][None, :] - start.positions[atoms][:, None]).reshape(-1, 3)
        squares = (find_mic(ways, start.cell, start.pbc)[0] ** 2).sum(axis=1).reshape(len(atoms), len(atoms))
        rows, columns = linear_sum_assignment(squares)
        if squares.trace() - squares[rows, columns].sum() > _SHORTER:
            order[atoms[rows]] = atoms[columns]
    return _cycles(order)


def warn_exchanged(start: Atoms, stop: Atoms, cycles: list[list[int]], stacklevel: int) -> None:
    """Warn of atoms that change places, with the order that would keep them."""
    symbols = start.get_chemical_symbols()
    names = "; ".join(f"{symbols[c[0]]} {', '.join(map(str, c[:-1]))} and {c[-1]}" for c in cycles)
    order = np.arange(len(start))
    for cycle in cycles:
        order[cycle] = np.roll(cycle, -1)
    lengths = [
        np.linalg.norm(find_mic(stop.positions[which] - start.positions, start.cell, start.pbc)[0])
        for which in (np.arange(len(start)), order)
    ]
    moved = [atom for cycle in cycles for atom in cycle]
    left, right = ", ".join(f"order[{k}]" for k in moved), ", ".join(str(order[k]) for k in moved)
    way = f"order = list(range({len(start)})); {left} = {right}; final = final[order]"
    if len(moved) > _NAMED:
        names = f"{len(moved)} atoms, among them {symbols[moved[0]]} {moved[0]} and {order[moved[0]]}"
        way = "sort both states by place"
    warnings.warn(
        f"nudged_elastic_band: equal atoms change places between the two ends: {names}. Listed in matching "
        f"order the straight path is {lengths[1]:.2f} Å long, in this order {lengths[0]:.2f} Å. If this "
        f"exchange is not what you want to study, list the atoms of the final state as the initial one has "
        f"them: {way}",
        stacklevel=stacklevel + 1,
    )


def _cycles(order: np.ndarray) -> list[list[int]]:
    found, seen = [], set()
    for first in np.flatnonzero(order != np.arange(len(order))).tolist():
        cycle = []
        while first not in seen:
            seen.add(first)
            cycle.append(first)
            first = int(order[first])
        if cycle:
            found.append(cycle)
    return found
