"""Files and options: one name everywhere, and errors before anything runs."""

import argparse
import dataclasses
import json

import pytest
import torch
from ase.io import write
from deepmd_system import write_system

from dpa2calc.cli.main import main
from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.options import add_options, given_options, option_help, parse_options
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import checkpoint_info, load_checkpoint, save_checkpoint
from dpa2calc.training.config.model import build_model
from dpa2calc.training.config.run_file import check_run, load_sets, read_run_file
from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
from dpa2calc.training.evaluate import Evaluation, evaluate
from dpa2calc.training.fit.setup import new_potential

TINY = """
output = "{folder}/run"
steps = 6
batch_atoms = 8
validate_every = 3
log_every = 2
[model]
preset = "small"
[model.descriptor]
three_body = "none"
[model.descriptor.repinit]
neuron = [4, 8]
axis_neuron = 2
cutoff = 4.5
[model.descriptor.repformer]
nlayers = 1
g1_dim = 8
g2_dim = 4
cutoff = 3.5
cutoff_smooth = 3.0
[model.fitting]
neuron = [8, 8]
[sets.argon]
train = ["train.extxyz"]
test = ["test.extxyz"]
validation_fraction = 0.45
functional = "LJ"
licence = "none needed"
"""


@pytest.fixture
def folder(tmp_path, lj_frames):
    write(tmp_path / "train.extxyz", lj_frames(25))
    write(tmp_path / "test.extxyz", lj_frames(5, seed=3))
    (tmp_path / "run.toml").write_text(TINY.format(folder=tmp_path))
    return tmp_path


def sets_of(folder, text=None, **changes):
    """The sets of a run file of this text, with changes to its one set."""
    (folder / "run.toml").write_text(text or TINY.format(folder=folder))
    return load_sets(read_run_file(folder / "run.toml", TrainConfig, set_changes=changes))[0]


def test_every_option_has_one_help_text():
    for cls in (TrainConfig, FinetuneConfig):
        texts = option_help(cls)
        assert set(texts) == {f.name for f in dataclasses.fields(cls)}
        parser = argparse.ArgumentParser()
        add_options(parser, cls, title="options")
        shown = " ".join(parser.format_help().split())
        for name, text in texts.items():
            assert "--" + name.replace("_", "-") in shown and " ".join(text.split()) in shown
        arguments = parser.parse_args(["--learning-rate", "1e-4", "--huber-delta", "none"])
        assert given_options(arguments, cls) == {"learning_rate": "1e-4", "huber_delta": "none"}


@pytest.mark.parametrize(
    ("text", "seed"), [("9007199254740993", 9007199254740993), ("1e3", 1000), ("+7", 7), (" 8", 8)]
)
def test_whole_numbers_of_a_command_line_are_exact(text, seed):
    assert parse_options(TrainConfig, {"seed": text}).seed == seed


