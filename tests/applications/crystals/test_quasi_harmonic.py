"""Quasi-harmonic expansion against mode Grüneisen parameters and thermodynamic identities."""

import sys

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from emt_cases import with_emt

from dpa2calc.applications.crystals import phonopy_bridge as _phonopy
from dpa2calc.applications.crystals.eos_forms import energy_of_volume, fit_energy_volume
from dpa2calc.applications.crystals.quasi_harmonic import (
    QuasiHarmonic,
    quasi_harmonic,
    thermal_expansion,
    undetermined,
)
from dpa2calc.errors import ConfigError, StructureError

pytest.importorskip("phonopy")
# the identities hold for any supercell, so the smallest will do
QUICK = {"supercell": (2, 2, 2), "mesh": 30.0, "progress": False}
STRAINS = np.linspace(-0.01, 0.03, 6)


def copper(a=3.59):
    return with_emt(bulk("Cu", a=a))


@pytest.fixture(scope="module")
def result():
    return quasi_harmonic(copper(), strains=STRAINS, temperatures=np.arange(0.0, 601.0, 20.0), **QUICK)


def mesh_at(volume):
    """Frequencies (n_q, 3) and weights of EMT copper at a volume."""
    primitive = copper((4 * volume) ** (1 / 3))
    constants = _phonopy.force_constants(
        _phonopy.primitive_cell(primitive, 1e-3), 2 * np.eye(3, dtype=int), EMT(),
        displacement=0.01, folder=None, progress=False,
    )  # fmt: skip
    constants.phonon.run_mesh(30.0)
    return np.array(constants.phonon.mesh.frequencies), np.array(constants.phonon.mesh.weights, dtype=float)


def test_expansion_is_the_sum_of_mode_grueneisen_parameters(result):
    """alpha = sum_modes c_i gamma_i / (B V), gamma_i = -dln f_i / dln V by differences of two volumes."""
    index = int(np.abs(result.temperatures - 300).argmin())
    volume, h = result.volume[index], 0.01
    (low, weights), (high, _), (middle, _) = (mesh_at(volume * (1 + s)) for s in (-h, h, 0.0))
    share = np.broadcast_to(weights[:, None] / weights.sum(), middle.shape)
    real = middle > 1e-3  # not the three modes at rest
    low, high, middle, share = (values[real] for values in (low, high, middle, share))
    gamma = -(np.log(high) - np.log(low)) / (np.log1p(h) - np.log1p(-h))
    x = middle * units._hplanck / units._e * 1e12 / (units.kB * 300)
    capacity = units.kB * x**2 * np.exp(x) / np.expm1(x) ** 2
    total = (share * capacity * gamma).sum()
    expected = total / (result.bulk_modulus[index] / 160.21766 * volume)
    assert result.thermal_expansion[index] == pytest.approx(expected, rel=0.02)
    assert result.grueneisen[index] == pytest.approx(total / (share * capacity).sum(), rel=0.02)


def test_thermodynamic_identities(result):
    t, inner = result.temperatures, slice(8, -1)
    assert result.entropy[inner] == pytest.approx(-np.gradient(result.gibbs, t)[inner], rel=0.01)
    assert result.heat_capacity_p[inner] == pytest.approx(
        (t * np.gradient(result.entropy, t))[inner], rel=0.02
    )
    assert (result.heat_capacity_p[1:] >= result.heat_capacity_v[1:]).all()
    assert (np.diff(result.volume[2:]) > 0).all() and (np.diff(result.bulk_modulus[2:]) < 0).all()
    assert result.thermal_expansion[0] == 0 and np.isnan(result.grueneisen[0])
    assert result.volume[0] > 11.566  # zero-point motion swells the crystal
    assert result.fit_residual.max() < 1e-4


def test_pressure_shrinks_by_the_bulk_modulus(result):
    times = [280.0, 300.0, 320.0]
    squeezed = quasi_harmonic(copper(), strains=STRAINS, temperatures=times, pressure=1.0, **QUICK)
    index = int(np.abs(result.temperatures - 300).argmin())
    change = np.log(squeezed.volume[1] / result.volume[index])
    mean = (squeezed.bulk_modulus[1] + result.bulk_modulus[index]) / 2
    # the fitted modulus of F + PV is V d²F/dV², the true one at pressure
    assert change == pytest.approx(-1.0 / mean, rel=0.03)
    assert squeezed.pressure == pytest.approx(1.0)


def test_round_trip_and_plot(result, tmp_path):
    loaded = QuasiHarmonic.load(result.save(tmp_path / "q.npz"))
    assert loaded.summary() == result.summary()
    assert "thermal expansion" in loaded.plot().get_ylabel()


def test_too_narrow_volumes_stop_with_a_warning():
    with pytest.warns(UserWarning, match=r"stops below \d+ K: the crystal expands beyond the volumes"):
        result = quasi_harmonic(
            copper(), strains=np.linspace(-0.02, 0.01, 5), temperatures=np.arange(0.0, 2001.0, 100.0), **QUICK
        )
    assert 2 < len(result.temperatures) < 21
    assert "not determined: anything from" in result.summary()


