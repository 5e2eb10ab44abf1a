"""The verbs that need no application: models, describe, evaluate."""

import dataclasses
import json

import ase.db
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.stress import voigt_6_to_full_3x3_stress
from deepmd_system import write_system
from emt_cases import metals, with_emt

from dpa2calc.cli.main import main
from dpa2calc.model.config import DPA1Config, FittingConfig, HeadConfig, ModelConfig
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny model with two heads."""
    fitting = FittingConfig(neuron=(8,))
    config = ModelConfig(
        type_map=("H", "O", "Cu"),
        descriptor=DPA1Config(cutoff=4.0, nsel=20, neuron=(4, 8), axis_neuron=2, tebd_dim=4, attn_layer=0),
        heads=(
            HeadConfig(
                name="Water_PBE",
                functional="PBE",
                elements=("H", "O"),
                fitting=fitting,
                info={"test": {"forces_rmse": 41.5}},
            ),
            HeadConfig(name="Metal_PBE", functional="PBE", fitting=fitting),
        ),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        potential = Potential(config)
    return str(save_checkpoint(potential, tmp_path_factory.mktemp("m") / "two.safetensors"))


def test_a_file_writes_no_control_characters_to_the_terminal(checkpoint, tmp_path, capsys):
    potential = load_checkpoint(checkpoint)
    evil = [dataclasses.replace(h, description="\x1b]0;owned\x07 \x9b2J") for h in potential.config.heads]
    potential.config = potential.config.with_heads(tuple(evil))
    path = str(save_checkpoint(potential, tmp_path / "evil.safetensors"))
    assert main(["describe", path]) == 0 and main(["describe", path, "--head", "none"]) == 1
    said = capsys.readouterr()
    assert "owned" in said.out and "owned" in said.err
    assert not any(letter in said.out + said.err for letter in "\x1b\x07\x9b")


def labelled(seed, shift=0.0):
    """Copper with EMT's labels, its energy moved by `shift` eV an atom."""
    atoms = with_emt(bulk("Cu", cubic=True))
    atoms.rattle(0.05, seed=seed)
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, energy=energy + 4 * shift, forces=forces + 0.001, stress=stress)
    return atoms


