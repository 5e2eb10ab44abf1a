"""The last fit of the elements' energies: exact where it can be, deaf to outliers, nothing else moved."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.energy_bias.final_bias import robust_bias
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.fit.run import train
from dpa2calc.training.fit.setup import new_potential

STILL = TrainConfig(
    steps=2, batch_atoms=8, learning_rate=1e-12, learning_rate_stop=1e-13, ema_decay=0.0, log_every=1
)


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


def test_noise_moves_nothing_far():
    rng = np.random.default_rng(2)
    fractions, errors = rng.dirichlet(np.ones(20), size=60), rng.normal(0, 0.01, 60)
    plain = np.linalg.lstsq(fractions, errors, rcond=None)[0]
    assert np.abs(robust_bias(fractions, errors)).max() < 0.6 * np.abs(plain).max()


def test_a_wrong_level_is_gone_and_nothing_else_changes(tiny_model, lj_data, tmp_path):
    start = new_potential(tiny_model(), seed=1)
    data = lj_data(12)
    shifted = dataclasses.replace(
        data, frames=tuple(dataclasses.replace(f, energy=f.energy + 3.0 * f.n_atoms) for f in data)
    )
    none = STILL.replace(final_bias_frames=0)
    plain = train(start, shifted, none, output=tmp_path / "plain", head="A", progress=False).potential
    moved = train(start, shifted, STILL, output=tmp_path / "moved", head="A", progress=False).potential
    before, after = (np.diff(evaluate(p, shifted, head="A").energies)[:, 0] for p in (plain, moved))
    assert abs(np.mean(before)) > 1.0
    assert abs(np.mean(after)) < 1e-2 * abs(np.mean(before))
    np.testing.assert_allclose(np.std(after), np.std(before), rtol=1e-6)
    other = moved.state_dict()
    different = [n for n, v in plain.state_dict().items() if not torch.equal(v, other[n])]
    assert different == ["heads.0.out_bias.values"]
    # What is written is what is returned, and going on with a finished run changes nothing.
    again = train(start, shifted, STILL, output=tmp_path / "moved", head="A", progress=False).potential
    assert all(torch.equal(v, other[n]) for n, v in again.state_dict().items())
