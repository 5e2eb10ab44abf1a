"""Each guard stops the run with its own sentence and keeps the last good frame."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.io import read

from dpa2calc.applications import run_md
from dpa2calc.errors import StructureError


class Scripted(Calculator):
    """No forces until call `at`; then what `change` makes of the results or raises."""

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, at, change):
        super().__init__()
        self.at, self.change, self.calls = at, change, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}
        self.results["forces_std"] = np.full((len(atoms), 3), 0.01)
        self.calls += 1
        if self.calls > self.at:
            self.change(self.results)


def pair(calculator, distance=3.0):
    atoms = Atoms("ArHe", positions=[[1, 1, 1], [1 + distance, 1, 1]], cell=[30] * 3, pbc=True)
    atoms.set_velocities(np.full((2, 3), 1e-4) * [[1], [-1]])
    atoms.calc = calculator
    return atoms


def stop(atoms, tmp_path=None, **options):
    options = {"steps": 60, "ensemble": "nve", "log_interval": 1, "fix_com": False, **options}
    trajectory = tmp_path / "run.traj" if tmp_path else None
    with pytest.warns(UserWarning, match="molecular dynamics stopped at step"):
        return run_md(atoms, progress=False, trajectory=trajectory, trajectory_interval=1, **options)


def set_forces(value, atom=1):
    def change(results):
        results["forces"][atom, 0] = value

    return change


def test_nan_forces(tmp_path):
    result = stop(pair(Scripted(5, set_forces(np.nan))), tmp_path)
    assert result.status == "stopped" and result.n_steps == 4
    assert "step 5: 1 of 2 atoms have a NaN or infinite force, first atom 1 (He)" in result.reason
    assert result.reason in result.summary()
    frames = read(tmp_path / "run.traj", ":")
    assert len(frames) == 5 and all(np.isfinite(frame.positions).all() for frame in frames)
    good = read(tmp_path / "run-last-good.extxyz")
    assert np.allclose(good.positions, frames[-1].positions, atol=1e-8)
    assert np.array_equal(result.positions, frames[-1].positions)
    assert (tmp_path / "run-stopped.extxyz").exists()


def test_nan_energy():
    result = stop(pair(Scripted(3, lambda results: results.update(energy=float("nan")))))
    assert "step 3: the potential energy is nan eV" in result.reason


def test_force_limit():
    result = stop(pair(Scripted(3, set_forces(12.5))), force_limit=10.0)
    assert "step 3: the force on atom 1 (He) is 12.5 eV/Å, over force_limit=10.0" in result.reason


def test_temperature_limit():
    result = stop(pair(Scripted(3, set_forces(50.0))), temperature_limit=500.0, timestep_fs=2.0)
    assert "the temperature is" in result.reason and "over temperature_limit=500 K" in result.reason


def test_step_limit():
    atoms = pair(Scripted(10**9, None))
    atoms.set_velocities([[0, 0, 0], [0.9, 0, 0]])
    result = stop(atoms, timestep_fs=20.0, temperature_limit=1e9)
    assert "step 1: atom 1 (He) moved 1.77 Å in one step, over step_limit=1.0" in result.reason


def test_atoms_too_close():
    atoms = pair(Scripted(10**9, None))
    atoms.set_velocities([[0, 0, 0], [-0.5, 0, 0]])
    result = stop(atoms, min_distance=2.0, temperature_limit=1e9)
    assert "atom 0 (Ar) and atom 1 (He) are 1.99 Å apart, under min_distance=2.0 Å" in result.reason


def test_lost_atom_but_not_one_that_was_alone_from_the_start():
    atoms = pair(Scripted(10**9, None)) + Atoms("Ne", positions=[[15, 15, 15]])
    atoms.calc = Scripted(10**9, None)
    atoms.set_velocities([[0, 0, 0], [0.5, 0, 0], [0, 0, 0]])
    result = stop(atoms, lost_distance=4.0, temperature_limit=1e9)
    assert "2 atom(s) lost, first atom 0 (Ar): no neighbour within lost_distance=4.0 Å" in result.reason


def test_committee_limit():
    def disagree(results):
        results["forces_std"][0] = [0.3, 0.4, 0.0]

    result = stop(pair(Scripted(4, disagree)), committee_limit=0.2)
    assert (
        "the committee's forces on atom 0 (Ar) deviate by 0.5 eV/Å, over committee_limit=0.2" in result.reason
    )
    assert result.max_force_std[-1] == pytest.approx(0.01 * np.sqrt(3))


def test_committee_limit_without_a_committee():
    calculator = Scripted(0, lambda results: results.pop("forces_std"))
    with pytest.raises(StructureError, match="calculator gives no 'forces_std'; use a committee"):
        run_md(pair(calculator), steps=2, ensemble="nve", committee_limit=1.0, progress=False)


def test_volume_limit(soft_spheres):
    atoms = soft_spheres()
    atoms.calc.strength = 0.1
    result = stop(atoms, ensemble="npt", steps=3000, timestep_fs=5, pressure_gpa=20.0, barostat_time_fs=300,
                  volume_limit=1.3, step_limit=None, fix_com=True)  # fmt: skip
    assert "times the first one, beyond volume_limit=1.3" in result.reason


def test_a_failing_calculator_ends_the_run_with_its_own_words():
    def fail(results):
        raise ValueError("atoms 0 and 1 overlap")

    result = stop(pair(Scripted(6, fail)))
    assert result.reason == "step 6: the calculator failed: atoms 0 and 1 overlap"
    assert result.n_steps == 5


def test_a_bad_first_configuration_is_an_error():
    with pytest.raises(StructureError, match="no start for a run: the force on atom 1"):
        run_md(pair(Scripted(0, set_forces(1e4))), steps=5, progress=False)


def test_guards_can_be_switched_off():
    atoms = pair(Scripted(3, set_forces(500.0)))
    limits = {"force_limit": None, "step_limit": None, "temperature_limit": 1e12, "lost_distance": None}
    result = run_md(atoms, steps=10, ensemble="nve", progress=False, **limits)
    assert result.status == "finished" and result.n_steps == 10


def test_uncertainty_limit():
    calls = iter(range(100))

    def doubt(results):
        results["energies_std"] = np.array([0.01, 0.02 if next(calls) < 5 else 0.7])

    result = stop(pair(Scripted(0, doubt)), uncertainty_limit=0.1)
    expected = "the energy of atom 1 (He) is known to 0.7 eV, over uncertainty_limit=0.1"
    assert expected in result.reason and result.n_steps == 4


def test_uncertainty_limit_of_a_model_that_knows_none():
    with pytest.raises(StructureError, match=r"gives no 'energies_std'.*`dpa2calc uncertainty`"):
        run_md(pair(Scripted(10**9, None)), steps=2, ensemble="nve", uncertainty_limit=1.0, progress=False)
