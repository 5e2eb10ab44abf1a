"""Relaxation and dynamics inside the modes that a caller may have switched on."""

import numpy as np
import pytest
from ase.build import bulk
from modes import MODES

from dpa2calc import DPA2Calculator
from dpa2calc.applications import relax, run_md


@pytest.fixture(scope="module")
def calc():
    """The shipped model."""
    return DPA2Calculator(head="mlearn-PBE", device="cpu")


def _moved(calc):
    """Positions and energies of a relaxation and of three steps of dynamics."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.calc = calc
    relaxed = relax(atoms, relax="volume", max_steps=3, fmax=1e-6, progress=False)
    hot = atoms.copy()
    hot.calc = calc
    result = run_md(hot, steps=3, temperature=300, timestep_fs=1.0, seed=2, progress=False)
    done = relaxed.atoms()
    return done.positions, done.cell.array, result.positions, result.potential_energy


@pytest.fixture(scope="module")
def right(calc):
    """The same outside."""
    return _moved(calc)


@pytest.mark.filterwarnings("ignore:.*not converged")
@pytest.mark.parametrize("mode", ("inference_mode", "no_grad", "autocast", "meta", "errstate", "warnings"))
def test_the_same_path(mode, calc, right):
    with MODES[mode]():
        got = _moved(calc)
    for a, b in zip(got, right):
        np.testing.assert_array_equal(a, b)
