"""The verbs `relax` and `phase-transition` from a structure file to their results."""

import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read

from dpa2calc.applications import PhaseTransition, RelaxResult
from dpa2calc.cli.main import main


@pytest.fixture
def copper_file(tmp_path):
    path = tmp_path / "cu.cif"
    bulk("Cu", cubic=True, a=3.7).write(path)
    return str(path)


def test_relax_writes_the_structure_and_its_numbers(copper_file, tmp_path, capsys):
    out = tmp_path / "relaxed.cif"
    words = f"relax --structure {copper_file} --calculator emt --out {out} --relax cell"
    assert main(words.split()) == 0
    captured = capsys.readouterr()
    assert "relaxation of Cu4 (4 atoms, cell relaxed): converged" in captured.out
    assert "fmax=" in captured.err and captured.err.count("\n") == 1  # no terminal: how it ended
    assert read(out).cell.lengths() == pytest.approx([3.59] * 3, abs=0.005)
    result = RelaxResult.load(tmp_path / "relaxed.relax.npz")
    assert np.allclose(result.cell, read(out).cell, atol=1e-4)
    assert (tmp_path / "relaxed.relax.png").stat().st_size > 5000


def test_relax_writes_fixed_atoms_and_masses_as_it_read_them(tmp_path):
    copper = bulk("Cu", cubic=True, a=3.7)
    copper.rattle(0.05, seed=0)
    copper.set_constraint(FixAtoms([0]))
    copper.set_masses([65.0] * 4)
    copper.write(tmp_path / "in.extxyz", columns=["symbols", "positions", "masses", "move_mask"])
    out = tmp_path / "out.extxyz"
    assert main(["relax", str(tmp_path / "in.extxyz"), "--calculator", "emt", "--out", str(out)]) == 0
    found = read(out)
    assert found.constraints[0].index.tolist() == [0] and found.get_masses() == pytest.approx([65.0] * 4)


def test_relax_errors_are_one_line(copper_file, tmp_path, capsys):
    base = ["relax", "--structure", copper_file, "--calculator", "emt", "--no-progress"]
    assert main([*base, "--out", str(tmp_path / "x.nothing")]) == 1
    assert "x.nothing: ASE writes no format of that name" in capsys.readouterr().err
    assert main([*base, "--out", str(tmp_path / "x.pwi")]) == 1  # asks for pseudopotentials
    error = capsys.readouterr().err
    assert "x.pwi: ASE cannot write this structure in this format" in error and error.count("\n") == 1
    assert list(tmp_path.glob("x*")) == []
    assert main([*base, "--out", str(tmp_path / "x.cif"), "--fmax", "-1"]) == 1
    assert capsys.readouterr().err == "dpa2calc relax: --fmax must be a positive number, got -1.0\n"


def test_relax_that_does_not_converge_returns_1(copper_file, tmp_path, capsys):
    base = ["relax", "--structure", copper_file, "--calculator", "emt", "--relax", "cell", "--max-steps", "1"]
    with pytest.warns(UserWarning, match="not converged in 1 steps"):
        assert main([*base, "--out", str(tmp_path / "x.cif"), "--no-progress"]) == 1
    assert "dpa2calc relax: not converged" in capsys.readouterr().err


def test_phase_transition_writes_its_scan_and_figures(copper_file, tmp_path, capsys):
    out = tmp_path / "scan"
    words = f"phase-transition --structure {copper_file} --calculator emt"
    words += " --picoseconds 0.1 --timestep 2 --heating-only --sample-interval 1 --cell-motion volume"
    words += f" --temperatures 100:500:100 --out {out}"
    assert main([*words.split(), "--no-progress"]) == 0
    text = capsys.readouterr().out
    assert "temperature scan of Cu4 (4 atoms) at 0 GPa" in text and "no step between 100 and 500 K" in text
    result = PhaseTransition.load(out / "scan.npz")
    assert np.array_equal(result.target, [100, 200, 300, 400, 500])
    assert np.allclose(result.lengths[:, :, 0], 3.6, atol=0.1)
    for name in ("order", "lattice", "heat-capacity"):
        assert (out / f"{name}.png").stat().st_size > 5000
