"""Each kind of wrong input has its own sentence."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.errors import ConfigError, ElementError, HeadError, StructureError
from dpa2calc.model.config import FittingConfig, HeadConfig

FITTING = FittingConfig(neuron=(8,))


@pytest.fixture(scope="module")
def water(potential_of):
    """A calculator whose head saw only O and H, of a model that knows Cu too."""
    heads = (HeadConfig(name="H2O-PBE0TS", elements=("O", "H"), fitting=FITTING),)
    return DPA2Calculator(potential_of("dpa1-l0", heads=heads), dtype="float64")


def test_unknown_head_lists_heads(potential_of):
    heads = (
        HeadConfig(name="H2O_H2O-PBE0TS", functional="PBE0-TS", elements=("O", "H"), fitting=FITTING),
        HeadConfig(name="Metals", description="bulk metals", fitting=FITTING),
    )
    potential = potential_of("dpa1-l0", heads=heads)
    with pytest.raises(HeadError, match=r"(?s)has 2 heads.*H2O_H2O-PBE0TS  PBE0-TS  \[O H\].*bulk metals"):
        DPA2Calculator(potential)
    with pytest.raises(HeadError, match=r"(?s)no head 'H2O-SCAN'.*H2O_H2O-PBE0TS.*Metals"):
        DPA2Calculator(potential, "H2O-SCAN")
    assert DPA2Calculator(potential, "H2O-PBE0TS").head == "H2O_H2O-PBE0TS"


def test_element_outside_the_type_map(water):
    atoms = Atoms("OHSiU", positions=np.eye(4, 3) * 2)
    with pytest.raises(ElementError, match=r"never saw Si, U in training"):
        water.get_potential_energy(atoms)
    open_minded = DPA2Calculator(water._members[0].potential, dtype="float64", allow_unseen_elements=True)
    with pytest.raises(ElementError, match=r"no type for Si, U \(first at atom 2\); it knows O, H, Cu"):
        open_minded.get_potential_energy(atoms)
    with pytest.raises(ElementError, match=r"no type for X"):
        open_minded.get_potential_energy(Atoms("X"))
    strange = Atoms("H")
    strange.numbers[0] = 200
    with pytest.raises(ElementError, match=r"no type for Z = 200"):
        open_minded.get_potential_energy(strange)


def test_element_the_head_never_saw(water):
    atoms = Atoms("CuO", positions=[[0, 0, 0], [1.9, 0, 0]])
    with pytest.raises(
        ElementError, match=r"head 'H2O-PBE0TS' never saw Cu .* it saw O, H.*allow_unseen_elements"
    ):
        water.get_potential_energy(atoms)
    assert water.elements == ("O", "H")
    allowed = DPA2Calculator(water._members[0].potential, dtype="float64", allow_unseen_elements=True)
    assert np.isfinite(allowed.get_potential_energy(atoms)) and allowed.elements == ("O", "H", "Cu")


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("HO", [[0, 0, 0], [0, np.nan, 0]]), r"positions\[1\] = .* is not finite \(1 of 2 rows\)"),
        (Atoms("HO", [[0, 0, -np.inf], [0, 1, 0]]), r"positions\[0\] = .* is not finite"),
        (Atoms("H", cell=[9, np.nan, 9]), r"cell\[1\] = .* is not finite"),
        (Atoms("H", pbc=True), "pbc is True along cell vector a = .* which has no length"),
        (Atoms("H", cell=[[5, 0, 0], [9, 0, 0], [0, 0, 5]], pbc=True), "lie in one plane, so .* no volume"),
        (Atoms("HO", [[0, 0, 0], [1e-4] * 3]), r"atoms 0 and 1 are 0\.0001732 Å apart: the same"),
        (Atoms("H", cell=[0.009, 8, 8], pbc=[1, 0, 0]), r"the cell repeats every 0.009 Å"),
        (
            Atoms("H", cell=[0.5] * 3, pbc=True),
            r"about 4\.71e\+03 neighbours within 5\.2 Å .*unit \(Å\)",
        ),
    ],
)
def test_structures_that_cannot_be_are_refused(water, atoms, message):
    with pytest.raises(StructureError, match=message):
        water.get_potential_energy(atoms)


def test_no_atoms(water):
    with pytest.raises(StructureError, match=r"the structure has no atoms"):
        water.get_potential_energy(Atoms())
    with pytest.raises(StructureError, match=r"the structure has no atoms"):
        water.get_descriptors(Atoms())
    with pytest.raises(StructureError, match=r"expected ase.Atoms, got NoneType"):
        water.calculate()


def test_atoms_too_close_are_warned_of_once_with_the_pair(potential_of):
    calc = DPA2Calculator(potential_of("dpa2-small"), dtype="float64")
    atoms = molecule("H2O")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.get_potential_energy(atoms)
        atoms.positions[2] = atoms.positions[1] + [0, 0.4, 0]  # H-H, stretched far less than O-H allows
        calc.get_potential_energy(atoms)
    atoms.positions[2] = atoms.positions[0] + [0, 0.3, 0.2]
    with pytest.warns(UserWarning, match=r"atoms 0 \(O\) and 2 \(H\) are only 0\.361 Å apart"):
        calc.get_potential_energy(atoms)
    atoms.positions[2] += 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.get_potential_energy(atoms)


def test_results_that_are_not_numbers_are_refused(potential_of):
    potential = potential_of("dpa2-small")
    potential.heads[0].nets[0].layers[0].matrix.data[:] = np.nan
    calc = DPA2Calculator(potential, dtype="float64")
    with pytest.raises(StructureError, match=r"the force on atom 0 \(3 atoms in all\) came out"):
        calc.get_potential_energy(molecule("H2O"))
    with pytest.raises(StructureError, match=r"structure 1 \(H\): .* came out as not a number"):
        calc.evaluate([molecule("H2O"), Atoms("H")])
    assert calc.results == {}


def test_missing_or_wrong_parameters(potential_of):
    fitting = FittingConfig(neuron=(8,), numb_fparam=2, numb_aparam=1)
    calc = DPA2Calculator(potential_of("dpa1-l0", heads=(HeadConfig(name="T", fitting=fitting),)))
    atoms = molecule("H2O")
    with pytest.raises(StructureError, match=r"this head needs 2 numbers; set atoms.info\['fparam'\]"):
        calc.get_potential_energy(atoms)
    atoms.info["fparam"] = [1.0, 2.0, 3.0]
    with pytest.raises(StructureError, match=r"atoms.info\['fparam'\] has shape \(3,\); this head needs 2"):
        calc.get_potential_energy(atoms)
    atoms.info["fparam"] = "hot"
    with pytest.raises(StructureError, match=r"atoms.info\['fparam'\] = 'hot' is not numbers"):
        calc.get_potential_energy(atoms)
    atoms.info["fparam"] = [1.0, 2.0]
    with pytest.raises(
        StructureError, match=r"1 numbers per atom, shape \(3, 1\); set atoms.arrays\['aparam'\]"
    ):
        calc.get_potential_energy(atoms)
    atoms.arrays["aparam"] = np.array([1.0, np.nan, 0.0])
    with pytest.raises(StructureError, match=r"atoms.arrays\['aparam'\] holds a number that is not finite"):
        calc.get_potential_energy(atoms)


def test_wrong_options(potential_of):
    potential = potential_of("dpa1-l0")
    with pytest.raises(ConfigError, match=r"dtype = 'float16' is not allowed; allowed: 'float32', 'float64'"):
        DPA2Calculator(potential, dtype="float16")
    with pytest.raises(ConfigError, match=r"device = 'gpu' cannot be used here"):
        DPA2Calculator(potential, device="gpu")
    with pytest.raises(ConfigError, match=r"skin = -1.0 Å; it must be a finite number, 0 or more"):
        DPA2Calculator(potential, skin=-1)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (lambda atoms: atoms.set_initial_magnetic_moments([1.0, -1.0, 0.0]), "arrays['initial_magmoms']"),
        (lambda atoms: atoms.set_initial_charges([0.5, 0.0, 0.5]), "arrays['initial_charges']"),
        (lambda atoms: atoms.info.update(charge=-1, spin=2), "info['charge'] and atoms.info['spin']"),
        (lambda atoms: atoms.info.update(charge=0, spin=1), None),
        (lambda atoms: atoms.set_initial_magnetic_moments([0.0, 0.0, 0.0]), None),
        (lambda atoms: atoms.info.update(charge="q1", spin=np.ones(3)), None),
    ],
)
def test_charges_and_moments_that_are_not_read_are_told_of_once(given, named, potential_of):
    atoms, calc = molecule("H2O"), DPA2Calculator(potential_of("dpa1-l0"))
    plain = calc.get_potential_energy(atoms.copy())
    given(atoms)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert calc.get_potential_energy(atoms) == plain
        calc.evaluate([atoms])
    texts = [str(one.message) for one in told if "not read by any model" in str(one.message)]
    assert len(texts) == (named is not None) and all(f"{named} of H2O" in text for text in texts)
