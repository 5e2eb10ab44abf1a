"""`uncertainty`, `heads`, and what `evaluate` and the choice of a head say with them."""

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from example_files import model, water

from dpa2calc.cli.main import main
from dpa2calc.deepmd.write import write_deepmd
from dpa2calc.store.checkpoint import checkpoint_info, load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of deepmd-kit with two heads, and frames."""
    folder = tmp_path_factory.mktemp("sure")
    write(folder / "train.extxyz", [water(k) for k in range(6)])
    write(folder / "held.extxyz", [water(20 + k) for k in range(10)])
    write(folder / "copper.extxyz", Atoms("Cu", cell=[9] * 3, pbc=True))
    write_deepmd(model("water", "metal"), folder / "two.pt")
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def test_a_model_of_deepmd_kit_learns_how_sure_it_is(here, capsys):
    words = "uncertainty two.pt --head water --data train.extxyz --validation held.extxyz -o sure.safetensors"
    assert main(words.split()) == 0
    out, shown = capsys.readouterr()
    assert "uncertainty of water: 100%" in shown and "26/26" in shown  # 6 frames, 10 twice: energies, forces
    assert "water: uncertainty from 144 atoms of 6 frames, scale from 10 validation frames" in out
    assert set(checkpoint_info("sure.safetensors").uncertainty) == {"water"}
    assert main(["describe", "sure.safetensors"]) == 0
    assert "from 144 atoms of 6 frames" in capsys.readouterr().out
    assert main("evaluate held.extxyz --model sure.safetensors --head water -o out.extxyz".split()) == 0
    assert "std E (eV)" in capsys.readouterr().out
    frame = read("out.extxyz", 0)
    assert frame.info["energy_std"] > 0 and frame.arrays["energies_std"].shape == (24,)


@pytest.mark.parametrize(
    ("model", "name"),
    [("DPA-2.4-7M", "DPA-2.4-7M"), ("runs/two.pt", "two"), ("a.dp.xz", "a"), ("v1.2.safetensors", "v1.2")],
)
def test_the_file_is_named_after_the_model(model, name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}-uncertainty.safetensors").mkdir()
    assert main(["uncertainty", model, "--data", "none.extxyz"]) == 1
    assert f"{name}-uncertainty.safetensors cannot be written: it is a folder" in capsys.readouterr().err


def test_training_frames_alone_are_not_enough(here, capsys):
    assert main("uncertainty two.pt --head metal --data train.extxyz --no-progress".split()) == 0
    out, shown = capsys.readouterr()
    assert "give 10 or more labelled frames that it never saw with --validation" in out and not shown
    assert main("uncertainty two.pt --head metal --data train.extxyz -o model.pt".split()) == 1
    assert "-o model.pt: the ending must be .safetensors" in capsys.readouterr().err


def test_it_can_be_stopped_and_leaves_no_file(here, capsys, monkeypatch):
    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dpa2calc.training.uncertainty._moments", stop)
    words = "uncertainty two.pt --head water --data train.extxyz -o stopped.safetensors"
    assert main(words.split()) == 130
    assert not list(here.glob("*stopped*")) and "Traceback" not in capsys.readouterr().err


def test_heads_of_a_structure(here, capsys):
    potential = load_checkpoint(save_checkpoint(model("water", "metal"), here / "plain.safetensors"))
    names = ("H", "O"), ("Cu",)
    more = {"description": "a liquid; a gas; a liquid"}  # as in checkpoints of several sets of one kind
    heads = [type(h)(**{**vars(h), **more, "elements": own}) for h, own in zip(potential.config.heads, names)]
    potential.config = potential.config.with_heads(tuple(heads))
    save_checkpoint(potential, here / "plain.safetensors")
    assert main("heads train.extxyz --index 0 --model plain.safetensors".split()) == 0
    out = capsys.readouterr().out
    assert "uncertainty never measured" in out and "metal" not in out and "  a liquid; a gas\n" in out
    write(here / "both.extxyz", Atoms("CuO", positions=[[0, 0, 0], [0, 0, 2]], cell=[9] * 3, pbc=True))
    assert main("heads both.extxyz --model plain.safetensors".split()) == 1
    assert "no head of this model saw Cu O together (the nearest lacks Cu)" in capsys.readouterr().err


def test_the_choice_of_a_head_is_helped_by_the_structure(here, capsys):
    words = "uncertainty two.pt --head water --data train.extxyz --validation held.extxyz -o sure.safetensors"
    main(words.split())
    capsys.readouterr()
    assert main("evaluate train.extxyz --model sure.safetensors".split()) == 1
    err = capsys.readouterr().err
    assert "the best first" in err and err.index("water, functional") < err.index("metal, functional")
    assert "times its range" in err and np.all([word in err for word in ("choose one", "training set")])
