"""Python calls look at their frames as the command line does: before the first step, and once."""

import dataclasses
import json
import logging

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.training import (
    Dataset,
    DistillConfig,
    FinetuneConfig,
    MDCondition,
    TrainConfig,
    TrainingSet,
    distill,
    evaluate,
    finetune,
    learning_curve,
    pretrain,
    train,
)
from dpa2calc.training.config.run_file import load_sets, read_run_file
from dpa2calc.training.data.checks import report as checks
from dpa2calc.training.data.checks.report import check_dataset, check_frames, clean
from dpa2calc.training.data.sets import TrainingData, warn_of_repeats
from dpa2calc.training.fit.loader import GraphStore
from dpa2calc.training.fit.setup import new_potential

CONFIG = TrainConfig(steps=1, batch_atoms=8, validation_frames=4)


def spoiled(data, at=2, **changes):
    frames = list(data.frames)
    frames[at] = dataclasses.replace(frames[at], **{k: change(frames[at]) for k, change in changes.items()})
    return Dataset(tuple(frames), "mine")


SPOILS = {
    "energy": {"energy": lambda f: float("nan")},
    "infinite energy": {"energy": lambda f: float("inf")},
    "forces": {"forces": lambda f: f.forces * [[1], [1], [np.nan], [1]]},
    "virial": {"virial": lambda f: f.virial * np.inf},
    "positions": {"positions": lambda f: f.positions * np.nan},
    "cell": {"cell": lambda f: f.cell * np.nan},
    "fparam": {"fparam": lambda f: np.array([np.nan])},
}


@pytest.fixture(params=SPOILS)
def bad(request, lj_data):
    return spoiled(lj_data(4), **SPOILS[request.param])


def test_numbers_that_are_none_are_named_before_the_first_step(tmp_path, bad, lj_data, tiny_model):
    good, potential = lj_data(4), new_potential(tiny_model(), seed=0)
    options = FinetuneConfig(steps=1, batch_atoms=8)
    calls = {
        "train": lambda: train(tiny_model(), bad, CONFIG, output=tmp_path / "a", head="A", progress=False),
        "validation": lambda: train(
            tiny_model(), good, CONFIG, output=tmp_path / "b", head="A", validation={"v": bad}, progress=False
        ),
        "pretrain": lambda: pretrain(
            tiny_model(), {"A": TrainingSet(good, bad)}, CONFIG, output=tmp_path / "c", progress=False
        ),
        "finetune": lambda: finetune(potential, bad, options, output=tmp_path / "d", progress=False),
        "finetune, validation": lambda: finetune(
            potential, good, options, output=tmp_path / "e", validation=bad, progress=False
        ),
        "evaluate": lambda: evaluate(potential, bad),
        "learning curve": lambda: learning_curve(good, bad, sizes=(2,), schemes={}, output=tmp_path / "f"),
    }
    for call in calls.values():
        with pytest.raises(DataError, match=r"data, frame 2: not a number: in the \w+"):
            call()
    assert not any(path.name == "log.jsonl" for path in tmp_path.rglob("*"))


def test_the_test_set_of_a_distillation_is_looked_at_first(tmp_path, lj_data, lj_frames, tiny_model):
    bad = spoiled(lj_data(4), **SPOILS["energy"])
    with pytest.raises(DataError, match="the test set cannot be used as it is: data, frame 2"):
        distill(
            lj_frames(1)[0].calc, lj_frames(2), tiny_model(), md=MDCondition(temperature=(300,)), test=bad,
            output=tmp_path / "x", train=TrainConfig(steps=1, batch_atoms=8),
            config=DistillConfig(), progress=False,
        )  # fmt: skip


def test_doubts_are_said_once(tmp_path, lj_data, tiny_model, caplog):
    data = spoiled(lj_data(12), energy=lambda f: f.energy + 50.0, forces=lambda f: 300.0 + f.forces)
    with caplog.at_level("WARNING"):
        for name in "ab":
            train(tiny_model(), data, CONFIG, output=tmp_path / name, head="A", progress=False)
            evaluate(new_potential(tiny_model(), seed=0), data.subset([1, 2, 3]))
    said = [m for m in caplog.messages if "energy outlier" in m]
    assert len(said) == 1 and said[0].startswith("set 'A': ")
    assert "1 x energy outlier, for example data, frame 2" in said[0] and "1 x large force" in said[0]


