"""Pairs for analyses, against ASE's search."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import neighbor_list

from dpa2calc.structures.pairs import pairs_within


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
@pytest.mark.parametrize("cutoff", [2.5, 7.0])
def test_pairs_are_those_of_ase(pbc, cutoff):
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.rattle(0.2, seed=1)
    atoms.pbc = pbc
    where = (cutoff, atoms.positions, atoms.cell.array, atoms.pbc)
    i, j, distance, vector, shift = pairs_within(*where, "ijdDS", twice=True)
    expected = neighbor_list("d", atoms, cutoff)
    np.testing.assert_allclose(np.sort(distance), np.sort(expected), atol=1e-10)
    assert i.dtype == j.dtype == np.int64
    between = atoms.positions[j] - atoms.positions[i] + shift @ atoms.cell.array
    np.testing.assert_allclose(vector, between, atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(vector, axis=1), distance, atol=1e-10)
    assert len(pairs_within(*where)[0]) * 2 == len(i)
