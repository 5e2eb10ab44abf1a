"""Stages of a run file: each starts from the weights before it, with options and weights of its own."""

from __future__ import annotations

import pytest
import torch
from ase.io import write

from dpa2calc.cli.main import main
from dpa2calc.errors import ConfigError
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training import Dataset, TrainConfig, TrainingSet, pretrain
from dpa2calc.training.config.run_file import load_sets, read_run_file

RUN = """
output = "{folder}/run"
steps = 4
batch_atoms = 8
seed = 3
{more}
[model]
preset = "dpa1-l0"
[model.descriptor]
neuron = [4, 8]
axis_neuron = 2
[model.fitting]
neuron = [8, 8]
[sets.argon]
train = ["a.extxyz"]
validation_fraction = 0.0
[sets.neon]
train = ["b.extxyz"]
validation_fraction = 0.0
"""
SECOND = """
[stages.fine]
steps = 3
learning_rate = 1e-4
[stages.fine.weights]
neon = 4.0
"""


@pytest.fixture
def folder(tmp_path, lj_frames):
    write(tmp_path / "a.extxyz", lj_frames(6))
    write(tmp_path / "b.extxyz", lj_frames(6, seed=5))
    return tmp_path


def written(folder, stages=SECOND, more=""):
    path = folder / "run.toml"
    path.write_text(RUN.format(folder=folder, more=more) + stages)
    return path


def weights(path):
    return load_checkpoint(path).state_dict()


def test_a_stage_equals_a_second_run_from_the_first_ones_weights(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["train", str(written(folder)), "--no-progress"]) == 0
    assert "stage-fine" in capsys.readouterr().out
    found = weights(folder / "run/stage-fine/model.safetensors")

    sets = {
        name: TrainingSet(Dataset.read(f"{file}.extxyz", name=name), weight=weight)
        for name, file, weight in (("argon", "a", 1.0), ("neon", "b", 4.0))
    }
    config = TrainConfig(steps=3, batch_atoms=8, seed=3, learning_rate=1e-4)
    start = load_checkpoint(folder / "run/model.safetensors")
    pretrain(start, sets, config, output="by_hand", progress=False)
    by_hand = weights(folder / "by_hand/model.safetensors")
    moved = [name for name in found if not torch.equal(found[name], start.state_dict()[name])]
    assert moved and all(torch.equal(found[name], by_hand[name]) for name in moved)

    assert main(["train", str(written(folder)), "--no-progress"]) == 0  # everything is there
    again = weights(folder / "run/stage-fine/model.safetensors")
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_options_of_the_run_hold_in_a_stage_and_the_command_lines_come_first(folder):
    path = written(folder, more="shared_steps = 2\nema_decay = 0.9")
    stage = read_run_file(path, TrainConfig, changes={"learning_rate": 3e-3}).stages["fine"]
    config = stage.config
    assert (config.steps, config.ema_decay, config.shared_steps) == (3, 0.9, 0)
    assert config.learning_rate == 3e-3
    assert stage.weights == {"neon": 4.0}


def test_a_number_of_steps_puts_aside_minutes_that_it_comes_after(folder):
    path = written(folder)
    path.write_text("minutes = 9\n" + path.read_text())
    run = read_run_file(path, TrainConfig)
    assert (run.config.minutes, run.stages["fine"].config.minutes) == (9.0, 0.0)  # the stage has steps
    run = read_run_file(path, TrainConfig, changes={"steps": "7"})
    assert (run.config.steps, run.config.minutes) == (7, 0.0)
    run = read_run_file(path, TrainConfig, changes={"steps": "7", "minutes": "2"})
    assert run.config.minutes == run.stages["fine"].config.minutes == 2.0


def test_a_star_stands_for_the_other_sets(folder):
    stages = '[stages.fine.weights]\n"*" = 0.5\nneon = 2.0'
    run = read_run_file(written(folder, stages), TrainConfig)
    sets, _ = load_sets(run)
    found = {name: item.weight for name, item in run.stages["fine"].weighted(sets).items()}
    assert found == {"argon": 0.5, "neon": 2.0}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[stages.fine]\nstps = 3", "stages.fine.stps"),
        ("[stages.fine.weights]\nneno = 3.0", r"stages.fine.weights.neno.*neon"),
        ("[stages.fine.weights]\nneon = 0.0", "stages.fine.weights.neon"),
        ('[stages."../x"]\nsteps = 3', r"stages.*\.\./x"),
        ("[stages.fine]\nmodel = 'small'", "stages.fine.model"),
    ],
)
def test_a_wrong_stage_is_an_error_before_anything_is_read(folder, stages, message):
    with pytest.raises(ConfigError, match=message):
        read_run_file(written(folder, stages), TrainConfig)
