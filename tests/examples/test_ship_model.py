"""The file that ships: rounded weights, energies and cards that belong to them, and resuming."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from safetensors import safe_open

from dpa2calc import DPA2Calculator, load_model
from dpa2calc.store.checkpoint import checkpoint_info, save_checkpoint
from dpa2calc.training import Dataset, TrainingSet

HEAD = "H2O-PBE0TS"
WATER = Path(__file__).parents[2] / "examples" / "data" / "water64.extxyz"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of one head whose nets are on no grid, with a file."""
    potential = load_model("default", HEAD)
    generator = torch.Generator().manual_seed(0)
    for name, value in potential.state_dict().items():
        if name.startswith("heads.") and name.endswith(".matrix"):
            value.add_(1e-4 * torch.randn(value.shape, generator=generator))
    (head,) = potential.config.heads
    bare = dataclasses.replace(
        head, functional="", description="", info={"training": {"steps": 5, "seed": 2}}
    )
    potential.config = potential.config.with_heads((bare,))
    potential.forget_uncertainty()
    return save_checkpoint(potential, tmp_path_factory.mktemp("run") / "model.safetensors")


@pytest.fixture(scope="module")
def frames(trained):
    """Water, labelled by the model itself with a little noise, as a set."""
    rng, atoms = np.random.default_rng(1), []
    for _ in range(10):
        atoms.append(read(WATER))
        atoms[-1].rattle(0.02, rng=rng)
    for one, told in zip(atoms, DPA2Calculator(trained).evaluate(atoms)):
        energy = told["energy"] + 0.01 * rng.normal()
        forces = told["forces"] + 0.02 * rng.normal(size=told["forces"].shape)
        one.calc = SinglePointCalculator(one, energy=energy, forces=forces)
    return Dataset.from_atoms(atoms, name=HEAD)


@pytest.fixture
def ship(script, frames, monkeypatch):
    """The script, with these frames for a collection."""
    module = script("ship_model")
    monkeypatch.setattr(module, "read_set", lambda *_: TrainingSet(frames, frames, head=HEAD))
    monkeypatch.setattr(module, "load_registered", lambda *_, **__: frames)

    def run(*words: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", ["ship_model.py", *map(str, words), "--quick"])
        module.main()

    return module, run


def contents(path: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """Of a file of safetensors, whose metadata come in any order."""
    with safe_open(path, framework="np") as file:
        return file.metadata(), {key: file.get_tensor(key).tobytes() for key in file.keys()}


def test_what_ships_is_rounded_and_says_nearly_the_same(ship, trained, frames, tmp_path, monkeypatch):
    module, run = ship
    output = tmp_path / "shipped.safetensors"
    run(trained, "--data", "unused", "-o", output)
    with safe_open(output, framework="pt") as file:
        assert file.get_slice("heads.0.nets.0.layers.0.matrix").get_dtype() == "F16"
    atoms = [frame.atoms() for frame in frames]
    near, exact = (DPA2Calculator(path).evaluate(atoms) for path in (output, trained))
    energy = 1e3 * np.array([a["energy"] - b["energy"] for a, b in zip(near, exact)]) / len(atoms[0])
    force = 1e3 * np.concatenate([(a["forces"] - b["forces"]).ravel() for a, b in zip(near, exact)])
    assert np.sqrt(np.mean(energy**2)) < 0.05 and np.sqrt(np.mean(force**2)) < 1.0
    assert all(result["energy_std"] > 0 for result in near)
    (head,) = checkpoint_info(output).config.heads
    assert head.functional == "PBE0+TS" and head.description == "water" and head.info["data"][HEAD]["source"]
    errors = head.info["test_errors"][HEAD]
    assert errors["force_rmse"] == pytest.approx(20, rel=0.1) and errors["energy_rmse"] < 0.5
    assert head.info["training"] == {"steps": 5, "frames": {HEAD: len(frames)}, "seed": 2}

    def again(*_):
        raise AssertionError("a head that is finished is measured again")

    monkeypatch.setattr(module, "finish_head", again)
    first = contents(output)
    run(trained, "--data", "unused", "-o", output)
    assert contents(output) == first


def test_the_list_of_models_takes_the_heads(ship, tmp_path, monkeypatch):
    module, _ = ship
    text = (module.PACKAGE / "models.json").read_text(encoding="utf-8")
    (tmp_path / "models.json").write_text(text, encoding="utf-8")
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    names = [f"a head of number {k}" for k in range(57)]
    module.write_heads("default", names)
    new = (tmp_path / "models.json").read_text(encoding="utf-8")
    before, after = json.loads(text)["models"], json.loads(new)["models"]
    assert after[0]["heads"] == names and {**after[0], "heads": before[0]["heads"]} == before[0]
    assert after[1:] == before[1:] and max(map(len, new[: new.index("student-water")].splitlines())) <= 110
    with pytest.raises(SystemExit, match="has no heads of nobody"):
        module.write_heads("nobody", names)


def test_heads_of_several_sets_answer_to_their_names(ship):
    module, _ = ship
    heads = {head.name: module.with_card(head) for head in load_model("default").config.heads}
    assert "Cu-mlearn" in heads["mlearn-PBE"].aliases and heads["mlearn-PBE"].functional == "PBE"
    assert heads["FerroEle"].aliases == ("FerroEle-AIMD",) and heads["HfO2-PBE"].aliases == ()
    assert heads["Mol-3BPA"].aliases == ("Mol-Transition1x",)
    assert set(heads["Mol-3BPA"].info["data"]) == {"Mol-3BPA", "Mol-Transition1x"}


def test_the_better_head_of_two_files_is_taken(script, frames, trained, monkeypatch, capsys):
    ship = script("ship_model")
    monkeypatch.setattr(ship, "load_registered", lambda *_, **__: frames)
    worse, other = load_model(trained), load_model(trained)
    for name, value in worse.heads.state_dict().items():
        if name.endswith(".matrix"):
            value.mul_(1.3)
    before = load_model(trained).heads.state_dict()
    ship.take_better(other, worse, "data")  # stays as it is
    assert all(torch.equal(other.heads.state_dict()[k], v) for k, v in before.items())
    assert capsys.readouterr().out == ""
    ship.take_better(worse, other, "data")
    assert all(torch.equal(worse.heads.state_dict()[k], v) for k, v in before.items())
    assert f"{HEAD}: taken from the other file" in capsys.readouterr().out
    next(iter(other.descriptor.parameters())).data.mul_(1.1)
    with pytest.raises(SystemExit, match="differ in their descriptors"):
        ship.take_better(worse, other, "data")
