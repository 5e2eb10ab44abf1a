"""Hessians against differences of forces, and what symmetry says of them, for every architecture."""

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, make_potential
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.errors import ConfigError, ElementError
from dpa2calc.model.compression import compress
from dpa2calc.model.config import FittingConfig, HeadConfig

STEP = 5e-5  # Å; small, because the layer norm of pairs near the cutoff is steep


def rattled(atoms: Atoms) -> Atoms:
    atoms.rattle(0.05, rng=np.random.default_rng(7))
    return atoms


def crystal() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[1:3] = ["O", "H"]
    return rattled(atoms)


def slab() -> Atoms:
    atoms = Atoms("CuOHCu", [[0, 0, 0], [1.6, 1.5, 0.7], [0.3, 1.6, 1.7], [1.9, 0.2, 2.2]])
    atoms.set_cell([3.3, 3.1, 4.5])
    atoms.pbc = (True, True, False)
    return rattled(atoms)


def wire() -> Atoms:
    """More atoms than an atom has neighbours."""
    places = [[1.9 * i, 0.8 * (i % 2), 0.3 * (i % 3)] for i in range(16)]
    return rattled(Atoms("CuOHO" * 4, places, cell=[30.4, 0, 0], pbc=(True, False, False)))


STRUCTURES = {"molecule": lambda: rattled(molecule("H2O")), "crystal": crystal, "slab": slab, "wire": wire}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def calc(request) -> DPA2Calculator:
    return DPA2Calculator(make_potential(request.param), dtype="float64", device="cpu")


def by_differences(calc: DPA2Calculator, atoms: Atoms, rows: range) -> np.ndarray:
    """Fourth order in the step."""
    moved = []
    for row in rows:
        for factor in (-2, -1, 1, 2):
            copy = atoms.copy()
            copy.positions.flat[row] += factor * STEP
            moved.append(copy)
    forces = np.array([r["forces"].ravel() for r in calc.evaluate(moved)]).reshape(len(rows), 4, -1)
    return (-forces[:, 0] + 8 * forces[:, 1] - 8 * forces[:, 2] + forces[:, 3]) / (12 * STEP)


@pytest.mark.parametrize("name", STRUCTURES)
def test_is_the_derivative_of_the_forces(calc, name):
    atoms = STRUCTURES[name]()
    n = len(atoms)
    rows = range(3 * n) if n < 10 else range(9, 12)
    found = calc.get_hessian(atoms)
    largest = max(1.0, abs(found).max())
    assert found.shape == (3 * n, 3 * n) and found.dtype == np.float64
    np.testing.assert_allclose(found[rows], by_differences(calc, atoms, rows), rtol=0, atol=1e-6 * largest)
    np.testing.assert_allclose(found, found.T, atol=1e-12 * largest)
    # a shift of everything changes no force
    np.testing.assert_allclose(found.reshape(3 * n, n, 3).sum(axis=1), 0, atol=1e-12 * largest)
    chosen = [2, 0]
    places = (3 * np.array(chosen)[:, None] + np.arange(3)).ravel()
    np.testing.assert_allclose(
        calc.get_hessian(atoms, indices=chosen), found[places], rtol=0, atol=1e-12 * largest
    )


def test_turns_with_the_structure(calc):
    atoms = slab()
    turn = Rotation.from_euler("xyz", [0.4, -1.1, 2.0]).as_matrix()
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ turn.T)
    turned.positions = atoms.positions @ turn.T
    expected = np.einsum("ac,icjd,bd->iajb", turn, calc.get_hessian(atoms).reshape(4, 3, 4, 3), turn)
    found = calc.get_hessian(turned).reshape(4, 3, 4, 3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * max(1, abs(expected).max()))


def test_rotations_of_a_free_molecule(calc):
    """A turn by w changes forces by w x F, also away from equilibrium."""
    atoms = STRUCTURES["molecule"]()
    hessian, forces = calc.get_hessian(atoms), calc.get_forces(atoms)
    for axis in np.eye(3):
        change = hessian @ np.cross(axis, atoms.positions).ravel()
        np.testing.assert_allclose(change, -np.cross(axis, forces).ravel(), atol=1e-10)


