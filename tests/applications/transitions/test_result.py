"""Temperature scans from made frames and made stages, where every number is known beforehand."""

import numpy as np
import pytest
from ase import units
from ase.io.trajectory import Trajectory

from dpa2calc.applications import MDResult, PhaseTransition, find_cages, perovskite
from dpa2calc.applications.transitions.stage import Stage, measure_stage
from dpa2calc.errors import ConfigError

REPEATS = np.array([2, 2, 2])


def made_run(path, *, shift, lengths, n_frames=60, noise=0.01, seed=0):
    """A run whose frames are known: cells of `lengths`, Ti moved by `shift` off centre, noise, wrapped."""
    rng = np.random.default_rng(seed)
    ideal = perovskite("Pb", "Ti", repeats=(2, 2, 2), lattice_constant=4.0)
    titanium = ideal.symbols == "Ti"
    with Trajectory(path, "w") as writer:
        for k in range(n_frames):
            frame = ideal.copy()
            frame.set_cell(np.diag(REPEATS * lengths), scale_atoms=True)
            frame.positions[titanium] += shift
            frame.positions += (
                rng.normal(0, noise, frame.positions.shape) + 0.4 * k
            )  # drifts through the cell
            frame.wrap()
            frame.info.update(step=k, time_fs=10.0 * k)
            writer.write(frame)
    time = 10.0 * np.arange(n_frames)
    flat = np.ones(n_frames)
    energy = -100 + 0.5 * np.sign(np.arange(n_frames) % 2 - 0.5)  # variance 0.25 eV²
    result = MDResult(
        status="finished", reason="", config={"pressure_gpa": 1.0}, n_atoms=len(ideal), n_steps=n_frames,
        step=np.arange(n_frames), time_fs=time, potential_energy=energy, kinetic_energy=0 * flat,
        total_energy=energy, conserved_energy=energy, temperature=300 * flat, target_temperature=300 * flat,
        pressure=0 * flat, volume=np.prod(REPEATS * lengths) * flat, max_force=flat, max_force_std=flat,
        numbers=ideal.numbers, positions=ideal.positions, momenta=0 * ideal.positions,
        cell=np.diag(REPEATS * lengths), pbc=ideal.pbc, ns_per_day=1.0, trajectory=str(path),
    )  # fmt: skip
    return result, find_cages(ideal, "Ti", "O", 6)


def test_a_stage_measures_what_was_put_into_its_frames(tmp_path):
    lengths, shift = np.array([4.1, 3.9, 3.9]), np.array([-0.2, 0.0, 0.0])
    run, cages = made_run(tmp_path / "a.traj", shift=shift, lengths=lengths)
    stage = measure_stage(run, "heating", 300.0, cages, REPEATS, skip=0.4)
    assert stage.n_frames == 36  # 0.4 of 590 fs are left out
    assert stage.lengths[:, 0] == pytest.approx(lengths, abs=1e-6)
    assert stage.angles[:, 0] == pytest.approx([90] * 3)
    assert stage.tetragonality[0] == pytest.approx(4.1 / 3.9, abs=1e-6)
    assert stage.displacement[:, 0] == pytest.approx(shift, abs=3e-3)
    assert stage.direction == "[-1 0 0]"
    assert stage.polar[0] == pytest.approx(0.2, abs=3e-3) and stage.local[0] == pytest.approx(0.2, abs=5e-3)
    assert stage.volume[0] == pytest.approx(8 * lengths.prod())
    assert stage.enthalpy[0] == pytest.approx(-100 + 1.0 * units.GPa * 8 * lengths.prod())
    assert stage.enthalpy_variance == pytest.approx(0.25)


def test_flattened_cells_and_random_displacements_are_told_apart(tmp_path):
    run, cages = made_run(
        tmp_path / "a.traj", shift=np.zeros(3), lengths=np.array([4.0, 4.0, 3.8]), noise=0.1
    )
    stage = measure_stage(run, "heating", 300.0, cages, REPEATS, skip=0.0)
    assert stage.tetragonality[0] == pytest.approx(0.95, abs=1e-6)  # the unique axis is the short one
    assert stage.direction == "none" and stage.local[0] > 2 * stage.polar[0]


def test_too_few_frames_are_refused(tmp_path):
    run, cages = made_run(tmp_path / "a.traj", shift=np.zeros(3), lengths=np.full(3, 4.0), n_frames=22)
    with pytest.raises(ConfigError, match="only 13 frames are left of the stage at 300 K, at least 20"):
        measure_stage(run, "heating", 300.0, cages, REPEATS, skip=0.4)


def made_stages(up=700.0, down=600.0, latent=2.0, ratio=4.1 / 3.9):
    """First-order: order parameter 0.3 below the transition and 0.02 above; latent heat in eV per cell."""
    stages = []
    grid = np.arange(300.0, 1001.0, 50.0)
    for branch, temperatures, at in (("heating", grid, up), ("cooling", grid[::-1], down)):
        for t in temperatures:
            cold = t < at
            polar = 0.3 if cold else 0.02
            enthalpy = 100 * 3 * units.kB * t + (0.0 if cold else latent)
            stages.append(
                Stage(
                    branch=branch, target=t, temperature=(t, 1.0), enthalpy=(enthalpy, 0.01),
                    enthalpy_variance=100 * 3 * (units.kB * t) ** 2, volume=(1600.0, 1.0),
                    lengths=np.array([[3.9, 0.01], [3.9, 0.01], [3.9 * ratio if cold else 3.9, 0.01]]),
                    angles=np.full((3, 2), 90.0), tetragonality=(ratio if cold else 1.0, 0.002),
                    displacement=np.array([[0, 0.01], [0, 0.01], [polar, 0.01]]), polar=(polar, 0.01),
                    local=(0.3, 0.01), direction="[0 0 1]" if cold else "none", n_frames=50,
                )
            )  # fmt: skip
    return stages


