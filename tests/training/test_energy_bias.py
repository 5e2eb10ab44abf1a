"""The energies of elements in a head: shared by its sets, exact at the end, and nothing else moved."""

import dataclasses

import numpy as np
import pytest
import torch

from dpa2calc.model.potential import Potential
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import spanning_frames, spread_frames
from dpa2calc.training.data.sets import TrainingData, TrainingSet
from dpa2calc.training.energy_bias import fit_energy_biases, refit_predictions, shift_energy_bias
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.fit.predict import predict_potential
from dpa2calc.training.fit.run import train
from dpa2calc.training.fit.setup import new_potential

STILL = TrainConfig(
    steps=2, batch_atoms=8, learning_rate=1e-12, learning_rate_stop=1e-13, ema_decay=0.0, log_every=1
)


def test_sets_of_one_head_share_its_bias(tiny_model, lj_data):
    config = tiny_model(("A", "B"))
    sets = {
        "one": TrainingSet(lj_data(4, shift=-1.0), head="A"),
        "two": TrainingSet(lj_data(4, shift=-3.0), head="A"),
        "B": TrainingSet(lj_data(4, shift=-7.0)),
    }
    potential = Potential(config)
    data = TrainingData.of(sets, config)
    fit_energy_biases(potential, data)
    lj = np.mean([f.energy / f.n_atoms for f in lj_data(4)])
    assert float(potential.heads[0].out_bias.values[0]) == pytest.approx(lj - 2.0, abs=1e-9)
    assert float(potential.heads[1].out_bias.values[0]) == pytest.approx(lj - 7.0, abs=1e-9)


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


def test_predictions_are_moved_by_what_the_labels_say_and_no_others_change(tiny_model, lj_data):
    data = lj_data(6, shift=-2.0)
    frames = [dataclasses.replace(f, energy=None) if i == 3 else f for i, f in enumerate(data)]
    data = dataclasses.replace(data, frames=tuple(frames))
    made = predict_potential(new_potential(tiny_model(), seed=1), data)
    moved, bias = refit_predictions(data, made)
    left = [(f.energy - p.energy) / f.n_atoms for f, p in zip(data, moved) if f.energy is not None]
    assert abs(np.mean(left)) < 1e-9 and list(bias) == ["Ar"]
    assert moved[3].energy - made[3].energy == pytest.approx(4 * bias["Ar"])
    assert all(a.forces is b.forces for a, b in zip(moved, made))


def _levels(data):
    """The data with one atom in four of the last three frames made Ne, with levels of 2 and -300 eV."""
    frames = []
    for i, frame in enumerate(data):
        numbers = frame.numbers.copy()
        if i >= len(data) - 3:
            numbers[: 1 + i % 2] = 10
        level = np.where(numbers == 10, -300.0, 2.0).sum()
        frames.append(dataclasses.replace(frame, numbers=numbers, energy=frame.energy + level))
    return dataclasses.replace(data, frames=tuple(frames))


def test_an_element_that_a_sample_misses_gets_its_energy_all_the_same(tiny_model, lj_data, tmp_path):
    """Else its frames would be wrong by the difference of two codes, here by tens of eV an atom."""
    data = _levels(lj_data(60))
    sampled = spread_frames(data, 8)
    assert max(sampled) < 57, "the sample must miss the frames of Ne"
    more = spanning_frames(data, 8)
    assert set(sampled) < set(more) and len(more) == 9
    potential = new_potential(tiny_model(), seed=1)
    shift_energy_bias(potential, data, frames=8)
    assert np.abs(np.diff(evaluate(potential, data).energies)).max() < 1.0
    options = STILL.replace(final_bias_frames=8)
    made = train(potential, data, options, output=tmp_path / "run", progress=False).potential
    assert np.abs(np.diff(evaluate(made, data).energies)).max() < 1.0


def test_frames_span_the_ratios_of_elements_too(lj_data):
    """A sample of one ratio says nothing of each element's energy."""
    frames = []
    for i, frame in enumerate(lj_data(40)):
        numbers = frame.numbers.copy()
        numbers[: 3 if i == 39 else 2] = 10
        frames.append(dataclasses.replace(frame, numbers=numbers))
    data = dataclasses.replace(lj_data(1), frames=tuple(frames))
    assert 39 not in spread_frames(data, 5)
    assert spanning_frames(data, 5) == [*spread_frames(data, 5), 39]
    assert spanning_frames(data.subset(range(39)), 5) == spread_frames(data.subset(range(39)), 5)
