"""Structures of pymatgen in place of Atoms: the same numbers, the same form back, clear errors."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from emt_cases import with_emt

from dpa2calc import DPA2Calculator
from dpa2calc.applications import Frames, RelaxResult, equation_of_state, relax, vacancy_hop, vibrations
from dpa2calc.errors import StructureError
from dpa2calc.structures.given import as_atoms, form_of, in_form
from dpa2calc.training import Dataset

core = pytest.importorskip("pymatgen.core", reason="pymatgen is not installed (extra: pymatgen)")


@pytest.fixture(scope="module")
def calculator():
    return DPA2Calculator("student-water")


def structure(*, rattle=0.0):
    """An orthorhombic cell of two water molecules as pymatgen has it."""
    rng = np.random.default_rng(0)
    water = molecule("H2O").positions
    points = np.concatenate([water, water + [2.8, 0.4, 0.3]]) + rattle * rng.normal(size=(6, 3))
    lattice = core.Lattice.orthorhombic(6.0, 5.0, 4.5)
    return core.Structure(lattice, ["O", "H", "H"] * 2, points, coords_are_cartesian=True)


def test_atoms_pass_through_and_pymatgen_becomes_atoms():
    atoms = bulk("Cu")
    assert as_atoms(atoms) is atoms
    assert as_atoms("water.xyz") == "water.xyz"
    assert (form_of(atoms), form_of(structure())) == ("Atoms", "Structure")
    given = structure()
    made = as_atoms(given)
    np.testing.assert_allclose(made.positions, given.cart_coords)
    np.testing.assert_allclose(made.cell.array, given.lattice.matrix)
    assert made.pbc.all()
    water = core.Molecule(["O", "H", "H"], molecule("H2O").positions)
    assert form_of(water) == "Molecule"
    assert not as_atoms(water).pbc.any()


def test_a_slab_stays_a_slab_there_and_back():
    lattice = core.Lattice.from_parameters(3, 4, 20, 90, 90, 120, pbc=(True, True, False))
    slab = core.Structure(lattice, ["Cu", "Cu"], [[0, 0, 0.4], [0.3, 0.5, 0.5]])
    atoms = as_atoms(slab)
    assert atoms.pbc.tolist() == [True, True, False]
    assert in_form(atoms, "Structure") == slab


def test_fixed_sites_and_labels_come_along():
    given = structure()
    given.add_site_property("selective_dynamics", [[False] * 3] + [[True] * 3] * 5)
    (constraint,) = as_atoms(given).constraints
    assert isinstance(constraint, FixAtoms)
    assert constraint.index.tolist() == [0]


def test_evaluate_gives_the_numbers_of_the_same_atoms(calculator):
    given = [structure(rattle=0.02), core.Molecule(["O", "H", "H"], molecule("H2O").positions)]
    ours = calculator.evaluate([as_atoms(item) for item in given])
    for found, expected in zip(calculator.evaluate(given), ours):
        assert found["energy"] == expected["energy"]
        np.testing.assert_array_equal(found["forces"], expected["forces"])
    np.testing.assert_array_equal(
        calculator.get_descriptors(given[0]), calculator.get_descriptors(as_atoms(given[0]))
    )
    with pytest.raises(StructureError, match=r"write calc.evaluate\(\[atoms\]\)"):
        calculator.evaluate(given[0])


def test_a_relaxation_gives_back_what_it_was_given(tmp_path):
    atoms = with_emt(bulk("Cu", a=3.7))
    ours = relax(atoms, relax="cell", progress=False)
    given = with_emt(in_form(bulk("Cu", a=3.7), "Structure"))
    result = relax(given, relax="cell", progress=False)
    assert result.energy == pytest.approx(ours.energy, abs=1e-9)
    relaxed = RelaxResult.load(result.save(tmp_path / "cu.npz")).structure()
    assert isinstance(relaxed, core.Structure)
    assert relaxed.volume == pytest.approx(ours.atoms().get_volume(), rel=1e-7)
    assert given.volume == pytest.approx(3.7**3 / 4)  # the caller's own is not changed
    assert type(ours.structure()) is type(atoms)


def test_other_applications_take_structures_and_molecules():
    crystal = with_emt(in_form(bulk("Cu"), "Structure"))
    assert equation_of_state(crystal, relax="fixed", progress=False).bulk_modulus > 0
    first, second = vacancy_hop(crystal, min_length=6.0)
    assert isinstance(first, core.Structure) and isinstance(second, core.Structure)
    nitrogen = with_emt(in_form(molecule("N2"), "Molecule"))
    relaxed = relax(nitrogen, fmax=1e-4, progress=False).structure()
    assert isinstance(relaxed, core.Molecule)
    relaxed.calc = EMT()
    assert len(vibrations(relaxed, progress=False).frequencies) > 0


def test_trajectories_and_datasets_of_structures():
    frames = list(Frames([structure(), structure(rattle=0.1)]))
    assert [len(atoms) for atoms in frames] == [6, 6]
    assert len(list(Frames(structure()))) == 1
    labelled = structure()
    labelled.properties["energy"] = -3.5
    labelled.add_site_property("forces", np.full((6, 3), 0.25).tolist())
    for data in (Dataset.from_atoms([labelled]), Dataset.read(labelled), Dataset.read([labelled])):
        assert data.frames[0].energy == -3.5
        np.testing.assert_array_equal(data.frames[0].forces, 0.25)


def test_shared_sites_are_refused_in_words(calculator):
    alloy = core.Structure(core.Lattice.cubic(3.6), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    with pytest.raises(StructureError, match="each site needs one element"):
        calculator.evaluate([alloy])
    with pytest.raises(StructureError, match="pymatgen's Structure and Molecule will do too"):
        relax("cu.cif")


@pytest.mark.parametrize(
    ("symbols", "charge", "spin"), [(["C", "H", "H", "H"], 0, 2), (["O", "H"], -1, 1), (["O", "O"], 0, 3)]
)
def test_molecules_keep_their_charge_and_spin(symbols, charge, spin):
    places = [[0, 0, 0], [1.1, 0, 0], [-0.5, 0.95, 0], [-0.5, -0.95, 0]][: len(symbols)]
    given = core.Molecule(symbols, places, charge=charge, spin_multiplicity=spin)
    assert as_atoms(given).info == {"charge": charge, "spin": spin}
    given.calc = EMT()
    back = relax(given, progress=False).structure()
    assert (back.charge, back.spin_multiplicity) == (charge, spin)
    assert as_atoms(core.Molecule(["H", "H"], places[:2])).info == {}


def test_spins_of_species_are_magnetic_moments():
    lattice = core.Lattice.cubic(4.2)
    iron = [core.Species("Fe", 2, spin=spin) for spin in (4, -4)]
    given = core.Structure(lattice, [*iron, core.Species("O", -2)], [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0]])
    assert as_atoms(given).get_initial_magnetic_moments().tolist() == [4.0, -4.0, 0.0]
    assert not as_atoms(structure()).has("initial_magmoms")


def test_site_properties_come_back():
    given = in_form(bulk("Cu", cubic=True, a=3.6), "Structure")
    given.add_site_property("magmom", [1.0, -1.0, 1.0, -1.0])
    given.add_site_property("wyckoff", ["a", "b", "c", "d"])
    given.properties["name"] = "mine"
    given.calc = EMT()
    back = relax(given, progress=False).structure()
    assert back.site_properties["wyckoff"] == ["a", "b", "c", "d"] and back.properties["name"] == "mine"
    assert [float(moment) for moment in back.site_properties["magmom"]] == [1.0, -1.0, 1.0, -1.0]


def test_a_charge_and_deuterium_are_not_lost():
    given = core.Structure(np.eye(3) * 4, ["D", "O"], [[0, 0, 0], [0.3, 0.3, 0.3]], charge=-1)
    made = as_atoms(given)
    assert made.get_chemical_symbols() == ["H", "O"] and made.info == {"charge": -1}
    np.testing.assert_allclose(made.get_masses(), [2.014, 15.999], atol=1e-3)
    back = in_form(made, "Structure")
    assert back.charge == -1 and "charge" not in back.properties and made.info == {"charge": -1}
    with pytest.warns(UserWarning, match="charge"):  # which no model here reads
        DPA2Calculator("student-water").evaluate([given])
    given.add_oxidation_state_by_element({"H": 1, "O": -2})
    assert "charge" not in as_atoms(core.Structure.from_sites(list(given))).info
