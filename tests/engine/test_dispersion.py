"""D3(BJ): finite differences, lattice identities, published energies, refused words."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, molecule
from slopes import slope, unit

from dpa2calc.engine.dispersion import Dispersion, dispersion_results, parse_dispersion
from dpa2calc.errors import ConfigError, ElementError, MissingDependencyError, StructureError

PBE = Dispersion(functional="pbe", cutoff=14.0)  # short, so that the tests are quick


needs_dftd3 = pytest.mark.skipif(find_spec("dftd3") is None, reason="the package dftd3 is not installed")


def make_systems():
    crystal = bulk("NaCl", "rocksalt", a=5.6)
    crystal.rattle(0.1, seed=1)
    skewed = bulk("Si", a=5.4)
    skewed.set_cell(skewed.cell.array + [[0.1, 0, 0.4], [0, -0.3, 0], [0.2, 0, 0]])
    skewed.rattle(0.1, seed=2)
    slab = graphene(vacuum=None)
    slab.rattle(0.1, seed=3)
    slab.cell[2] = 0
    slab.pbc = [True, True, False]
    high_slab = slab.copy()
    high_slab.cell[2] = [0.3, 0, 11]
    wire = Atoms("CH2", [[0, 0, 0], [0.9, 0.3, 0], [-0.9, 0.4, 0]], cell=[0, 0, 2.5], pbc=[0, 0, 1])
    dimer = molecule("CH3OH")
    return {
        "crystal": crystal,
        "triclinic": skewed,
        "slab with c = 0": slab,
        "slab TTF": high_slab,
        "wire": wire,
        "molecule": dimer,
    }


SYSTEMS = make_systems()


@needs_dftd3
@pytest.mark.parametrize("name", SYSTEMS)
def test_forces_and_strain_derivative_are_those_of_the_energy(name):
    atoms = SYSTEMS[name].copy()
    results = dispersion_results(atoms, PBE)

    def of_energy(**how):
        # Small steps: D3's coordination number jumps by 1e-7 for each pair that crosses its cutoff.
        return slope(lambda other: dispersion_results(other, PBE).energy, atoms, step=2e-5, **how)

    for index, axis in ((0, 0), (1, 1), (1, 2)):
        expected = -of_energy(move=unit(atoms, index, axis))
        assert results.forces[index, axis] == pytest.approx(expected, abs=1e-7)
    np.testing.assert_allclose(results.forces.sum(axis=0), 0, atol=1e-12)
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        strain = np.zeros((3, 3))
        strain[i, j] += 0.5
        strain[j, i] += 0.5
        assert results.strain_derivative[i, j] == pytest.approx(of_energy(strain=strain), abs=1e-7)


@needs_dftd3
def test_stress_is_the_strain_derivative_over_the_volume_in_ase_order():
    atoms = SYSTEMS["triclinic"]
    results = dispersion_results(atoms, PBE)
    assert results.stress is not None
    derivative = results.strain_derivative / atoms.get_volume()
    expected = [derivative[i, j] for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))]
    np.testing.assert_allclose(results.stress, expected, rtol=1e-14)
    assert dispersion_results(SYSTEMS["slab with c = 0"], PBE).stress is None
    assert dispersion_results(SYSTEMS["molecule"], PBE).stress is None


@needs_dftd3
@pytest.mark.parametrize(
    ("functional", "energy"), [("TPSS", -0.011441640787279111), ("PBE", -0.00978192019884)]
)
def test_energy_of_water_agrees_with_the_documentation_of_dftd3(functional, energy):
    assert dispersion_results(molecule("H2O"), functional).energy == pytest.approx(energy, abs=1e-10)


@needs_dftd3
def test_functional_is_its_parameters():
    atoms = SYSTEMS["molecule"]
    by_numbers = Dispersion(s8=0.7875, a1=0.4289, a2=4.4407)  # PBE, J. Comput. Chem. 32, 1456 (2011)
    energy = dispersion_results(atoms, "pbe").energy
    assert dispersion_results(atoms, by_numbers).energy == pytest.approx(energy, rel=1e-12)


@needs_dftd3
def test_smoothing_leaves_the_reference_energy_in_place():
    atoms = bulk("Cu", cubic=True)
    sharp = dispersion_results(atoms, Dispersion(functional="pbe", smooth_width=0.0)).energy
    assert dispersion_results(atoms, "pbe").energy == pytest.approx(sharp, abs=1e-4 * len(atoms))


@needs_dftd3
def test_three_body_term_repels_in_a_compact_molecule():
    atoms = molecule("C6H6")
    two = dispersion_results(atoms, Dispersion(s8=0.7875, a1=0.4289, a2=4.4407)).energy
    three = dispersion_results(atoms, Dispersion(s8=0.7875, a1=0.4289, a2=4.4407, three_body=True)).energy
    assert 0 < three - two < 0.1 * abs(two)


@needs_dftd3
@pytest.mark.parametrize("name", ["crystal", "slab with c = 0", "wire"])
def test_supercell_and_choice_of_cell_do_not_matter(name):
    atoms = SYSTEMS[name]
    results = dispersion_results(atoms, PBE)
    repeats = [2 if periodic else 1 for periodic in atoms.pbc]
    double = dispersion_results(atoms.repeat(repeats), PBE)
    assert double.energy == pytest.approx(np.prod(repeats) * results.energy, rel=1e-10)
    moved = atoms.copy()
    axis = int(np.flatnonzero(atoms.pbc)[0])
    moved.positions[0] += 7 * atoms.cell[axis]
    again = dispersion_results(moved, PBE)
    assert again.energy == pytest.approx(results.energy, rel=1e-12)
    np.testing.assert_allclose(again.forces, results.forces, atol=1e-12)


@needs_dftd3
def test_direction_without_pbc_has_no_images():
    flat, high = SYSTEMS["slab with c = 0"], SYSTEMS["slab TTF"]
    assert flat.positions[:, 2].min() < 0 < flat.positions[:, 2].max()  # on both sides of the cell's face
    energy = dispersion_results(flat, PBE).energy
    assert dispersion_results(high, PBE).energy == pytest.approx(energy, rel=1e-12)
    wide = flat.copy()
    wide.cell[2] = [0, 0, 60]
    wide.pbc = True
    wide.positions[:, 2] += 30
    assert dispersion_results(wide, PBE).energy == pytest.approx(energy, rel=1e-12)


@needs_dftd3
def test_atoms_are_not_touched():
    atoms = SYSTEMS["slab with c = 0"]
    before = atoms.copy()
    dispersion_results(atoms, PBE)
    assert atoms == before


@pytest.mark.parametrize(
    ("value", "functional", "expected"),
    [
        (None, "PBE", None),
        (False, "PBE", None),
        (True, "PBE", "PBE"),
        ("d3bj", "r2SCAN", "r2SCAN"),
        ("D3BJ:B3LYP", "", "b3lyp"),
        ("d3bj:pbe", "PBE-D3", "pbe"),
    ],
)
def test_words_that_are_understood(value, functional, expected):
    parsed = parse_dispersion(value, functional=functional)
    assert (parsed and parsed.functional) == expected


def test_settings_pass_through():
    assert parse_dispersion(PBE) is PBE


@pytest.mark.parametrize("value", ["False", "false", "True", "", "no", "d3", "d3zero", 0, 1, 1.0, []])
def test_words_that_only_look_like_booleans_are_errors(value):
    with pytest.raises(ConfigError, match=r"dispersion = .* of type .* allowed are None, False, True"):
        parse_dispersion(value, functional="PBE")


@pytest.mark.parametrize(
    "functional",
    [
        "PBE-D3",
        "PBE0-TS",
        "PBE0TS",
        "PBE+D3(BJ)",
        "wB97M-V",
        "wB97X-D",
        "SCAN+rVV10",
        "optB88-vdW",
        "PBE0+MBD",
    ],
)
def test_dispersion_is_not_added_twice(functional):
    with pytest.raises(ConfigError, match="have dispersion already"):
        parse_dispersion(True, functional=functional)


@pytest.mark.parametrize(
    "functional", ["PBE", "PBEsol", "r2SCAN", "wB97X", "PBE+U", "PBE/ABACUS", "TPSS", "B3LYP/TZVP"]
)
def test_functionals_without_dispersion_are_accepted(functional):
    parsed = parse_dispersion(True, functional=functional)
    assert parsed is not None and parsed.functional == functional


@needs_dftd3
def test_unknown_functionals_and_settings_are_errors():
    with pytest.raises(ConfigError, match=r'functional of this head is not known.*"d3bj:pbe"'):
        parse_dispersion(True)
    with pytest.raises(
        ConfigError, match=r"no D3\(BJ\) parameters for the functional 'nonsense'; known are pbe"
    ):
        dispersion_results(molecule("H2O"), "nonsense")
    with pytest.raises(ConfigError, match="either a functional or all of s8, a1 and a2"):
        Dispersion()
    with pytest.raises(ConfigError, match="either a functional or all of s8, a1 and a2"):
        Dispersion(functional="pbe", s8=1.0)
    with pytest.raises(ConfigError, match="needed is 0 <= smooth_width < cutoff"):
        Dispersion(functional="pbe", cutoff=1.0, smooth_width=2.0)


@needs_dftd3
def test_structures_that_d3_cannot_take_are_errors():
    for symbol in ("X", "Am", "Og"):  # dftd3 1.7 ends the process for Og
        with pytest.raises(ElementError, match=f"no parameters for {symbol}; it covers H"):
            dispersion_results(Atoms([symbol, "H"], [[0, 0, 0], [0, 0, 3]]), PBE)
    with pytest.raises(StructureError, match="refuses this structure: Too close"):
        dispersion_results(Atoms("H2"), PBE)
    with pytest.raises(StructureError, match="not finite"):
        dispersion_results(Atoms("H", [[0, 0, np.nan]]), PBE)
    with pytest.raises(StructureError, match=r"vector a = .* no length"):
        dispersion_results(Atoms("H", pbc=True), PBE)
    crowd = Atoms(
        "H40", np.random.default_rng(0).random((40, 3)) * [0.2, 0.2, 5], cell=[0.2, 0.2, 5], pbc=True
    )
    with pytest.raises(StructureError, match="neighbours within 10 Å of each"):
        dispersion_results(crowd, PBE)


def test_without_dftd3_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dftd3", None)
    monkeypatch.setitem(sys.modules, "dftd3.interface", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "dpa2calc\[dispersion\]"'):
        dispersion_results(molecule("H2O"), PBE)
