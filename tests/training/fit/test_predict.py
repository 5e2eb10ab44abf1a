"""Predictions in batches are those of single frames; errors are those of the predictions."""

import dataclasses

import numpy as np
import pytest
import torch

from dpa2calc.training.evaluate import compare
from dpa2calc.training.fit.loader import GraphStore
from dpa2calc.training.fit.predict import potential_errors, predict_energies, predict_potential
from dpa2calc.training.fit.setup import new_potential
from dpa2calc.training.runs.processes import Processes


@pytest.fixture
def mixed(lj_data):
    """Frames of 4, 12, 4, 8, ... atoms."""
    parts = [lj_data(3, seed=n, repeat=n) for n in (1, 3, 2)]
    frames = [frame for group in zip(*parts) for frame in group]
    return dataclasses.replace(parts[0], frames=tuple(frames))


@pytest.fixture
def potential(tiny_model):
    return new_potential(tiny_model(), seed=1, dtype="float64")


def test_batches_of_mixed_sizes_give_each_frame_its_own(potential, mixed):
    alone = [predict_potential(potential, mixed.subset([i]))[0] for i in range(len(mixed))]
    for batch_atoms in (1, 17, 1000):
        together = predict_potential(potential, mixed, batch_atoms=batch_atoms)
        for frame, one, many in zip(mixed, alone, together, strict=True):
            assert many.forces.shape == (frame.n_atoms, 3)
            assert many.energy == pytest.approx(one.energy, abs=1e-10)
            np.testing.assert_allclose(many.forces, one.forces, atol=1e-10)
            np.testing.assert_allclose(many.virial, one.virial, atol=1e-10)
    energies = predict_energies(potential, GraphStore(mixed, potential.config), [5, 0, 2])
    np.testing.assert_allclose(energies, [alone[i].energy for i in (5, 0, 2)], atol=1e-10)


def test_errors_are_those_of_the_predictions_and_processes_share_them(potential, mixed, monkeypatch):
    expected = compare(mixed, predict_potential(potential, mixed)).errors.to_dict()
    assert potential_errors(potential, mixed, batch_atoms=17).to_dict() == pytest.approx(expected)
    shares = []
    monkeypatch.setattr(Processes, "sum", lambda self, values: shares.append(values.clone()) or values)
    for rank in range(2):
        potential_errors(potential, mixed, processes=Processes(rank, 2))
    monkeypatch.setattr(Processes, "sum", lambda self, values: torch.stack(shares).sum(0))
    joined = potential_errors(potential, mixed, processes=Processes(0, 2))
    assert joined.to_dict() == pytest.approx(expected)
