"""Forces, stress and per-atom stresses against finite differences of the energy, float64."""

import numpy as np
import pytest
from ase.stress import voigt_6_to_full_3x3_stress

STEP = 1e-4


def central(energies, step):
    """Derivatives from energies at -2h -h h 2h, repeated: fourth order in h.

    Needed because a layer norm of pairs near the cutoff is steep: the second-order formula is off by 1e-4.
    """
    m2, m1, p1, p2 = np.asarray(energies).reshape(-1, 4).T
    return (m2 - 8 * m1 + 8 * p1 - p2) / (12 * step)


def energies(calc, structures):
    return [result["energy"] for result in calc.evaluate(structures)]


def test_forces_are_minus_the_gradient(calc, atoms):
    moved = []
    for index in range(3 * len(atoms)):
        for factor in (-2, -1, 1, 2):
            copy = atoms.copy()
            copy.positions.flat[index] += factor * STEP
            moved.append(copy)
    numerical = -central(energies(calc, moved), STEP).reshape(-1, 3)
    forces = calc.get_forces(atoms)
    np.testing.assert_allclose(forces, numerical, rtol=0, atol=1e-6 * max(1, abs(forces).max()))
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-11 * max(1, abs(forces).max()))


@pytest.mark.parametrize("name", ["bulk", "triclinic", "short-cell", "slab", "wire", "compressed"])
def test_all_six_stress_components(calc, structure_of, name):
    atoms = structure_of(name)
    strained = []
    for component in range(6):
        unit = voigt_6_to_full_3x3_stress(np.eye(6)[component])
        # In Voigt order the shear counts twice: e_yz = e_zy = h/2 makes the derivative sigma_yz V.
        strain = np.where(np.eye(3, dtype=bool), unit, 0.5 * unit)
        for factor in (-2, -1, 1, 2):
            copy = atoms.copy()
            copy.set_cell(atoms.cell.array @ (np.eye(3) + factor * STEP * strain), scale_atoms=False)
            copy.positions = atoms.positions @ (np.eye(3) + factor * STEP * strain)
            strained.append(copy)
    numerical = central(energies(calc, strained), STEP) / atoms.get_volume()
    stress = calc.get_stress(atoms)
    np.testing.assert_allclose(stress, numerical, rtol=0, atol=1e-6 * max(1, abs(stress).max()))


def test_energies_and_stresses_of_atoms_add_up(calc, atoms):
    result = calc.evaluate([atoms], stresses=True)[0]
    assert result["energies"].sum() == pytest.approx(result["energy"], abs=1e-10)
    assert ("stresses" in result) == ("stress" in result) == (atoms.pbc.any() and atoms.cell.rank == 3)
    if "stresses" in result:
        scale = max(1, abs(result["stresses"]).max())
        np.testing.assert_allclose(result["stresses"].sum(axis=0), result["stress"], atol=1e-12 * scale)


def test_a_single_atom_has_its_bias_and_an_empty_environment(calc, potential, structure_of):
    atom = structure_of("single-atom")
    result = calc.evaluate([atom])[0]
    far = atom.copy()
    far.append("O")
    far.positions[1] += [30.0, 0, 0]
    pair = calc.evaluate([far])[0]
    assert pair["energies"][0] == pytest.approx(result["energy"], abs=1e-12)
    np.testing.assert_array_equal(result["forces"], 0)
    biased = calc._members[0].potential.heads[0].bias_atom_e.values
    before = biased.clone()
    biased += 1.25
    assert calc.evaluate([atom])[0]["energy"] - result["energy"] == pytest.approx(1.25, abs=1e-12)
    biased.copy_(before)
