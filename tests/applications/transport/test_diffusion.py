"""Diffusion: random walks with known answers, coverage of the error bars, known correlations, errors."""

import dataclasses
import warnings

import numpy as np
import pytest
from ase import Atoms, units

from dpa2calc.applications import Diffusion, diffusion
from dpa2calc.applications.transport.diffusion import _Line
from dpa2calc.errors import ConfigError, DataError


def test_tracer_and_collective_of_independent_walkers(brownian_walk, paths_of) -> None:
    result = diffusion(paths_of(brownian_walk(4000, 60)), "Li", temperature=500.0)
    assert result.tracer == pytest.approx(0.1, abs=3 * result.tracer_error)
    assert result.tracer_error < 0.006
    assert result.collective == pytest.approx(0.1, abs=3 * result.collective_error)
    assert result.haven_ratio == pytest.approx(1.0, abs=3 * result.haven_ratio_error)
    assert np.all(np.abs(result.tracer_xyz - 0.1) < 4 * result.tracer_xyz_error)
    np.testing.assert_allclose(result.msd, 6 * 0.1 * result.time, rtol=0.1)
    assert result.linearity == pytest.approx(1.0, abs=0.1)


def test_a_few_other_atoms_of_a_liquid_are_no_framework(brownian_walk) -> None:
    """The mass centre of one solute walks as far as any atom: taken off, it would double D."""
    walk = brownian_walk(600, 40, seed=2)
    walk -= walk.mean(axis=1, keepdims=True)
    start = np.random.default_rng(0).random((40, 3)) * 9.0
    frames = [Atoms("Cu39Al", positions=start + moved, cell=[9.0] * 3, pbc=True) for moved in walk]
    result = diffusion(frames, "Cu", interval_fs=100.0)
    assert result.drift == "all" and result.tracer == pytest.approx(0.1, rel=0.1)
    assert diffusion(frames, "Al", interval_fs=100.0).drift == "framework"  # the solvent


@pytest.mark.parametrize("n_frames, n_atoms, replicas", [(400, 8, 300), (400, 1, 300), (1500, 32, 60)])
def test_error_bars_cover_the_truth(n_frames, n_atoms, replicas, brownian_walk, paths_of) -> None:
    """68 % intervals hold the truth in 55 to 80 % of the replicas, and their size is that of the scatter."""
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for seed in range(replicas):
            results.append(diffusion(paths_of(brownian_walk(n_frames, n_atoms, seed=seed)), "Li"))
    for name, truth in (("tracer", 0.1), ("collective", 0.1), ("haven_ratio", 1.0)):
        values = np.array([getattr(result, name) for result in results])
        errors = np.array([getattr(result, f"{name}_error") for result in results])
        known = np.isfinite(values)  # a few walks look bent by chance
        assert known.mean() > 0.95
        values, errors = values[known], errors[known]
        if name == "haven_ratio" and n_atoms == 1:
            np.testing.assert_allclose(values, 1.0)  # one ion has no one to be correlated with
            continue
        covered = np.mean(np.abs(values - truth) < errors)
        assert 0.55 < covered < 0.80, (name, covered)
        if name != "haven_ratio":  # a ratio of noisy numbers has long tails
            assert values.mean() == pytest.approx(truth, abs=4 * values.std() / np.sqrt(replicas))
            assert 0.8 < np.sqrt(np.mean(errors**2)) / values.std() < 1.6


def test_pymatgen_line_fit_error_would_be_far_too_small(brownian_walk, paths_of) -> None:
    """The error of a straight-line fit through one msd curve ignores that its points are correlated."""
    results = [diffusion(paths_of(brownian_walk(400, 8, seed=seed)), "Li") for seed in range(60)]
    scatter = np.std([result.tracer for result in results])
    line_fit = []
    for result in results:
        window = result.time >= result.fit[0]
        _, covariance = np.polyfit(result.time[window], result.msd[window], 1, cov=True)
        line_fit.append(np.sqrt(covariance[0, 0]) / 6)
    assert np.mean(line_fit) < 0.1 * scatter < 0.2 * np.mean([result.tracer_error for result in results])


def test_ions_that_move_together_have_a_small_haven_ratio(brownian_walk, paths_of) -> None:
    together = np.repeat(brownian_walk(6000, 12), 3, axis=1)  # groups of three in step
    result = diffusion(paths_of(together), "Li", fit=(0.5, 5.0))
    assert result.n_blocks == 20
    assert result.haven_ratio == pytest.approx(1 / 3, abs=3 * result.haven_ratio_error)
    assert result.haven_ratio_error < 0.1
    against = np.concatenate([brownian_walk(6000, 10), -brownian_walk(6000, 10)], axis=1)
    lone = brownian_walk(6000, 1, seed=9)
    result = diffusion(paths_of(np.concatenate([against, lone], axis=1)), "Li")
    assert result.haven_ratio > 5.0  # pairs that cancel carry no charge


