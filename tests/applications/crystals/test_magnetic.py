"""Magnetic order is part of a crystal where the calculator reads it.

The calculator of these tests takes atoms with their moment up for one element and those with it down for
another, so that every result must be that of the ordered alloy.
"""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from emt_cases import with_emt

from dpa2calc.applications import elastic_constants, equation_of_state, phonons, relax, surface_energy
from dpa2calc.applications.defects.vacancy import inequivalent_sites
from dpa2calc.applications.shared.structures import kinds_of

pytest.importorskip("spglib")
NAMES = ("energy", "forces", "stress")


class Spins(Calculator):
    implemented_properties = list(NAMES)

    def calculate(self, atoms=None, properties=NAMES, system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        up = atoms.get_initial_magnetic_moments() > 0
        alloy = Atoms(np.where(up, 29, 79), positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        alloy.calc = EMT()
        self.results = {name: alloy.calc.get_property(name, alloy) for name in NAMES}


def alike(atoms, up):
    """The magnet, and the alloy with the same masses."""
    magnet, alloy = atoms.copy(), atoms.copy()
    magnet.set_initial_magnetic_moments(np.where(up, 1.0, -1.0))
    alloy.numbers = np.where(up, 29, 79)
    alloy.set_masses(atoms.get_masses())
    magnet.calc, alloy.calc = Spins(), EMT()
    return magnet, alloy


def layered():
    atoms = bulk("Cu", cubic=True, a=3.85)
    return alike(atoms, np.isclose(atoms.positions[:, 2], 0.0))


def test_a_cubic_lattice_with_layers_of_moments_relaxes_to_a_tetragonal_cell():
    found, expected = (
        relax(atoms, relax="cell", keep_symmetry=True, fmax=1e-3, progress=False) for atoms in layered()
    )
    assert expected.cell[2, 2] / expected.cell[0, 0] < 0.95
    np.testing.assert_allclose(found.cell, expected.cell, atol=1e-6)
    assert found.energy == pytest.approx(expected.energy, abs=1e-9)
    ignoring = with_emt(layered()[0])
    ignoring.calc.ignored_changes = {"initial_magmoms"}
    cubic = relax(ignoring, relax="cell", keep_symmetry=True, progress=False).cell
    assert cubic[2, 2] == pytest.approx(cubic[0, 0], abs=1e-9)


def test_moments_that_only_scatter_lower_no_symmetry():
    cases = ([2.31, 2.36, 2.28, 2.33], 1), ([0.0, 0.003, -0.002, 0.0], 1), ([2.0, 2.05, -2.0, -2.0], 2)
    for moments, kinds in cases:
        atoms = bulk("Cu", cubic=True)
        atoms.set_initial_magnetic_moments(moments)
        assert len(kinds_of(atoms, ["initial_magmoms"])[1]) == kinds
    atoms = bulk("Cu", cubic=True)
    atoms.set_initial_magnetic_moments([[0, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 1.02]])
    labels, firsts = kinds_of(atoms, ["initial_magmoms", "masses"])
    assert labels[0] == labels[1] == labels[3] != labels[2] and len(firsts) == 2


def test_elastic_constants_equation_of_state_and_surface_of_a_layered_magnet():
    found, expected = (elastic_constants(atoms, relax_ions=False, progress=False) for atoms in layered())
    assert set(found.constants) == {"C11", "C12", "C13", "C33", "C44", "C66"}
    np.testing.assert_allclose(found.tensor, expected.tensor, atol=1e-4)
    found, expected = (equation_of_state(atoms, fmax=1e-3, progress=False) for atoms in layered())
    assert found.bulk_modulus == pytest.approx(expected.bulk_modulus, abs=1e-4)
    found, expected = (
        surface_energy(atoms, (1, 0, 0), thicknesses=(4, 8), relax="fixed", relax_bulk=False, progress=False)
        for atoms in layered()
    )
    assert found.energy == pytest.approx(expected.energy, abs=1e-9)
    assert set(found.atoms().get_initial_magnetic_moments()) == {1.0, -1.0}
    assert inequivalent_sites(layered()[0]) == inequivalent_sites(layered()[1]) == [0, 1]


@pytest.mark.filterwarnings("ignore:phonons:UserWarning")  # a strained crystal in a small supercell
def test_phonons_of_a_magnet_that_only_its_moments_order():
    pytest.importorskip("phonopy")
    pytest.importorskip("seekpath")
    atoms = Atoms("Cu2", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[3.2] * 3, pbc=True)
    found, expected = (
        phonons(both, supercell=(2, 2, 2), temperatures=[300], mesh=(2, 2, 2), progress=False)
        for both in alike(atoms, [True, False])
    )
    qpoints = [[0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0.5]]
    np.testing.assert_allclose(found.frequencies(qpoints), expected.frequencies(qpoints), atol=1e-5)
    assert found.free_energy == pytest.approx(expected.free_energy)
    assert found.atoms().get_initial_magnetic_moments().tolist() == [1.0, -1.0]
