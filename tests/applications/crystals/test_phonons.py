"""Phonons against analytic lattices, elastic constants and thermodynamic identities."""

import sys

import numpy as np
import pytest
from architectures import make_potential
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from emt_cases import CountingEMT, with_emt

from dpa2calc.applications.crystals import phonopy_bridge as _phonopy
from dpa2calc.applications.crystals.elastic import elastic_constants
from dpa2calc.applications.crystals.phonon_convergence import phonon_convergence, within
from dpa2calc.applications.crystals.phonons import Phonons, phonons
from dpa2calc.applications.crystals.quasi_harmonic import quasi_harmonic
from dpa2calc.calculator import DPA2Calculator
from dpa2calc.errors import ConfigError, MissingDependencyError, StructureError

pytest.importorskip("phonopy")
pytest.importorskip("seekpath")

BOND, DEPTH = 3.0, 0.1
STIFFNESS = 72 * DEPTH / BOND**2  # second derivative of the 12-6 bond at rest, eV/Å²
QUICK = {"min_length": 7.0, "mesh": 30.0, "progress": False}


def bonded_crystal(cubic=False):
    """fcc with nearest-neighbour 12-6 bonds exactly at rest: a central-force lattice without tension."""
    atoms = bulk("Ar", a=BOND * np.sqrt(2), cubic=cubic)
    atoms.calc = LennardJones(sigma=BOND / 2 ** (1 / 6), epsilon=DEPTH, rc=1.3 * BOND)
    return atoms


def thz(eigenvalue):
    """Frequency of an eigenvalue in eV/Å²/u."""
    return np.sqrt(eigenvalue * units._e / units._amu * 1e20) / (2 * np.pi) * 1e-12


@pytest.fixture(scope="module")
def argon():
    return phonons(bonded_crystal(), displacement=0.002, **QUICK)


@pytest.fixture(scope="module")
def copper():
    atoms = with_emt(bulk("Cu", a=3.6))
    return phonons(atoms, relax="cell", min_length=7.0, mesh=60.0, progress=False)


def test_central_force_lattice_is_analytic(argon):
    """Along [100] of fcc: M w² = 8k sin²(pi x/2) and, twice, 4k sin²(pi x/2), with x = 1 at X."""
    mass = argon.masses[0]
    for x in (0.1, 0.25, 0.5, 0.77, 1.0):
        cartesian = np.array([x, 0, 0]) / (BOND * np.sqrt(2))  # without 2 pi
        (found,) = argon.frequencies([argon.cell @ cartesian])
        s = np.sin(np.pi * x / 2) ** 2
        expected = thz(np.array([4, 4, 8]) * STIFFNESS * s / mass)
        assert found == pytest.approx(expected, rel=1e-3)
    l_point = argon.cell @ (np.array([0.5, 0.5, 0.5]) / (BOND * np.sqrt(2)))
    # at L every bond out of the plane of three reverses: M w² = 8k (longitudinal) and 2k (transverse)
    assert argon.frequencies([l_point])[0] == pytest.approx(
        thz(np.array([2, 2, 8]) * STIFFNESS / mass), rel=1e-3
    )


def test_acoustic_sum_rule(argon):
    assert np.abs(argon.force_constants.sum(axis=1)).max() < 1e-12
    assert argon.frequencies([[0, 0, 0]])[0] == pytest.approx([0, 0, 0], abs=1e-5)
    assert argon.stable and argon.imaginary_fraction == 0


def test_sound_velocity_is_that_of_the_elastic_constants(argon):
    elastic = elastic_constants(bonded_crystal(), strains=(0.001, 0.002), relax="fixed", progress=False)
    for direction in ((1, 0, 0), (1, 1, 0), (1, 1, 1), (3, 2, 1)):
        slopes = argon.sound_velocities(direction)
        assert slopes == pytest.approx(elastic.sound_velocities(direction), rel=1e-3)


@pytest.mark.slow
def test_sound_velocity_of_copper_needs_a_large_supercell():
    """EMT reaches the third neighbours: 256 atoms give the slopes of C_ij to 0.1 %."""
    atoms = with_emt(bulk("Cu", a=3.6))
    result = phonons(atoms, relax="cell", min_length=14.0, mesh=30.0, progress=False)
    relaxed = with_emt(result.atoms())
    elastic = elastic_constants(relaxed, relax="fixed", progress=False)
    for direction in ((1, 0, 0), (1, 1, 0), (1, 1, 1), (3, 2, 1)):
        assert result.sound_velocities(direction) == pytest.approx(
            elastic.sound_velocities(direction), rel=1e-3
        )