def test_file_and_command_line_give_the_same_options(folder):
    run = read_run_file(folder / "run.toml", TrainConfig, changes={"steps": "9", "huber_delta": "0.02"})
    assert run.config == TrainConfig(steps=9, batch_atoms=8, validate_every=3, log_every=2, huber_delta=0.02)
    sets, test = load_sets(run)
    assert (len(sets["argon"].train), len(sets["argon"].validation), len(test["argon"])) == (14, 11, 5)
    model = build_model(run, sets)
    assert model.type_map == ("Ar",) and model.descriptor.three_body is None
    assert model.descriptor.repinit.neuron == (4, 8) and model.heads[0].fitting.neuron == (8, 8)
    assert model.heads[0].functional == "LJ" and model.heads[0].elements == ("Ar",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 6", "learnin_rate = 1e-3", r"unknown option learnin_rate = .*did you mean learning_rate\?"),
        ("steps = 6", 'steps = "many"', "steps = 'many' is not allowed; allowed: a whole number"),
        ("steps = 6", "steps = 2.5", "steps = 2.5 is not allowed; allowed: a whole number"),
        ("steps = 6", 'optimizer = "sgd"', "optimizer = 'sgd' is not allowed; allowed: adam, adamw"),
        ("steps = 6", "ema_decay = 1.5", "ema_decay = 1.5 is not allowed; allowed: from 0 to below 1"),
        ("steps = 6", "tensorboard = 3", "tensorboard = 3 is not allowed; allowed: true or false"),
        (TINY[TINY.index("[sets") :], "", "there is no"),
        ("test = [", "tests = [", r"unknown option sets.argon.tests = .*did you mean sets.argon.test\?"),
        ("preset = ", "presett = ", r"unknown option model.presett = 'small'; did you mean model.preset\?"),
        ("nlayers = 1", "nlayer = 1", r"model.descriptor.repformer.nlayer = 1; did you mean .*nlayers\?"),
        ("nlayers = 1", "nlayers = 0", r"repformer.nlayers = 0 is not allowed"),
        ('preset = "small"', 'preset = "tiny"', "no preset 'tiny'; there are paper, small"),
        ('train = ["train.extxyz"]', "", r"sets.argon.train is missing"),
        ('output = "', 'outputs = "', r"unknown option outputs = .*did you mean output\?"),
        ("[model]", "[model", "is not TOML"),
        ("[sets.argon]", '[sets.argon]\nhead = " "', "the head's name ' ' is not allowed"),
    ],
)
def test_wrong_keys_and_values_are_named_before_anything_runs(folder, old, new, message):
    (folder / "bad.toml").write_text(TINY.format(folder=folder).replace(old, new))
    with pytest.raises(ConfigError, match=message):
        run = read_run_file(folder / "bad.toml", TrainConfig)
        build_model(run, load_sets(run)[0])


def test_byte_order_marks_are_passed_over(folder):
    """Editors on Windows write them."""
    for name, text in (
        ("marked.toml", TINY.format(folder=folder)),
        ("marked.json", '{"model": {"descriptor": {}}}'),
    ):
        (folder / name).write_text(text, encoding="utf-8-sig")
    assert read_run_file(folder / "marked.toml", TrainConfig).config.steps == 6
    with pytest.raises(ConfigError, match="type_map"):  # understood as JSON
        read_run_file(folder / "marked.json", TrainConfig, output="run")


def test_a_run_goes_on_from_a_trained_model(folder, tiny_model):
    trained = new_potential(tiny_model(("argon",)), seed=3)
    save_checkpoint(trained, folder / "first.safetensors")
    text = TINY.format(folder=folder)
    text = 'model = "first.safetensors"\n' + text[: text.index("[model]")] + text[text.index("[sets") :]
    (folder / "more.toml").write_text(text)
    run = read_run_file(folder / "more.toml", TrainConfig)
    model = build_model(run, load_sets(run)[0])
    assert isinstance(model, Potential)
    state = model.state_dict()
    assert all(torch.equal(v, state[n]) for n, v in trained.state_dict().items())
    (folder / "wrong.toml").write_text(text.replace("first.safe", "frist.safe"))
    run = read_run_file(folder / "wrong.toml", TrainConfig)
    with pytest.raises(
        ConfigError, match=r"model = 'frist.safetensors' is neither a preset \(paper, .*trained model"
    ):
        check_run(run)


def test_missing_files_are_found_before_anything_is_read(folder):
    with pytest.raises(ConfigError, match=r"sets.argon.test: there is no .*tset.extxyz"):
        sets_of(folder, TINY.format(folder=folder).replace("test.extxyz", "tset.extxyz"))


def test_bad_frames_stop_the_run_or_are_dropped_when_told(folder, lj_frames):
    frames = lj_frames(25)
    frames[4].positions[1] = frames[4].positions[0] + 0.1
    write(folder / "train.extxyz", frames)
    text = TINY.format(folder=folder)
    with pytest.raises(DataError, match=r"train.extxyz, frame 4: overlap: Ar0 and Ar1 are 0.17"):
        sets_of(folder, text)
    argon = sets_of(folder, text + 'drop = ["overlap"]\n')["argon"]
    assert len(argon.train) + len(argon.validation) == 24
    argon = sets_of(folder, text + "drop_frames = [4, 9]\n")["argon"]
    left = {f.source.rsplit(" ", 1)[1] for f in (*argon.train, *argon.validation)}
    assert left == {str(i) for i in range(25) if i not in (4, 9)}
    with pytest.raises(DataError, match=r"sets.argon: .*frames 0 to 24; there is no frame 25"):
        sets_of(folder, text + "drop_frames = [25]\n")