def collected(centre="Ti", **options):
    return PhaseTransition.from_stages(
        made_stages(**options), n_atoms=100, formula="PbTiO3", centre=centre, pressure_gpa=0.0
    )


# by displacement, and by c/a of cells that are long or short along c
@pytest.mark.parametrize(("centre", "ratio"), [("Ti", 4.1 / 3.9), ("", 4.1 / 3.9), ("", 0.95)])
def test_hysteresis_of_a_first_order_transition(centre, ratio):
    result = collected(centre, ratio=ratio)
    gap, error = result.hysteresis()
    assert gap == pytest.approx(100.0, abs=1e-6) and error < 30
    whole = result.transition()
    assert whole.temperature == pytest.approx(625.0, abs=1e-6)  # the middle of the two jumps' intervals
    assert whole.error > 50  # half the hysteresis is part of it
    for branch, middle in (("heating", 675.0), ("cooling", 575.0)):
        assert result.steps[branch]["temperature"] == pytest.approx(middle, abs=1e-6)
        assert result.steps[branch]["error"] == pytest.approx(50 / np.sqrt(12), rel=0.2)


def test_latent_heat_stands_out_of_the_heat_capacity():
    result = collected(latent=2.0)
    up = result.on("heating")
    capacity, grid = result.heat_capacity[up, 0], result.target[up]
    quiet = (grid < 600) | (grid > 750)
    assert capacity[quiet] == pytest.approx(3.0)
    peak = 3.0 + 2.0 / 100 / (units.kB * 100)  # the latent heat spread over two intervals of 50 K
    assert capacity[(grid == 650) | (grid == 700)] == pytest.approx(peak)
    assert result.heat_capacity_fluctuation == pytest.approx(3.0)


def test_one_branch_only_has_no_hysteresis():
    stages = [stage for stage in made_stages() if stage.branch == "heating"]
    result = PhaseTransition.from_stages(stages, n_atoms=100, formula="PbTiO3", centre="Ti", pressure_gpa=0.0)
    assert np.isnan(result.hysteresis()).all()
    assert result.transition().temperature == pytest.approx(675.0)
    assert "hysteresis" not in result.summary()


def test_nothing_happens_in_the_range():
    result = collected(up=2000.0, down=2000.0)
    assert np.isnan(result.transition().temperature)
    assert "no step between 300 and 1000 K" in result.transition().reason
    assert "no step between 300 and 1000 K" in result.summary()
    assert "transition         not determined: no step between" in result.summary()


def test_step_that_does_not_come_back_is_no_transition():
    result = collected(down=200.0)
    assert result.steps["heating"]["temperature"] == pytest.approx(675.0, abs=1e-6)
    whole = result.transition()
    assert np.isnan(whole.temperature) and "on cooling, but one on the other branch" in whole.reason
    assert "transition         not determined: no step" in result.summary()


def noisy_scan(seed, *, noise, claimed, grid, step=0.0):
    """A scan up and down whose points scatter by `noise` and claim errors of `claimed`."""
    rng, stages = np.random.default_rng(seed), []
    for branch, temperatures in (("heating", grid), ("cooling", grid[::-1])):
        for t in temperatures:
            polar = float(0.1 + step * (t < grid.mean()) + noise * rng.normal())
            stages.append(
                Stage(
                    branch=branch, target=t, temperature=(t, 1.0), enthalpy=(t / 1000, 0.01),
                    enthalpy_variance=1.0, volume=(1600.0, 1.0), lengths=np.full((3, 2), 4.0),
                    angles=np.full((3, 2), 90.0), tetragonality=(1.0, 0.01), displacement=np.zeros((3, 2)),
                    polar=(polar, claimed), local=(0.3, 0.01), direction="none", n_frames=50,
                )
            )  # fmt: skip
    return PhaseTransition.from_stages(stages, n_atoms=40, formula="PbTiO3", centre="Ti", pressure_gpa=0.0)


@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("claimed", [1.0, 0.5, 0.2])
def test_scan_of_noise_has_no_transition_and_a_true_step_has(n, claimed, monkeypatch):
    monkeypatch.setattr("dpa2calc.applications.transitions.step.SAMPLES", 5)
    grid = np.linspace(300.0, 700.0, n)
    options = {"noise": 0.01, "claimed": 0.01 * claimed, "grid": grid}
    quiet = [noisy_scan(seed, **options).transition().reason for seed in range(40)]
    found = [not noisy_scan(seed, step=0.2, **options).transition().reason for seed in range(40)]
    assert np.mean([bool(reason) for reason in quiet]) > 0.95 and np.mean(found) > 0.95