def test_thermodynamic_identities(copper):
    t, f, s, c = copper.temperatures, copper.free_energy, copper.entropy, copper.heat_capacity
    even = np.isclose(t % 10, 0)
    t, f, s, c = t[even], f[even], s[even], c[even]
    inner = slice(15, -1)  # above 150 K the steps of 10 K are small enough to differentiate
    assert s[inner] == pytest.approx(-np.gradient(f, t)[inner], rel=2e-3)
    assert c[inner] == pytest.approx((t * np.gradient(s, t))[inner], rel=5e-3)
    assert f[0] == pytest.approx(copper.zero_point_energy)
    assert s[0] == 0 and c[0] == 0
    assert c[-1] == pytest.approx(3 * units.kB, rel=0.01)  # Dulong and Petit
    moment = (copper.mesh_weights[:, None] * copper.mesh_frequencies).sum() / copper.mesh_weights.sum()
    assert copper.zero_point_energy == pytest.approx(moment * units._hplanck / units._e * 1e12 / 2)


def test_einstein_solid():
    """One frequency f: E = hf (1/2 + 1/(exp(x) - 1)), C = k x² exp(x)/(exp(x) - 1)², x = hf/kT."""
    frequency, t = 5.0, np.array([0.0, 50.0, 300.0])
    free, entropy, capacity = _phonopy.thermal_properties(np.array([[frequency]]), np.ones(1), t)
    quantum = frequency * 4.135667696e-3
    x = quantum / (units.kB * t[1:])
    assert capacity[1:] == pytest.approx(units.kB * x**2 * np.exp(x) / np.expm1(x) ** 2)
    assert (free + t * entropy)[1:] == pytest.approx(quantum * (0.5 + 1 / np.expm1(x)))
    assert free[0] == pytest.approx(quantum / 2)


def test_density_of_states_counts_the_modes():
    atoms = with_emt(bulk("Cu", cubic=True, a=3.75))
    atoms.symbols[[0, 1]] = "Au"
    result = phonons(atoms, relax="cell", **QUICK)
    total = np.trapezoid(result.dos, result.dos_frequencies)
    assert total == pytest.approx(3 * len(result.numbers), rel=0.01)
    # the tetrahedra of the symmetry-reduced mesh differ a little, so the counts of modes are compared
    counts = np.cumsum(sum(result.dos_by_element.values()) - result.dos) * np.diff(result.dos_frequencies)[0]
    assert np.abs(counts).max() < 0.02 * total
    for values in result.dos_by_element.values():
        assert np.trapezoid(values, result.dos_frequencies) == pytest.approx(total / 2, rel=0.01)
    high = result.dos_frequencies > 5.0  # the light atoms carry the high modes
    assert result.dos_by_element["Cu"][high].sum() > 3 * result.dos_by_element["Au"][high].sum()


def test_any_cell_and_orientation_give_the_same_bands(argon):
    from scipy.spatial.transform import Rotation

    atoms = bonded_crystal(cubic=True)
    turn = Rotation.from_rotvec([0.4, 0.3, -0.9]).as_matrix()
    atoms.set_cell(atoms.cell.array @ turn.T, scale_atoms=True)
    other = phonons(atoms, supercell=(2, 2, 2), displacement=0.002, mesh=30.0, progress=False)
    assert len(other.numbers) == 1
    assert other.n_supercell_atoms == argon.n_supercell_atoms == 32
    assert other.mesh_frequencies.max() == pytest.approx(argon.mesh_frequencies.max(), rel=1e-4)
    assert [label for _, label in other.band_ticks] == [label for _, label in argon.band_ticks]
    assert np.sort(other.band_frequencies.max(axis=1)) == pytest.approx(
        np.sort(argon.band_frequencies.max(axis=1)), rel=1e-3, abs=1e-6
    )


def test_left_handed_vectors_take_a_supercell_of_their_own():
    """phonopy refused the negative determinant with a traceback."""
    found = []
    for order in ([0, 1, 2], [1, 0, 2]):
        crystal = bonded_crystal()
        crystal.set_cell(crystal.cell.array[order])
        found.append(phonons(crystal, supercell=(2, 2, 2), mesh=20.0, temperatures=[300.0], progress=False))
    right, left = found
    assert round(np.linalg.det(left.supercell_matrix)) == left.n_supercell_atoms == 8
    np.testing.assert_allclose(left.free_energy, right.free_energy, rtol=1e-9)


