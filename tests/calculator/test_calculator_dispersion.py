"""D3(BJ) on top of the model: sums, stress, and what is then not available."""

import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.engine.dispersion import Dispersion, dispersion_results
from dpa2calc.errors import ConfigError

pytest.importorskip("dftd3.interface")
SHORT = Dispersion(functional="pbe", cutoff=10.0)


def test_energy_forces_and_stress_are_sums(potential_of, structure_of):
    potential = potential_of("dpa1-l0")
    plain = DPA2Calculator(potential, dtype="float64")
    calc = DPA2Calculator(potential, dtype="float64", dispersion=SHORT)
    for name in ("bulk", "slab", "molecule"):
        atoms = structure_of(name)
        d3 = dispersion_results(atoms, SHORT)
        assert abs(d3.energy) > 1e-4
        a, (b,) = plain.evaluate([atoms])[0], calc.evaluate([atoms])
        assert b["energy"] == b["free_energy"] == pytest.approx(a["energy"] + d3.energy, abs=1e-12)
        np.testing.assert_allclose(b["forces"], a["forces"] + d3.forces, atol=1e-12)
        np.testing.assert_allclose(calc.get_forces(atoms), b["forces"], atol=1e-12)
        assert ("stress" in b) == ("stress" in a) and "energies" not in b


def test_stress_is_the_derivative_of_the_sum(potential_of, structure_of):
    calc = DPA2Calculator(potential_of("dpa1-l0"), dtype="float64", dispersion=SHORT)
    atoms = structure_of("bulk")
    atoms.calc = calc
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-4), atol=1e-6)


def test_parts_by_atom_are_refused(potential_of, structure_of):
    calc = DPA2Calculator(potential_of("dpa1-l0"), dispersion=SHORT)
    with pytest.raises(PropertyNotImplementedError):
        calc.get_potential_energies(structure_of("bulk"))
    with pytest.raises(PropertyNotImplementedError):
        calc.get_stresses(structure_of("bulk"))


def test_words(potential_of):
    potential = potential_of("dpa1-l0")
    assert DPA2Calculator(potential, dispersion="d3bj:pbe").dispersion == Dispersion(functional="pbe")
    assert DPA2Calculator(potential, dispersion=False).dispersion is None
    with pytest.raises(ConfigError, match="dispersion = 'False' of type str"):
        DPA2Calculator(potential, dispersion="False")
    with pytest.raises(ConfigError, match="the functional of this head is not known"):
        DPA2Calculator(potential, dispersion="d3bj")
