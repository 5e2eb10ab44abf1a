"""A run that stops, by plan, by Ctrl-C or by a kill, goes on to the same bits."""

import json

import numpy as np
import pytest
from ase.io import read

from dpa2calc.applications import run_md
from dpa2calc.errors import ConfigError, DataError

RUNS = {
    "nve": {"ensemble": "nve"},
    "langevin": {"thermostat": "langevin"},
    "bussi": {"thermostat": "bussi"},
    "nose-hoover": {"thermostat": "nose-hoover"},
    "npt": {"ensemble": "npt", "pressure_gpa": 1.0},
    "npt-axes": {"ensemble": "npt", "cell_motion": "axes"},
    "npt-full": {"ensemble": "npt", "cell_motion": "cell"},
    "ramp": {"thermostat": "nose-hoover", "temperature": (200, 500), "ramp_steps": 60},
    "npt-ramp": {"ensemble": "npt", "temperature": (200, 500), "pressure_gpa": (0, 2), "ramp_steps": 60},
}
BASE = {
    "timestep_fs": 3.0,
    "sync_interval": 20,
    "log_interval": 5,
    "trajectory_interval": 8,
    "restart_seconds": 1e9,  # only at the end, and when stopped
    "seed": 11,
    "progress": False,
}


def files(folder, suffix="traj"):
    return {
        "trajectory": folder / f"run.{suffix}",
        "log": folder / "run.csv",
        "restart": folder / "run.npz",
    }


def assert_same(one, two):
    for name in ("positions", "momenta", "cell", "step", "temperature", "potential_energy", "volume"):
        assert np.array_equal(getattr(one, name), getattr(two, name), equal_nan=True), name
    assert np.array_equal(one.conserved_energy, two.conserved_energy, equal_nan=True)
    first, second = read(one.trajectory, ":"), read(two.trajectory, ":")
    assert [frame.info["step"] for frame in first] == [frame.info["step"] for frame in second]
    for a, b in zip(first, second):
        assert np.array_equal(a.positions, b.positions) and np.array_equal(a.get_forces(), b.get_forces())
        assert np.array_equal(a.get_momenta(), b.get_momenta()) and np.array_equal(a.cell, b.cell)


@pytest.fixture
def folders(tmp_path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    return tmp_path / "whole", tmp_path / "parts"


@pytest.mark.parametrize("name", RUNS)
def test_continuing_repeats_every_bit(copper, folders, name):
    """EMT keeps a neighbour list for some steps, as the fast calculators do."""
    options = {**BASE, **RUNS[name]}
    whole = run_md(copper((1, 1, 1)), steps=110, **options, **files(folders[0]))
    for steps in (13, 40, 53, 110):  # before the first synchronised step, at one, between two, the end
        parts = run_md(copper((1, 1, 1)), steps=steps, **options, **files(folders[1]))
    assert parts.n_steps == 110 and parts.status == "finished"
    assert_same(whole, parts)
    assert (folders[0] / "run.csv").read_bytes() == (folders[1] / "run.csv").read_bytes()


def test_a_calculator_with_a_memory_gives_the_same_bits(soft_spheres, remembering, folders):
    options = {**BASE, "thermostat": "bussi", "temperature": 200}
    results = []
    for folder, stages in zip(folders, [(95,), (33, 60, 95)]):
        for steps in stages:
            result = run_md(soft_spheres(remembering()), steps=steps, **options, **files(folder, "extxyz"))
        results.append(result)
    assert_same(*results)
    assert (folders[0] / "run.extxyz").read_bytes() == (folders[1] / "run.extxyz").read_bytes()


@pytest.mark.parametrize("name", ["langevin", "npt"])
def test_ctrl_c_leaves_a_restart_that_repeats_every_bit(soft_spheres, remembering, folders, name):
    options = {**BASE, **RUNS[name], "temperature": 200}
    whole = run_md(soft_spheres(remembering()), steps=90, **options, **files(folders[0]))
    broken = soft_spheres(remembering())
    broken.calc.break_at = broken.calc.total + 57
    with pytest.raises(KeyboardInterrupt):
        run_md(broken, steps=90, **options, **files(folders[1]))
    assert_same(whole, run_md(soft_spheres(remembering()), steps=90, **options, **files(folders[1])))


def test_a_finished_run_is_not_run_again(copper, folders):
    options = {**BASE, "temperature": 300}
    first = run_md(copper(), steps=40, **options, **files(folders[0]))
    again = run_md(copper(), steps=40, **options, **files(folders[0]))
    assert_same(first, again)
    assert np.isnan(again.ns_per_day)


def test_the_restart_file_is_no_pickle(copper, folders):
    run_md(copper(), steps=20, **BASE, **RUNS["npt"], **files(folders[0]))
    with np.load(folders[0] / "run.npz", allow_pickle=False) as stored:
        assert all(stored[name].dtype.kind in "fiubU" for name in stored.files)
        assert json.loads(str(stored["__json__"]))["rng"]["bit_generator"] == "PCG64"
    assert not list(folders[0].glob("*.part"))


def test_what_does_not_fit_is_refused(copper, folders):
    paths = files(folders[0])
    run_md(copper(), steps=40, **BASE, **paths)
    with pytest.raises(
        ConfigError, match=r"made with timestep_fs=3.0, this run asks for 2.0; give timestep_fs=3"
    ):
        run_md(copper(), steps=50, **{**BASE, "timestep_fs": 2.0}, **paths)
    with pytest.raises(
        ConfigError, match="already at step 40; steps is the total, so give at least that, not 30"
    ):
        run_md(copper(), steps=30, **BASE, **paths)
    with pytest.raises(
        DataError, match=r"holds 8 atoms that are not these 4 \(Cu4\); give the atoms of the first"
    ):
        run_md(copper((1, 1, 1)), steps=50, **BASE, **paths)
    saved = paths["log"].read_text()
    paths["log"].write_text(saved[:20])
    with pytest.raises(
        DataError, match=r"run\.csv has 20 bytes, but the restart file was written when it had"
    ):
        run_md(copper(), steps=50, **BASE, **paths)
    paths["log"].write_text(saved)
    paths["trajectory"].unlink()
    with pytest.raises(
        DataError, match=r"run\.traj is missing, but the restart file was written when it had 6"
    ):
        run_md(copper(), steps=50, **BASE, **paths)
    paths["restart"].write_bytes(b"something else")
    with pytest.raises(DataError, match=r"run\.npz is not a restart file of run_md"):
        run_md(copper(), steps=50, **BASE, **paths)


def test_a_ramp_keeps_its_length(copper, folders):
    options = {**BASE, "temperature": (200, 400)}
    run_md(copper(), steps=40, **options, **files(folders[0]))
    with pytest.raises(
        ConfigError, match="made with ramp_steps=40, this run asks for 80; give ramp_steps=40"
    ):
        run_md(copper(), steps=80, **options, **files(folders[0]))
    result = run_md(copper(), steps=80, ramp_steps=40, **options, **files(folders[0]))
    assert result.target_temperature[-1] == 400 and result.n_steps == 80
