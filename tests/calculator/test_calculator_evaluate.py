"""Many structures at once, and committees."""

import dataclasses
import warnings

import numpy as np
import pytest
from architectures import DPA1, small_model
from ase import Atoms
from ase.build import molecule

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.errors import ConfigError, HeadError, StructureError
from dpa2calc.model.config import FittingConfig, HeadConfig

NAMES = ["bulk", "molecule", "short-cell", "single-atom", "compressed", "slab", "wire", "triclinic"]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        scale = max(1.0, float(np.max(np.abs(a[key]))))
        np.testing.assert_allclose(b[key], a[key], atol=1e-10 * scale, rtol=0, err_msg=key)


@pytest.mark.parametrize("batch_atoms", [7, 1000])
def test_a_batch_equals_one_by_one_in_the_given_order(calc, structure_of, batch_atoms):
    structures = [structure_of(name) for name in NAMES]
    singles = [calc.evaluate([atoms], stresses=True)[0] for atoms in structures]
    for one, many in zip(
        singles, calc.evaluate(structures, batch_atoms=batch_atoms, stresses=True), strict=True
    ):
        assert_same(one, many)
    for atoms, one in zip(structures, singles):
        calc.reset()
        calc.get_property("stresses" if "stresses" in one else "energy", atoms)
        assert_same(one, calc.results)


def test_evaluate_takes_generators_and_leaves_the_calculator_alone(one_calc, structure_of):
    one_calc.reset()
    out = one_calc.evaluate(structure_of(name) for name in NAMES[:2])
    assert len(out) == 2 and one_calc.results == {} and one_calc.atoms is None
    assert one_calc.evaluate([]) == []


def test_errors_name_the_structure(one_calc, structure_of):
    bad = structure_of("slab")
    bad.positions[1, 2] = np.nan
    with pytest.raises(
        StructureError, match=r"structure 2 \(HCu2O\): positions\[1\] = .*nan.* is not finite"
    ):
        one_calc.evaluate([structure_of("bulk"), structure_of("bulk"), bad])
    with pytest.raises(StructureError, match="evaluate takes a list of structures"):
        one_calc.evaluate(structure_of("bulk"))
    with pytest.raises(StructureError, match=r"structure 0 \(\?\): expected ase.Atoms, got str"):
        one_calc.evaluate(["water.xyz"])
    with pytest.raises(ConfigError, match="batch_atoms = 0"):
        one_calc.evaluate([], batch_atoms=0)


def test_a_committee_is_the_mean_and_its_spread(potential_of, structure_of):
    potentials = [potential_of("dpa2-small", seed=seed) for seed in range(3)]
    alone = [DPA2Calculator(p, dtype="float64") for p in potentials]
    together = DPA2Calculator(potentials[0], committee=potentials[1:], dtype="float64")
    atoms = structure_of("bulk")
    energies = [c.get_potential_energy(atoms) for c in alone]
    forces = np.array([c.get_forces(atoms) for c in alone])
    assert together.get_potential_energy(atoms) == pytest.approx(np.mean(energies), abs=1e-12)
    np.testing.assert_allclose(together.get_forces(atoms), forces.mean(axis=0), atol=1e-12)
    assert together.results["energy_std"] == pytest.approx(np.std(energies), abs=1e-12)
    # DP-GEN's model deviation is the norm of the spread.
    deviation = np.sqrt(((forces - forces.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))
    np.testing.assert_allclose(np.linalg.norm(together.results["forces_std"], axis=1), deviation, atol=1e-12)
    assert together.get_property("energy_std", atoms) == together.results["energy_std"]
    np.testing.assert_allclose(
        together.get_stress(atoms), np.mean([c.get_stress(atoms) for c in alone], axis=0), atol=1e-12
    )
    (batched,) = together.evaluate([atoms])
    assert batched["energy_std"] == pytest.approx(together.results["energy_std"], abs=1e-10)
    assert "energy_std" not in alone[0].results and "energy_std" not in together.export_properties()


def test_identical_members_have_no_spread(potential_of, structure_of):
    potential = potential_of("dpa1-l0")
    calc = DPA2Calculator(potential, committee=[potential], dtype="float64")
    atoms = structure_of("slab")
    calc.get_potential_energy(atoms)
    assert calc.results["energy_std"] == 0 and not calc.results["forces_std"].any()


def test_members_of_other_architectures_and_other_heads(potential_of, structure_of):
    fitting = FittingConfig(neuron=(8,))
    heads = tuple(HeadConfig(name=name, fitting=fitting) for name in ("A", "B"))
    two = potential_of("dpa2-small", heads=heads)
    other = potential_of("deeppot-se", heads=heads)
    calc = DPA2Calculator(two, "A", committee=[(None, "B"), (other, "B"), other], dtype="float64")
    atoms = structure_of("wire")
    expected = [
        DPA2Calculator(p, h, dtype="float64").get_potential_energy(atoms)
        for p, h in ((two, "A"), (two, "B"), (other, "B"), (other, "A"))
    ]
    assert calc.get_potential_energy(atoms) == pytest.approx(np.mean(expected), abs=1e-12)
    assert calc._members[0].potential is calc._members[1].potential  # the same weights, once


@pytest.mark.parametrize("compress", [None, True])
def test_members_with_other_type_maps(compress):
    descriptor = dataclasses.replace(DPA1, attn_layer=0)
    maps = [("O", "H"), ("Cu", "Si", "H", "C", "O")]
    models = [small_model(descriptor, "all", type_map=elements) for elements in maps]
    water = molecule("H2O")
    alone = [DPA2Calculator(model, dtype="float64").get_potential_energy(water) for model in models]
    calc = DPA2Calculator(models[0], committee=models[1:], dtype="float64", compress=compress)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert calc.get_potential_energy(water) == pytest.approx(np.mean(alone), abs=1e-6)
        assert calc.evaluate([water])[0]["energy"] == pytest.approx(np.mean(alone), abs=1e-6)
    with pytest.warns(UserWarning, match=r"atoms 0 \(O\) and 1 \(H\) are only 0.450 Å apart"):
        calc.get_potential_energy(Atoms("OH", [[0, 0, 0], [0, 0, 0.45]]))


def test_wrong_committees_are_refused(potential_of):
    potential = potential_of("dpa1-l0")
    with pytest.raises(ConfigError, match="give a list of models"):
        DPA2Calculator(potential, committee="other.pt")
    with pytest.raises(ConfigError, match="has no members"):
        DPA2Calculator(potential, committee=[])
    with pytest.raises(HeadError, match="no head 'X'"):
        DPA2Calculator(potential, committee=[(None, "X")])
