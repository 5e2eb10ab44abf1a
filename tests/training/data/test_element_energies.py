"""Energies of elements from compositions: least squares, and a fit that outliers do not move."""

import numpy as np
import pytest
from ase import Atoms

from dpa2calc.errors import DataError
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.element_energies import energy_bias, energy_spread, robust_bias


def test_bias_recovers_element_energies():
    rng = np.random.default_rng(0)
    truth = {"H": -13.6, "O": -430.2, "Si": -160.0}
    frames = []
    for _ in range(20):
        symbols = rng.choice(list(truth), size=6)
        atoms = Atoms(symbols, positions=rng.normal(size=(6, 3)) * 5)
        atoms.info["energy"] = sum(truth[s] for s in symbols)
        frames.append(atoms)
    bias, residual = energy_bias(Dataset.from_atoms(frames), ("C", "H", "O", "Si"))
    np.testing.assert_allclose(bias, [0.0, -13.6, -430.2, -160.0], atol=1e-9)
    np.testing.assert_allclose(residual, 0.0, atol=1e-10)


def test_bias_of_one_composition_is_the_least_norm_one():
    atoms = Atoms("H2O", positions=np.eye(3) * 2, info={"energy": -10.0})
    bias, _ = energy_bias(Dataset.from_atoms([atoms, atoms]), ("H", "O"))
    np.testing.assert_allclose(bias, [-4.0, -2.0], atol=1e-12)  # along (2, 1)
    with pytest.raises(DataError, match="no frame has an energy"):
        energy_bias(Dataset.from_atoms([Atoms("H")]), ("H",))


def test_energies_are_found_among_noise_and_outliers():
    rng = np.random.default_rng(0)
    fractions = rng.dirichlet(np.ones(6), size=300)
    fractions[:, 5] = 0.0
    true = np.array([0.3, -0.5, 0.1, 0.0, 0.2, 0.0])
    errors = fractions @ true + rng.normal(0, 0.01, 300)
    errors[:15] += 2.0
    found = robust_bias(fractions, errors)
    assert np.abs(found - true).max() < 0.03
    assert found[5] == 0.0
    plain = np.linalg.lstsq(fractions, errors, rcond=None)[0]
    assert np.abs(plain[:5] - true[:5]).max() > 0.05


def test_elements_that_always_come_together_are_not_torn_apart():
    errors = np.full(20, 0.01)
    found = robust_bias(np.tile([2 / 3, 1 / 3], (20, 1)), errors)
    assert 2 / 3 * found[0] + found[1] / 3 == pytest.approx(0.01, rel=1e-3)
    assert np.abs(found).max() < 0.02
    # Nearly equal ratios with noise, and a few other frames that need no shift.
    rng = np.random.default_rng(1)
    first = np.r_[0.5 + rng.normal(0, 0.002, 200), 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    errors = np.r_[0.02 + rng.normal(0, 0.01, 200), np.zeros(6)]
    found = robust_bias(np.stack([first, 1 - first], axis=1), errors)
    assert np.abs(found).max() < 0.05


@pytest.mark.parametrize("n", [1, 2, 9])
def test_few_frames_lose_the_offset_that_all_have(n):
    """A seventh of it was left by six frames of one element, and half of it by one frame."""
    np.testing.assert_allclose(
        robust_bias(np.tile([0.5, 0.5, 0.0], (n, 1)), np.full(n, 1.2)), [1.2, 1.2, 0.0]
    )


def test_noise_moves_nothing_far():
    rng = np.random.default_rng(2)
    fractions, errors = rng.dirichlet(np.ones(20), size=60), rng.normal(0, 0.01, 60)
    plain = np.linalg.lstsq(fractions, errors, rcond=None)[0]
    assert np.abs(robust_bias(fractions, errors)).max() < 0.6 * np.abs(plain).max()


def test_the_spread_of_energies_is_that_about_the_elements():
    rng = np.random.default_rng(0)
    truth, frames = {"H": -13.6, "O": -430.2}, []
    for _ in range(400):
        symbols = rng.choice(list(truth), size=6)
        atoms = Atoms(symbols, positions=rng.normal(size=(6, 3)) * 5)
        atoms.info["energy"] = sum(truth[s] for s in symbols) + 6 * rng.normal(scale=0.02)
        frames.append(atoms)
    assert energy_spread(Dataset.from_atoms(frames)) == pytest.approx(20.0, rel=0.1)
    same = [Atoms("H2O", positions=np.eye(3) * 2, info={"energy": 3e-3 * e}) for e in (0.0, 1.0, 2.0)]
    assert energy_spread(Dataset.from_atoms(same)) == pytest.approx(1.0)
    assert energy_spread(Dataset.from_atoms(same[:1])) is None  # nothing is left to spread
    assert energy_spread(Dataset.from_atoms([Atoms("H")])) is None
