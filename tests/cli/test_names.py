"""Output is named after the input, so that two structures in one folder do not meet."""

from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import read, write

from dpa2calc.cli.arguments.output import stem
from dpa2calc.cli.main import main


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("fcc.extxyz", "fcc"),
        ("a/water.extxyz.xz", "water"),
        ("Cu/POSCAR", "Cu-POSCAR"),
        ("Cu/CONTCAR.gz", "Cu-CONTCAR"),
        ("Cu/POSCAR.primitive", "Cu-POSCAR-primitive"),
        ("md/water/trajectory.traj", "water"),
        ("Cu/vasprun.xml", "Cu-vasprun"),
        ("1.2.cif", "1.2"),
        ("frames.extxyz@3", "frames-3"),
        ("frames.extxyz@-1", "frames--1"),
        ("name", "name"),
        ("Cu_a3.61", "Cu_a3.61"),
        ("Cu_a3.61.cif", "Cu_a3.61"),
        ("Cu_a3.61.cif.gz", "Cu_a3.61"),
        ("Cu_a3.34", "Cu_a3.34"),
        ("Cu.start", "Cu.start"),
        ("md/run.7/trajectory.extxyz", "run.7"),
        ("a.DB", "a"),
        ("run.1.lammpstrj", "run.1"),
        ("data.water", "data.water"),
        (".cif", ".cif"),
    ],
)
def test_names(file, name):
    assert stem(file) == name


@pytest.fixture
def polymorphs(tmp_path, monkeypatch):
    """Two crystals of one formula."""
    monkeypatch.chdir(tmp_path)
    fcc, hcp = bulk("Cu", cubic=True), bulk("Cu", "hcp", a=2.56, c=4.2).repeat((2, 1, 1))
    fcc.rattle(0.03, seed=1)
    write("fcc.extxyz", fcc)
    write("hcp.extxyz", hcp)


def test_polymorphs_are_relaxed_beside_each_other(polymorphs):
    for name in ("fcc", "hcp"):
        words = ["relax", f"{name}.extxyz", "--relax", "cell", "--fmax", "0.05", "--smax-gpa", "0.5"]
        assert main([*words, "--calculator", "emt", "--no-progress"]) == 0
    assert read("fcc-relaxed.extxyz").cell.lengths() == pytest.approx([3.59] * 3, abs=0.02)
    assert read("hcp-relaxed.extxyz").cell.lengths() == pytest.approx([5.08, 2.54, 4.14], abs=0.02)


@pytest.mark.parametrize(
    ("verb", "options", "results"),
    [
        ("eos", "--points 5 --relax fixed", ["eos/fcc/eos.npz", "eos/hcp/eos.npz"]),
        ("elastic", "--clamped-ions --relax fixed", ["elastic/fcc/elastic.npz", "elastic/hcp/elastic.npz"]),
        ("md", "--steps 2", ["md/fcc/result.npz", "md/hcp/result.npz"]),
    ],
)
def test_two_structures_in_one_folder(polymorphs, verb, options, results):
    for name in ("fcc", "hcp"):
        words = [verb, f"{name}.extxyz", *options.split(), "--calculator", "emt", "--no-progress"]
        assert main(words) == 0
    contents = [Path(result).read_bytes() for result in results]
    assert contents[0] != contents[1]


def test_dots_in_names_that_are_no_endings(polymorphs):
    for name in ("fcc", "hcp"):
        words = f"relax {name}.extxyz --fmax 0.5 --out CONTCAR.{name} --calculator emt --no-progress"
        assert main(words.split()) == 0
    assert all(
        Path(f"CONTCAR.{name}.relax.{end}").is_file() for name in ("fcc", "hcp") for end in ("npz", "traj")
    )


def test_frames_and_repeats_have_names_of_their_own(polymorphs):
    write("both.extxyz", [read("fcc.extxyz"), read("hcp.extxyz")])
    base = ["eos", "both.extxyz", "--points", "5", "--relax", "fixed", "--calculator", "emt", "--no-progress"]
    for options in (["--index", "0"], ["--index", "1", "--repeat", "2", "1", "1"]):
        assert main([*base, *options]) == 0
    assert {path.name for path in Path("eos").iterdir()} == {"both-0", "both-1-2x1x1"}


def test_out_decides_where_it_is_given(polymorphs):
    base = ["eos", "fcc.extxyz", "--points", "5", "--relax", "fixed", "--calculator", "emt", "--no-progress"]
    assert main([*base, "--out", "mine"]) == 0
    assert Path("mine/eos.npz").exists() and not Path("eos").exists()
