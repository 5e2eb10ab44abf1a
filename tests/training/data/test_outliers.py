"""A wrong label among good ones is found, named, and counted out; ordinary scatter is not reported."""

import dataclasses
import math

import numpy as np
import pytest

from dpa2calc.errors import DataError
from dpa2calc.labels.errors import Prediction
from dpa2calc.model.config import HeadConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.sets import TrainingSet
from dpa2calc.training.evaluate import Evaluation, compare
from dpa2calc.training.runs.report import with_figures


@pytest.fixture
def noisy(lj_data):
    """Forty frames and predictions that are off by normal noise of 10 meV/atom and 50 meV/Å."""
    data, rng = lj_data(40), np.random.default_rng(4)
    predictions = [
        Prediction(
            f.energy + 0.01 * f.n_atoms * rng.standard_normal(),
            f.forces + 0.05 * rng.standard_normal(f.forces.shape),
            None,
        )
        for f in data
    ]
    return data, predictions


def test_scatter_is_not_reported(noisy):
    assert compare(*noisy).few_frames == {}


def test_a_wrong_label_is_named_and_counted_out(noisy, tmp_path):
    data, predictions = noisy
    wrong = dataclasses.replace(
        data[7], energy=data[7].energy + 2.0 * data[7].n_atoms, source="a.xyz, frame 7"
    )
    spoilt = dataclasses.replace(data, frames=(*data.frames[:7], wrong, *data.frames[8:]))
    evaluation = compare(spoilt, predictions)
    few = evaluation.few_frames["energy"]
    assert few.sources == ("a.xyz, frame 7, Ar4",) and few.n_frames == 40
    assert few.errors[0] == pytest.approx(2000, abs=40)
    assert few.rmse == pytest.approx(evaluation.errors.energy_rmse)
    rest = [i for i in range(40) if i != 7]
    assert few.without == pytest.approx(
        compare(data.subset(rest), [predictions[i] for i in rest]).errors.energy_rmse
    )
    assert few.share == pytest.approx(1 - 39 / 40 * few.without**2 / few.rmse**2)
    assert "force" not in evaluation.few_frames
    assert "1 of 40 frames makes 100 % of the squared energy error" in evaluation.summary()
    assert "a.xyz, frame 7, Ar4 (" in evaluation.summary()
    again = Evaluation.load(evaluation.save(tmp_path / "e.npz"))
    assert again.few_frames == evaluation.few_frames


def test_a_damaged_evaluation_is_a_data_error(noisy, tmp_path):
    path = compare(*noisy).save(tmp_path / "e.npz")
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    assert set(arrays) == {"json", "energies", "forces", "stresses"}  # as earlier versions read it
    header = str(arrays["json"])
    forged = [
        {"json": np.array("[" * 100_000)}, {"json": np.array("[]")}, {"json": np.array(5)},
        {"json": np.array(header.replace("by_group", "groups"))}, {"forces": np.array([{}], dtype=object)},
    ]  # fmt: skip
    for change in forged:
        np.savez(path, **{**arrays, **change})
        with pytest.raises(DataError, match=r"e\.npz is not an evaluation written by Evaluation\.save"):
            Evaluation.load(path)
    del arrays["json"]
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="is not an evaluation"):
        Evaluation.load(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is not an evaluation"):
        Evaluation.load(path)
    with pytest.raises(DataError, match="there is no file"):
        Evaluation.load(tmp_path / "none.npz")


def test_wrong_forces_are_counted_by_component(noisy):
    data, predictions = noisy
    predictions[3] = dataclasses.replace(predictions[3], forces=predictions[3].forces + 3.0)
    few = compare(data, predictions).few_frames["force"]
    assert few.sources[0].endswith("Ar4") and few.errors[0] == pytest.approx(3000, rel=0.02)
    assert few.without == pytest.approx(50, rel=0.1)
    assert math.isclose(few.rmse, compare(data, predictions).errors.force_rmse)


def test_frames_without_the_label_do_not_count(noisy):
    data, predictions = noisy
    frames = [dataclasses.replace(f, energy=None) if i % 2 else f for i, f in enumerate(data)]
    frames[0] = dataclasses.replace(frames[0], energy=frames[0].energy - 10.0)
    few = compare(Dataset(tuple(frames), name="half"), predictions).few_frames["energy"]
    assert few.n_frames == 20 and len(few.sources) == 1
    fewer = compare(Dataset(tuple(frames[:30]), name="few"), predictions[:30])
    assert fewer.few_frames == {}, "with 15 labels one frame is not few"


def test_a_head_says_what_its_own_last_run_found(noisy):
    """Figures of an earlier run stay with a head that was not trained again, and only with that."""
    data, predictions = noisy
    old = {"training": {"steps": 5}, "test_errors": {"A": {}}, "few_frames": {"A": {}}}
    head = HeadConfig(name="A", elements=("Ar",), info=old)
    found = {"B": compare(data, predictions)}
    assert with_figures(head, 9, {"B": TrainingSet(data)}, found, 1).info == old
    untested = with_figures(head, 9, {"A": TrainingSet(data)}, {}, 1).info
    assert untested == {"training": {"steps": 9, "frames": {"A": 40}, "seed": 1}}
    tested = with_figures(head, 9, {"A": TrainingSet(data)}, {"A": found["B"]}, 1).info
    assert tested["test_errors"]["A"]["n_frames"] == 40 and "few_frames" not in tested
