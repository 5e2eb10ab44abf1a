"""Shear stresses stored in another order are told from wrong predictions, by group."""

import dataclasses

import numpy as np
import pytest

from dpa2calc.labels.errors import Prediction
from dpa2calc.training import Dataset, evaluate
from dpa2calc.training.evaluate import Evaluation, compare

ORDERS = {"VASP's read as ASE's": (1, 2, 0), "yz and xz": (1, 0, 2)}


def reordered(virial: np.ndarray, order: tuple[int, int, int]) -> np.ndarray:
    """The tensor whose yz, xz, xy are the given one's components of these places among yz, xz, xy."""
    out = np.diag(np.diag(virial))
    places = ((1, 2), (0, 2), (0, 1))
    for place, source in zip(places, order):
        out[place] = out[place[::-1]] = virial[places[source]]
    return out


def predictions_of(data: Dataset, noise: float) -> list[Prediction]:
    """The labels with noise, in eV, on the virials."""
    rng = np.random.default_rng(0)
    return [Prediction(f.energy, f.forces, f.virial + rng.normal(0, noise, (3, 3))) for f in data]


def with_group(data: Dataset, group: str, order: tuple[int, int, int] | None = None) -> tuple:
    return tuple(
        dataclasses.replace(f, group=group, virial=reordered(f.virial, order) if order else f.virial)
        for f in data
    )


@pytest.mark.parametrize("name", list(ORDERS))
def test_another_order_is_found_in_its_group(lj_data, tmp_path, name):
    data = lj_data(24)
    scale = float(np.std([f.virial[0, 1] for f in data]))
    labels = Dataset(with_group(data, "good") + with_group(data, "bad", ORDERS[name]), "A")
    evaluation = compare(labels, predictions_of(data, 0.2 * scale) * 2)
    (line,) = evaluation.misordered
    assert line.startswith("shear stresses of 24 frames") and line.endswith("(groups bad)")
    assert line in evaluation.summary()
    shear = ("yz", "xz", "xy")
    for place, source in enumerate(ORDERS[name]):
        assert (f"{shear[place]} is {shear[source]}" in line) == (place != source)
    assert Evaluation.load(evaluation.save(tmp_path / "e.npz")).misordered == evaluation.misordered


def test_bad_predictions_and_few_frames_are_no_order(lj_data):
    data = lj_data(24)
    scale = float(np.std([f.virial[0, 1] for f in data]))
    assert compare(data, predictions_of(data, 3.0 * scale)).misordered == ()
    few = Dataset(with_group(lj_data(9), "", ORDERS["yz and xz"]), "few")
    assert compare(few, predictions_of(lj_data(9), 0.0)).misordered == ()


def test_exact_labels_of_another_calculator_fit(lj_frames):
    from ase.calculators.lj import LennardJones

    calculator = LennardJones(sigma=2.6, epsilon=0.05, rc=4.5, smooth=True)
    evaluation = evaluate(calculator, Dataset.from_atoms(lj_frames(12)))
    assert evaluation.misordered == () and evaluation.errors.virial_rmse == pytest.approx(0.0, abs=1e-6)
