"""Files that earlier versions wrote open, with the same numbers."""

from pathlib import Path

import numpy as np
import pytest

from dpa2calc.applications import RadialDistribution
from dpa2calc.training import DistillResult, Errors, Evaluation, History, LearningCurve, LearnResult
from dpa2calc.training.learning_curve import Point, Points

EARLIER = Path(__file__).parents[1] / "data" / "earlier"
ERRORS = Errors(n_frames=4, n_atoms=12, energy_rmse=1.5, energy_mae=1.25, force_rmse=40.0, force_mae=30.0)


def test_evaluation():
    found = Evaluation.load(EARLIER / "evaluation.npz")
    assert found.errors == ERRORS == found.by_group["a"]
    assert found.by_element == {"H": 30.0, "O": 50.0} and found.bias == {"H": -0.5}
    assert np.array_equal(found.energies, np.arange(8.0).reshape(4, 2))
    assert found.forces.shape == (3, 2) and found.stresses.shape == (0, 2)
    assert found.few_frames["energy"].sources == ("a.xyz, frame 7, Ar4",)
    assert found.few_frames["energy"].errors == (2000.0,)
    assert found.misordered == ("group a: xy and yz change places",)
    assert found.provenance == {} and list(found.panels()) == ["energy (eV/atom)", "force (eV/Å)"]


def test_distillation():
    found = DistillResult.load(EARLIER / "distillation.json")
    assert found.rounds[0].errors == ERRORS == found.test and found.final is None
    assert found.rounds[0].deviations == (0.05, 0.1, 0.2, 0.3, 0.5, np.inf)
    assert found.rounds[0].notes == ("trajectory 2: 40 fs",)
    assert found.student == EARLIER / "student.safetensors"  # the folder of the run is gone
    assert found.labelled == (EARLIER / "labels-00.extxyz", EARLIER / "labels-01.extxyz")
    assert found.provenance == {"versions": {"dpa2calc": "0.1"}}


def test_active_learning():
    found = LearnResult.load(EARLIER / "active_learning.json")
    assert found.rounds[0].errors == ERRORS == found.test and found.rounds[0].test is None
    assert found.rounds[0].doubts == (0.05, 0.1, 0.2, 0.3, 0.5, np.inf) and found.rounds[0].ratio == 2.0
    assert found.model == EARLIER / "model.safetensors" and found.spent == 15
    assert found.labelled == (EARLIER / "start.extxyz", EARLIER / "round-01.extxyz")


@pytest.mark.parametrize("kind, name", [(DistillResult, "distillation"), (LearnResult, "active_learning")])
def test_rounds_are_written_as_before(kind, name, tmp_path):
    found = kind.load(EARLIER / f"{name}.json")
    found.save(tmp_path / "again.json")
    text = (EARLIER / f"{name}.json").read_text()
    again = (tmp_path / "again.json").read_text().replace(str(EARLIER), "runs/gone").replace(",", "")
    kept = [line for line in again.splitlines() if line.strip() != '"upper_bound": null']  # a younger field
    assert sorted(kept) == sorted(text.replace(",", "").splitlines())


def test_points_of_a_learning_curve(tmp_path):
    points = Points(EARLIER / "points.jsonl")
    assert points.found == [(Point("scratch", 10, ERRORS), {"options": {"steps": 20}})]
    curve = LearningCurve("water", (points.found[0][0],))
    assert LearningCurve.load(curve.save(tmp_path / "curve.npz")) == curve


def test_log():
    log = History.read(EARLIER / "log.jsonl")
    assert log.series("water", "force_rmse") == ([100], [40.0])
    assert log.series("water", "force_rmse", kind="train") == ([100], [50.0])


def test_result_of_an_application():
    found = RadialDistribution.load(EARLIER / "rdf.npz")
    assert found.pair == ("Cu", "Cu")
    assert found.coordination[-1] == pytest.approx(12.0)  # the first shell of fcc
