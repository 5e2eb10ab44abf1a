"""Equation of state against exact curves, an analytic crystal and published EMT numbers."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from dpa2calc.applications.eos import (
    EquationOfState,
    energy_of_volume,
    equation_of_state,
    fit_energy_volume,
    pressure_of_volume,
)
from dpa2calc.errors import ConfigError, DataError, StructureError

GPA = 160.21766
FORMS = ("birch-murnaghan", "vinet", "murnaghan")


class CountingEMT(EMT):
    calls = 0

    def calculate(self, *args, **kwargs):
        self.calls += 1
        super().calculate(*args, **kwargs)


SEVEN = np.linspace(-0.02, 0.02, 7)


def copper(**options):
    atoms = bulk("Cu", a=3.6, **options)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize("form", FORMS)
def test_pressure_is_minus_the_slope_of_the_energy(form):
    volume, step, (v0, b0, b1) = np.linspace(9.0, 13.0, 7), 1e-4, (11.0, 0.8, 5.1)
    below, above = (energy_of_volume(form, volume + s, -3.0, v0, b0, b1) for s in (-step, step))
    assert pressure_of_volume(form, volume, v0, b0, b1) == pytest.approx(
        (below - above) / (2 * step), abs=1e-8
    )


@pytest.mark.parametrize("form", FORMS)
def test_definition_of_the_parameters(form):
    """At v0 the energy is e0, the pressure 0, -V dP/dV is b0 and the slope of B over P is b1."""
    v0, b0, b1, h = 11.0, 0.8, 5.1, 1e-3
    assert energy_of_volume(form, v0, -3.0, v0, b0, b1) == pytest.approx(-3.0, abs=1e-14)
    p = [float(pressure_of_volume(form, v0 + i * h, v0, b0, b1)) for i in (-2, -1, 0, 1, 2)]
    assert p[2] == pytest.approx(0.0, abs=1e-14)
    first = (p[0] - 8 * p[1] + 8 * p[3] - p[4]) / (12 * h)
    second = (p[1] - 2 * p[2] + p[3]) / h**2
    assert -v0 * first == pytest.approx(b0, rel=1e-8)
    assert -1 - v0 * second / first == pytest.approx(b1, rel=1e-5)  # dB/dP = -1 - V P''/P'


@pytest.mark.parametrize("form", FORMS)
def test_fit_recovers_exact_parameters(form):
    volumes = np.linspace(9.9, 12.2, 9)
    best, errors = fit_energy_volume(volumes, energy_of_volume(form, volumes, -3.0, 11.0, 0.8, 5.1), form)
    assert best == pytest.approx([-3.0, 11.0, 0.8, 5.1], rel=1e-7)
    assert errors.max() < 1e-6


def test_standard_errors_cover_the_noise():
    """Over repeated noise the scatter of the bulk modulus is what the fit quotes."""
    generator, volumes = np.random.default_rng(1), np.linspace(9.9, 12.2, 21)
    exact = energy_of_volume("vinet", volumes, -3.0, 11.0, 0.8, 5.1)
    fits = [fit_energy_volume(volumes, exact + generator.normal(0, 1e-4, 21), "vinet") for _ in range(60)]
    scatter = np.std([best[2] for best, _ in fits])
    quoted = np.mean([errors[2] for _, errors in fits])
    assert quoted == pytest.approx(scatter, rel=0.3)


def test_emt_copper_has_the_published_numbers():
    """EMT copper: V0 11.566 Å³, B 134.0 to 134.3 GPa (phonopy, ASE and matcalc agree)."""
    result = equation_of_state(copper(), progress=False)
    assert result.volume == pytest.approx(11.566, abs=0.002)
    assert 133.9 < result.bulk_modulus < 134.5
    assert result.pressure_mismatch < 0.02
    spread = [values[1] for values in result.other_forms.values()]
    assert max(spread) - min(spread) < 1.0
    assert result.cellpar == pytest.approx([(11.566 * 4) ** (1 / 3) / np.sqrt(2)] * 3 + [60] * 3, abs=1e-3)


def test_nearest_neighbour_lennard_jones_crystal_is_analytic():
    """fcc with 12-6 bonds of depth D and length r: E = -6 D, V = r³/sqrt(2), B = 48 D/V, dB/dP = 8."""
    r, epsilon = 3.0, 0.1
    sigma, cutoff = r / 2 ** (1 / 6), 1.3 * r
    atoms = bulk("Ar", a=r * np.sqrt(2))
    atoms.calc = LennardJones(sigma=sigma, epsilon=epsilon, rc=cutoff)
    # ASE shifts each bond to zero at the cutoff, which changes E but not its volume dependence
    shift = 4 * epsilon * ((sigma / cutoff) ** 12 - (sigma / cutoff) ** 6)
    result = equation_of_state(atoms, strains=np.linspace(-0.01, 0.01, 11), progress=False)
    volume = r**3 / np.sqrt(2)
    assert result.volume == pytest.approx(volume, rel=1e-5)
    assert result.energy == pytest.approx(-6 * (epsilon + shift), rel=1e-5)
    assert result.bulk_modulus == pytest.approx(48 * epsilon / volume * GPA, rel=2e-3)
    assert result.bulk_modulus_derivative == pytest.approx(8.0, abs=0.1)


def test_extensive_in_the_cell():
    small = equation_of_state(copper(), strains=SEVEN, progress=False)
    large = equation_of_state(copper(cubic=True), strains=SEVEN, progress=False)
    assert large.volume == pytest.approx(4 * small.volume, rel=1e-6)
    assert large.bulk_modulus == pytest.approx(small.bulk_modulus, rel=1e-5)


def test_shape_of_a_hexagonal_cell_relaxes():
    atoms = bulk("Cu", "hcp", a=2.54, c=4.25)
    atoms.calc = EMT()
    relaxed = equation_of_state(atoms, strains=SEVEN, progress=False)
    assert relaxed.max_deviatoric_stress < 0.02
    assert relaxed.pressure_mismatch < 0.05
    assert relaxed.cellpar[2] / relaxed.cellpar[0] == pytest.approx(np.sqrt(8 / 3), rel=0.01)
    assert relaxed.cellpar[5] == pytest.approx(120.0, abs=1e-6)
    with pytest.warns(UserWarning, match="not cubic, so use relax='shape'"):
        rigid = equation_of_state(atoms, strains=SEVEN, relax="none", progress=False)
    assert rigid.energy > relaxed.energy


def test_caller_is_untouched_and_result_round_trips(tmp_path):
    atoms = copper()
    before = atoms.copy()
    result = equation_of_state(atoms, strains=SEVEN, progress=False)
    assert atoms == before
    loaded = EquationOfState.load(result.save(tmp_path / "eos.npz"))
    assert loaded.summary() == result.summary()
    assert repr(result) == f"<EquationOfState:\n{result.summary()}>"
    assert loaded.other_forms == result.other_forms
    assert loaded.provenance["calculator"] == "EMT"
    axes = loaded.plot()
    assert axes.get_xlabel() == "volume (Å³/atom)"
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(DataError, match=r"bad\.npz is not a result file"):
        EquationOfState.load(tmp_path / "bad.npz")


def test_resumes_from_its_folder(tmp_path):
    atoms = copper()
    atoms.calc = CountingEMT()
    first = equation_of_state(atoms, strains=SEVEN, folder=tmp_path, progress=False)
    done = atoms.calc.calls
    second = equation_of_state(atoms, strains=SEVEN, folder=tmp_path, progress=False)
    assert atoms.calc.calls == done
    assert second.bulk_modulus == first.bulk_modulus
    atoms.calc = LennardJones(rc=5.0)
    with pytest.raises(ConfigError, match="holds results of another calculator"):
        equation_of_state(atoms, folder=tmp_path, progress=False)


def test_minimum_outside_the_range():
    atoms = bulk("Cu", a=4.2)
    atoms.calc = EMT()
    with pytest.raises(
        StructureError, match=r"lowest energy lies outside the volumes .* relax the cell first"
    ):
        equation_of_state(atoms, progress=False)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"strains": [0.0, 0.01]}, ConfigError, "5 or more different linear strains"),
        (
            {"form": "bm"},
            ConfigError,
            "unknown equation of state 'bm'; known: birch-murnaghan, vinet, murnaghan",
        ),
        ({"relax": "cell"}, ConfigError, "relax must be 'none', 'positions' or 'shape', got 'cell'"),
        ({"fmax": 0.0}, ConfigError, "fmax must be a positive number, got 0.0"),
    ],
)
def test_wrong_options(change, error, text):
    with pytest.raises(error, match=text):
        equation_of_state(copper(), progress=False, **change)


def test_wrong_structures():
    atoms = copper()
    atoms.calc = None
    with pytest.raises(StructureError, match="the atoms have no calculator"):
        equation_of_state(atoms, progress=False)
    slab = copper(cubic=True)
    slab.pbc = (True, True, False)
    with pytest.raises(StructureError, match="needs a crystal, periodic in three directions"):
        equation_of_state(slab, progress=False)
    broken = copper()
    broken.positions[0, 0] = np.nan
    with pytest.raises(StructureError, match="contain NaN"):
        equation_of_state(broken, progress=False)
    empty = Atoms(cell=[1, 1, 1], pbc=True, calculator=EMT())
    with pytest.raises(StructureError, match="no atoms"):
        equation_of_state(empty, progress=False)