def test_changed_frames_are_looked_at_again(lj_data):
    data = lj_data(4)
    check_frames("one", data)
    assert all(frame.checked for frame in data.subset([0, 2]))
    with pytest.raises(DataError, match="again cannot be used as it is"):
        check_frames("again", spoiled(data, **SPOILS["energy"]))
    assert [f.name for f in dataclasses.fields(data[0])].count("checked") == 0


def test_the_overlaps_of_a_large_set_are_sought_in_a_sample(lj_data, monkeypatch):
    looked = []
    monkeypatch.setattr(checks, "_SAMPLED", 5)
    monkeypatch.setattr(checks, "overlap", lambda frame: looked.append(frame))
    check_frames("large", lj_data(30))
    assert len(looked) == 5
    check_dataset(lj_data(30))
    assert len(looked) == 35


def run_file(tmp_path, **section):
    lines = [f"{key} = {json.dumps(value)}" for key, value in section.items()]
    (tmp_path / "run.toml").write_text("\n".join(['output = "out"', "[sets.A]", *lines]))
    return read_run_file(tmp_path / "run.toml", TrainConfig)


def test_the_command_line_looks_once_at_all_its_sets(tmp_path, lj_frames, monkeypatch):
    for name in ("train", "validation", "test"):
        write(tmp_path / f"{name}.extxyz", lj_frames(3))
    file = run_file(tmp_path, train=["tr*.extxyz"], validation=["validation.extxyz"], test=["test.extxyz"])
    sets, test = load_sets(file)
    assert len(sets["A"].train) == 3
    monkeypatch.setattr(checks, "_frame_findings", None)  # a second look would fail
    for part in (sets["A"].train, sets["A"].validation, test["A"]):
        check_frames("again", part)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_the_command_line_refuses_bad_frames_of_every_part(tmp_path, lj_frames, name):
    for part in ("train", "validation", "test"):
        frames = lj_frames(3)
        if part == name:
            frames[1].calc.results["energy"] = float("nan")
        write(tmp_path / f"{part}.extxyz", frames)
    file = run_file(tmp_path, **{part: [f"{part}.extxyz"] for part in ("train", "validation", "test")})
    with pytest.raises(DataError, match=rf"{name}.extxyz, frame 1: not a number: in the energy"):
        load_sets(file)


def test_a_set_without_files_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"sets.A.train .* is empty"):
        load_sets(run_file(tmp_path, train=[]))
    with pytest.raises(ConfigError, match=r"sets.A.train: there is no .*\*.none"):
        load_sets(run_file(tmp_path, train=["*.none"]))


def test_validation_frames_that_are_trained_on_are_counted(tiny_model, lj_data, caplog):
    """Also those of another set of the same head; frames of another head do not count."""
    data = lj_data(6)
    held = data.subset([4, 5])
    sets = {
        "one": TrainingSet(data.subset(range(4)), {"late": held, "both": data}, head="A"),
        "two": TrainingSet(held.subset([0]), head="A"),
        "B": TrainingSet(lj_data(3, seed=4), data),
    }
    with caplog.at_level(logging.WARNING):
        warn_of_repeats(TrainingData.of(sets, tiny_model(("A", "B"))))
    said = [record.getMessage() for record in caplog.records if "training frames too" in record.getMessage()]
    assert [text.split(" validation")[0] for text in said] == ["one, late: 1 of 2", "one, both: 5 of 6"]


def test_frames_without_neighbours_to_be_found_are_named_and_can_be_dropped(tiny_model):
    good = Atoms("Cu2", positions=[[0, 0, 0], [2.4, 0, 0]], info={"energy": 1.0})
    open_cell, crowded, far = good.copy(), good.copy(), good.copy()
    open_cell.pbc = [True, True, False]
    crowded.set_cell([1e-3, 5, 5])
    crowded.pbc = [True, False, False]
    far.positions[1] *= 1e9
    data = Dataset.from_atoms([good, open_cell, crowded, far], name="mine")
    report = check_dataset(data)
    assert report.frames("broken structure") == [1, 2, 3]
    with pytest.raises(DataError, match="mine, frame 1: broken structure: pbc is True along cell vector a"):
        check_frames("mine", data)
    assert len(clean(data, report, drop=("broken structure",))[0]) == 1
    frame = dataclasses.replace(data[1], numbers=np.full(2, 18))  # of the model
    with pytest.raises(DataError, match="mine, frame 1: pbc is True along cell vector a"):
        GraphStore(Dataset((frame,)), tiny_model()).graph(0)
