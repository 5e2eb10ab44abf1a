"""The verb `md` from a structure file to its files, and its errors in one line."""

import argparse

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read

from dpa2calc.applications import MDResult
from dpa2calc.cli.arguments.structures import add_calculator_arguments, make_calculator
from dpa2calc.cli.main import main


@pytest.fixture
def copper_file(tmp_path):
    path = tmp_path / "cu.cif"
    bulk("Cu", cubic=True).write(path)
    return str(path)


def test_md_writes_everything_and_continues(copper_file, tmp_path, capsys):
    out = tmp_path / "run"
    words = f"md --structure {copper_file} --repeat 2 1 1 --calculator emt --out {out} --timestep 2"
    common = [*words.split(), "--temperature", "400", "--seed", "3", "--trajectory-interval", "10"]
    assert main([*common, "--steps", "20"]) == 0
    captured = capsys.readouterr()
    assert "NVT molecular dynamics, 8 atoms, 20 steps of 2.0 fs: finished" in captured.out
    assert main([*common, "--steps", "40", "--no-progress"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "log.csv", "md.png", "restart.npz", "result.npz", "trajectory.traj"
    ]  # fmt: skip
    assert [frame.info["step"] for frame in read(out / "trajectory.traj", ":")] == [0, 10, 20, 30, 40]
    result = MDResult.load(out / "result.npz")
    assert result.n_steps == 40 and result.temperature[0] == pytest.approx(400)
    assert np.array_equal(result.time_fs, [0, 20, 40, 60, 80])


def test_md_ramp_and_pressure_reach_the_run(copper_file, tmp_path, capsys):
    out = tmp_path / "run"
    words = f"md --structure {copper_file} --calculator emt --steps 10 --out {out} --no-progress"
    words += " --ensemble npt --temperature 200:400 --pressure 1.5 --cell-motion full"  # the earlier word
    with pytest.warns(FutureWarning, match="--cell-motion='full' is now --cell-motion='cell'"):
        assert main(words.split()) == 0
    config = MDResult.load(out / "result.npz").config
    assert config["temperature"] == (200.0, 400.0) and config["pressure_gpa"] == 1.5
    assert config["cell_motion"] == "cell"


def test_a_run_that_a_limit_stops_returns_1(copper_file, tmp_path, capsys):
    arguments = ["md", "--structure", copper_file, "--calculator", "emt", "--steps", "50", "--no-progress"]
    arguments += ["--temperature", "3000", "--force-limit", "0.05", "--out", str(tmp_path / "o")]
    with pytest.warns(UserWarning, match="over force_limit=0.05"):
        assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "stopped" in captured.out and "dpa2calc md: step" in captured.err


def test_tables_can_be_had_and_left_out():
    seen = []
    for words in (["--compress"], ["--no-compress"], []):
        parser = argparse.ArgumentParser()
        add_calculator_arguments(parser)
        options = parser.parse_args(["--model", "student-water", *words])
        seen.append("compressed" in make_calculator(options).parameters)
    assert seen == [True, False, True]
