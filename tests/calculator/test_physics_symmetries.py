"""What must not change the energy: rotation, translation, permutation, inversion, the choice of cell."""

import numpy as np
import pytest
from ase.stress import voigt_6_to_full_3x3_stress
from scipy.spatial.transform import Rotation


def compare(calc, atoms, other, n_copies=1):
    """Energy of `other` is n_copies times that of `atoms` to 1e-9; returns both results."""
    a, b = calc.evaluate([atoms, other])
    assert b["energy"] == pytest.approx(n_copies * a["energy"], abs=1e-9 * max(1, abs(b["energy"])))
    return a, b


def test_rotation(calc, atoms):
    turn = Rotation.random(random_state=3).as_matrix()
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ turn.T)
    turned.positions = atoms.positions @ turn.T
    a, b = compare(calc, atoms, turned)
    scale = max(1, abs(a["forces"]).max())
    np.testing.assert_allclose(b["forces"], a["forces"] @ turn.T, atol=1e-9 * scale)
    if "stress" in a:
        stress = voigt_6_to_full_3x3_stress(a["stress"])
        turned_stress = voigt_6_to_full_3x3_stress(b["stress"])
        np.testing.assert_allclose(turned_stress, turn @ stress @ turn.T, atol=1e-9 * scale)


def test_inversion(calc, atoms):
    mirrored = atoms.copy()
    mirrored.positions *= -1
    mirrored.set_cell(-atoms.cell.array)
    a, b = compare(calc, atoms, mirrored)
    np.testing.assert_allclose(b["forces"], -a["forces"], atol=1e-9 * max(1, abs(a["forces"]).max()))


def test_translation_far_out_of_the_cell(calc, atoms):
    moved = atoms.copy()
    moved.positions += [123.4, -56.7, 8.9]
    a, b = compare(calc, atoms, moved)
    np.testing.assert_allclose(b["forces"], a["forces"], atol=1e-9 * max(1, abs(a["forces"]).max()))


def test_permutation(calc, atoms):
    order = np.random.default_rng(1).permutation(len(atoms))
    a, b = compare(calc, atoms, atoms[order])
    np.testing.assert_allclose(b["forces"], a["forces"][order], atol=1e-9 * max(1, abs(a["forces"]).max()))
    np.testing.assert_allclose(b["energies"], a["energies"][order], atol=1e-9 * max(1, abs(a["energy"])))


def test_each_atom_in_any_image(calc, atoms):
    moved = atoms.copy()
    shifts = np.random.default_rng(2).integers(-3, 4, size=(len(atoms), 3)) * atoms.pbc
    moved.positions += shifts @ atoms.cell.array
    a, b = compare(calc, atoms, moved)
    np.testing.assert_allclose(b["forces"], a["forces"], atol=1e-9 * max(1, abs(a["forces"]).max()))


@pytest.mark.parametrize("name", ["bulk", "triclinic", "short-cell", "compressed"])
def test_another_cell_of_the_same_lattice(calc, structure_of, name):
    atoms = structure_of(name)
    other = atoms.copy()
    other.set_cell(np.array([[1, 0, 0], [-2, 1, 0], [3, 1, 1]]) @ atoms.cell.array)
    a, b = compare(calc, atoms, other)
    np.testing.assert_allclose(b["stress"], a["stress"], atol=1e-9 * max(1, abs(a["stress"]).max()))


REPEATS = {
    "bulk": (2, 1, 1),
    "triclinic": (1, 2, 1),
    "short-cell": (2, 2, 1),
    "slab": (2, 2, 1),
    "wire": (3, 1, 1),
    "compressed": (1, 1, 2),
}


@pytest.mark.parametrize(("name", "repeat"), REPEATS.items(), ids=REPEATS)
def test_a_supercell_has_n_times_the_energy(calc, structure_of, name, repeat):
    atoms = structure_of(name)
    a, b = compare(calc, atoms, atoms.repeat(repeat), n_copies=int(np.prod(repeat)))
    forces = np.tile(a["forces"], (int(np.prod(repeat)), 1))
    np.testing.assert_allclose(b["forces"], forces, atol=1e-9 * max(1, abs(forces).max()))
    np.testing.assert_allclose(b["stress"], a["stress"], atol=1e-9 * max(1, abs(a["stress"]).max()))


def test_partial_pbc_is_not_full_pbc(calc, structure_of):
    slab = structure_of("slab")
    bulk = slab.copy()
    bulk.pbc = True
    thick = slab.copy()
    thick.center(vacuum=20, axis=2)
    full = thick.copy()
    full.pbc = True
    a, b, c, d = (result["energy"] for result in calc.evaluate([slab, bulk, thick, full]))
    assert abs(a - b) > 1e-4  # images across the little vacuum are felt only with full pbc
    assert a == pytest.approx(c, abs=1e-9)  # without pbc along c its length means nothing
    assert c == pytest.approx(d, abs=1e-9)  # with vacuum beyond the cutoff pbc means nothing


@pytest.mark.parametrize("name", ["slab", "wire", "molecule"])
def test_cell_vectors_without_pbc_may_be_zero(calc, structure_of, name):
    atoms = structure_of(name)
    flat = atoms.copy()
    flat.cell[~atoms.pbc] = 0
    a, b = compare(calc, atoms, flat)
    np.testing.assert_allclose(b["forces"], a["forces"], atol=1e-9 * max(1, abs(a["forces"]).max()))
    assert "stress" not in b
