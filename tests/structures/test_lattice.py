"""Which cells have a volume, and that no stress is made of others."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import PropertyNotImplementedError

from dpa2calc import DPA2Calculator
from dpa2calc.errors import StructureError
from dpa2calc.structures.lattice import cell_volume, is_crystal, volume_or_nan
from dpa2calc.validation import check_finite

A, B = [3.6, 0.0, 0.0], [0.4, 3.6, 0.0]
# What a user may leave in the direction that is not periodic.
NO_THICKNESS = {
    "nothing": [0.0, 0.0, 0.0],
    "dependent": [1.8, 0.0, 0.0],
    "in the plane": [2.0, 3.6, 0.0],
    "almost in the plane": [2.0, 3.6, 1e-9],
    "in the plane, long": [2e7, 3e7, 1e-3],
    "tiny": [0.0, 0.0, 1e-300],
    "small": [0.0, 0.0, 1e-3],
}


def _slab(c) -> Atoms:
    atoms = fcc111("Cu", (1, 1, 3))
    atoms.rattle(0.05, seed=1)
    atoms.set_cell([A, B, c])
    atoms.pbc = (True, True, False)
    return atoms


@pytest.fixture(scope="module")
def calc():
    """The shipped model."""
    return DPA2Calculator(head="mlearn-PBE", device="cpu")


@pytest.mark.parametrize("c", NO_THICKNESS.values(), ids=NO_THICKNESS)
def test_no_stress_without_a_volume(c, calc):
    atoms = _slab(c)
    assert cell_volume(atoms) is None and np.isnan(volume_or_nan(atoms)) and not is_crystal(atoms)
    (results,) = calc.evaluate([atoms], stresses=True)
    assert "stress" not in results and "stresses" not in results
    (full,) = calc.evaluate([_slab([0.3, 0.1, 20.0])])
    np.testing.assert_allclose(results["forces"], full["forces"], atol=1e-6)
    atoms.calc = calc
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError, match=r"at least 0\.1 Å thick"):
        atoms.get_stress()


@pytest.mark.parametrize("pbc", [(1, 1, 0), (1, 0, 0), (0, 0, 1), (0, 0, 0)])
def test_a_wire_or_molecule_needs_thickness_both_ways(pbc):
    atoms = Atoms("Cu", cell=[3.0, 4.0, 5.0], pbc=pbc)
    assert cell_volume(atoms) == pytest.approx(60.0)
    free = next(axis for axis in (2, 1) if not pbc[axis])
    other = (free + 1) % 3
    for vector in (np.zeros(3), 0.7 * atoms.cell[other], atoms.cell[other] + [1e-4, 1e-4, 1e-4]):
        thin = atoms.copy()
        thin.cell[free] = vector
        assert cell_volume(thin) is None


def test_very_skewed_crystals_keep_their_volume():
    atoms = Atoms("Cu", cell=[[3, 0, 0], [180, 3, 0], [0, 0, 3]], pbc=True)
    assert cell_volume(atoms) == pytest.approx(27.0) and is_crystal(atoms)
    atoms.pbc = (True, True, False)
    assert cell_volume(atoms) == pytest.approx(27.0) and not is_crystal(atoms)


def test_a_stress_is_the_derivative_of_the_energy_in_a_thin_cell(calc):
    """The volume that the stress is divided by is that of the cell: F dV cancels in dE/d(strain)."""
    slabs = [_slab([0.3, 0.1, height]) for height in (0.2, 20.0)]
    thin, thick = calc.evaluate(slabs)
    volumes = [volume_or_nan(atoms) for atoms in slabs]
    np.testing.assert_allclose(thin["stress"] * volumes[0], thick["stress"] * volumes[1], atol=1e-5)


@pytest.mark.parametrize("name", ["energy", "energies", "forces", "stress", "stresses", "energy_std"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_every_result_is_checked(name, value):
    shapes = {"energies": (3,), "forces": (3, 3), "stress": (6,), "stresses": (3, 6)}
    results = {key: np.zeros(shape) for key, shape in shapes.items()} | {"energy": 0.0, "energy_std": 0.0}
    check_finite(results)
    results[name] = np.full(shapes.get(name, ()), 0.0)
    results[name][(-1,) * results[name].ndim] = value
    with pytest.raises(StructureError, match="came out as not a number") as error:
        check_finite(results)
    if name in ("energies", "forces", "stresses"):
        assert "atom 2 (1 atoms in all)" in str(error.value)


def test_a_volume_is_quiet():
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for c in NO_THICKNESS.values():
            cell_volume(_slab(c))
        assert cell_volume(bulk("Cu", cubic=True)) == pytest.approx(3.61**3)
