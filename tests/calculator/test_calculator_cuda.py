"""The same numbers on a CUDA device as on the CPU."""

import pickle

import numpy as np
import pytest
import torch
from ase.build import molecule

from dpa2calc.calculator import DPA2Calculator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 2e-4)])
def test_cuda_equals_cpu(potential, structure_of, dtype, tolerance):
    cpu = DPA2Calculator(potential, dtype="float64", device="cpu")
    gpu = DPA2Calculator(potential, dtype=dtype, device="cuda")
    for name in ("bulk", "slab", "molecule", "compressed", "single-atom"):
        atoms = structure_of(name)
        (a,), (b,) = cpu.evaluate([atoms], stresses=True), gpu.evaluate([atoms], stresses=True)
        assert a.keys() == b.keys()
        for key, value in a.items():
            scale = max(1.0, float(np.max(np.abs(value))))
            np.testing.assert_allclose(b[key], value, atol=tolerance * scale, rtol=0, err_msg=key)
        np.testing.assert_allclose(gpu.get_forces(atoms), b["forces"], atol=tolerance)


def test_skin_descriptors_and_pickle_on_cuda(potential_of, structure_of):
    gpu = DPA2Calculator(potential_of("dpa2-small"), dtype="float64", device="cuda")
    cpu = DPA2Calculator(potential_of("dpa2-small"), dtype="float64", device="cpu")
    atoms = structure_of("triclinic")
    rng = np.random.default_rng(1)
    for _ in range(5):
        atoms.positions += rng.normal(scale=0.02, size=(4, 3))
        assert gpu.get_potential_energy(atoms) == pytest.approx(cpu.get_potential_energy(atoms), abs=1e-9)
    assert gpu._builders[0].neighbors.n_searches == 1
    np.testing.assert_allclose(gpu.get_descriptors(atoms), cpu.get_descriptors(atoms), atol=1e-9)
    twin = pickle.loads(pickle.dumps(gpu))
    assert twin._members[0].device.type == "cuda"
    assert twin.get_potential_energy(atoms) == gpu.get_potential_energy(atoms)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-7), ("float32", 2e-4)])
def test_tables_on_cuda_equal_the_nets_on_the_cpu(dtype, tolerance):
    atoms = molecule("H2O", cell=[3.1, 3.1, 3.1], pbc=True).repeat(3)
    atoms.rattle(0.05, seed=2)
    nets = DPA2Calculator("student-water", dtype="float64", device="cpu", compress=False)
    tables = DPA2Calculator("student-water", dtype=dtype, device="cuda", compress=True)
    (a,), (b,) = nets.evaluate([atoms]), tables.evaluate([atoms])
    assert tables.parameters["compressed"]
    for key in ("energy", "forces", "stress"):
        scale = max(1.0, float(np.max(np.abs(a[key]))))
        np.testing.assert_allclose(b[key], a[key], atol=tolerance * scale, rtol=0, err_msg=key)
