"""Neighbour pairs against brute force over images and matscipy; exactness of the skin."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, graphene, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.neighbors import NeighborList, dense_neighbors, neighbor_pairs, select_nearest


def brute_force(positions, cell, pbc, cutoff):
    """Every pair from explicit images: {(i, j, S0, S1, S2)}; no cell list, no wrapping."""
    positions, cell = np.asarray(positions, float), np.asarray(cell, float)
    lattice = cell[np.asarray(pbc)]
    reach = [0, 0, 0]
    if len(lattice):
        # |shift @ lattice + r_j - r_i| <= cutoff bounds each shift by the dual lattice vectors.
        dual = np.linalg.pinv(lattice).T  # (n_periodic, 3)
        spread = np.linalg.norm(positions[:, None] - positions[None], axis=-1).max()
        bounds = np.ceil((cutoff + spread) * np.linalg.norm(dual, axis=1)).astype(int)
        for axis, bound in zip(np.flatnonzero(pbc), bounds):
            reach[axis] = int(bound)
    found = set()
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        vectors = positions[None] - positions[:, None] + np.array(shift) @ cell
        for i, j in zip(*np.nonzero((vectors**2).sum(-1) < cutoff**2)):
            if i != j or any(shift):
                found.add((int(i), int(j), *shift))
    return found


def as_set(pairs):
    rows = np.column_stack([pairs.i, pairs.j, pairs.shift]).tolist()
    assert len(rows) == len(set(map(tuple, rows))), "a pair is there twice"
    return set(map(tuple, rows))


def make_systems():
    rng = np.random.default_rng(7)
    skew = [[4.0, 0.0, 0.0], [1.9, 3.1, 0.0], [-1.2, 0.8, 3.5]]
    water = molecule("H2O")
    far = bulk("NaCl", "rocksalt", a=5.64)
    far.positions += [[3 * 5.64, -50, 0.1], [0.0, 7.0, -90.0]]
    slab = graphene(vacuum=None)
    slab.rattle(0.05, seed=1)
    slab.cell[2] = 0
    slab.pbc = [True, True, False]
    wire = Atoms("C3", rng.normal(size=(3, 3)), cell=[[0, 0, 0], [0, 2.7, 0], [0, 0, 0]], pbc=[0, 1, 0])
    cos, sin = np.cos(np.radians(20)), np.sin(np.radians(20))
    tilted = [[3.0, 0, 0], [3.0 * cos, 3.0 * sin, 0], [0.1, 0.2, 3.0]]
    random = rng.random((12, 3)) @ np.diag([5.0, 6.0, 7.0])
    return {
        "fcc, one atom, 248 images": (bulk("Cu", a=3.61), 9.0),
        "triclinic shorter than the cutoff": (
            Atoms("CHO", rng.random((3, 3)) @ skew, cell=skew, pbc=True),
            6.0,
        ),
        "left-handed": (Atoms("CHO", rng.random((3, 3)) * 4, cell=np.diag([4, 5, -4.5]), pbc=True), 5.0),
        "20 degrees": (Atoms("He2", [[0, 0, 0], [1, 0.4, 1.2]], cell=tilted, pbc=True), 4.0),
        "very skewed": (
            Atoms("He2", [[0, 0, 0], [1, 0.4, 1.2]], cell=[[3, 0, 0], [31.2, 3, 0], [0, -20.1, 3]], pbc=True),
            3.5,
        ),
        "atoms far outside": (far, 5.0),
        "molecule without a cell": (water, 3.0),
        "two molecules far apart": (
            Atoms("H4", [[0, 0, 0], [0.8, 0, 0], [2e6, 0, 0], [2e6 + 0.8, 0, 0]]),
            5.0,
        ),
        "single atom": (Atoms("He"), 5.0),
        "slab with c = 0": (slab, 6.0),
        "slab with c in the plane": (Atoms("C2", slab.positions, cell=slab.cell, pbc=[1, 1, 0]), 4.0),
        "wire": (wire, 7.0),
        "pbc TFT": (Atoms("H12", random, cell=[5, 6, 7], pbc=[True, False, True]), 6.5),
        "pbc FFT": (Atoms("H12", random * 3 - 8, cell=[5, 6, 7], pbc=[False, False, True]), 6.5),
        "bulk": (Atoms("H12", random, cell=[5, 6, 7], pbc=True), 4.0),
        "flat periodic plate": (Atoms("H2", [[0, 0, 0], [1, 0, 0]], cell=[9e3, 9e3, 6], pbc=True), 6.5),
        "overlapping atoms": (Atoms("H3", [[0, 0, 0], [0, 0, 0], [1, 0, 0]], cell=[4, 4, 4], pbc=True), 3.0),
        "overlapping atoms, tree": (
            Atoms("H3", [[0, 0, 0], [0, 0, 0], [1, 0, 0]], cell=[4, 4, 3e5], pbc=[0, 1, 1]),
            3.0,
        ),
    }


SYSTEMS = make_systems()
SYSTEMS["slab with c in the plane"][0].cell[2] = SYSTEMS["slab with c in the plane"][0].cell[0]


@pytest.mark.parametrize("name", SYSTEMS)
def test_pairs_agree_with_brute_force(name):
    atoms, cutoff = SYSTEMS[name]
    pairs = neighbor_pairs(atoms.positions, atoms.cell.array, pbc=atoms.pbc, cutoff=cutoff)
    assert as_set(pairs) == brute_force(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    distances = np.linalg.norm(pairs.vectors(atoms.positions, atoms.cell.array), axis=1)
    assert (distances <= cutoff).all()
