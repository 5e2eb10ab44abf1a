"""Dynamics with ASE's constraints: degrees of freedom, energies, and what cannot be held together."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import (
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixedLine,
    FixedMode,
    FixInternals,
    FixSubsetCom,
    Hookean,
)

from dpa2calc.applications import run_md
from dpa2calc.dynamics.integrators import degrees_of_freedom
from dpa2calc.errors import ConfigError, StructureError


def copper(*constraints):
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.set_constraint(constraints)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize(
    ("constraints", "left"),
    [
        ([FixAtoms([0, 1]), FixAtoms([1, 2])], 24 - 9),
        ([FixAtoms([0]), FixCartesian([0, 3], (True, False, False))], 24 - 4),
        ([FixCom()], 24 - 3),
        ([FixAtoms([0]), FixedLine([1], (0, 0, 1))], 24 - 5),
        ([FixBondLengths([[0, 1], [2, 3]])], 24 - 2),
    ],
)
def test_coordinates_that_are_held_twice_count_once(constraints, left):
    atoms = copper(*constraints)
    assert degrees_of_freedom(atoms, fix_com=False) == left
    result = run_md(atoms, steps=1, log_interval=1, temperature=300, progress=False)
    expected = 0.5 * left * units.kB * 300
    assert result.kinetic_energy[0] == pytest.approx(expected, rel=1e-10)


def test_the_energy_of_a_spring_between_atoms_is_part_of_what_is_conserved():
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [3.0, 0, 0]])
    atoms.set_constraint(Hookean(0, 1, 2.0, rt=2.6))
    atoms.calc = EMT()
    options = {"ensemble": "nve", "timestep_fs": 1.0, "log_interval": 5, "temperature_limit": 1e5}
    result = run_md(atoms, steps=200, temperature=100, progress=False, **options)
    assert result.status == "finished"
    assert np.ptp(result.conserved_energy) < 0.02 * np.ptp(result.kinetic_energy)
    assert result.potential_energy[0] == pytest.approx(atoms.get_potential_energy())


def test_the_centre_of_mass_cannot_rest_beside_atoms_that_do():
    with pytest.raises(ConfigError, match=r"fix_com=True, but FixAtoms holds .* give fix_com=False"):
        run_md(copper(FixAtoms([0])), steps=1, fix_com=True, progress=False)
    run_md(copper(FixBondLengths([[0, 1]])), steps=1, fix_com=True, progress=False)


def test_a_constraint_without_a_count_is_named():
    pytest.importorskip("spglib")
    from ase.constraints import FixSymmetry

    atoms = copper()
    atoms.set_constraint(FixSymmetry(atoms))
    with pytest.raises(StructureError, match="FixSymmetry, which does not say how many degrees of freedom"):
        run_md(atoms, steps=1, progress=False)


@pytest.mark.parametrize(
    "constraint", [FixInternals(bonds=[(2.5, [0, 1])]), FixSubsetCom([0, 1]), FixedMode(np.ones((8, 3)))]
)
def test_constraints_whose_temperature_would_be_wrong_are_refused(constraint):
    """ASE's Langevin dynamics of six atoms at 60 K has 53 K with FixInternals, and 62 with FixSubsetCom."""
    with pytest.raises(StructureError, match=f"{type(constraint).__name__}, which in ASE .* FixBondLengths"):
        run_md(copper(constraint), steps=1, progress=False)


def test_bonds_keep_their_lengths_to_the_last_bit_when_a_run_resumes(tmp_path):
    atoms = copper(FixBondLengths([[0, 1], [2, 3], [4, 5], [6, 7]]))
    options = {"temperature": 600, "timestep_fs": 3.0, "sync_interval": 10, "progress": False}
    whole = run_md(atoms, steps=60, **options)
    run_md(atoms, steps=30, restart=tmp_path / "run.npz", **options)
    parts = run_md(atoms, steps=60, restart=tmp_path / "run.npz", **options)
    assert np.array_equal(parts.positions, whole.positions)
    assert np.array_equal(parts.momenta, whole.momenta)


def test_momenta_of_held_atoms_are_no_heat():
    atoms = copper(FixAtoms([0, 1]))
    atoms.set_momenta(np.full((8, 3), 5.0), apply_constraint=False)
    result = run_md(atoms, steps=1, log_interval=1, ensemble="nve", temperature_limit=1e6, progress=False)
    free = atoms.get_momenta()[2:]
    assert result.kinetic_energy[0] == pytest.approx((free**2).sum() / (2 * atoms.get_masses()[0]))
    with pytest.raises(ConfigError, match=r"skip_fs = 1e\+06 leaves no row of a log that ends at 0.5 fs"):
        result.average("temperature", skip_fs=1e6)
