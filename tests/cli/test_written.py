"""`--json FILE` and `--csv FILE`: what scripts read of every verb."""

import csv
import importlib
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import write
from emt_cases import rattled, with_emt
from example_files import write_example_files

from dpa2calc.applications import equation_of_state
from dpa2calc.cli.arguments.written import rounds_to_table
from dpa2calc.cli.main import VERBS, build_parser, main
from dpa2calc.labels.errors import Errors
from dpa2calc.training.distill.selection import DistillRound

EMT_WORDS = "--calculator emt --no-progress"
TRAIN = "--train train.extxyz --test test.extxyz --steps 4 --no-progress"
# a small call of each verb, and the columns of its table with numbers whose size is known
CALLS: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "models": ("", {}),
    "describe": ("model.safetensors", {}),
    "heads": ("water.extxyz --model model.safetensors", {}),
    "evaluate": ("Cu.cif --calculator emt", {"energy_eV": (-1, 1), "n_atoms": (4, 4)}),
    "md": (f"Cu.cif --steps 20 {EMT_WORDS}", {"temperature_K": (1, 2000), "volume_A3": (46, 48)}),
    "lammps": ("in.water", {}),
    "relax": (f"Cu.cif --relax cell {EMT_WORDS}", {"volume_A3": (46, 48), "stress_deviation_GPa": (0, 20)}),
    "phase-transition": (
        "Cu.cif --temperatures 10,20,30,40,50 --heating-only --picoseconds 0.1 --sample-interval 2 "
        f"{EMT_WORDS}",
        {"a_A": (3.5, 3.7), "alpha_deg": (89, 91)},
    ),
    "rdf": ("cu.traj --pairs Cu-Cu --r-max 3 --quiet", {"r_A": (0, 3)}),
    "adf": ("cu.traj --triplet Cu-Cu-Cu --quiet", {"angle_deg": (0, 180)}),
    "diffusion": ("600K.traj --species Li --temperature 600 --quiet", {"lag_ps": (0, 24)}),
    "map": ("water.extxyz --model model.safetensors --no-tsne --quiet", {}),
    "eos": (
        f"Cu.cif --points 5 --relax fixed {EMT_WORDS}",
        {"volume_A3": (40, 55), "pressure_GPa": (-20, 20)},
    ),
    "elastic": (f"Cu.cif {EMT_WORDS}", {"C_GPa": (-1, 180), "i": (1, 6)}),
    "phonons": (
        f"Cu.cif --min-length 5 --mesh 10 --relax fixed --fmax 1 {EMT_WORDS}",
        {"temperature_K": (0, 1000)},
    ),
    "vibrations": (f"N2.xyz {EMT_WORDS}", {"frequency_per_cm": (500, 3000)}),
    "surface": (f"Cu.cif --thicknesses 4 8 --relax fixed {EMT_WORDS}", {"surface_energy_J_per_m2": (0.5, 2)}),
    "vacancy": (f"Cu.cif --lengths 4 6 --relax fixed {EMT_WORDS}", {"energy_eV": (0.5, 2)}),
    "neb": (
        f"initial.extxyz --final final.extxyz --images 3 --fmax 0.1 {EMT_WORDS}",
        {"energy_eV": (-1, 20)},
    ),
    "screen": (f"a.cif b.cif {EMT_WORDS}", {"energy (eV)": (-1, 1)}),
    "serve": ("water.extxyz --model student.safetensors", {}),
    "train": (f"--preset dpa1-l0 {TRAIN} --output runs/train", {"step": (0, 4)}),
    "finetune": (f"--model model.safetensors {TRAIN} --output runs/mine", {"step": (0, 4)}),
    "distill": ("distil.toml", {}),
    "learn": ("ethanol.toml", {}),
    "uncertainty": ("model.safetensors --data train.extxyz", {"scale_eV": (0, 1e6)}),
    "compress": ("student.safetensors", {}),
    "convert": ("model.pt converted.safetensors", {}),
}
NEED_OTHERS = ("lammps", "serve", "distill", "learn")  # an engine, a program on a socket, minutes


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    write_example_files(folder)
    write(folder / "N2.xyz", molecule("N2"))
    frames = rattled(bulk("Cu", cubic=True) * (2, 2, 2), 12, 0.05)
    write(folder / "cu.traj", frames)
    return folder