def test_a_lone_atom_and_distant_atoms(calc):
    assert not calc.get_hessian(Atoms("Cu")).any()
    pair = Atoms("OHH", [[0, 0, 0], [0.9, 0.1, 0], [40, 0, 0]])
    hessian = calc.get_hessian(pair)
    assert not hessian[6:].any() and hessian[:6].any()


def test_precision_tables_and_state_do_not_enter():
    potential = make_potential("dpa1-l0")
    atoms = STRUCTURES["wire"]()
    exact = DPA2Calculator(potential, dtype="float64", device="cpu").get_hessian(atoms)
    single = DPA2Calculator(potential, dtype="float32", device="cpu")
    atoms.calc = single
    before, energy = atoms.copy(), atoms.get_potential_energy()
    forces, results = atoms.get_forces(), dict(single.results)
    # the weights are those of float32
    np.testing.assert_allclose(single.get_hessian(atoms), exact, atol=1e-5 * abs(exact).max())
    assert atoms == before and single.results == results and single.check_state(atoms) == []
    atoms.positions[0, 0] += 0.1
    atoms.get_forces()
    atoms.positions[0, 0] = before.positions[0, 0]
    assert atoms.get_potential_energy() == energy and np.array_equal(atoms.get_forces(), forces)
    pytest.importorskip("numba")
    tables = DPA2Calculator(compress(potential)[0], dtype="float64", device="cpu")
    np.testing.assert_array_equal(tables.get_hessian(atoms), exact)


def test_heads_parameters_and_committees():
    fitting = FittingConfig(neuron=(10, 10), numb_fparam=1, numb_aparam=1)
    heads = tuple(
        HeadConfig(name=name, elements=("O", "H", "Cu"), fitting=fitting) for name in ("one", "two")
    )
    potential = make_potential("dpa2-small", heads=heads)
    atoms = crystal()
    atoms.info["fparam"], atoms.arrays["aparam"] = [0.7], np.linspace(0, 1, 4)[:, None]
    single = [DPA2Calculator(potential, name, dtype="float64", device="cpu") for name in ("one", "two")]
    one, two = (calc.get_hessian(atoms) for calc in single)
    np.testing.assert_allclose(one[:3], by_differences(single[0], atoms, range(3)), atol=1e-7)
    assert abs(one - two).max() > 1e-3
    both = DPA2Calculator(potential, "one", committee=[(None, "two")], dtype="float64", device="cpu")
    np.testing.assert_allclose(both.get_hessian(atoms), (one + two) / 2, atol=1e-14)


def test_dispersion():
    pytest.importorskip("dftd3")
    potential = make_potential("deeppot-se")
    atoms = STRUCTURES["molecule"]()
    calc = DPA2Calculator(potential, dtype="float64", device="cpu", dispersion="d3bj:pbe")
    found = calc.get_hessian(atoms)
    np.testing.assert_allclose(found, by_differences(calc, atoms, range(9)), atol=1e-6)
    bare = DPA2Calculator(potential, dtype="float64", device="cpu").get_hessian(atoms)
    assert 1e-4 < abs(found - bare).max() < 0.1


def test_settings_of_the_caller_do_not_matter():
    calc = DPA2Calculator(make_potential("dpa2-small"), dtype="float64", device="cpu")
    atoms = crystal()
    expected = calc.get_hessian(atoms)
    with torch.inference_mode(), torch.autocast("cpu"):
        np.testing.assert_array_equal(calc.get_hessian(atoms), expected)
    with torch.no_grad():
        np.testing.assert_array_equal(calc.get_hessian(atoms), expected)


def test_errors():
    calc = DPA2Calculator(make_potential("dpa2-small"), dtype="float64", device="cpu")
    with pytest.raises(ConfigError, match=r"indices = \[4\]; give numbers of atoms from 0 to 3, or None"):
        calc.get_hessian(crystal(), indices=[4])
    with pytest.raises(ConfigError, match=r"indices = \[\]; give numbers"):
        calc.get_hessian(crystal(), indices=[])
    with pytest.raises(ElementError):
        calc.get_hessian(Atoms("Xe"))