def test_train_then_finetune_from_the_command_line(folder, capsys):
    assert main(["train", str(folder / "run.toml"), "--seed", "4", "--no-progress"]) == 0
    out = capsys.readouterr().out
    assert "weighted average" in out and "model.safetensors" in out
    run = folder / "run"
    head = checkpoint_info(run / "model.safetensors").config.heads[0]
    assert head.info["training"] == {"steps": 6, "frames": {"argon": 14}, "seed": 4}
    assert head.info["data"]["argon"]["licence"] == "none needed"
    test = Evaluation.load(run / "evaluation_argon.npz")
    again = evaluate(
        run / "model.safetensors", load_sets(read_run_file(folder / "run.toml", TrainConfig))[1]["argon"]
    )
    assert again.errors.force_rmse == pytest.approx(test.errors.force_rmse, rel=1e-6)
    assert head.info["test_errors"]["argon"]["force_rmse"] == pytest.approx(again.errors.force_rmse, rel=1e-6)
    assert (run / "learning_curve.png").stat().st_size > 5000
    assert (run / "parity_argon.png").stat().st_size > 5000
    assert json.loads((run / "summary.json").read_text())["test"]["argon"]["n_frames"] == 5

    command = ["finetune", "--model", str(run / "model.safetensors"), "--train", str(folder / "train.extxyz")]
    command += ["--test", str(folder / "test.extxyz"), "--head", "mine", "--output", str(folder / "fine")]
    command += ["--steps", "4", "--warmup-steps", "1", "--batch-atoms", "8", "--no-progress"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "started from head 'argon'" in out and "mine" in out
    assert [h.name for h in load_checkpoint(folder / "fine/model.safetensors").config.heads] == ["mine"]


def test_the_last_weights_are_kept_when_asked_for(folder):
    """For a run that goes on from a trained model, whose first validation may be the best by chance."""
    command = ["train", str(folder / "run.toml"), "--no-progress"]
    assert main(command) == 0
    other = load_checkpoint(folder / "run/last.safetensors")
    with torch.no_grad():
        for weight in other.parameters():
            weight += 0.01
    save_checkpoint(other, folder / "run/best.safetensors")
    for keep in ("last", "best"):  # the same command again evaluates again
        assert main([*command, "--keep", keep]) == 0
        wanted = load_checkpoint(folder / f"run/{keep}.safetensors").state_dict()
        kept = load_checkpoint(folder / "run/model.safetensors").state_dict()
        assert all(torch.equal(value, wanted[name]) for name, value in kept.items())


def test_frames_are_held_out_where_ten_or_more_can_choose_the_weights(folder, lj_frames):
    text = TINY.format(folder=folder).replace("validation_fraction = 0.45\n", "")
    few = sets_of(folder, text)
    assert len(few["argon"].train) == 25 and few["argon"].validation is None
    write(folder / "more.extxyz", lj_frames(200))
    more = (
        '[sets.more]\ntrain = ["more.extxyz"]\n[sets.named]\ntrain = ["test.extxyz"]\n'
        'validation = ["test.extxyz"]\n'
    )
    # 5 % of 225 frames, and five that are named: together they are enough
    assert [len(item.validation) for item in sets_of(folder, text + more).values()] == [1, 10, 5]


def test_validation_frames_do_not_depend_on_the_runs_seed(folder):
    """Else a run that goes on with another seed would be judged by frames it has learned from."""
    held_out = []
    for seed, split_seed in ((1, 1), (2, 1), (2, 2)):
        run = read_run_file(
            folder / "run.toml", TrainConfig, changes={"seed": seed}, set_changes={"split_seed": split_seed}
        )
        held_out.append({frame.source for frame in load_sets(run)[0]["argon"].validation})
    assert held_out[0] == held_out[1] != held_out[2]


def test_labels_under_other_names(folder, lj_frames):
    frames = lj_frames(25)
    for atoms in frames:
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = (
            atoms.get_potential_energy(),
            atoms.get_forces(),
        )
        atoms.calc = None
    write(folder / "renamed.extxyz", frames)
    changes = {"train": [str(folder / "renamed.extxyz")]}
    with pytest.raises(DataError, match=r"there are REF_energy, REF_forces: name .* --energy-key"):
        sets_of(folder, **changes)
    changes |= {"energy_key": "REF_energy", "forces_key": "REF_forces"}
    with pytest.raises(DataError, match=r"test\.extxyz|argon: no frame has a label 'REF_energy'"):
        sets_of(folder, **changes)
    argon = sets_of(folder, **changes, test=[])["argon"]
    assert all(frame.energy is not None and frame.forces is not None for frame in argon.train)


def test_command_line_errors_are_one_line(folder, capsys):
    assert main(["train", str(folder / "none.toml")]) == 1
    assert "dpa2calc train: there is no file" in capsys.readouterr().err
    assert main(["train", str(folder / "run.toml"), "--steps", "x", "--no-progress"]) == 1
    assert capsys.readouterr().err.strip().endswith("steps = 'x' is not allowed; allowed: a whole number")
    for option in ("--output", "--train"):
        with pytest.raises(SystemExit, match="2"):
            main(["train", str(folder / "run.toml"), option, "", "--no-progress"])
        assert f"{option} is empty" in capsys.readouterr().err
    assert main(["finetune", str(folder / "run.toml"), "--no-progress"]) == 1
    assert "not a [model] table" in capsys.readouterr().err


def test_empty_names_are_no_files(folder):
    with pytest.raises(ConfigError, match="output is missing; name a folder"):
        read_run_file(folder / "run.toml", TrainConfig, output="")
    with pytest.raises(ConfigError, match="there is no file of an empty name"):
        sets_of(folder, train=[""])


def test_patterns_name_the_files_that_they_match(folder, lj_frames):
    (folder / "parts").mkdir()
    for number in range(3):
        write(folder / "parts" / f"{number}.extxyz", lj_frames(4, seed=number))
    for pattern, n_frames in (("parts/*.extxyz", 12), ("parts/[01].extxyz", 8)):
        assert len(sets_of(folder, train=[pattern], test=[])["argon"].train) == n_frames
    for train, text in ((["parts/*.xyz"], "there is no .*parts/\\*.xyz"), ([], "argon.train .* is empty")):
        with pytest.raises(ConfigError, match=text):
            sets_of(folder, train=train)


def test_a_flag_needs_no_value():
    parser = argparse.ArgumentParser()
    add_options(parser, FinetuneConfig, title="options")
    for words, value in ((["--freeze-descriptor"], "true"), (["--freeze-descriptor", "false"], "false")):
        assert given_options(parser.parse_args(words), FinetuneConfig) == {"freeze_descriptor": value}
    assert "--freeze-descriptor VALUE" not in parser.format_help()


def test_deepmd_input_file(folder, lj_frames):
    # The same data as a deepmd-kit system, and an input.json that names it.
    write_system(folder / "system", lj_frames(25), virial=False)
    descriptor = {"type": "se_e2_a", "sel": [40], "rcut": 4.5, "neuron": [4, 8], "axis_neuron": 2}
    descriptor["rcut_smth"] = 1.0
    content = {
        "model": {"type_map": ["Ar"], "descriptor": descriptor, "fitting_net": {"neuron": [8, 8], "seed": 1}},
        "learning_rate": {"type": "exp", "start_lr": 0.002, "stop_lr": 1e-5, "decay_steps": 5},
        "loss": {"start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000, "limit_pref_f": 1},
        "training": {"numb_steps": 7, "training_data": {"systems": ["system"]}, "disp_freq": 3},
    }
    (folder / "input.json").write_text(json.dumps(content))
    run = read_run_file(folder / "input.json", TrainConfig, output=str(folder / "dp"))
    assert run.config.steps == 7 and run.config.learning_rate == 0.002 and run.config.log_every == 3
    sets, _ = load_sets(run)
    model = build_model(run, sets)
    assert len(sets["Default"].train) == 25 and sets["Default"].validation is None  # too few to choose by
    assert type(model.descriptor).__name__ == "DeepPotSEConfig"
