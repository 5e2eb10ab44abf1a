"""Learning curves: nested samples, points kept across stops, and what they say."""

from __future__ import annotations

import pytest
import torch

from dpa2calc.errors import DataError
from dpa2calc.training.config import FinetuneConfig, TrainConfig
from dpa2calc.training.learning_curve import LearningCurve, Point, fine_tuned, from_scratch, learning_curve
from dpa2calc.training.metrics import Errors
from dpa2calc.training.preparation import new_potential


def _errors(force):
    return Errors(
        n_frames=1, n_atoms=1, energy_rmse=force / 10, energy_mae=1.0, force_rmse=force, force_mae=1.0
    )


def test_frames_saved_interpolates_in_logarithms():
    scratch = [Point("scratch", n, _errors(1000.0 / n**0.5)) for n in (10, 100, 1000)]
    tuned = [Point("tuned", n, _errors(100.0 / n**0.5)) for n in (1, 10, 100)]
    late = [Point("late", n, _errors(2000.0 / n**0.5)) for n in (10, 100, 1000)]
    curve = LearningCurve("x", (*scratch, *tuned, *late))
    # Power laws: the same error with a hundredth of the frames, exactly, also between the points.
    assert curve.frames_saved("tuned", "scratch") == pytest.approx(100.0)
    assert curve.frames_saved("late", "scratch") is None
    # Already better at the smallest size: a lower bound.
    better = LearningCurve("x", (*scratch, Point("best", 5, _errors(1.0))))
    assert better.frames_saved("best", "scratch") == 200.0
    assert curve.series("tuned") == ([1, 10, 100], pytest.approx([100.0, 31.6227766, 10.0]))
    assert "1000" in curve.summary() and "tuned" in curve.summary()
    with pytest.raises(DataError, match="no points of 'nothing'"):
        curve.frames_saved("nothing", "scratch")


def test_points_are_made_once(tiny_model, lj_data, tmp_path):
    data, test = lj_data(12), lj_data(3, seed=8)
    seen = []

    def scheme(sample, folder):
        seen.append([f.source for f in sample])
        return new_potential(tiny_model(), seed=len(sample))

    first = learning_curve(data, test, sizes=(6, 3), schemes={"a": scheme}, output=tmp_path, seed=1)
    assert [len(s) for s in seen] == [3, 6] and seen[1][:3] == seen[0]
    (tmp_path / "points.jsonl").open("a").write('{"scheme": "a", "n_fra')  # a killed run
    again = learning_curve(data, test, sizes=(3, 6, 9), schemes={"a": scheme}, output=tmp_path, seed=1)
    assert [len(s) for s in seen] == [3, 6, 9]
    assert again.series("a")[0] == [3, 6, 9] and again.points[:2] == first.points
    learning_curve(data, test, sizes=(3, 6, 9), schemes={"a": scheme}, output=tmp_path, seed=1)
    assert len(seen) == 3
    both = learning_curve(
        data,
        test,
        sizes={"a": (6,), "b": (3, 12)},
        schemes={"a": scheme, "b": scheme},
        output=tmp_path,
        seed=1,
    )
    assert [len(s) for s in seen] == [3, 6, 9, 3, 12]
    assert both.series("a")[0] == [6] and both.series("b")[0] == [3, 12]


def test_scratch_and_fine_tuned(tiny_model, lj_data, tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    short = TrainConfig(steps=3, batch_atoms=8, log_every=1)
    start = new_potential(tiny_model(), seed=3)
    schemes = {
        "scratch": from_scratch(lambda data: tiny_model(), short),
        "fine-tuned": fine_tuned(start, FinetuneConfig(steps=3, batch_atoms=8)),
    }
    curve = learning_curve(lj_data(6), lj_data(2), sizes=(2, 4), schemes=schemes, output=tmp_path)
    assert curve.schemes() == ("scratch", "fine-tuned") and len(curve.points) == 4
    assert not list(tmp_path.rglob("*.safetensors")) and len(list(tmp_path.rglob("log.jsonl"))) == 4
    axes = curve.plot()
    assert list(axes[0].lines[1].get_xdata()) == [2, 4]
    assert all(torch.isfinite(torch.tensor(curve.series(s)[1])).all() for s in curve.schemes())
