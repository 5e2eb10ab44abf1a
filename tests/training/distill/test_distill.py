"""Distillation: a student of some hundred parameters learns EMT copper where the dynamics go."""

import dataclasses
import json
import os
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixCom
from emt_cases import with_emt
from kills import work_with_kills
from learning_cases import dynamics_of, tiny

import dpa2calc
from dpa2calc import DPA2Calculator, load_model
from dpa2calc.errors import ConfigError, DataError
from dpa2calc.store.checkpoint import checkpoint_info
from dpa2calc.training import Dataset, DistillResult, MDCondition, TrainConfig, distill, evaluate
from dpa2calc.training.fit.predict import predict_potential

torch.set_num_threads(1)
TRAIN = TrainConfig(
    steps=200,
    batch_atoms=32,
    learning_rate=1e-2,
    learning_rate_stop=5e-4,
    ema_decay=0.95,
    log_every=40,
    gradient_clip_relative=3.0,
)


def _copper(n: int = 2, a: float = 3.61):
    return bulk("Cu", cubic=True, a=a) * (n, 1, 1)


def _gold() -> Dataset:
    atoms = with_emt(bulk("Au"))
    atoms.get_forces()
    return Dataset.from_atoms([atoms])


def _compressed_to_expanded(folder, **changes: object) -> DistillResult:
    """Start frames of compressed copper; the dynamics, cold and hot, are those of expanded copper."""
    ase.io.write(folder / "expanded.extxyz", _copper(a=3.8))
    md = {"temperature": (300, 1000), "timestep": 4, "steps": 100, "sample_interval": 10, "trajectories": 1}
    options = {
        "md": {**md, "structures": str(folder / "expanded.extxyz"), **changes.pop("md", {})},
        "train": TRAIN,
        "threshold": 0.4,
        "max_rounds": 3,
        "perturbed": 4,
        "displacement": 0.1,
        "strain": 0.003,
        "later_steps": 200,
        **changes,
    }
    return distill(EMT(), _copper(a=3.45), tiny(), output=folder / "run", progress=False, **options)


@pytest.fixture(scope="module")
def held_out() -> Dataset:
    """Teacher MD of expanded copper that the distillation never sees: another seed, another temperature."""
    atoms = _copper(a=3.8)
    atoms.set_constraint(FixCom())
    return dynamics_of(atoms, 15, fixcm=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, held_out) -> DistillResult:
    """Three rounds."""
    return _compressed_to_expanded(tmp_path_factory.mktemp("copper"), test=held_out)


def test_student_gets_better_on_teacher_dynamics_it_never_saw(finished, held_out):
    first = evaluate(finished.output / "students/round-01.safetensors", held_out).errors
    last = evaluate(finished.student, held_out).errors
    signal = 1e3 * float(np.sqrt(np.mean(np.concatenate([f.forces for f in held_out]) ** 2)))
    assert last.force_rmse < 0.5 * first.force_rmse
    assert last.force_rmse < 0.5 * signal
    assert [r.test.force_rmse for r in finished.rounds][-1] == pytest.approx(last.force_rmse, rel=1e-6)
    assert finished.test.force_rmse == pytest.approx(last.force_rmse, rel=1e-6)
    assert finished.rounds[-1].errors.force_rmse < finished.rounds[0].errors.force_rmse
    assert finished.reason == "max_rounds" and "max_rounds = 3 are done" in finished.summary()


def test_just_the_frames_where_the_student_is_wrong_are_added(finished):
    for r in finished.rounds[:2]:
        student = DPA2Calculator(finished.output / f"students/round-{r.number:02d}.safetensors")
        explored = [
            atoms
            for path in sorted((finished.output / f"explore/round-{r.number:02d}").glob("*.extxyz"))
            for atoms in ase.io.read(path, ":")
        ]
        added = ase.io.read(finished.output / f"labelled/round-{r.number:02d}.extxyz", ":")
        deviations = []
        for atoms in explored:
            bare = atoms.copy()
            bare.calc = student
            difference = bare.get_forces() - atoms.get_forces()
            deviations.append(np.linalg.norm(difference, axis=1).max())
        over = [a for a, d in zip(explored, deviations) if d > 0.4]
        assert len(explored) == r.explored == 20 and len(over) == r.over == r.added
        assert [a.positions.tolist() for a in added] == [a.positions.tolist() for a in over]
        assert r.deviations[-1] == pytest.approx(max(deviations), rel=1e-4)
    assert any(0 < r.over < r.explored for r in finished.rounds[:2])
    trained = [r.trained_on for r in finished.rounds]
    assert trained[0] == 5 and np.diff(trained).tolist() == [r.added for r in finished.rounds[:2]]
    assert len(finished.frames()) == trained[-1]