def verb_parser(verb):
    return build_parser(verb)._subparsers._group_actions[0].choices[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_writes_its_numbers(verb, files, tmp_path, monkeypatch, capsys):
    words, known = CALLS[verb]
    actions = verb_parser(verb)._option_string_actions
    assert "--json" in actions and ("--csv" in actions) == (
        verb not in ("lammps", "serve", "compress", "convert")
    )
    if verb in NEED_OTHERS:
        return
    if verb == "phonons":
        pytest.importorskip("phonopy")
    monkeypatch.chdir(files)
    flag = actions["--json"].nargs == 0
    line = [verb, *words.split(), "--json", *([] if flag else [str(tmp_path / "x.json")])]
    line += ["--csv", str(tmp_path / "x.csv")] if "--csv" in actions else []
    main(line)
    text = capsys.readouterr()
    whole = text.out if flag else (tmp_path / "x.json").read_text()
    found = json.loads(whole, parse_constant=lambda word: 1 / 0)
    assert found["provenance"]["command"] == ["dpa2calc", *line] and found["provenance"]["dpa2calc"]
    assert len(found["fields"]) > 80 and ("values" in found) != flag
    if "--csv" in actions:
        rows = list(csv.DictReader((tmp_path / "x.csv").open()))
        assert rows
        for name, (low, high) in known.items():
            values = [float(row[name]) for row in rows if row[name]]
            assert values and low <= min(values) and max(values) <= high, (name, values)


def test_values_units_and_provenance(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("Cu.extxyz", bulk("Cu"))
    words = f"eos Cu.extxyz --relax fixed {EMT_WORDS} --json eos.json --csv deep/eos.csv"
    assert main(words.split()) == 0
    atoms = with_emt(bulk("Cu"))
    result = equation_of_state(atoms, relax="fixed", progress=False)
    found = json.loads(Path("eos.json").read_text())
    assert found["result"] == "EquationOfState"
    assert "`bulk_modulus` GPa" in found["fields"] and "eV" in found["fields"]
    assert found["values"]["bulk_modulus"] == pytest.approx(result.bulk_modulus, rel=1e-9)
    assert found["provenance"]["calculator"] == "EMT"
    assert found["provenance"]["identity"]["structure"]["formula"] == "Cu"
    assert "provenance" not in found["values"]
    table = np.genfromtxt("deep/eos.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["volume_A3"], result.volumes, rtol=1e-12)
    np.testing.assert_allclose(table["energy_eV"], result.energies, rtol=1e-9)


def test_a_name_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", bulk("Cu"))
    Path("file").write_text("")
    monkeypatch.setattr(EMT, "calculate", lambda *_, **__: pytest.fail("work was done"))
    for option in ("--json", "--csv"):
        assert main(["eos", "Cu.cif", "--calculator", "emt", option, "file/x"]) == 1
        assert "file is a file, not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "evaluate a.extxyz --calculator emt --csv a.extxyz",
        "evaluate *.extxyz --calculator emt --json ./a.extxyz",
        "relax a.extxyz@0 --calculator emt --out a.extxyz",
        "rdf a.extxyz --pairs Cu-Cu --data a.extxyz",
        "rdf a.traj --pairs Cu-Cu --reference a.extxyz --data a.extxyz",
        "map A=a.extxyz --csv a.extxyz",
        "eos a.extxyz --calculator emt --config a.toml --json a.toml",
    ],
)
def test_what_is_read_is_not_written_over(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.toml").write_text("points = 5\n")
    for name in ("a.extxyz", "a.traj"):
        write(name, bulk("Cu", cubic=True))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(words.split()) == 1
    assert f"{words.split()[-1]} is read, and would be written over" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rounds_of_a_distillation_are_a_table():
    errors = Errors(
        n_frames=3,
        n_atoms=9,
        energy_rmse=1.5,
        energy_mae=1.0,
        force_rmse=50.0,
        force_mae=40.0,
        virial_rmse=2.0,
    )
    one = DistillRound(
        number=1, threshold=0.2, trained_on=5, trajectories=2, cut=0, explored=3, errors=errors,
        deviations=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), accurate=1, over=2, exploded=0, added=2,
    )  # fmt: skip
    table = rounds_to_table([one], "deviations")
    assert table["errors.force_rmse_meV_per_A"] == [50.0] and table["errors.virial_rmse_meV_per_atom"] == [
        2.0
    ]
    assert table["deviation_50_percent_eV_per_A"] == [0.3] and table["threshold_eV_per_A"] == [0.2]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_calls_the_one_writer(verb):
    source = inspect.getsource(importlib.import_module(f"dpa2calc.cli.verbs.{VERBS[verb][0]}"))
    writers = ("write_values", "write_result", "report", "finish", "run_rounds")
    assert any(f"{name}(" in source for name in writers)


def test_the_table_of_elastic_constants_is_what_is_shown(tmp_path, monkeypatch, capsys):
    """A file may hold the crystal turned: the table has C11, C12 and C44 of the crystal's own axes too."""
    monkeypatch.chdir(tmp_path)
    atoms = bulk("Cu")
    atoms.rotate(35, (1, 2, 3), rotate_cell=True)
    write("turned.extxyz", atoms)
    assert main(f"elastic turned.extxyz {EMT_WORDS} --csv c.csv --json c.json".split()) == 0
    shown = dict(re.findall(r"^  (C\d\d) +([\d.]+)", capsys.readouterr().out, flags=re.M))
    table = np.genfromtxt("c.csv", delimiter=",", names=True)
    found = {f"C{row['i']:.0f}{row['j']:.0f}": row for row in table}
    assert {name: f"{found[name]['C_GPa']:.2f}" for name in shown} == shown and set(shown) == {
        "C11",
        "C12",
        "C44",
    }
    assert abs(found["C11"]["C_in_frame_of_file_GPa"] - found["C11"]["C_GPa"]) > 10
    tensor = np.array(json.loads(Path("c.json").read_text())["values"]["tensor"])
    np.testing.assert_allclose(table["C_in_frame_of_file_GPa"], tensor[np.triu_indices(6)], rtol=1e-12)