def test_isotopes_lower_the_symmetry_of_the_mesh():
    """Against all points of the mesh, one by one: phonopy's own reduction does not look at masses."""
    atoms = with_emt(bulk("Cu", cubic=True))
    atoms.set_masses(atoms.get_masses() * [8, 4, 1, 1])
    result = phonons(atoms, relax="cell", min_length=7, mesh=(3, 3, 3), progress=False)
    every = np.array(list(np.ndindex(3, 3, 3))) / 3.0
    phonon = _phonopy.phonopy_object(result.atoms(), result.supercell_matrix, result.force_constants)
    phonon.run_qpoints(every)
    found = phonon.qpoints.frequencies.clip(min=0).sum() / 27 / 2 * _phonopy.PLANCK_EV_PER_THZ / 4
    assert result.zero_point_energy == pytest.approx(found, rel=1e-6)


def test_isotopes_scale_the_frequencies(argon):
    atoms = bonded_crystal()
    atoms.set_masses([4 * argon.masses[0]])
    heavy = phonons(atoms, displacement=0.002, **QUICK)
    assert heavy.mesh_frequencies.max() == pytest.approx(argon.mesh_frequencies.max() / 2, rel=1e-6)


def test_unstable_crystal_reports_imaginary_modes():
    """EMT copper on the bcc lattice: imaginary also where nothing is interpolated."""
    atoms = with_emt(bulk("Cu", "bcc", a=2.86))
    result = phonons(atoms, relax="cell", **QUICK)
    assert not result.stable
    assert result.lowest_frequency < -0.5 and result.lowest_commensurate < -0.5
    assert 0 < result.imaginary_fraction < 1
    assert "also at q-points that fit the supercell, so the crystal is unstable" in result.summary()
    assert result.frequencies([result.lowest_qpoint])[0].min() == pytest.approx(
        result.lowest_frequency, abs=1e-6
    )


def test_imaginary_modes_of_interpolation_are_told_apart():
    """L1_0 CuAu in a supercell that does not hold the zone boundary."""
    atoms = with_emt(bulk("Cu", cubic=True, a=3.75))
    atoms.symbols[[0, 1]] = "Au"
    result = phonons(atoms, relax="cell", min_length=10.0, mesh=30.0, progress=False)
    assert result.lowest_frequency < -0.05 and result.lowest_commensurate > -0.05
    assert "try a larger supercell before believing them" in result.summary()


def test_commensurate_points_fit_the_supercell():
    matrix = np.array([[-2, 2, 2], [2, -2, 2], [2, 2, -2]])
    points = _phonopy.commensurate_points(matrix)
    assert len(points) == round(abs(np.linalg.det(matrix)))
    assert points @ matrix.T == pytest.approx(np.rint(points @ matrix.T), abs=1e-9)


def test_unrelaxed_structure_is_refused_and_relaxed_on_request():
    atoms = bulk("Cu", a=3.59, cubic=True)
    atoms.positions[1] += [0.05, 0, 0]
    atoms.calc = EMT()
    before = atoms.copy()
    with pytest.raises(
        StructureError, match=r"need a relaxed crystal: the force on atom .* relax='positions'"
    ):
        phonons(atoms, **QUICK)
    assert atoms == before


def test_strained_crystal_warns():
    atoms = with_emt(bulk("Cu", a=3.55))
    with pytest.warns(
        UserWarning, match=r"under a stress of \d+\.\d+ GPa; these are phonons of the strained"
    ):
        result = phonons(atoms, **QUICK)
    assert result.max_stress > 0.5


def test_resumes_from_its_folder(tmp_path):
    atoms = bulk("Cu", a=3.6)
    atoms.calc = CountingEMT()
    first = phonons(atoms, relax="cell", folder=tmp_path, **QUICK)
    done = atoms.calc.calls
    second = phonons(atoms, relax="cell", folder=tmp_path, **QUICK)
    assert atoms.calc.calls == done
    assert np.array_equal(first.force_constants, second.force_constants)


def test_round_trip_and_plot(argon, tmp_path):
    loaded = Phonons.load(argon.save(tmp_path / "p.npz"))
    assert loaded.summary() == argon.summary()
    assert loaded.frequencies([[0.1, 0.2, 0.3]]) == pytest.approx(argon.frequencies([[0.1, 0.2, 0.3]]))
    axes = loaded.plot()
    assert axes.get_xticklabels()[0].get_text() == "Γ"
    loaded.plot(axes, dos=False)
    assert argon.provenance["phonopy"]


