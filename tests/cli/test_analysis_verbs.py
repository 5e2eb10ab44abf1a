"""The verbs rdf, adf, diffusion and map: from a file to numbers and a figure in one line."""

import json
import os
import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from emt_cases import rattled

from dpa2calc.cli.main import main
from dpa2calc.cli.verbs.trajectories.map import _group_and_file


@pytest.fixture
def copper(tmp_path) -> str:
    frames = rattled(bulk("Cu", "fcc", a=3.61, cubic=True) * (2, 2, 2), 12, 0.08)
    write(tmp_path / "cu.extxyz", frames)
    return str(tmp_path / "cu.extxyz")


def lithium(path, coefficient: float, seed: int) -> str:
    """Random walkers in a still sulphur lattice, wrapped; D in Å²/ps, frames every 100 fs."""
    rng = np.random.default_rng(seed)
    atoms = Atoms("Li12S12", positions=rng.random((24, 3)) * 8, cell=[8, 8, 8], pbc=True)
    frames = []
    for k in range(400):
        atoms.positions[:12] += rng.normal(size=(12, 3)) * np.sqrt(2 * coefficient * 0.1)
        frames.append(atoms.copy())
        frames[-1].wrap()
        frames[-1].info["time_fs"] = 100.0 * k
    write(path, frames)
    return str(path)


def test_rdf_of_copper(copper, tmp_path, capsys) -> None:
    words = ["rdf", copper, "--pairs", "Cu-Cu", "--r-max", "4.8", "--start", "2", "--step", "2"]
    words += ["--blocks", "5", "--reference", copper, "--quiet"]
    figure, table = tmp_path / "deep" / "rdf.png", tmp_path / "rdf.dat"
    assert main([*words, "--figure", str(figure), "--data", str(table)]) == 0
    out = capsys.readouterr().out
    assert "g_Cu-Cu(r): 5 frames, errors from 5 blocks" in out and "12.000 ± 0.000 Cu within it" in out
    assert "against reference: first peak shifted by" in out
    assert figure.read_bytes().startswith(b"\x89PNG")
    numbers = np.loadtxt(table)
    assert numbers.shape == (96, 5) and numbers[-1, 3] == pytest.approx(42, abs=1)
    assert table.read_text().startswith("# r_A  g_Cu-Cu  error_g_Cu-Cu")


def test_adf_of_copper(copper, tmp_path, capsys) -> None:
    figure, table = tmp_path / "adf.png", tmp_path / "adf.dat"
    words = ["adf", copper, "--triplet", "Cu-Cu-Cu", "--figure", str(figure), "--data", str(table), "--quiet"]
    assert main([*words, "--reference", copper]) == 0
    out = capsys.readouterr().out
    assert "66.000 per Cu" in out and "0.00 % of the angles differ" in out
    assert figure.read_bytes().startswith(b"\x89PNG") and np.loadtxt(table).shape == (181, 3)
    assert main([*words, "--cutoff", "3", "3", "3"]) == 1
    assert "--cutoff has 3 numbers" in capsys.readouterr().err


def test_diffusion_refuses_lags_before_it_writes(tmp_path, capsys) -> None:
    words = [
        "diffusion",
        lithium(tmp_path / "a.traj", 0.1, 1),
        "--figure",
        str(tmp_path / "d.png"),
        "--quiet",
    ]
    assert main([*words, "--van-hove", "1", "100"]) == 1
    assert "--van-hove = [1.0, 100.0]: each must be from 0.1 ps" in capsys.readouterr().err
    for lag in ("-1", "nan"):  # before the trajectory is read
        assert main([*words, "--van-hove", "1", lag]) == 1
        assert f"--van-hove is [1.0, {float(lag)}]; give times above 0 ps" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["a.traj"]


def test_diffusion_at_two_temperatures(tmp_path, capsys) -> None:
    files = [lithium(tmp_path / f"{k}.traj", d, k) for k, d in enumerate((0.1, 0.4))]
    words = "--temperature 500 700 --charge 1 --fit 0.2 2 --van-hove 0.5 2 --quiet"
    words += f" --json {tmp_path}/d.json --figure {tmp_path}/d.pdf"
    words += f" --map {tmp_path}/li.cube --save {tmp_path}/fit.npz"
    assert main(["diffusion", *files, *words.split()]) == 0
    out = capsys.readouterr().out
    cold, hot = (float(value) for value in re.findall(r"tracer D\s+([\d.]+)", out))
    assert cold == pytest.approx(0.1, rel=0.3) and hot == pytest.approx(0.4, rel=0.3)
    energy = float(re.search(r"activation energy\s+([\d.]+)", out).group(1))
    assert energy == pytest.approx(np.log(4) * 8.617e-5 / (1 / 500 - 1 / 700), abs=0.06)
    assert "mS/cm (tracer)" in out
    assert "van Hove" in out
    told = json.loads((tmp_path / "d.json").read_text())["values"]["van_hove"]
    assert told["time"] == pytest.approx([0.5, 2.0]) and len(told["self_part"][0]) == len(told["r"])
    for name in ("d.pdf", "d-van-hove.pdf", "li.cube", "fit.npz"):
        assert (tmp_path / name).stat().st_size > 1000
    # thinning the file must not change the time axis
    words = f"diffusion {files[0]} --step 2 --interval-fs 100 --figure {tmp_path}/e.png --quiet"
    assert main(words.split()) == 0
    assert "200 frames, 39.8 ps" in capsys.readouterr().out


def test_map_of_two_groups(copper, tmp_path, capsys) -> None:
    words = f"map a={copper} b={copper} --calculator emt --figure {tmp_path}/map.png --quiet"
    assert main(words.split()) == 1
    assert "EMT has no get_descriptors(atoms)" in capsys.readouterr().err
    assert main(["map", copper, copper, "--calculator", "emt", "--quiet"]) == 1
    assert "is named twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "group", "file"),
    [
        ("T=300/a.traj", "", "T=300/a.traj"),
        ("liquid=T=300/a.traj", "liquid", "T=300/a.traj"),
        ("T=300=b.traj", "T=300", "b.traj"),
        ("b.traj", "", "b.traj"),
        ("ice=none.traj", "ice", "none.traj"),
        ("none.traj", "", "none.traj"),
    ],
)
def test_signs_in_the_names_of_groups_and_folders(word, group, file, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "T=300").mkdir()
    for name in ("T=300/a.traj", "b.traj"):
        (tmp_path / name).write_text("")
    assert _group_and_file(word) == (group, file)


def test_map_draws_and_writes_the_page(copper, tmp_path, capsys, monkeypatch) -> None:
    class Describer:
        def get_descriptors(self, atoms: Atoms) -> np.ndarray:
            return np.concatenate([atoms.positions, atoms.get_scaled_positions()], axis=1)

    monkeypatch.setattr("dpa2calc.cli.verbs.trajectories.map.make_calculator", lambda args: Describer())
    outputs = ["--figure", str(tmp_path / "map.png"), "--html", str(tmp_path / "map.html")]
    outputs += ["--chemiscope", str(tmp_path / "map.json")]
    assert main(["map", copper, *outputs, "--stop", "2", "--no-tsne", "--quiet"]) == 0
    assert "map of 64 atoms (of 64), descriptors of 6 numbers" in capsys.readouterr().out
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert "Cu:Cu12" in (tmp_path / "map.html").read_text()
    assert len(json.loads((tmp_path / "map.json").read_text())["environments"]) == 64
