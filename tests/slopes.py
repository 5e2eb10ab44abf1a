"""Central differences of an energy, which forces and stresses are held beside."""

from collections.abc import Callable

import numpy as np
from ase import Atoms


def slope(energy: Callable[[Atoms], float], atoms: Atoms, *, move=0.0, strain=0.0, step=1e-4) -> float:
    """dE along a move (n, 3) of the atoms, eV/Å, and along a strain (3, 3) of cell and atoms, eV."""
    ends = []
    for sign in (1, -1):
        other, deformed = atoms.copy(), np.eye(3) + sign * step * np.asarray(strain)
        other.set_cell(atoms.cell.array @ deformed)
        other.positions = atoms.positions @ deformed + sign * step * np.asarray(move)
        ends.append(energy(other))
    return (ends[0] - ends[1]) / (2 * step)


def unit(atoms: Atoms, index: int, axis: int) -> np.ndarray:
    """The move (n, 3) of one atom along one axis."""
    move = np.zeros((len(atoms), 3))
    move[index, axis] = 1.0
    return move
