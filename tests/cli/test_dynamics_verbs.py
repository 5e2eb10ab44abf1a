"""The verb `relax` from a structure file to the relaxed structure."""

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read

from dpa2calc.applications import RelaxResult
from dpa2calc.cli.main import main


@pytest.fixture
def copper_file(tmp_path):
    path = tmp_path / "cu.cif"
    bulk("Cu", cubic=True, a=3.7).write(path)
    return str(path)


def test_relax_writes_the_structure_and_its_numbers(copper_file, tmp_path, capsys):
    out = tmp_path / "relaxed.cif"
    arguments = [
        "relax",
        "--structure",
        copper_file,
        "--calculator",
        "emt",
        "--out",
        str(out),
        "--cell",
        "full",
    ]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "relaxation of Cu4 (4 atoms, cell full): converged" in captured.out
    assert "fmax=" in captured.err
    assert read(out).cell.lengths() == pytest.approx([3.59] * 3, abs=0.005)
    result = RelaxResult.load(tmp_path / "relaxed.relax.npz")
    assert np.allclose(result.cell, read(out).cell, atol=1e-4)
    assert (tmp_path / "relaxed.relax.png").stat().st_size > 5000


def test_relax_errors_are_one_line(copper_file, tmp_path, capsys):
    base = ["relax", "--structure", copper_file, "--calculator", "emt", "--no-progress"]
    assert main([*base, "--out", str(tmp_path / "x.nothing")]) == 1
    assert "x.nothing: ASE writes no format of that name" in capsys.readouterr().err
    assert main([*base, "--out", str(tmp_path / "x.cif"), "--fmax", "-1"]) == 1
    assert capsys.readouterr().err == "dpa2calc relax: fmax must be a positive number, got -1.0\n"


def test_relax_that_does_not_converge_returns_1(copper_file, tmp_path, capsys):
    base = ["relax", "--structure", copper_file, "--calculator", "emt", "--cell", "full", "--max-steps", "1"]
    with pytest.warns(UserWarning, match="not converged in 1 steps"):
        assert main([*base, "--out", str(tmp_path / "x.cif"), "--no-progress"]) == 1
    assert "dpa2calc relax: not converged" in capsys.readouterr().err
