"""Learning curves: nested samples, points kept across stops, and what they say."""

import json
import logging

import pytest
import torch

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.lock import locked
from dpa2calc.labels.errors import Errors
from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
from dpa2calc.training.fit.setup import new_potential
from dpa2calc.training.learning_curve import LearningCurve, Point, fine_tuned, from_scratch, learning_curve


def _errors(force):
    return Errors(
        n_frames=1, n_atoms=1, energy_rmse=force / 10, energy_mae=1.0, force_rmse=force, force_mae=1.0
    )


def test_points_are_of_whole_runs(tiny_model):
    for scheme, options in ((from_scratch, TrainConfig), (fine_tuned, FinetuneConfig)):
        with pytest.raises(ConfigError, match=r"time_limit = 5\.0 is not allowed; allowed: 0 in a learning"):
            scheme(tiny_model(), options(time_limit=5.0))


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


def test_points_of_other_work_are_refused(tiny_model, lj_data, tmp_path, caplog):
    short = TrainConfig(steps=2, batch_atoms=8)
    start = new_potential(tiny_model(), seed=3)

    def curve(*, data=None, test=None, config=short, model=None, start=start, seed=0, **more):
        schemes = {
            "scratch": from_scratch(model or tiny_model(), config),
            "tuned": fine_tuned(start, FinetuneConfig(steps=2, batch_atoms=8)),
        }
        data, test = data or lj_data(6), test or lj_data(2, seed=5)
        return learning_curve(data, test, sizes=(2,), schemes=schemes, output=tmp_path, seed=seed, **more)

    first, log = curve(), tmp_path / "points.jsonl"
    where = r"the point 'scratch' of 2 frames in .*points.jsonl belongs to other work; different are "
    for changes, message in (
        ({"data": lj_data(6, shift=1.0)}, where + "training data: labels"),
        ({"test": lj_data(2, seed=5, shift=1.0)}, where + "test data: labels"),
        ({"seed": 1}, where + "training data: structures"),
        ({"config": short.replace(steps=3)}, where + r"options: steps \(2 -> 3\). Remove its line"),
        ({"model": tiny_model(type_map=("Ar",))}, where + "model: type_map"),
        (
            {"start": new_potential(tiny_model(), seed=4)},
            r"'tuned' of 2 .* are starting model: weights",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            curve(**changes)
    assert curve().points == first.points
    records = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps({**r, "identity": None}) + "\n" for r in records))
    with caplog.at_level(logging.WARNING):
        assert curve().points == first.points
        assert curve().points == first.points
    assert len(caplog.records) == 1 and "cannot be checked" in caplog.text
    for line in ("5\n", '{"scheme": "a"}\n', "[]\n"):
        log.write_text(line)
        with pytest.raises(DataError, match=r"points.jsonl, line 1 is not a point of a learning curve"):
            curve()
    with locked(tmp_path), pytest.raises(ConfigError, match="another run is writing"):
        curve()


def test_schemes_whose_names_look_alike_as_files_have_folders_of_their_own(tiny_model, lj_data, tmp_path):
    folders = []

    def scheme(sample, folder):
        folders.append(folder)
        return new_potential(tiny_model(), seed=1)

    def curve(sizes):
        schemes = {"a/b": scheme, "a_b": scheme}
        return learning_curve(lj_data(4), lj_data(1), sizes=sizes, schemes=schemes, output=tmp_path)

    with pytest.raises(DataError, match="has 4 frames, 9 were asked for"):
        curve((2, 9))
    assert not folders and curve((2,)).schemes() == ("a/b", "a_b")
    assert folders[0] == tmp_path / "a_b-2" and folders[1] != folders[0]
