"""Steps recorded on a GPU: the plain engine's numbers at every step of a run, and one wait a step.

On the stand-in a step is not recorded but done again each time: same shapes, same operations.
"""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, make_potential
from ase import Atoms
from other_device import DEVICES, OtherDevice, standing_in

from dpa2calc import calculator as calculator_module
from dpa2calc.calculator import DPA2Calculator
from dpa2calc.engine.recorded import Recorded, why_not_recorded
from dpa2calc.model.potential import Potential
from dpa2calc.validation import DistanceCheck

RECORDED = [name for name in ARCHITECTURES if make_potential(name).config.descriptor.mixed_types]


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(calculator_module, "check_device", lambda device, dtype: torch.device(device))
    with standing_in(request.param) as name:
        yield name


@pytest.fixture
def crystal() -> Atoms:
    """32 atoms in a small periodic cell."""
    atoms = Atoms(
        "OHHCu", [[0, 0, 0], [0.9, 0.2, 0], [-0.3, 0.9, 0.1], [2.2, 2.0, 1.9]], cell=[4.1, 4.3, 4.5], pbc=True
    ).repeat(2)
    atoms.rattle(0.05, seed=1)
    return atoms


def made(potential: Potential, device: str, **options) -> tuple[DPA2Calculator, Recorded, DistanceCheck]:
    """A calculator on the CPU, the recorded engine on the device, and its check of distances."""
    cpu = DPA2Calculator(potential, dtype="float64", device="cpu", **options)
    there = DPA2Calculator(potential, dtype="float64", device=device, **options)
    (member,) = there._members
    return cpu, Recorded(member.potential, member.head_index), there._check_distances


def compare(cpu: DPA2Calculator, engine: Recorded, check: DistanceCheck, atoms: Atoms) -> None:
    found = engine(atoms, check)
    assert found is not None
    assert float(found.energy) == pytest.approx(cpu.get_potential_energy(atoms), abs=1e-10)
    np.testing.assert_allclose(found.forces, cpu.get_forces(atoms), atol=1e-10)
    np.testing.assert_allclose(found.atomic_energies, cpu.get_potential_energies(atoms), atol=1e-10)
    if atoms.pbc.any():
        virial = found.virial[0].numpy()
        stress = -0.5 * (virial + virial.T)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] / atoms.get_volume()
        np.testing.assert_allclose(stress, cpu.get_stress(atoms), atol=1e-11)


@pytest.mark.parametrize("name", RECORDED)
def test_every_step_of_a_run_has_the_plain_engines_numbers(name, device, crystal):
    """The first call is not recorded. Positions move, atoms leave the cell, lists wear out, cells change."""
    cpu, engine, check = made(make_potential(name), device)
    rng = np.random.default_rng(0)
    assert engine(crystal, check) is None
    for number in range(6):
        if number == 3:
            crystal.set_cell(
                crystal.cell.array @ (np.eye(3) + 0.02 * rng.normal(size=(3, 3))), scale_atoms=True
            )
        crystal.positions += rng.normal(0.0, 0.03, crystal.positions.shape) + [3.0, 0.0, 0.0]
        compare(cpu, engine, check, crystal)
    assert engine.neighbors.n_searches < 6
    crystal.positions += rng.normal(0.0, 0.2, crystal.positions.shape)
    compare(cpu, engine, check, crystal)


def test_more_neighbors_than_there_was_room_for(device, crystal):
    """A crystal under compression: rows get wider, within the same list and with a new one."""
    cpu, engine, check = made(make_potential("dpa2-paper"), device)
    engine(crystal, check)
    compare(cpu, engine, check, crystal)
    widths = dict(engine._step.widths)
    for scale in (0.97, 0.9, 0.84):
        dense = crystal.copy()
        dense.set_cell(crystal.cell * scale, scale_atoms=True)
        compare(cpu, engine, check, dense)
    assert all(engine._step.widths[cutoff] > width for cutoff, width in widths.items())


@pytest.mark.parametrize("name", ["dpa2-nearest", "dpa2-small"])
@pytest.mark.parametrize("pbc", [False, [True, True, False]])
def test_molecules_and_slabs(name, pbc, device, crystal):
    cpu, engine, check = made(make_potential(name), device)
    crystal.pbc = pbc
    engine(crystal, check)
    for _ in range(2):
        crystal.rattle(0.02, seed=3)
        compare(cpu, engine, check, crystal)


def test_one_atom_alone(device):
    cpu, engine, check = made(make_potential("dpa2-small"), device)
    atoms = Atoms("Cu")
    engine(atoms, check)
    compare(cpu, engine, check, atoms)


def test_other_atoms_are_not_taken_for_the_same(device, crystal):
    cpu, engine, check = made(make_potential("dpa2-small"), device)
    engine(crystal, check)
    compare(cpu, engine, check, crystal)
    other = crystal[::-1]
    assert engine(other, check) is None
    compare(cpu, engine, check, other)


def test_what_has_to_be_said_is_left_to_the_plain_engine(device, crystal):
    """Atoms that are too close: there is a warning, once, or an error."""
    cpu, engine, check = made(make_potential("dpa2-small"), device)
    engine(crystal, check)
    crystal.positions[1] = crystal.positions[0] + [0.3, 0.0, 0.0]
    assert engine(crystal, check) is None
    check.warned = True
    with pytest.warns(UserWarning, match="closer than any bond"):
        compare(cpu, engine, check, crystal)
    crystal.positions[1] = crystal.positions[0] + [0.003, 0.0, 0.0]
    assert engine(crystal, check) is None


@pytest.mark.parametrize("name", RECORDED)
def test_a_step_crosses_to_the_device_once_and_back_once(name, crystal, monkeypatch):
    """Positions and cell go up, one row of numbers comes down; nothing else is waited for."""
    monkeypatch.setattr(calculator_module, "check_device", lambda device, dtype: torch.device(device))
    with OtherDevice() as stand_in:
        _, engine, check = made(make_potential(name), "meta")
        for _ in range(2):
            engine(crystal, check)
        stand_in.trips.clear()
        crystal.positions += 0.01
        engine(crystal, check)
        assert stand_in.trips == ["copy"] * 3


def test_models_that_are_not_recorded_say_why():
    assert why_not_recorded(make_potential("dpa2-small"), 0) == "it is not on a CUDA device"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("name", ["default", "student-water"])
def test_a_calculator_records_by_itself(name, crystal):
    from ase.build import molecule

    atoms = molecule("H2O", cell=[3.1, 3.1, 3.1], pbc=True).repeat(3)
    atoms.rattle(0.05, seed=2)
    head = "H2O-PBE0TS" if name == "default" else None
    cpu, gpu = (DPA2Calculator(name, head, dtype="float64", device=place) for place in ("cpu", "cuda"))
    for seed in range(3):
        atoms.rattle(0.01, seed=seed)
        for key in ("energy", "forces", "stress", "energies", "energy_std"):
            expected = cpu.get_property(key, atoms)
            rtol = 1e-5 if key == "energy_std" else 1e-10  # a rigidity is kept in float32
            np.testing.assert_allclose(gpu.get_property(key, atoms), expected, atol=1e-9, rtol=rtol)
        assert (gpu._streams[0]._step is not None) == (seed > 0)
    atoms.rattle(0.01, seed=3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            gpu.get_forces(atoms)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sum("called a synchronizing" in str(w.message) for w in seen) == 1  # for the results
