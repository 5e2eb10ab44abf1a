"""Errors against labels: by hand, added up over frames, and refused where shapes do not fit."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from ase.units import GPa

from dpa2calc.errors import DataError
from dpa2calc.labels.errors import (
    Differences,
    ErrorFigure,
    Errors,
    ErrorSums,
    LabelErrors,
    Prediction,
    validation_score,
    weighted_average,
)


def labels(energy=None, forces=None, virial=None):
    return SimpleNamespace(energy=energy, forces=forces, virial=virial)


def pair(n, seed):
    """Labels and prediction of n atoms."""
    rng = np.random.default_rng(seed)
    return tuple(
        Prediction(float(rng.normal()), rng.normal(size=(n, 3)), rng.normal(size=(3, 3))) for _ in range(2)
    )


def test_sums_over_frames_are_the_averages_over_all_numbers():
    pairs = {n: pair(n, seed=n) for n in (2, 5, 9)}
    sums = ErrorSums()
    for n, (label, made) in pairs.items():
        sums.add(Differences.of(label, made, n))
    sums.add(Differences.of(labels(), made, 9))  # a frame without labels counts as a frame alone
    energy = np.array([(m.energy - l.energy) / n for n, (l, m) in pairs.items()])
    forces = np.concatenate([(m.forces - l.forces).ravel() for l, m in pairs.values()])
    virial = np.concatenate([(m.virial - l.virial).ravel() / n for n, (l, m) in pairs.items()])
    errors = sums.errors()
    assert (errors.n_frames, errors.n_atoms) == (4, 25)
    for name, d in (("energy", energy), ("force", forces), ("virial", virial)):
        assert getattr(errors, f"{name}_rmse") == pytest.approx(1e3 * np.sqrt((d**2).mean()), rel=1e-12)
        assert getattr(errors, f"{name}_mae") == pytest.approx(1e3 * np.abs(d).mean(), rel=1e-12)
    halves = [ErrorSums() for _ in range(2)]
    for half, (n, (label, made)) in zip((0, 1, 1), pairs.items()):
        halves[half].add(Differences.of(label, made, n))
    joined = ErrorSums(halves[0].values + halves[1].values).errors()
    assert joined.force_rmse == pytest.approx(errors.force_rmse, rel=1e-12) and joined.n_frames == 3


def test_what_has_no_label_or_no_prediction_has_no_error():
    errors = ErrorSums().errors()
    assert errors.energy_rmse is None and str(errors) == "0 frames"
    sums = ErrorSums()
    sums.add(Differences.of(labels(energy=1.0, forces=np.zeros((2, 3))), Prediction(None, None, None), 2))
    assert sums.errors().energy_mae is None and sums.errors().force_rmse is None
    assert LabelErrors.of([Differences.of(labels(), pair(2, 0)[0], 2)], [1.0]) is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("forces", np.zeros((3, 3)), r"\(4, 3\)"),
        ("forces", np.zeros(12), r"\(4, 3\)"),
        ("virial", np.zeros(6), r"\(3, 3\)"),
        ("energy", np.zeros(1), r"\(\)"),
    ],
)
def test_a_wrong_shape_is_refused_wherever_it_comes_from(name, value, expected):
    good, _ = pair(4, seed=1)
    given = {kind: getattr(good, kind) for kind in ("energy", "forces", "virial")}
    bad = labels(**{**given, name: value})
    with pytest.raises(DataError, match=rf"the label: {name} has shape .*, expected {expected}"):
        Differences.of(bad, good, 4)
    with pytest.raises(DataError, match=f"the prediction: {name} has shape"):
        Differences.of(good, bad, 4)


def test_figures_of_the_table_by_hand():
    forces = np.zeros((3, 3))
    stress = np.array([1.0, 2.0, 3.0, 0.0, 0.0, 0.0])
    made = [Prediction(3.0, forces + 0.1, -8.0 * GPa * np.diag(stress[:3])), Prediction(9.0, forces, None)]
    given = [labels(0.0, forces, np.zeros((3, 3))), labels(3.0)]
    differences = [Differences.of(label, prediction, 3) for label, prediction in zip(given, made)]
    errors = LabelErrors.of(differences, [8.0, 8.0])
    assert errors.energy.mae == 1500 and errors.energy.rmse == pytest.approx(1e3 * np.sqrt((1 + 4) / 2))
    assert errors.energy.bias == 1500 and errors.energy.count == 2
    assert errors.energy_shifted.rmse == pytest.approx(500) and errors.forces.rmse == pytest.approx(100)
    assert errors.stress.bias == pytest.approx(1.0) and errors.stress.count == 6
    assert errors.stress.rmse == pytest.approx(math.sqrt((1 + 4 + 9) / 6))
    assert errors.n_structures == 2 and "(6 values)" in errors.summary()
    assert LabelErrors.of(differences, [0.0, 0.0]).stress is None  # a cell without volume


def test_scores_weigh_sets_and_leave_out_what_they_lack():
    def errors(energy, force):
        return Errors(
            n_frames=1, n_atoms=1, energy_rmse=energy, energy_mae=None, force_rmse=force, force_mae=None
        )

    found = {"a": errors(4.0, 9.0), "b": errors(None, 100.0)}
    assert validation_score(found, {"a": 1.0, "b": 1.0}) == pytest.approx(math.sqrt(6.0 * 100.0))
    assert validation_score({"a": errors(math.nan, 1.0)}, {"a": 1.0}) == math.inf
    assert validation_score({"a": errors(4.0, 9.0)}, {"a": 1.0}, ("force",)) == pytest.approx(9.0)
    assert validation_score({"a": errors(4.0, None)}, {"a": 1.0}, ("force",)) == pytest.approx(4.0)
    assert weighted_average(found, {"a": 3.0, "b": 1.0}, "force_rmse") == pytest.approx(127 / 4)
    assert weighted_average(found, {"a": 3.0, "b": 1.0}, "energy_rmse") == 4.0


def test_errors_as_a_share_of_the_labels_spread():
    pairs = [pair(4, seed=s) for s in range(6)]
    differences = [Differences.of(label, made, 4) for label, made in pairs]
    energies = np.array([label.energy for label, _ in pairs]) / 4
    labels_, spread = [label.forces for label, _ in pairs], 1e3 * float(energies.std())
    found = LabelErrors.of(differences, [8.0] * 6, energy_spread=spread, forces=labels_)
    missed = np.concatenate([(made.forces - label.forces).ravel() for label, made in pairs])
    expected = np.sqrt((missed**2).mean()) / np.concatenate([f.ravel() for f in labels_]).std()
    assert found.forces.share == pytest.approx(expected, rel=1e-12)
    # The mean of the labels as prediction has an error of their spread.
    mean = [Prediction(4 * energies.mean(), None, None)] * 6
    trivial = LabelErrors.of(
        [Differences.of(label, made, 4) for (label, _), made in zip(pairs, mean)],
        [8.0] * 6,
        energy_spread=spread,
    )
    assert trivial.energy.share == pytest.approx(1.0) and "100 %" in trivial.summary()
    assert LabelErrors.of(differences, [8.0] * 6).energy.share is None


def test_atoms_without_a_value_of_their_own_have_no_error():
    label = Prediction(None, None, None, {"charges": np.array([0.5, np.nan, -0.5])})
    made = Prediction(None, None, None, {"charges": np.array([0.6, 9.0, -0.5])})
    sums = ErrorSums()
    sums.add(Differences.of(label, made, 3))
    assert sums.errors().value_mae == pytest.approx(0.05)


def test_large_errors_stay_apart_in_the_table():
    """As of energies of another code, whose zero is elsewhere."""
    figure = ErrorFigure(mae=1541980.155, rmse=1541980.155, bias=-1541980.155, count=5)
    row = LabelErrors(n_structures=5, energy=figure).summary().splitlines()[-1]
    assert row.split()[:4] == ["energy", "1541980.155", "1541980.155", "-1541980.155"]