def test_anisotropic_walk_and_vibrations_do_not_bias_the_slope(brownian_walk, paths_of) -> None:
    walk = brownian_walk(5000, 30) * np.sqrt([1.0, 1.0, 4.0])
    vibration = np.random.default_rng(5).normal(size=walk.shape) * 0.4  # rattles around its path
    result = diffusion(paths_of(walk + vibration), "Li")
    np.testing.assert_allclose(result.tracer_xyz, [0.1, 0.1, 0.4], atol=4 * result.tracer_xyz_error.max())
    assert result.tracer == pytest.approx(0.2, abs=4 * result.tracer_error)
    assert result.msd[0] > 6 * 0.4**2  # the constant is there, in the intercept


def test_nernst_einstein_in_si(brownian_walk, paths_of) -> None:
    paths = paths_of(brownian_walk(400, 8), length=20.0)
    result = diffusion(paths, "Li", temperature=300.0, charge=2.0)
    density = 8 / (20e-10) ** 3
    expected = density * (2 * units._e) ** 2 * result.tracer * 1e-8 / (units._k * 300.0)  # S/m
    assert result.conductivity == pytest.approx(10.0 * expected, rel=1e-6)
    assert result.collective_conductivity == pytest.approx(result.conductivity / result.haven_ratio)
    assert diffusion(paths, "Li", charge=2.0).conductivity is None
    assert diffusion(paths, "Li", temperature=300.0).conductivity is None  # never guess a charge
    slab = dataclasses.replace(paths, pbc=np.array([True, True, False]))
    with pytest.warns(UserWarning, match=r"no conductivity, .* pbc is \[True, True, False\]"):
        confined = diffusion(slab, "Li", temperature=300.0, charge=1.0)
    assert confined.conductivity is None
    assert "not periodic in all directions: D is the mean of x, y and z" in confined.summary()


def test_from_wrapped_frames_with_a_drifting_host(brownian_walk, frames_of) -> None:
    walk = brownian_walk(500, 10, coefficient=0.2)
    frames = frames_of(walk, np.array([[7.0, 0, 0], [2, 7, 0], [1, -2, 8]]))
    for k, atoms in enumerate(frames):
        atoms.positions += 0.1 * k
        atoms.wrap()
    result = diffusion(frames, "Li", interval_fs=100.0)
    assert result.tracer == pytest.approx(0.2, abs=4 * result.tracer_error)
    with pytest.warns(UserWarning, match="not linear"):  # ballistic drift
        assert np.isnan(diffusion(frames, "Li", interval_fs=100.0, drift="none").tracer)


def test_single_species_has_no_collective_motion(brownian_walk, frames_of) -> None:
    frames = [atoms[:20] for atoms in frames_of(brownian_walk(300, 20), 9.0 * np.eye(3))]
    result = diffusion(frames, "Li", interval_fs=100.0)
    assert result.drift == "all" and result.collective is None and result.haven_ratio is None
    # the mass centre of N walkers takes 1/N of the motion along
    assert result.tracer == pytest.approx(0.1 * 19 / 20, abs=4 * result.tracer_error)
    assert "stands still by definition" in result.summary()


def test_slope_equals_a_plain_loop(brownian_walk, paths_of) -> None:
    walk = brownian_walk(60, 3)
    result = diffusion(paths_of(walk), "Li", fit=(0.2, 0.6), n_blocks=2)
    origins = range(60 - 6)
    for k, lag in enumerate(range(1, 7)):
        naive = np.mean([np.sum((walk[t + lag] - walk[t]) ** 2, axis=-1) for t in origins])
        assert result.msd[k] == pytest.approx(naive)
        total = np.mean([np.sum((walk[t + lag] - walk[t]).sum(axis=0) ** 2) for t in origins]) / 3
        assert result.collective_msd[k] == pytest.approx(total)
    slope = np.polyfit(result.time[1:], result.msd[1:], 1)[0]
    assert result.tracer == pytest.approx(slope / 6)