def made_curves(seed=0, noise=0.0, stiffening=0.0, n=9):
    """F(V, T) (n_t, n_v) of a crystal with B' = 5 that expands by about 2 % up to 1000 K."""
    temperatures, volumes = np.arange(0.0, 1001.0, 100.0), 12.0 * (1 + np.linspace(-0.02, 0.04, n)) ** 3

    def free(times):
        warm = times[:, None] / 1000.0
        v0 = 12.0 * (1 + 0.02 * warm**2 / (warm + 0.1))
        b0 = 0.9 * (1 - 0.1 * warm + stiffening * warm)
        return energy_of_volume("vinet", volumes[None, :], -3.0 - warm, v0, b0, 5.0)

    entropy = -(free(temperatures + 0.1) - free(temperatures - 0.1)) / 0.2
    noisy = free(temperatures) + noise * np.random.default_rng(seed).normal(size=n)  # of the static energies
    fits = np.array([fit_energy_volume(volumes, curve, "vinet") for curve in noisy])
    return temperatures, volumes, noisy, entropy, "vinet", fits


def test_expansion_is_the_slope_of_the_volume_between_whatever_temperatures(result):
    temperatures, volumes, _, entropy, form, fits = made_curves()
    t = temperatures / 1000.0
    v0 = 12.0 * (1 + 0.02 * t**2 / (t + 0.1))
    slope = 12.0 * 0.02 * (t**2 + 0.2 * t) / (t + 0.1) ** 2 / 1000.0  # of v0, Å³/K
    assert thermal_expansion(volumes, entropy, form, fits) == pytest.approx(slope / v0, abs=1e-9)
    fine = np.gradient(np.log(result.volume), result.temperatures)[8:-1]
    assert result.thermal_expansion[8:-1] == pytest.approx(fine, rel=5e-3)  # of steps of 20 K
    few = quasi_harmonic(copper(), strains=STRAINS, temperatures=[40.0, 100.0, 600.0], **QUICK)
    one = quasi_harmonic(copper(), strains=STRAINS, temperatures=[100.0], **QUICK)
    for name in ("thermal_expansion", "heat_capacity_p", "grueneisen"):
        whole = getattr(result, name)
        assert getattr(few, name) == pytest.approx(whole[[2, 5, 30]], rel=1e-9)
        assert getattr(one, name) == pytest.approx(whole[[5]], rel=1e-9)


def test_good_curves_are_determined_at_every_temperature():
    unknown, reason = undetermined(*made_curves())
    assert not unknown.any() and reason == ""
    passed = [not undetermined(*made_curves(seed, noise=2e-6))[0].any() for seed in range(12)]
    assert np.mean(passed) > 0.95


def test_noise_and_stiffening_are_not_determined():
    refused = []
    for seed in range(12):
        try:
            unknown, reason = undetermined(*made_curves(seed, noise=8e-3))
            refused.append(unknown.any() and bool(reason))
        except StructureError:  # no curve fits at all
            refused.append(True)
    assert np.mean(refused) > 0.95
    unknown, reason = undetermined(*made_curves(stiffening=0.3))
    assert unknown[5:].all() and not unknown[0] and "B_T rises with temperature" in reason


def test_undetermined_numbers_are_not_printed(result, monkeypatch):
    def above_400(temperatures, *rest):
        return temperatures > 400, "the error of B_T exceeds 10% of it (at 10 temperatures from 420 K)"

    monkeypatch.setattr(sys.modules[QuasiHarmonic.__module__], "undetermined", above_400)
    with pytest.warns(UserWarning, match="not everything is determined: the error of B_T"):
        cut = quasi_harmonic(
            copper(), strains=STRAINS, temperatures=[0.0, 100.0, 300.0, 500.0, 600.0], **QUICK
        )
    for name in ("thermal_expansion", "bulk_modulus", "heat_capacity_p", "grueneisen"):
        assert np.isnan(getattr(cut, name)[3:]).all() and np.isfinite(getattr(cut, name)[1:3]).all()
    assert np.isfinite(cut.volume).all() and np.isfinite(cut.entropy).all()
    assert "not determined: the error of B_T" in cut.summary() and "nan" not in cut.summary()
    assert result.reason == result.beyond == ""


def test_errors():
    with pytest.raises(ConfigError, match="5 or more different linear strains"):
        quasi_harmonic(copper(), strains=[0.0, 0.01], **QUICK)
    with pytest.raises(ConfigError, match="temperatures must be ascending numbers >= 0 K, got"):
        quasi_harmonic(copper(), temperatures=[300.0, 200.0, 100.0], **QUICK)
    atoms = with_emt(bulk("Cu", "bcc", a=2.86))
    with pytest.raises(
        StructureError, match=r"imaginary modes down to -.* at strain .*; leave this strain out"
    ):
        quasi_harmonic(atoms, **QUICK)


def test_every_volume_has_the_supercell_of_the_unstrained_crystal():
    """spglib may take other vectors of a strained lattice, of which another supercell would come."""
    crystal = Atoms("Cu", cell=[[3.0, 0.1, 0.0], [0.2, 3.1, 0.1], [0.0, 0.3, 3.2]], pbc=True)
    chosen = _phonopy.supercell_rows(None, crystal, crystal, 8.0, 1e-3)
    other = Atoms("Cu", cell=[[1, 0, 0], [1, 1, 0], [0, 0, 1]] @ crystal.cell.array, pbc=True)
    matrix = _phonopy.in_primitive_vectors(chosen, crystal, other)
    assert matrix @ other.cell.array == pytest.approx(chosen @ crystal.cell.array)
    assert matrix.tolist() != chosen.tolist()
