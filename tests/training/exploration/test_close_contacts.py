"""Two atoms that are not bonded come close; molecules stay whole."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import covalent_radii

from dpa2calc.training.exploration import close_contacts
from dpa2calc.training.exploration.close_contacts import CLOSEST, WIDEST, close_contact


@pytest.fixture
def two_waters():
    """Two molecules 2.9 Å apart, across the boundary of their cell."""
    first, second = molecule("H2O"), molecule("H2O")
    second.translate([2.9, 0.3, 0.1])
    atoms = first + second
    atoms.set_cell([9.0, 9.0, 9.0])
    atoms.translate([7.5, 4.0, 4.0])
    atoms.pbc = True
    atoms.wrap()
    return atoms


def test_molecules_move_whole_and_come_close(two_waters):
    rng, closest = np.random.default_rng(0), []
    before = two_waters.get_all_distances(mic=True)
    for _ in range(40):
        moved = close_contact(two_waters, rng)
        after = moved.get_all_distances(mic=True)
        for part in (slice(0, 3), slice(3, 6)):
            np.testing.assert_allclose(after[part, part], before[part, part], atol=1e-12)
        radii = covalent_radii[moved.numbers]
        between = (after / (radii[:, None] + radii[None, :]))[:3, 3:]
        closest.append(between.min())
    assert 0.3 < min(closest) and max(closest) < WIDEST
    assert min(closest) < 1.1  # some come as close as a bond


def test_in_a_network_one_atom_moves_by_the_chosen_share():
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    rng = np.random.default_rng(1)
    for _ in range(20):
        moved = close_contact(crystal, rng)
        changed = np.flatnonzero(np.linalg.norm(moved.positions - crystal.positions, axis=1) > 1e-9)
        assert len(changed) == 1
        radii = covalent_radii[moved.numbers]
        ratio = moved.get_all_distances(mic=True) / (radii[:, None] + radii[None, :]) + 9 * np.eye(len(moved))
        assert ratio[changed[0]].min() < WIDEST
    again = close_contact(crystal, np.random.default_rng(1))
    np.testing.assert_array_equal(again.positions, close_contact(crystal, np.random.default_rng(1)).positions)


def test_the_distance_is_the_one_asked_for(monkeypatch):
    atoms = Atoms("Ar2", [[0, 0, 0], [4.2, 0, 0]])
    monkeypatch.setattr(close_contacts, "WIDEST", CLOSEST)
    moved = close_contact(atoms, np.random.default_rng(0))
    assert moved.get_distance(0, 1) == pytest.approx(CLOSEST * 2 * covalent_radii[18])


def test_a_lone_atom_has_no_contact():
    assert close_contact(Atoms("Ar"), np.random.default_rng(0)) is None


@pytest.mark.parametrize("share", [0.9, 0.944, 0.946, 0.9475, 0.95, 1.3, 2.9, 3.1])
def test_atoms_at_any_distance_come_closer_or_are_left(share):
    atoms = Atoms("Ar2", [[0, 0, 0], [share * 2 * covalent_radii[18], 0, 0]])
    moved = close_contact(atoms, np.random.default_rng(0))
    assert (moved is None) == (not CLOSEST / 0.95 < share < 3)
    if moved is not None:
        ratio = moved.get_distance(0, 1) / (2 * covalent_radii[18])
        assert CLOSEST <= ratio < min(WIDEST, 0.96 * share)
