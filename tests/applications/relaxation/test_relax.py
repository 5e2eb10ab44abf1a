"""Relaxation: known minima, each freedom of the cell, symmetry, resuming, errors."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import (
    ExternalForce,
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixInternals,
    Hookean,
)
from ase.io import read
from emt_cases import with_emt

from dpa2calc.applications import RelaxResult, relax
from dpa2calc.errors import ConfigError, DataError, StructureError


def rattled(a=3.7, seed=1):
    atoms = with_emt(bulk("Cu", cubic=True, a=a))
    atoms.rattle(0.1, seed=seed)
    return atoms


def quiet(atoms, **options):
    return relax(atoms, progress=False, **options)


def test_lennard_jones_dimer_has_its_exact_minimum():
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [1.3, 0, 0]])
    atoms.calc = LennardJones(epsilon=1.0, sigma=1.0, rc=20.0)
    result = quiet(atoms, fmax=1e-6)
    assert result.atoms().get_distance(0, 1) == pytest.approx(2 ** (1 / 6), abs=1e-6)
    assert result.energy == pytest.approx(-1, abs=1e-6)
    assert result.largest_displacement() == pytest.approx((1.3 - 2 ** (1 / 6)) / 2, abs=1e-6)


@pytest.mark.parametrize("fixed", [FixAtoms([0]), FixCartesian([0])])
def test_the_largest_move_beside_a_fixed_atom_is_that_of_the_other(fixed, tmp_path):
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [1.3, 0, 0]], constraint=fixed)
    atoms.calc = LennardJones(epsilon=1.0, sigma=1.0, rc=20.0)
    result = quiet(atoms, fmax=1e-6)
    assert result.positions[0] == pytest.approx([0, 0, 0])
    assert result.largest_displacement() == pytest.approx(1.3 - 2 ** (1 / 6), abs=1e-6)
    kept = RelaxResult.load(result.save(tmp_path / "relax.npz"))
    assert kept.largest_displacement() == result.largest_displacement()


@pytest.mark.parametrize("optimizer", ["auto", "lbfgs", "fire", "fire2", "bfgs-linesearch", "gpmin"])
def test_all_optimizers_find_the_copper_of_emt(optimizer):
    result = quiet(rattled(), relax="cell", optimizer=optimizer, fmax=0.002, smax_gpa=0.01)
    assert result.converged
    assert result.atoms().get_volume() / 4 == pytest.approx(11.566, abs=0.003)  # its equation of state
    assert np.allclose(result.atoms().cell.angles(), 90, atol=0.05)
    assert result.max_force[-1] <= 0.002
    assert np.all(np.isfinite(result.enthalpy)) and result.enthalpy[-1] == result.enthalpy.min()


def test_what_is_held_stays():
    start = with_emt(bulk("Cu", cubic=True, a=3.7))
    start.set_cell([3.7, 3.8, 3.9], scale_atoms=True)
    fixed = quiet(start)
    assert np.array_equal(fixed.cell, start.cell.array)
    volume_only = quiet(start, relax="volume")
    assert np.allclose(
        volume_only.atoms().cell.lengths() / start.cell.lengths(), volume_only.cell[0, 0] / 3.7
    )
    axes = quiet(start, relax="axes")
    assert axes.atoms().cell.lengths() == pytest.approx([3.59] * 3, abs=0.01)
    shape = quiet(start, relax="shape", fmax=0.001, smax_gpa=0.005)
    assert shape.atoms().get_volume() == pytest.approx(start.get_volume(), rel=1e-6)
    assert shape.atoms().cell.lengths() == pytest.approx([start.get_volume() ** (1 / 3)] * 3, abs=0.005)


def test_pressure_compresses_to_where_the_energy_slope_balances_it():
    target = 10.0
    result = quiet(rattled(), relax="cell", pressure_gpa=target, fmax=0.001, smax_gpa=0.002)
    volumes, energies = [], []
    for scale in (0.998, 1.002):
        atoms = with_emt(result.atoms())
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    slope = -(energies[1] - energies[0]) / (volumes[1] - volumes[0])
    assert slope / units.GPa == pytest.approx(target, abs=0.05)
    work = result.enthalpy[-1] - result.energy
    assert work == pytest.approx(target * units.GPa * result.atoms().get_volume())


def test_symmetry_is_kept():
    pytest.importorskip("spglib")
    atoms = with_emt(bulk("Cu", cubic=True, a=3.7))
    atoms.set_cell([3.7, 3.7, 3.9], scale_atoms=True)
    kept = quiet(atoms, relax="cell", keep_symmetry=True, fmax=1e-3)
    assert kept.space_group_before == "I4/mmm (139)"
    assert np.allclose(kept.atoms().cell.angles(), 90, atol=1e-9)
    assert kept.cell[0, 0] == pytest.approx(kept.cell[1, 1], abs=1e-9)
    moved = rattled()
    assert quiet(moved, relax="cell").space_group_before == "P1 (1)"
    alone = with_emt(molecule("H2O"))
    with pytest.raises(StructureError, match="kept in a cell with three vectors, but the lengths are"):
        quiet(alone, keep_symmetry=True)


def test_constraints_are_obeyed():
    atoms = rattled()
    atoms.set_constraint(FixAtoms([0]))
    result = quiet(atoms)
    assert np.array_equal(result.positions[0], atoms.positions[0])
    assert result.converged and result.largest_displacement() > 0.01


@pytest.mark.parametrize(
    "constraint",
    [Hookean(0, 1, 0.2, rt=2.0), ExternalForce(0, 1, 0.1), FixBondLengths([[0, 1]]), FixInternals()],
)
def test_a_cell_does_not_move_under_forces_that_its_stress_does_not_hold(constraint):
    atoms = rattled()
    if not isinstance(constraint, FixInternals):
        atoms.set_constraint(constraint)
        assert quiet(atoms).converged
    atoms.set_constraint(constraint)
    with pytest.raises(ConfigError, match=rf"relax='cell' with a {type(constraint).__name__} on the atoms"):
        quiet(atoms, relax="cell")


def test_the_cell_of_atoms_that_are_held_comes_to_rest_where_the_energy_is_lowest():
    atoms = rattled()
    atoms.set_constraint([FixAtoms([0]), FixCartesian(1, (True, False, True))])
    result = quiet(atoms, relax="volume", fmax=1e-3, smax_gpa=1e-3)
    assert result.converged
    strains, energies = np.array([-0.002, 0.0, 0.002]), []
    for strain in strains:
        other = with_emt(result.atoms())
        other.set_cell(result.cell * (1 + strain), scale_atoms=True)
        energies.append(other.get_potential_energy())
    assert np.polyfit(strains, energies, 2)[1] == pytest.approx(0.0, abs=0.01)  # eV; 1 GPa would be 0.9


def test_caller_is_untouched_and_result_is_kept(tmp_path):
    import matplotlib.figure

    atoms = rattled()
    before = atoms.copy()
    result = quiet(atoms, relax="cell")
    assert atoms == before
    again = RelaxResult.load(result.save(tmp_path / "relax.npz"))
    assert np.array_equal(again.positions, result.positions) and again.provenance == result.provenance
    text = result.summary()
    for part in (
        "Cu4 (4 atoms, cell relaxed): converged",
        "largest force",
        "GPa from 0 GPa",
        "cell after",
        "->",
    ):
        assert part in text
    axes = matplotlib.figure.Figure().add_subplot()
    assert result.plot(axes) is axes


@pytest.mark.parametrize("suffix", ["traj", "extxyz"])
def test_an_unfinished_relaxation_goes_on(tmp_path, suffix):
    path = tmp_path / f"relax.{suffix}"
    with pytest.warns(
        UserWarning, match=r"not converged in 3 steps: the largest force is .* raise max_steps"
    ):
        first = quiet(rattled(), max_steps=3, trajectory=path)
    assert not first.converged and "NOT converged" in first.summary()
    second = quiet(rattled(), trajectory=path)
    assert second.converged and second.step[0] == 3
    for resumed in (second, quiet(rattled(), trajectory=path)):  # the change is from the start that is shown
        assert resumed.start_enthalpy == pytest.approx(first.enthalpy[0], abs=1e-6)
        gained = (second.energy - first.enthalpy[0]) / 4 * 1000
        assert f"energy change {gained:.3f} meV" in resumed.summary()
    steps = [frame.info["step"] for frame in read(path, ":")]
    assert steps == list(range(second.n_steps + 1))
    assert np.allclose(read(path).positions, second.positions, atol=1e-7)
    whole = quiet(rattled())
    assert second.energy == pytest.approx(whole.energy, abs=1e-4)


def test_errors_say_what_to_do(tmp_path):
    atoms = rattled()
    for options, text in [
        ({"relax": "free"}, "relax = 'free' is not allowed; allowed: positions, volume, axes, shape, cell"),
        ({"optimizer": "newton"}, "optimizer = 'newton' is not allowed; allowed: auto, bfgs, lbfgs"),
        ({"fmax": 0}, "fmax must be a positive number, got 0"),
        ({"max_steps": 0}, "max_steps is 0; it must be at least 1"),
        ({"pressure_gpa": 3}, "pressure_gpa is 3, but relax='positions' keeps the cell; use relax='cell' or"),
    ]:
        with pytest.raises(ConfigError, match=text):
            quiet(atoms, **options)
    water = with_emt(molecule("H2O"))
    with pytest.raises(StructureError, match=r"relax='cell' needs a crystal, periodic in three directions"):
        quiet(water, relax="cell")
    with pytest.raises(StructureError, match="relax: the structure has no atoms"):
        quiet(Atoms())
    other = with_emt(bulk("Au", cubic=True))
    quiet(other, trajectory=tmp_path / "gold.traj")
    with pytest.raises(DataError, match=r"gold\.traj holds Au4, not Cu4; give another file or over"):
        quiet(atoms, trajectory=tmp_path / "gold.traj")


def test_uncertainty_limit_ends_a_relaxation():
    class Doubtful(EMT):
        def calculate(self, *arguments, **options):
            super().calculate(*arguments, **options)
            self.results["energies_std"] = np.full(len(self.atoms), 0.5)

    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.calc = Doubtful()
    with pytest.warns(UserWarning, match=r"known to 0.5 eV, over uncertainty_limit=0.1"):
        result = relax(atoms, uncertainty_limit=0.1, progress=False)
    assert not result.converged and result.n_steps == 0
