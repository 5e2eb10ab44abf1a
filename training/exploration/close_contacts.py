"""Frames in which two atoms that are not bonded come close: what keeps a student's atoms apart.

Dynamics of a good potential hardly ever brings atoms closer than a student has seen, so the student's energy
is free to fall there, and sooner or later a long run finds the hole. The teacher labels these frames.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dpa2calc.structures.verlet import neighbor_pairs

BONDED = 1.25  # distances below this many sums of covalent radii are bonds
REACH = 3.0  # pairs farther apart, in sums of covalent radii, are not pushed together
CLOSEST, WIDEST = 0.9, 1.7  # the distance they get, in sums of covalent radii
NEARER = 0.95  # at most this share of the distance that they had
LARGEST_MOLECULE = 30  # a larger bonded group is a network: only the atom itself moves


def close_contact(atoms: Atoms, rng: np.random.Generator) -> Atoms | None:
    """A copy in which one atom, with its molecule, is moved towards an atom that it is not bonded to.

    Returns:
        None when no atom has a neighbour that it could be pushed to.
    """
    radii = covalent_radii[atoms.numbers]
    cutoff = 2.0 * REACH * float(radii.max())
    pairs = neighbor_pairs(atoms.positions, atoms.cell.array, pbc=atoms.pbc, cutoff=cutoff)
    vectors = atoms.positions[pairs.j] - atoms.positions[pairs.i] + pairs.shift @ atoms.cell.array
    distances = np.linalg.norm(vectors, axis=1)
    sums = radii[pairs.i] + radii[pairs.j]
    ratio = distances / sums
    molecules = _molecules(len(atoms), pairs.i[ratio < BONDED], pairs.j[ratio < BONDED])
    movable = (NEARER * ratio > CLOSEST) & (ratio < REACH) & (pairs.i != pairs.j)
    if molecules.max() > 0 and np.bincount(molecules).max() <= LARGEST_MOLECULE:
        # One of several molecules is not pushed against itself.
        movable &= molecules[pairs.i] != molecules[pairs.j]
    chosen = np.flatnonzero(movable)
    if not len(chosen):
        return None
    pair = int(rng.choice(chosen))
    target = rng.uniform(CLOSEST, min(WIDEST, NEARER * ratio[pair]))
    moved = _moving(int(pairs.i[pair]), int(pairs.j[pair]), molecules)
    copied = atoms.copy()
    copied.positions[moved] += vectors[pair] * (1.0 - target / ratio[pair])
    return copied


def _molecules(n_atoms: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """The number of the bonded group of each atom."""
    bonds = coo_matrix((np.ones(len(i)), (i, j)), shape=(n_atoms, n_atoms))
    return np.asarray(connected_components(bonds, directed=False)[1])


def _moving(i: int, j: int, molecules: np.ndarray) -> np.ndarray:
    """The atoms of i's molecule, or i alone in a network or where j belongs to the same molecule."""
    group = np.flatnonzero(molecules == molecules[i])
    alone = len(group) > LARGEST_MOLECULE or molecules[i] == molecules[j]
    return np.array([i]) if alone else group
