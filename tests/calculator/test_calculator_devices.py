"""The same numbers on another device as on the CPU: on the stand-in everywhere, on CUDA with `-m gpu`."""

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, make_potential
from ase import units
from ase.build import molecule
from ase.io import read
from ase.md.verlet import VelocityVerlet
from other_device import DEVICES, Elsewhere, OtherDevice, standing_in

from dpa2calc import calculator as calculator_module
from dpa2calc.calculator import DPA2Calculator
from dpa2calc.engine import committee as committee_module
from dpa2calc.engine.committee import Member
from dpa2calc.errors import ConfigError

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
NAMES = ("bulk", "slab", "molecule", "compressed", "single-atom")


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A device that is not the CPU."""
    if request.param == "meta":
        for module in (calculator_module, committee_module):
            monkeypatch.setattr(module, "check_device", lambda device, dtype: torch.device(device))
    with standing_in(request.param) as name:
        yield name


@pytest.fixture(params=DEVICES[1:])
def cuda(request) -> str:
    """CUDA alone, for what the stand-in has no kernels for, or takes too long for."""
    return request.param


def same(found, expected, tolerance: float, what: str) -> None:
    """Equal to `tolerance` of the largest value."""
    scale = max(1.0, float(np.max(np.abs(expected))))
    np.testing.assert_allclose(found, expected, atol=tolerance * scale, rtol=0, err_msg=what)


def pair(potential, device: str, dtype: str = "float64", **options) -> tuple[DPA2Calculator, DPA2Calculator]:
    """Calculators of one model on the CPU and on the device."""
    return tuple(DPA2Calculator(potential, dtype=dtype, device=d, **options) for d in ("cpu", device))  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_all_results_are_those_of_the_cpu(potential, structure_of, device, dtype):
    cpu, other = pair(potential, device, dtype)
    if device == "meta":
        assert all(isinstance(p.data, Elsewhere) for p in other._members[0].potential.parameters())
    structures = [structure_of(name) for name in NAMES]
    batch = other.evaluate(structures, stresses=True)
    for name, atoms, expected, found in zip(
        NAMES, structures, cpu.evaluate(structures, stresses=True), batch
    ):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            same(found[key], value, TOLERANCE[dtype], f"{name}: {key}")
        if name in ("bulk", "single-atom"):  # alone: the graph is made on the device
            for key in ("energy", "forces"):
                same(other.get_property(key, atoms), expected[key], TOLERANCE[dtype], f"{name} alone: {key}")
            same(other.get_descriptors(atoms), cpu.get_descriptors(atoms), TOLERANCE[dtype], "descriptors")


def test_twice_the_cell_has_twice_the_energy(potential, structure_of, device):
    other = DPA2Calculator(potential, dtype="float64", device=device)
    atoms = structure_of("triclinic")
    double = atoms.repeat((1, 1, 2))
    assert other.get_potential_energy(double) == pytest.approx(
        2 * other.get_potential_energy(atoms), rel=1e-12
    )
    same(other.get_forces(double), np.tile(other.get_forces(atoms), (2, 1)), 1e-10, "forces")


def test_skin_copies_and_pickles(device, structure_of):
    cpu, other = pair(make_potential("dpa2-small"), device)
    atoms = structure_of("triclinic")
    rng = np.random.default_rng(1)
    for _ in range(5):
        atoms.positions += rng.normal(scale=0.02, size=(4, 3))
        assert other.get_potential_energy(atoms) == pytest.approx(cpu.get_potential_energy(atoms), rel=1e-10)
    assert other._builders[0].neighbors.n_searches == 1
    assert other.identity() == cpu.identity()
    for twin in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        assert twin._members[0].potential.device.type == device
        assert twin.get_potential_energy(atoms) == pytest.approx(other.get_potential_energy(atoms), rel=1e-13)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_pickle_from_a_machine_with_a_gpu_says_what_is_missing():
    member = DPA2Calculator(make_potential("dpa1-l0"), dtype="float64", device="cpu")._members[0]
    state = {**member.__getstate__(), "device": "cuda:0"}
    with pytest.raises(ConfigError, match=r"device = 'cuda:0' cannot be used here.*allowed: 'cpu'"):
        object.__new__(Member).__setstate__(state)


def test_a_pickle_with_tables_needs_the_compiler_of_its_device(monkeypatch):
    asked = []
    monkeypatch.setattr(committee_module, "check_device", lambda device, dtype: torch.device(device))
    monkeypatch.setattr(
        committee_module, "compress", lambda p, device: (asked.append(str(device)) or p, None)
    )
    monkeypatch.setattr(committee_module, "freeze", lambda p, device: p)
    member = DPA2Calculator(make_potential("dpa1-l0"), dtype="float64", device="cpu")._members[0]
    object.__new__(Member).__setstate__({**member.__getstate__(), "device": "cuda:0", "compressed": True})
    assert asked == ["cuda:0"]


def test_a_committee_spreads_as_on_the_cpu(device, structure_of):
    models = [make_potential(name, seed=seed) for name, seed in (("dpa2-small", 0), ("dpa2-small", 1))]
    cpu, other = pair(models[0], device, committee=[models[1], make_potential("dpa1-l0")])
    atoms = structure_of("slab")
    for key in ("energy", "forces", "energy_std", "forces_std"):
        same(other.get_property(key, atoms), cpu.get_property(key, atoms), 1e-10, key)


def test_dispersion_is_added_as_on_the_cpu(device, structure_of):
    pytest.importorskip("dftd3")
    cpu, other = pair(make_potential("dpa2-small"), device, dispersion="d3bj:pbe")
    atoms = structure_of("bulk")
    for key in ("energy", "forces", "stress"):
        same(other.get_property(key, atoms), cpu.get_property(key, atoms), 1e-10, key)


def test_twenty_steps_of_dynamics_are_those_of_the_cpu(device, structure_of):
    ends = []
    for calculator in pair(make_potential("dpa2-small"), device):
        atoms = structure_of("bulk")
        atoms.set_velocities(np.random.default_rng(3).normal(scale=0.02, size=(4, 3)))
        atoms.calc = calculator
        VelocityVerlet(atoms, timestep=0.2 * units.fs).run(20)
        ends.append(np.concatenate([atoms.positions, atoms.get_velocities(), atoms.get_forces()]))
    assert np.abs(ends[0][:4] - structure_of("bulk").positions).max() > 1e-3
    same(ends[1], ends[0], 1e-9, "positions, velocities, forces")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_default_model_on_water(cuda, dtype):
    atoms = read(Path(__file__).parents[2] / "examples" / "data" / "water64.extxyz")
    cpu, gpu = pair("default", cuda, dtype, head="H2O-PBE0TS")
    for key in ("energy", "forces", "stress", "energies"):
        same(gpu.get_property(key, atoms), cpu.get_property(key, atoms), TOLERANCE[dtype], key)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["dpa1-l0", "deeppot-se", "dpa2-small", "dpa2-all-updates"])
def test_tables_are_those_of_the_cpu(name, cuda, structure_of, dtype):
    cpu, gpu = pair(make_potential(name), cuda, dtype, compress=True)
    structures = [structure_of(name) for name in NAMES if name != "compressed"]
    for expected, found in zip(cpu.evaluate(structures), gpu.evaluate(structures)):
        for key, value in expected.items():
            same(found[key], value, TOLERANCE[dtype], key)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-7), ("float32", 2e-5)])
def test_a_students_tables_on_cuda_equal_the_nets_on_the_cpu(cuda, dtype, tolerance):
    atoms = molecule("H2O", cell=[3.1, 3.1, 3.1], pbc=True).repeat(3)
    atoms.rattle(0.05, seed=2)
    nets = DPA2Calculator("student-water", dtype=dtype, device="cpu", compress=False)
    tables = DPA2Calculator("student-water", dtype=dtype, device=cuda, compress=True)
    assert tables.parameters["compressed"]
    for key in ("energy", "forces", "stress"):
        same(tables.get_property(key, atoms), nets.get_property(key, atoms), tolerance, key)
    twin = pickle.loads(pickle.dumps(tables))
    same(twin.get_forces(atoms), tables.get_forces(atoms), 1e-12, "after a pickle")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_runs_repeat(name, cuda, structure_of):
    """Sums by atomic operations come in any order, so that the last digits may differ and no more."""
    gpu = DPA2Calculator(make_potential(name), dtype="float32", device=cuda)
    atoms = structure_of("bulk").repeat(2)
    first, second = (gpu.evaluate([atoms])[0] for _ in range(2))
    for key, value in first.items():
        same(second[key], value, 1e-5, key)


def test_a_step_waits_for_the_device_no_more_often_than_today(architecture, monkeypatch, structure_of):
    """Not yet never. Each wait stops a GPU's queue; the number may only fall."""
    monkeypatch.setattr(calculator_module, "check_device", lambda device, dtype: torch.device(device))
    with OtherDevice() as stand_in:
        atoms = structure_of("bulk").repeat(2)
        atoms.calc = DPA2Calculator(make_potential(architecture), dtype="float32", device="meta")
        atoms.get_forces()
        atoms.positions[0] += 0.01
        stand_in.trips.clear()
        atoms.get_forces()
    assert 4 <= len(stand_in.trips) <= 40  # positions up, three results down, at the least
