"""Arrhenius fits: exact lines, coverage of the error of the activation energy, independent fits, errors."""

from dataclasses import replace

import numpy as np
import pytest
from ase import units
from scipy.optimize import curve_fit

from dpa2calc.applications import Arrhenius, arrhenius, diffusion
from dpa2calc.errors import ConfigError, DataError

TEMPERATURES = np.array([500.0, 600.0, 700.0, 900.0])


def law(temperatures: np.ndarray, energy: float = 0.25, prefactor: float = 20.0) -> np.ndarray:
    return prefactor * np.exp(-energy / (units.kB * temperatures))


def test_an_exact_law_comes_back() -> None:
    fit = arrhenius(TEMPERATURES, law(TEMPERATURES), errors=0.1 * law(TEMPERATURES))
    assert fit.activation_energy == pytest.approx(0.25)
    assert np.exp(fit.log_prefactor) == pytest.approx(20.0)
    value, low, high = fit.at(300.0)
    assert value == pytest.approx(law(np.array([300.0]))[0]) and low < value < high
    two = arrhenius(TEMPERATURES[:2], law(TEMPERATURES[:2]), errors=0.1 * law(TEMPERATURES[:2]))
    assert two.activation_energy == pytest.approx(0.25) and np.isnan(two.chi2_reduced)
    slope = 1 / (units.kB * 500) - 1 / (units.kB * 600)
    assert two.activation_energy_error == pytest.approx(np.hypot(0.1, 0.1) / slope)


def test_equal_to_scipy_and_scaled_by_the_scatter() -> None:
    rng = np.random.default_rng(0)
    relative = np.array([0.2, 0.1, 0.08, 0.05])
    for noise in (0.1, 3.0):  # within and far beyond the errors
        values = law(TEMPERATURES) * np.exp(noise * relative * rng.normal(size=4))
        fit = arrhenius(TEMPERATURES, values, errors=relative * values)
        x, y = 1 / (units.kB * TEMPERATURES), np.log(values)
        line = curve_fit(lambda x, a, b: a - b * x, x, y, sigma=relative, absolute_sigma=True)
        assert fit.activation_energy == pytest.approx(line[0][1], rel=1e-5)
        expected = np.sqrt(line[1][1, 1]) * max(1.0, np.sqrt(fit.chi2_reduced))
        assert fit.activation_energy_error == pytest.approx(expected, rel=1e-4)
    assert fit.chi2_reduced > 1.0


@pytest.mark.parametrize("known", [True, False])
def test_error_of_the_activation_energy_covers_the_truth(known: bool) -> None:
    rng = np.random.default_rng(1)
    relative = np.array([0.2, 0.1, 0.08, 0.05]) if known else np.full(4, 0.1)
    covered = {"energy": 0, "at 300 K": 0}
    for _ in range(1000):
        values = law(TEMPERATURES) * np.exp(relative * rng.normal(size=4))
        fit = arrhenius(TEMPERATURES, values, errors=relative * values if known else None)
        covered["energy"] += abs(fit.activation_energy - 0.25) < fit.activation_energy_error
        _, low, high = fit.at(300.0)
        covered["at 300 K"] += low < law(np.array([300.0]))[0] < high
    for name, count in covered.items():
        assert 0.55 < count / 1000 < 0.80, (name, count)


def test_from_random_walks_at_four_temperatures(brownian_walk, paths_of) -> None:
    results = []
    for seed, (t, d) in enumerate(zip(TEMPERATURES, law(TEMPERATURES))):
        walk = brownian_walk(1500, 20, coefficient=d, seed=seed)
        results.append(diffusion(paths_of(walk), "Li", temperature=t))
    fit = arrhenius(results)
    assert fit.activation_energy == pytest.approx(0.25, abs=3 * fit.activation_energy_error)
    assert fit.activation_energy_error < 0.02
    assert arrhenius(results, quantity="collective").activation_energy_error > fit.activation_energy_error
    np.testing.assert_array_equal(fit.values, [result.tracer for result in results])


def test_saved_and_plotted_in_cm2_per_s(tmp_path) -> None:
    fit = arrhenius(TEMPERATURES, law(TEMPERATURES), errors=0.1 * law(TEMPERATURES))
    again = Arrhenius.load(fit.save(tmp_path / "fit.npz"))
    assert again.summary() == fit.summary()
    ax = again.plot(references={"experiment": ([300.0, 400.0], [1e-8, 1e-7])})
    np.testing.assert_allclose(ax.containers[0].lines[0].get_ydata(), law(TEMPERATURES) * 1e-4)
    assert ax.get_yscale() == "log"
    assert "experiment" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_errors_say_what_to_do(brownian_walk, paths_of) -> None:
    with pytest.raises(DataError, match="needs 2 different ones above 0, better 4"):
        arrhenius([500.0, 500.0], [0.1, 0.1], errors=[0.01, 0.01])
    with pytest.raises(DataError, match="needs 3 different ones"):
        arrhenius([500.0, 600.0], [0.1, 0.2])
    with pytest.raises(DataError, match=r"D = -0\.01 Å²/ps at 500 K has no logarithm"):
        arrhenius([500.0, 600.0], [-0.01, 0.2], errors=[0.01, 0.01])
    with pytest.raises(DataError, match="the error of D at 600 K is 0"):
        arrhenius([500.0, 600.0], [0.01, 0.2], errors=[0.001, 0.0])
    with pytest.raises(ConfigError, match="must be lists of one length"):
        arrhenius([500.0, 600.0, 700.0], [0.1, 0.2])
    with pytest.raises(ConfigError, match="a list of Diffusion results, or temperatures and values"):
        arrhenius([500.0, 600.0, 700.0])
    with pytest.warns(UserWarning, match="at 500 K is zero within its error"):
        arrhenius([500.0, 600.0], [0.01, 0.2], errors=[0.02, 0.01])
    result = diffusion(paths_of(brownian_walk(400, 4)), "Li")
    with pytest.raises(ConfigError, match="no temperature; call diffusion"):
        arrhenius([result, result])
    hot = [replace(result, temperature=t, species=name) for t, name in ((500.0, "Li"), (600.0, "Na"))]
    with pytest.raises(ConfigError, match="the results are of Li and Na"):
        arrhenius(hot)


def test_no_activation_energy_from_undetermined_coefficients(tmp_path, brownian_walk, paths_of) -> None:
    results = []
    for t in (500.0, 600.0, 700.0):
        walk = brownian_walk(600, 20, seed=int(t))
        if t == 600.0:  # free flight
            walk = walk + np.linspace(0, 300, 600)[:, None, None]
            with pytest.warns(UserWarning, match="not linear"):
                results.append(diffusion(paths_of(walk), "Li", temperature=t))
        else:
            results.append(diffusion(paths_of(walk), "Li", temperature=t))
    fit = arrhenius(results)
    assert np.isnan([fit.activation_energy, fit.activation_energy_error, fit.log_prefactor]).all()
    text = fit.summary()
    assert "activation energy  not determined: D at 600 K is not determined (the mean-square" in text
    assert "600.0 K  not determined" in text and "nan" not in text
    assert Arrhenius.load(fit.save(tmp_path / "a.npz")).summary() == text
    assert any("not determined" in item.get_text() for item in fit.plot().get_legend().get_texts())
    assert np.isfinite(arrhenius([results[0], results[2]]).activation_energy)
