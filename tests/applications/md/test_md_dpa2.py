"""The exact restart holds for this package's own calculator, which keeps its neighbours for some steps."""

import lzma
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from dpa2calc import DPA2Calculator
from dpa2calc.applications import run_md

MODEL = Path(__file__).parents[2] / "data" / "golden" / "models" / "dpa2_tiny_paper" / "model.dp.xz"


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.dp"
    path.write_bytes(lzma.decompress(MODEL.read_bytes()))
    return path


def argonlike(model):
    rng = np.random.default_rng(2)
    grid = np.stack(np.meshgrid(*[range(2)] * 3), axis=-1).reshape(-1, 3) * 2.4
    atoms = Atoms("O8", positions=grid + rng.normal(0, 0.2, (8, 3)), cell=[4.8] * 3, pbc=True)
    atoms.calc = DPA2Calculator(model, skin=0.6)
    return atoms


def test_a_run_in_parts_repeats_every_bit(model, tmp_path):
    options = {"timestep_fs": 2.0, "temperature": 1500, "sync_interval": 10, "progress": False}
    options |= {"temperature_limit": 1e9, "step_limit": None, "ensemble": "npt", "cell_motion": "cell"}
    whole = run_md(argonlike(model), steps=40, **options)
    for steps in (27, 40):
        files = {"restart": tmp_path / "restart.npz", "log": tmp_path / "log.csv"}
        parts = run_md(argonlike(model), steps=steps, **files, **options)
    assert np.array_equal(whole.positions, parts.positions)
    assert np.array_equal(whole.potential_energy, parts.potential_energy)
    assert np.array_equal(whole.momenta, parts.momenta) and np.array_equal(whole.cell, parts.cell)
