"""The ASE side: results, cache, copies, skin, precision, and that nothing of the caller's is touched."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import make_potential
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.units import fs

import dpa2calc
from dpa2calc.calculator import DPA2Calculator
from dpa2calc.errors import ConfigError
from dpa2calc.model.config import FittingConfig, HeadConfig


@pytest.fixture
def counted(one_calc, monkeypatch):
    """The calculator and a list that grows with each evaluation of the network."""
    calc, calls = one_calc, []
    potential = calc._members[0].potential
    compute = type(potential).compute

    def counting(self, *args, **kwargs):
        calls.append(1)
        return compute(self, *args, **kwargs)

    monkeypatch.setattr(type(potential), "compute", counting)
    calc.reset()
    return calc, calls


def test_one_pass_fills_all_results_and_they_are_kept(counted, structure_of):
    calc, calls = counted
    atoms = structure_of("bulk")
    atoms.calc = calc
    energy = atoms.get_potential_energy()
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert atoms.get_potential_energies().sum() == pytest.approx(energy, abs=1e-10)
    assert atoms.get_forces().shape == (4, 3) and atoms.get_stress().shape == (6,)
    assert len(calls) == 1
    assert atoms.get_stresses().shape == (4, 6)
    assert len(calls) == 2 and atoms.get_potential_energy() == energy


def test_only_what_the_model_consumes_makes_results_stale(counted, structure_of):
    calc, calls = counted
    atoms = structure_of("bulk")
    atoms.calc = calc
    atoms.get_potential_energy()
    atoms.set_initial_magnetic_moments([1, 2, 3, 4])
    atoms.set_initial_charges([1, 2, 3, 4])
    atoms.set_tags(1)
    atoms.set_velocities(np.ones((4, 3)))
    atoms.info["charge"] = 3
    atoms.info["fparam"] = [1.0]
    atoms.set_constraint(FixAtoms([0]))
    assert calc.check_state(atoms) == []
    atoms.get_potential_energy()
    assert len(calls) == 1
    for change, name in [
        (lambda: atoms.positions.__setitem__((0, 0), atoms.positions[0, 0] + 1e-13), "positions"),
        (lambda: atoms.set_cell(atoms.cell.array * (1 + 1e-12)), "cell"),
        (lambda: atoms.set_pbc((True, True, False)), "pbc"),
        (lambda: atoms.numbers.__setitem__(0, 8), "numbers"),
    ]:
        change()
        assert calc.check_state(atoms) == [name]
        atoms.get_potential_energy()
        assert calc.check_state(atoms) == []


def test_nothing_of_the_caller_is_touched(one_calc, structure_of):
    atoms = structure_of("slab")
    atoms.info["note"], atoms.arrays["mine"] = "x", np.arange(4)
    atoms.set_constraint(FixAtoms([1]))
    atoms.positions += 20  # outside the cell, and to stay there
    before, rng, dtype = atoms.copy(), torch.random.get_rng_state(), torch.get_default_dtype()
    one_calc.get_forces(atoms)
    one_calc.evaluate([atoms, atoms], stresses=True)
    one_calc.get_descriptors(atoms)
    assert atoms == before and atoms.calc is None
    assert atoms.info == before.info and set(atoms.arrays) == set(before.arrays)
    assert len(atoms.constraints) == 1
    assert torch.equal(rng, torch.random.get_rng_state()) and torch.get_default_dtype() is dtype


def test_arrays_handed_out_are_the_callers_own(one_calc, structure_of):
    atoms = structure_of("bulk")
    forces = one_calc.get_forces(atoms)
    forces[:] = 0
    assert one_calc.get_forces(atoms).any()
    assert not any(p.requires_grad for p in one_calc._members[0].potential.parameters())


def test_a_potential_of_the_caller_stays_as_it_was(potential_of):
    potential = potential_of("dpa1-l0")
    calc = DPA2Calculator(potential, dtype="float32")
    assert potential.dtype == torch.float64 and all(p.requires_grad for p in potential.parameters())
    assert calc._members[0].potential.dtype == torch.float32


def test_no_stress_without_pbc_or_volume(one_calc, structure_of):
    for name in ("molecule", "single-atom"):
        with pytest.raises(PropertyNotImplementedError, match="a stress needs a periodic direction"):
            one_calc.get_stress(structure_of(name))
    slab = structure_of("slab")
    slab.cell[2] = 0
    with pytest.raises(PropertyNotImplementedError, match="a cell with a volume"):
        one_calc.get_stresses(slab)
    assert "stress" not in one_calc.evaluate([slab])[0]
    box = structure_of("molecule")
    box.center(vacuum=5)  # a cell alone does not make it periodic
    with pytest.raises(PropertyNotImplementedError):
        one_calc.get_stress(box)


def test_copies_and_pickles_give_the_same_and_live_apart(calc, structure_of):
    atoms, other = structure_of("triclinic"), structure_of("molecule")
    expected = calc.get_forces(atoms)
    for twin in (copy.copy(calc), copy.deepcopy(calc), pickle.loads(pickle.dumps(calc))):
        assert twin.results.keys() == calc.results.keys()
        twin.get_potential_energy(other)
        assert calc.check_state(atoms) == []  # the original kept its own results
        np.testing.assert_array_equal(twin.get_forces(atoms), expected)
        assert twin.head == calc.head and twin.elements == calc.elements
    atoms.calc = calc
    assert copy.deepcopy(atoms).get_potential_energy() == atoms.get_potential_energy()


@pytest.mark.parametrize("name", ["dpa2-all-updates", "dpa2-nearest", "dpa1-l0"])
def test_skin_changes_nothing_along_a_trajectory(potential_of, name, structure_of):
    """Atoms, cell and pbc change; with a skin the neighbours are searched rarely."""
    potential = potential_of(name)
    with_skin = DPA2Calculator(potential, dtype="float64", skin=0.8)
    without = DPA2Calculator(potential, dtype="float64", skin=0.0)
    rng = np.random.default_rng(5)
    atoms = structure_of("bulk")
    for step in range(30):
        atoms.positions += rng.normal(scale=0.03, size=(4, 3)) + [0.05, 0, 0]
        if step % 3 == 0:
            atoms.set_cell(
                atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.003, size=(3, 3))), scale_atoms=True
            )
        if step == 20:
            atoms.pbc = (True, False, True)
        assert with_skin.get_potential_energy(atoms) == pytest.approx(
            without.get_potential_energy(atoms), abs=1e-11
        )
        np.testing.assert_allclose(with_skin.get_forces(atoms), without.get_forces(atoms), atol=1e-10)
    searches = with_skin._builders[0].neighbors.n_searches
    assert searches < 15 < without._builders[0].neighbors.n_searches


def test_one_calculator_for_structures_of_all_sizes_in_turn(calc, structure_of):
    names = ["bulk", "molecule", "short-cell", "single-atom", "slab", "bulk"]
    single = [calc.evaluate([structure_of(name)])[0]["energy"] for name in names]
    assert [calc.get_potential_energy(structure_of(name)) for name in names] == pytest.approx(
        single, abs=1e-10
    )


def test_float32_networks_are_close_and_keep_the_bias_exact(potential, structure_of):
    single = DPA2Calculator(potential, dtype="float32")
    double = DPA2Calculator(potential, dtype=torch.float64)
    for name in ("bulk", "triclinic", "slab", "molecule"):
        atoms = structure_of(name)
        assert single.get_potential_energy(atoms) == pytest.approx(
            double.get_potential_energy(atoms), abs=2e-5
        )
        np.testing.assert_allclose(single.get_forces(atoms), double.get_forces(atoms), atol=1e-3)
        assert single.results["forces"].dtype == single.results["energies"].dtype == np.float64


def test_energy_is_conserved(potential_of):
    """NVE: the drift falls with the square of the time step, as it must for exact forces."""
    calc = DPA2Calculator(potential_of("dpa2-small"), dtype="float64")
    spread = []
    for step in (2.0, 1.0):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=3)
        atoms.calc = calc
        dynamics = VelocityVerlet(atoms, timestep=step * fs)
        totals = [atoms.get_total_energy() for _ in dynamics.irun(int(60 / step))]
        spread.append(np.ptp(totals))
    assert spread[1] < 0.35 * spread[0]
    assert spread[0] < 1e-3


def test_relaxation_and_trajectory_files(one_calc, structure_of, tmp_path):
    atoms = structure_of("slab")
    atoms.calc = one_calc
    start = atoms.get_potential_energy()
    BFGS(atoms, logfile=None, trajectory=str(tmp_path / "t.traj")).run(fmax=0.01, steps=5)
    assert atoms.get_potential_energy() <= start
    write(tmp_path / "a.extxyz", atoms)
    back = read(tmp_path / "a.extxyz")
    assert back.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    last = read(tmp_path / "t.traj")
    np.testing.assert_allclose(last.get_stress(), atoms.get_stress(), atol=1e-12)
    assert one_calc.export_properties()["energy"] == atoms.get_potential_energy()
    assert one_calc.todict()["head"] == "PBE" and one_calc.name == "dpa2calc"


def test_frame_and_atomic_parameters_are_consumed_and_watched(potential_of, structure_of):
    fitting = FittingConfig(neuron=(8,), numb_fparam=2, numb_aparam=1)
    potential = potential_of("dpa1-l0", heads=(HeadConfig(name="T", fitting=fitting),))
    calc = DPA2Calculator(potential, dtype="float64")
    atoms = structure_of("bulk")
    atoms.calc = calc
    atoms.info["fparam"], atoms.arrays["aparam"] = [0.1, 0.2], np.linspace(0, 1, 4)
    first = atoms.get_potential_energy()
    atoms.info["fparam"][0] = 0.9  # changed in place
    assert calc.check_state(atoms) == ["fparam"]
    second = atoms.get_potential_energy()
    atoms.arrays["aparam"][2] += 1
    assert calc.check_state(atoms) == ["aparam"]
    third = atoms.get_potential_energy()
    assert len({first, second, third}) == 3
    other = structure_of("slab")
    other.info["fparam"], other.arrays["aparam"] = np.array([0.5, 0.1]), np.ones((4, 1))
    together = calc.evaluate([atoms, other])
    assert [r["energy"] for r in together] == pytest.approx(
        [third, calc.get_potential_energy(other)], abs=1e-10
    )


def test_default_frame_parameters(potential_of, structure_of):
    fitting = FittingConfig(neuron=(8,), numb_fparam=1, default_fparam=(0.3,))
    calc = DPA2Calculator(
        potential_of("dpa1-l0", heads=(HeadConfig(name="T", fitting=fitting),)), dtype="float64"
    )
    atoms = structure_of("bulk")
    default = calc.get_potential_energy(atoms)
    atoms.info["fparam"] = 0.3
    assert calc.get_potential_energy(atoms) == pytest.approx(default, abs=1e-12)
    atoms.info["fparam"] = 0.4
    given = calc.get_potential_energy(atoms)
    assert given != pytest.approx(default, abs=1e-6)
    together = calc.evaluate([structure_of("bulk"), atoms])  # one with its own, one without, in one batch
    assert [r["energy"] for r in together] == pytest.approx([default, given], abs=1e-10)


def test_descriptors_do_not_depend_on_the_frame(calc, structure_of):
    atoms = structure_of("triclinic")
    d = calc.get_descriptors(atoms)
    assert d.shape[0] == 4 and d.dtype == np.float64 and np.isfinite(d).all()
    turned = atoms.copy()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    np.testing.assert_allclose(calc.get_descriptors(turned[[2, 0, 1, 3]]), d[[2, 0, 1, 3]], atol=1e-10)


def test_public_names_are_found_late():
    assert dpa2calc.DPA2Calculator is DPA2Calculator
    assert "DPA2Calculator" in dir(dpa2calc)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        dpa2calc.Nothing  # noqa: B018


def test_several_heads_give_their_own_energies(potential_of, structure_of):
    fitting = FittingConfig(neuron=(8,))
    heads = (
        HeadConfig(name="H2O_PBE0", aliases=("water",), fitting=fitting),
        HeadConfig(name="Alloy", fitting=fitting),
    )
    potential = potential_of("dpa2-small", heads=heads)
    atoms = structure_of("bulk")
    one, two = (DPA2Calculator(potential, head, dtype="float64") for head in ("water", "alloy"))
    assert (one.head, two.head) == ("H2O_PBE0", "Alloy") and one.heads == two.heads == ("H2O_PBE0", "Alloy")
    assert abs(one.get_potential_energy(atoms) - two.get_potential_energy(atoms)) > 1e-3
    np.testing.assert_array_equal(one.get_descriptors(atoms), two.get_descriptors(atoms))


def test_settings_cannot_be_changed_afterwards(one_calc):
    with pytest.raises(ConfigError, match="head, dtype cannot be set afterwards; make another"):
        one_calc.set(head="other", dtype="float32")
    assert one_calc.parameters["dtype"] == "float64" and one_calc.set() == {}


def test_what_was_before_shows_in_no_bit_after_forgetting():
    """A compressed student sums in the order of its neighbour list, which is kept from step to step."""
    atoms = read(Path(__file__).parents[2] / "examples/data/water64.extxyz")
    rng = np.random.default_rng(0)
    moved = atoms.copy()
    moved.positions += rng.normal(0.0, 0.02, moved.positions.shape)
    used, fresh = (DPA2Calculator("student-water") for _ in range(2))
    used.get_forces(atoms)
    used.forget()
    assert used.get_potential_energy(moved) == fresh.get_potential_energy(moved)
    np.testing.assert_array_equal(used.get_forces(moved), fresh.get_forces(moved))


@pytest.mark.filterwarnings("error", "ignore:.*is far from what head")
@pytest.mark.parametrize("name", ["dpa2-small", "student"])
def test_positions_in_single_precision_or_read_only(name, structure_of):
    """Positions are numbers, whatever holds them: results are float64, and nothing is written to."""
    calculator = DPA2Calculator("student-water" if name == "student" else make_potential(name))
    atoms = molecule("H2O", vacuum=3.0)
    atoms.arrays["positions"] = atoms.positions.astype(np.float32)
    expected = calculator.evaluate([Atoms("OHH", atoms.positions.astype(float), cell=atoms.cell)])[0]
    atoms.arrays["positions"].flags.writeable = False
    atoms.calc = calculator
    assert atoms.get_forces().dtype == np.float64
    np.testing.assert_allclose(atoms.get_forces(), expected["forces"], atol=2e-5)