def test_labels_are_the_teachers(finished):
    frames = finished.frames()
    for frame in (frames[0], frames[len(frames) // 2], frames[len(frames) - 1]):
        atoms = with_emt(frame.atoms())
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-6)
        np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-6)


def test_student_says_where_it_comes_from(finished):
    info = checkpoint_info(finished.student)
    (head,) = info.config.heads
    assert head.name == "student" and head.elements == ("Cu",)
    assert head.info["distilled_from"]["calculator"] == "ase.calculators.emt.EMT"
    assert head.info["distillation"]["frames"] == finished.rounds[-1].trained_on
    assert head.info["distillation"]["versions"]["dpa2calc"] == dpa2calc.__version__
    assert head.info["test_errors"]["force_rmse"] == pytest.approx(finished.test.force_rmse)
    assert info.extra["distilled"]["options"]["loop"]["threshold"] == 0.4
    assert DPA2Calculator(finished.student).head == "student"


def test_it_stops_when_the_student_is_right(finished):
    # The same folder with a threshold that the student meets: one more round, which adds nothing.
    result = _compressed_to_expanded(
        finished.output.parent,
        md={"steps": 20},
        later_steps=10,
        later_learning_rate=1e-4,
        threshold=2.5,
        max_rounds=9,
    )
    assert result.reason == "accurate" and "accurate_share" in result.why
    assert len(result.rounds) == 4 and result.rounds[-1].added == 0 and result.rounds[-1].accurate_share == 1
    assert result.rounds[:3] == finished.rounds


def test_result_is_saved_and_drawn(finished, tmp_path):
    loaded = DistillResult.load(finished.save(tmp_path / "result.json"))
    assert loaded.rounds == finished.rounds and loaded.student == finished.student
    assert loaded.summary() == finished.summary()
    axes = finished.plot()
    assert axes[0].lines[0].get_ydata().tolist() == [r.errors.force_rmse for r in finished.rounds]
    assert (finished.output / "rounds.png").stat().st_size > 5000
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(DataError, match=r"not a result written by DistillResult.save"):
        DistillResult.load(tmp_path / "other.json")