def test_models_lists_names_and_places(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DPA2CALC_CACHE", str(tmp_path))
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "default" in out and "in the package" in out and str(tmp_path) in out
    line = next(line for line in out.splitlines() if line.startswith("DPA-2.4-7M"))
    assert "online" in line and "31" in line
    assert main(["models", "--json"]) == 0
    names = [m["name"] for m in json.loads(capsys.readouterr().out)["models"]]
    assert "DPA-2.4-7M" in names


def test_describe(capsys, checkpoint):
    assert main(["describe", checkpoint]) == 0
    out = capsys.readouterr().out
    for part in ("DPA-1", "Water_PBE", "Metal_PBE", "[H O]", "forces_rmse: 41.5", "type map    3: H O Cu"):
        assert part in out
    assert main(["describe", checkpoint, "--head", "metal-pbe"]) == 0
    assert "Water_PBE" not in capsys.readouterr().out
    assert main(["describe", checkpoint, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "DPA-1" and facts["heads"][0]["info"]["test"]["forces_rmse"] == 41.5
    assert facts["parameters"] > 0 and facts["cutoff"] == 4.0


def test_evaluate_prints_and_writes_what_the_calculator_says(capsys, checkpoint, tmp_path):
    from dpa2calc import DPA2Calculator

    frames = [molecule("H2O"), molecule("H2O2"), bulk("Cu", cubic=True)]
    write(tmp_path / "in.extxyz", frames)
    out = tmp_path / "out.extxyz"
    command = ["evaluate", str(tmp_path / "in.extxyz"), "--model", checkpoint, "--head", "Metal_PBE"]
    assert main([*command, "--dtype", "float64", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "H2O2" in printed and "errors" not in printed
    calc = DPA2Calculator(checkpoint, "Metal_PBE", dtype="float64")
    for frame, atoms in zip(read(out, ":"), frames, strict=True):
        assert frame.get_potential_energy() == pytest.approx(calc.get_potential_energy(atoms), abs=1e-6)
        np.testing.assert_allclose(frame.get_forces(), calc.get_forces(atoms), atol=1e-6)
    np.testing.assert_allclose(read(out, "-1").get_stress(), calc.get_stress(frames[2]), atol=1e-8)
    assert main([*command, "--index", "1", "-o", str(tmp_path / "o.json"), "--quiet"]) == 0
    document = json.loads((tmp_path / "o.json").read_text())
    assert [s["formula"] for s in document["structures"]] == ["H2O2"]
    assert document["structures"][0]["energy"] == pytest.approx(
        calc.get_potential_energy(frames[1]), abs=1e-4
    )
    assert document["head"] == "Metal_PBE" and document["errors"] is None
    assert "Metal_PBE" in document["provenance"]["model"] and "-o" in document["provenance"]["command"]


def test_labels_under_other_spellings_do_not_stay_beside_results(capsys, tmp_path):
    atoms = labelled(0)
    energy, forces, stress = (atoms.calc.results[name] for name in ("energy", "forces", "stress"))
    atoms.calc = None
    atoms.info |= {
        "Energy": energy,
        "virial": -atoms.get_volume() * voigt_6_to_full_3x3_stress(stress + 0.01),
    }
    atoms.arrays["force"] = forces
    write(tmp_path / "in.extxyz", atoms)
    command = ["evaluate", "--calculator", "emt", "--quiet"]
    assert main([*command, str(tmp_path / "in.extxyz"), "-o", str(tmp_path / "out.extxyz")]) == 0
    made = read(tmp_path / "out.extxyz")
    assert not {"Energy", "virial", "force"} & {*made.info, *made.arrays}
    np.testing.assert_allclose(made.info["ref_stress"], stress + 0.01, atol=1e-8)
    np.testing.assert_allclose(made.arrays["ref_forces"], forces, atol=1e-7)
    capsys.readouterr()
    assert main([*command, str(tmp_path / "out.extxyz")]) == 0  # its own results are its labels
    assert "energy                           0.000" in capsys.readouterr().out


def test_evaluate_with_a_committee(capsys, checkpoint, tmp_path):
    write(tmp_path / "in.extxyz", molecule("H2O"))
    command = ["evaluate", str(tmp_path / "in.extxyz"), "--model", checkpoint, "--head", "Water_PBE"]
    assert main([*command, "--committee", checkpoint, "-o", str(tmp_path / "o.extxyz")]) == 0
    assert "max std F" in capsys.readouterr().out
    assert read(tmp_path / "o.extxyz").info["energy_std"] == 0.0


def test_errors_against_labels_of_another_calculator(capsys, tmp_path):
    frames = [labelled(seed, shift=0.25) for seed in range(3)]
    write(tmp_path / "in.extxyz", frames)
    command = ["evaluate", str(tmp_path / "in.extxyz"), "--calculator", "emt", "-o", str(tmp_path / "o.json")]
    assert main(command) == 0
    errors = json.loads((tmp_path / "o.json").read_text())["errors"]
    assert errors["energy"]["bias"] == pytest.approx(-250, abs=1e-3)
    assert errors["energy_shifted"]["rmse"] == pytest.approx(0, abs=1e-3)
    assert errors["forces"]["mae"] == pytest.approx(1.0, abs=1e-3) and errors["forces"]["count"] == 36
    printed = capsys.readouterr().out
    assert "errors against the labels of 3 structures" in printed and "(36 values)" in printed
    assert main([*command[:-1], str(tmp_path / "o.extxyz")]) == 0
    back = read(tmp_path / "o.extxyz")
    assert back.info["ref_energy"] == pytest.approx(frames[2].get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(back.arrays["ref_forces"], frames[2].get_forces(), atol=1e-6)


def test_forces_on_fixed_atoms_are_compared_as_all_others(tmp_path):
    atoms = with_emt(bulk("Cu", cubic=True))
    atoms.rattle(0.1, seed=1)
    atoms.get_forces()
    atoms.set_constraint(FixAtoms([0, 1]))
    write(tmp_path / "in.extxyz", atoms)
    assert read(tmp_path / "in.extxyz").constraints
    command = ["evaluate", str(tmp_path / "in.extxyz"), "--calculator", "emt", "-o", str(tmp_path / "o.json")]
    assert main(command) == 0
    forces = json.loads((tmp_path / "o.json").read_text())["structures"][0]["forces"]
    np.testing.assert_allclose(forces, atoms.get_forces(apply_constraint=False), atol=1e-6)


def test_stress_errors_from_virials_in_any_capitals(capsys, tmp_path):
    frames = [labelled(seed, shift=0.0) for seed in range(3)]
    command = ["evaluate", str(tmp_path / "in.extxyz"), "--calculator", "emt", "-o", str(tmp_path / "o.json")]
    found = []
    for name in ("stress", "Virial"):
        for atoms in frames:
            stress = np.diag([0.01, 0.02, -0.03])
            atoms.calc, atoms.pbc, atoms.cell = None, True, [9, 9, 9]
            atoms.info = {name: stress if name == "stress" else -atoms.get_volume() * stress}
        write(tmp_path / "in.extxyz", frames)
        assert main(command) == 0
        found.append(json.loads((tmp_path / "o.json").read_text())["errors"]["stress"])
    assert found[0] == pytest.approx(found[1], rel=1e-6) and found[0]["count"] == 18


def test_errors_against_labels_under_other_names(capsys, tmp_path):
    frames = [labelled(seed, shift=0.25) for seed in range(2)]
    for atoms in frames:
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = (
            atoms.get_potential_energy(),
            atoms.get_forces(),
        )
        atoms.info["REF_stress"] = voigt_6_to_full_3x3_stress(atoms.calc.results.get("stress", np.zeros(6)))
        atoms.calc = None
    write(tmp_path / "in.extxyz", frames)
    command = ["evaluate", str(tmp_path / "in.extxyz"), "--calculator", "emt", "--quiet"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no errors of energy, forces, stress are shown" in captured.err
    assert "there are REF_energy, REF_forces, REF_stress" in captured.err
    keys = ["--energy-key", "REF_energy", "--forces-key", "REF_forces", "--stress-key", "REF_stress"]
    assert main([*command, *keys]) == 0
    printed = capsys.readouterr().out
    assert "-250.000 meV/atom" in printed and " meV/Å " in printed and "(24 values)" in printed
    assert main([*command, *keys[:4]]) == 0
    assert "no errors of stress are shown" in capsys.readouterr().err
    assert main([*command, "--energy-key", "E0"]) == 1
    assert "no frame has a label 'E0' (--energy-key)" in capsys.readouterr().err


def test_evaluate_names_the_one_frame_that_makes_the_error(capsys, tmp_path):
    rng, frames = np.random.default_rng(2), []
    for number in range(25):
        atoms = with_emt(bulk("Cu", cubic=True))
        atoms.rattle(0.02, rng=rng)
        energy = atoms.get_potential_energy() + 0.004 * rng.standard_normal() + 4.0 * (number == 11)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=atoms.get_forces() + 0.01)
        frames.append(atoms)
    write(tmp_path / "in.extxyz", frames)
    assert main(["evaluate", str(tmp_path / "in.extxyz"), "--calculator", "emt", "--quiet"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("1 of 25 frames makes 100 % of the squared energy error: ") and "#11 Cu4 (" in last
    whole, without = (float(word) for word in last.split(": ")[1].replace("meV/atom,", "").split()[:2])
    assert whole == pytest.approx(200, abs=1) and without == pytest.approx(1.0, abs=0.4)


def test_evaluate_reads_what_training_reads(capsys, tmp_path):
    frames = metals(3)
    with ase.db.connect(tmp_path / "own.db") as database:  # the energy under a name of its own
        for atoms in frames:
            energy = with_emt(atoms).get_potential_energy() - 0.001 * len(atoms)
            database.write(Atoms(atoms), key_value_pairs={"REF_energy": energy})
    write_system(tmp_path / "system", [with_emt(bulk("Cu", cubic=True)) for _ in range(3)])
    for name, keys in (("own.db", ["--energy-key", "REF_energy"]), ("system", [])):
        command = ["evaluate", str(tmp_path / name), "--calculator", "emt", "--quiet", *keys]
        assert main(command) == 0
        energies = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("energy "))
        assert float(energies.split()[1]) == pytest.approx(1.0 if keys else 0.0, abs=1e-3)


def test_evaluate_errors(capsys, checkpoint, tmp_path):
    model = ["--model", checkpoint]
    water = [*model, "--head", "Water_PBE"]
    bad, copper = tmp_path / "bad.cif", tmp_path / "copper.extxyz"
    bad.write_text("nonsense")
    write(copper, bulk("Cu", cubic=True))
    for command, text in [
        (["nothing.xyz", *water], "there is no file or folder nothing.xyz"),
        ([str(bad), *water], "bad.cif cannot be read"),
        ([str(copper), *model], "has 2 heads"),
        ([str(copper), *water], "structure 0 (Cu4): head 'Water_PBE' never saw Cu"),
        ([str(copper), "-o", "x.csv"], "-o x.csv: the ending must be"),
    ]:
        assert main(["evaluate", *command]) == 1
        assert text in capsys.readouterr().err
