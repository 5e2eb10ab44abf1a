"""What a round decides: which frames, and when to stop."""

import numpy as np
import pytest

from dpa2calc.files.results import from_plain
from dpa2calc.files.typed import to_dict
from dpa2calc.labels.errors import Errors
from dpa2calc.training.distill.config import DistillConfig
from dpa2calc.training.distill.selection import (
    DistillRound,
    choose_frames,
    force_deviations,
    stop_reason,
)
from dpa2calc.training.energy_bias import shift_energy_bias
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.exploration.diversity import farthest_points, mean_descriptors
from dpa2calc.training.fit.setup import new_potential


def _round(number, force, *, accurate=0, over=10, exploded=0, threshold=0.2):
    errors = Errors(
        n_frames=10, n_atoms=40, energy_rmse=1.0, energy_mae=1.0, force_rmse=force, force_mae=force
    )
    return DistillRound(
        number=number,
        threshold=threshold,
        trained_on=5,
        trajectories=2,
        cut=0,
        explored=accurate + over + exploded,
        errors=errors,
        deviations=(0.1,) * 6,
        accurate=accurate,
        over=over,
        exploded=exploded,
        added=over,
    )


def test_it_says_why_it_stops():
    config = DistillConfig(threshold=0.2, accurate_share=0.9, max_rounds=5, patience=2, min_change=0.05)
    assert stop_reason([], config) == ("", "")
    assert stop_reason([_round(1, 100), _round(2, 80), _round(3, 60)], config) == ("", "")
    reason, why = stop_reason([_round(1, 100, accurate=9, over=1)], config)
    assert reason == "accurate" and why.startswith("90.0% of 10 new frames are within 0.2 eV/Å")
    reason, why = stop_reason([_round(1, 100), _round(2, 60), _round(3, 59), _round(4, 58)], config)
    assert reason == "unchanged" and "has not fallen by 5% in 2 rounds" in why
    reason, why = stop_reason([_round(1, 100, accurate=2, over=0, exploded=8)], config)
    assert reason == "nothing to add" and "8 others deviate by more than upper_bound = 10 eV/Å" in why
    rounds = [_round(n, 100.0 / n**2) for n in range(1, 6)]
    assert stop_reason(rounds, config)[0] == "max_rounds"
    # Measured with another threshold: go on and measure with the new one.
    assert stop_reason([_round(1, 100, accurate=10, over=0, threshold=0.5)], config) == ("", "")


def test_round_survives_json():
    record = _round(2, 50.0)
    assert from_plain(DistillRound, to_dict(record)) == record and record.accurate_share == 0


def test_farthest_points_are_those_of_the_definition():
    points = np.random.default_rng(0).normal(size=(30, 3))
    chosen = farthest_points(points, 8, first=4)
    assert chosen[0] == 4 and len(set(chosen)) == 8
    for n in range(1, 8):
        nearest = [min(np.linalg.norm(p - points[i]) for i in chosen[:n]) for p in points]
        assert chosen[n] == int(np.argmax(nearest))
    # copies of one point: each index is still taken once
    assert sorted(farthest_points(np.zeros((4, 2)), 4, first=0)) == [0, 1, 2, 3]


def test_chosen_frames_are_between_the_bounds_and_spread(tiny_model, lj_data):
    potential = new_potential(tiny_model(), seed=1)
    data = lj_data(12)
    deviations = np.linspace(0.0, 1.1, 12)
    config = DistillConfig(threshold=0.35, upper_bound=0.95, frames_per_round=50)
    assert choose_frames(data, deviations, potential, config) == [4, 5, 6, 7, 8, 9]
    few = choose_frames(data, deviations, potential, config.replace(frames_per_round=3))
    assert len(few) == 3 and 9 in few and set(few) < {4, 5, 6, 7, 8, 9}
    assert choose_frames(data, np.full(12, np.inf), potential, config) == []
    features = mean_descriptors(data, potential)
    shuffled = mean_descriptors(data.subset(reversed(range(12))), potential)
    np.testing.assert_allclose(features, shuffled[::-1], rtol=1e-5, atol=1e-5)


def test_deviation_is_the_largest_of_the_atoms(tiny_model, lj_data):
    import dataclasses

    potential = new_potential(tiny_model(), seed=1)
    data = lj_data(3)
    zero = dataclasses.replace(
        data, frames=tuple(dataclasses.replace(f, forces=np.zeros_like(f.forces)) for f in data)
    )
    _, deviations = force_deviations(zero, potential)
    from dpa2calc import DPA2Calculator

    for frame, deviation in zip(data, deviations):
        atoms = frame.atoms()
        atoms.calc = DPA2Calculator(potential)
        expected = max(np.sqrt((force**2).sum()) for force in atoms.get_forces())
        assert deviation == pytest.approx(expected, rel=1e-4)


def test_energy_bias_follows_the_labels(tiny_model, lj_data):
    potential = new_potential(tiny_model(), seed=1)
    data = lj_data(10, shift=-30.0)
    before = evaluate(potential, data).errors
    shift_energy_bias(potential, data)
    after = evaluate(potential, data).errors
    assert before.energy_mae > 20_000 and after.energy_mae < 100
    assert after.force_rmse == pytest.approx(before.force_rmse)


def test_frames_without_an_energy_do_not_hide_those_with_one(tiny_model, lj_data):
    import dataclasses

    potential = new_potential(tiny_model(), seed=1)
    data = lj_data(12, shift=-30.0)
    frames = [f if i == 7 else dataclasses.replace(f, energy=None) for i, f in enumerate(data)]
    shift_energy_bias(potential, dataclasses.replace(data, frames=tuple(frames)), frames=2)
    assert evaluate(potential, data.subset([7])).errors.energy_mae < 1e-3