def test_last_training_learns_from_the_last_rounds_frames_too(tmp_path):
    result = distill(
        EMT(),
        _copper(1),
        tiny(),
        md={"temperature": 600, "timestep": 4, "steps": 40, "sample_interval": 5, "trajectories": 1},
        train=TRAIN.replace(steps=20),
        threshold=0.05,
        explore_with="both",
        frames_per_round=5,
        max_rounds=1,
        final_steps=30,
        later_learning_rate=5e-3,
        output=tmp_path,
        progress=False,
    )
    assert result.rounds[0].added == 5 and len(result.frames()) == 6
    assert result.rounds[0].trajectories == 2
    assert {f.group.split()[0] for f in Dataset.read(sorted(tmp_path.glob("explore/*/*.extxyz")))} == {
        "teacher",
        "student",
    }
    assert result.final.n_frames == result.rounds[0].explored - 5  # those that were not learned from
    log = [json.loads(line) for line in (tmp_path / "train/final-01/log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 30 and log[-1]["learning_rate"] < 5e-3
    assert "after the last training" in result.summary()


def test_frames_the_student_led_to_do_not_set_its_level_of_energy(tmp_path):
    result = distill(
        EMT(),
        _copper(1),
        tiny(),
        md={"temperature": 300, "timestep": 4, "steps": 60, "sample_interval": 5, "trajectories": 1},
        train=TRAIN.replace(steps=60),
        threshold=1e-3,
        upper_bound=1e3,
        explore_with="both",
        max_rounds=1,
        final_steps=60,
        output=tmp_path,
        progress=False,
    )
    frames = result.frames()
    own = np.array([f.group.startswith("student") for f in frames])

    def errors(model) -> np.ndarray:
        predicted = predict_potential(load_model(model), frames)
        return np.array([(p.energy - f.energy) / len(f.numbers) for p, f in zip(predicted, frames)])

    before, after = errors(tmp_path / "students/final-01.safetensors"), errors(result.student)
    np.testing.assert_allclose(after - before, (after - before)[0], atol=1e-5)  # one element, one shift
    assert own.sum() > 10 and (~own).sum() > 10
    assert abs(np.median(after[~own])) < 1e-3 < abs(np.median(before[~own]))


def run_small(folder) -> DistillResult:
    """Two rounds of two sound trajectories and one whose time step is far too long, hardly trained."""
    sound = MDCondition(temperature=(400, 900), timestep=4, steps=30, sample_interval=10, trajectories=1)
    wild = MDCondition(temperature=(900,), timestep=80, steps=60, sample_interval=10, trajectories=1)
    return distill(
        EMT(),
        _copper(1),
        tiny(),
        md=[sound, wild],
        train=TRAIN.replace(steps=8, checkpoint_every=3, log_every=2),
        threshold=0.02,
        max_rounds=2,
        perturbed=2,
        output=folder,
        progress=False,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_it_goes_on_to_the_same_frames(tmp_path):
    whole = run_small(tmp_path / "whole")
    # The wild trajectory was cut and says so; nothing of its explosion was learned.
    assert [r.cut for r in whole.rounds] == [1, 1]
    assert "cut: round 1, trajectory 3: teacher, nvt 900 K, Cu4: step " in whole.summary()
    assert max(np.linalg.norm(f.forces, axis=1).max() for f in whole.frames()) < 50.0
    folder = tmp_path / "killed"
    work_with_kills("test_distill", "run_small", folder, (4, 9, 6, 14, 10, 3, 12), path=Path(__file__).parent)
    again = DistillResult.load(tmp_path / "killed/result.json")
    assert [p.read_text() for p in again.labelled] == [p.read_text() for p in whole.labelled]
    for name in ("explore/round-02/001.extxyz", "explore/round-02/002.extxyz"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()
    same = [dataclasses.replace(r, seconds=0.0) for r in whole.rounds]
    assert [dataclasses.replace(r, seconds=0.0) for r in again.rounds] == same
    left = [p for p in (tmp_path / "killed").rglob("*.part")]
    assert not left


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshhold": 0.1}, r"unknown option threshhold = 0.1; did you mean threshold\?"),
        ({"threshold": -1}, r"threshold = -1.0 is not allowed; allowed: above 0"),
        ({"threshold": 20}, r"upper_bound = 10.0 is not allowed; allowed: above threshold"),
        (
            {"explore_with": "pupil"},
            r"explore_with = 'pupil' is not allowed; allowed: teacher, student, both",
        ),
        ({"md": {"temprature": 300}}, r"unknown option md.temprature = 300; did you mean md.temperature\?"),
        ({"md": {"pressure": 1.0}}, r"md.pressure = .* is not allowed; allowed: 0 unless ensemble = 'npt'"),
        ({"md": {"steps": 10, "sample_interval": 20}}, r"md.sample_interval = 20 .* allowed: up to steps"),
        ({"md": []}, "md is empty; give at least one condition"),
        ({"start_frames": []}, "there are no start frames"),
        ({"student": "dpa1-l9"}, r"student = 'dpa1-l9' is neither preset nor file; presets: paper"),
        ({"train": TRAIN.replace(time_limit=5)}, "train.time_limit = 5 is not allowed in a distillation"),
        (
            {"start_frames": molecule("N2"), "md": {"ensemble": "npt"}},
            "md.ensemble = 'npt' needs cells periodic in three directions, but N2",
        ),
        ({"test": _gold()}, "the test frames contain Au, which the start frames and md.structures do not"),
    ],
)
def test_wrong_options_are_named_before_anything_runs(tmp_path, changes, message):
    options = {
        "start_frames": _copper(1),
        "student": tiny(),
        "md": MDCondition(),
        "train": TRAIN,
        **changes,
    }
    with pytest.raises((ConfigError, DataError), match=message):
        distill(EMT(), output=tmp_path / "out", progress=False, **options)
    assert not (tmp_path / "out").exists()


def test_another_teacher_or_student_is_refused_in_the_same_folder(finished):
    start = _copper(a=3.45)
    options = {"md": MDCondition(), "output": finished.output, "progress": False, "train": TRAIN}
    with pytest.raises(ConfigError, match=r"with another teacher; .*asap_cutoff.*False.*True"):
        distill(EMT(asap_cutoff=True), start, tiny(), **options)
    with pytest.raises(ConfigError, match=r"with another student; choose another output"):
        distill(EMT(), start, tiny(axis_neuron=3), **options)
    with pytest.raises(ConfigError, match=r"with another start frame; choose another output"):
        distill(EMT(), _copper(1), tiny(), **options)


def test_a_teacher_that_fails_on_the_start_frames_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"the teacher fails on start frame 1 \(Fe2\)"):
        distill(EMT(), bulk("Fe", cubic=True), md=MDCondition(), output=tmp_path, progress=False)