def test_convergence_with_supercell_and_displacement():
    """Supercells over twice the range of the forces are exact; the error of a displacement is quadratic."""
    result = phonon_convergence(
        bonded_crystal(),
        min_lengths=(8.0, 12.0),
        displacements=(0.01, 0.02, 0.04),
        mesh=30.0,
        progress=False,
    )
    assert result.rms_difference[0] < 1e-5
    assert result.converged_length == 8.0
    rms = result.rms_difference[2:]
    assert rms[0] == 0
    assert rms[2] / rms[1] == pytest.approx((16 - 1) / (4 - 1), rel=0.1)
    assert "min_length=8 Å" in result.summary()
    with pytest.raises(ConfigError, match="two or more different min_lengths"):
        phonon_convergence(bonded_crystal(), min_lengths=(9.0,))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"supercell": [2, 2, 2.5]}, r"supercell must be three repeats or a 3x3 matrix of integers, got \[2"),
        ({"relax": "all"}, "relax = 'all' is not allowed; allowed: fixed, positions, cell"),
        ({"displacement": -0.01}, "displacement must be a positive number"),
        ({"supercell": (2, 2)}, "supercell must be three repeats or a 3x3 matrix of integers"),
        ({"supercell": (2, 2, 0)}, "supercell must be three repeats"),
    ],
)
def test_wrong_options(change, text):
    with pytest.raises(ConfigError, match=text):
        phonons(bonded_crystal(), progress=False, **change)


@pytest.mark.parametrize("library", ["phonopy", "seekpath", "spglib"])
def test_missing_library_says_how_to_install_it(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match=rf"{library}.*pip install 'dpa2calc\[applications\]'"):
        phonons(bonded_crystal(), **QUICK)


@pytest.mark.parametrize(
    "options",
    [
        *({"mesh": mesh} for mesh in (0.0, -1.0, 1e9, [1, 2], [0, 1, 1], [10**4] * 3)),
        *({"band_spacing": spacing} for spacing in (0.0, -1.0, 1e-9)),
        *({"temperatures": values} for values in ([-1.0], [[300.0]], [], [np.inf])),
    ],
)
def test_what_is_used_after_the_work_is_refused_before_it(options):
    atoms = bulk("Cu", a=3.6)
    atoms.calc = CountingEMT()
    with pytest.raises(ConfigError, match=rf"{next(iter(options))}.* is not allowed"):
        phonons(atoms, relax="cell", progress=False, **options)
    if "mesh" in options:
        with pytest.raises(ConfigError, match=r"mesh = .* is not allowed"):
            quasi_harmonic(atoms, progress=False, **options)
    assert atoms.calc.calls == 0


def test_atoms_without_forces_and_ghosts_are_told_of():
    far = bulk("Ar", "fcc", a=9.0)
    far.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=5.0)
    with pytest.raises(StructureError, match=r"no force acts on a displaced atom of Ar .*LennardJones"):
        phonons(far, min_length=8.0, progress=False)
    ghost = Atoms("X", cell=bulk("Ar", "fcc", a=5.3).cell, pbc=True, calculator=far.calc)
    with pytest.raises(StructureError, match=r"ghost atoms \(X\), which phonopy does not know"):
        phonons(ghost, min_length=8.0, progress=False)


def test_hessian_of_the_supercell_equals_displacements(tmp_path):
    atoms = bulk("CuO", "rocksalt", a=4.3)
    atoms.calc = DPA2Calculator(make_potential("dpa1-l0"), dtype="float64", device="cpu")
    options = {"min_length": 5.0, "mesh": 20.0, "progress": False, "fmax": 1e9}
    with pytest.warns(UserWarning):  # far from equilibrium, where force constants are as good
        moved = phonons(atoms, displacement=1e-3, **options)
        exact = phonons(atoms, method="hessian", folder=tmp_path, **options)
    assert (exact.n_displacements, exact.displacement) == (0, 0.0) and moved.n_displacements > 0
    assert "from its exact Hessian" in exact.summary() and "displacements of 0.001 Å" in moved.summary()
    scale = abs(exact.force_constants).max()
    np.testing.assert_allclose(exact.force_constants, moved.force_constants, atol=1e-5 * scale)
    assert exact.sum_rule_violation < 1e-12
    np.testing.assert_allclose(exact.band_frequencies, moved.band_frequencies, atol=0.01)


def test_hessian_needs_a_calculator_that_has_one():
    with pytest.raises(ConfigError, match=r"method='hessian' needs .* this one is LennardJones; use"):
        phonons(bonded_crystal(), method="hessian", **QUICK)


def test_a_setting_is_converged_only_with_all_better_ones():
    assert within(np.array([0.01, 0.01, 0.03, 0.01]), 0.02) == 2
    assert within(np.array([0.01]), 0.02) == 1 and within(np.array([0.03, 0.01]), 0.02) == 0
