"""What needs no model, beside what a model reaches."""

import dataclasses

import numpy as np
import pytest

from dpa2calc.labels.errors import Errors
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.runs.baselines import Baselines


def errors(force, energy=1.0):
    return Errors(
        n_frames=1, n_atoms=4, energy_rmse=energy, energy_mae=energy, force_rmse=force, force_mae=force
    )


def test_the_baselines_are_those_of_numpy(lj_data):
    train, data = lj_data(8), lj_data(5, seed=3)
    found = Baselines.of(train, data)
    forces = np.concatenate([frame.forces for frame in data])
    assert found.force == pytest.approx(1e3 * np.sqrt(np.mean(forces**2)))
    mean = np.mean([frame.energy for frame in train]) / 4  # one element, frames of one size
    assert found.energy == pytest.approx(
        1e3 * np.sqrt(np.mean([(frame.energy / 4 - mean) ** 2 for frame in data]))
    )


def test_verdicts_follow_their_rules():
    known = Baselines(65.0, 12.0)
    assert known.failed(errors(111.0)) and not known.failed(errors(60.0))
    assert known.verdict(errors(111.0)).startswith(
        "beside zero forces 65.0 meV/Å, energies from composition 12.0 meV/atom: worse than no model at all"
    )
    assert "too rough for dynamics (92% of the forces)" in known.verdict(errors(60.0))
    assert known.verdict(errors(6.5)).endswith("force error 10% of the forces")
    assert "before fine-tuning 20.0 meV/Å: worse than before fine-tuning" in known.verdict(
        errors(25.0), errors(20.0)
    )


def test_energies_alone_are_judged_by_composition(lj_data):
    data = lj_data(6)
    bare = Dataset(tuple(dataclasses.replace(frame, forces=None) for frame in data), name="A")
    found = Baselines.of(bare, bare)
    assert found.force is None and found.failed(errors(None, energy=2 * found.energy))
    assert not found.failed(errors(None, energy=0.5 * found.energy))