def bent(kind: str, seed: int) -> np.ndarray:
    """Displacements (2000, 20, 3) whose mean-square displacement is not linear over the default window."""
    rng = np.random.default_rng(seed)
    if kind == "ballistic":  # free flight, 400 frames between collisions
        velocity = np.repeat(rng.normal(size=(5, 20, 3)), 400, axis=0)
        return np.cumsum(0.1 * velocity, axis=0)
    position, walk = np.zeros((20, 3)), []
    for _ in range(2000):  # a cage that is felt within the window
        position = 0.99 * position + rng.normal(size=position.shape) * 0.1
        walk.append(position)
    return np.array(walk)


@pytest.mark.parametrize("kind", ["ballistic", "caged"])
def test_motion_that_is_no_diffusion_gives_no_number(kind: str, paths_of) -> None:
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for seed in range(40):
            paths = paths_of(bent(kind, seed))
            results.append(diffusion(paths, "Li", temperature=600.0, charge=1.0))
    refused = [result for result in results if result.reason]
    assert len(refused) > 0.95 * len(results)
    for result in refused:
        assert np.isnan([result.tracer, result.tracer_error, result.conductivity, result.haven_ratio]).all()
        assert np.isnan(result.tracer_xyz).all() and np.isfinite(result.msd).all()
        assert "tracer D       not determined: the mean-square displacement of Li" in result.summary()
        assert "conductivity   not determined mS/cm (tracer)" in result.summary()


def test_caged_ions_are_reported(paths_of) -> None:
    message = "D of Li is not determined: .* not linear from .* its slope changes by -.*Move the fit window"
    with pytest.warns(UserWarning, match=message):
        diffusion(paths_of(bent("caged", 1)), "Li")


def test_slight_bend_enters_the_error() -> None:
    lags = np.linspace(1.0, 5.0, 41)
    noise = 1 + 1e-4 * np.random.default_rng(2).normal(size=6)
    line = _Line.through(lags, np.outer(lags + 0.015 * lags**2, noise), "curve")
    # slopes of a parabola over the halves [1, 3] and [3, 5]: 1 + 0.03 * 2 and 1 + 0.03 * 4
    assert not line.reason and line.doubt == pytest.approx(0.03, rel=1e-2)
    assert line.ratio == pytest.approx(1.12 / 1.06, rel=1e-3)
    assert _Line.through(lags, np.outer(lags, noise), "curve").doubt < 1e-12


@pytest.mark.parametrize("breathes", [False, True])
def test_frozen_crystal_has_zero(breathes: bool, frames_of) -> None:
    frames = frames_of(np.zeros((100, 6, 3)), 9.0 * np.eye(3))
    for k, atoms in enumerate(frames):
        atoms.set_cell(atoms.cell.array * (1 + 0.01 * breathes * np.sin(k)), scale_atoms=True)
    result = diffusion(frames, "Li", interval_fs=100.0, temperature=300.0, charge=1.0)
    assert abs(result.tracer) < 1e-12 and abs(result.conductivity) < 1e-6 and result.reason == ""
    assert np.isnan(result.haven_ratio) and "Haven ratio    not determined" in result.summary()
    assert "nan" not in result.summary()


def test_no_cell_is_said(brownian_walk, frames_of) -> None:
    frames = frames_of(brownian_walk(300, 20), 9.0 * np.eye(3), wrap=False)
    for atoms in frames:
        atoms.pbc, atoms.cell = False, None
    result = diffusion(frames, "Li", interval_fs=100.0)
    assert result.without_cell and "no periodic cell: coordinates taken as unwrapped" in result.summary()
    assert result.tracer == pytest.approx(0.1, abs=4 * result.tracer_error)


def test_saved_and_plotted(tmp_path, brownian_walk, paths_of) -> None:
    result = diffusion(paths_of(brownian_walk(400, 8)), "Li", temperature=300.0)
    again = Diffusion.load(result.save(tmp_path / "d.npz"))
    assert again.summary() == result.summary() and again.fit == result.fit
    np.testing.assert_array_equal(again.plot().lines[0].get_ydata(), result.msd)


def test_errors_say_what_to_do(brownian_walk, paths_of) -> None:
    paths = paths_of(brownian_walk(400, 2))
    with pytest.raises(DataError, match=r"30 frames are too few .* at least 40"):
        diffusion(paths_of(brownian_walk(30, 2)), "Li")
    with pytest.raises(ConfigError, match=r"fit = \(1, 20\) ps: .* a quarter of the trajectory \(9\.975"):
        diffusion(paths, "Li", fit=(1.0, 20.0))
    with pytest.raises(ConfigError, match="holds fewer than 3 lags"):
        diffusion(paths, "Li", fit=(0.9, 1.05))
    with pytest.raises(ConfigError, match="temperature = 0"):
        diffusion(paths, "Li", temperature=0.0)
