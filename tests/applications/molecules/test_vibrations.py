"""Molecular vibrations against second differences of the energy, isotopes and rigid-body mechanics."""

from dataclasses import replace

import numpy as np
import pytest
from architectures import make_potential
from ase import Atoms, units
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength, FixCom
from ase.optimize import BFGS
from ase.thermochemistry import IdealGasThermo
from ase.vibrations import Vibrations as ASEVibrations
from emt_cases import with_emt

from dpa2calc.applications.molecules.vibrations import Vibrations, rigid_motions, vibrations
from dpa2calc.applications.relaxation.relax import relax
from dpa2calc.calculator import DPA2Calculator
from dpa2calc.errors import ConfigError, DataError, StructureError


def relaxed(name, calculator=EMT):
    atoms = molecule(name)
    atoms.calc = calculator()
    BFGS(atoms, logfile=None).run(fmax=1e-6, steps=500)
    return atoms


def inverse_cm(stiffness, mass):
    return np.sqrt(stiffness * units._e * 1e20 / (mass * units._amu)) / (2 * np.pi * units._c * 100)


@pytest.mark.parametrize("name", ["H2", "N2", "CO"])
def test_diatomic_against_differences_of_the_energy(name):
    atoms = relaxed(name)
    length, h = atoms.get_distance(0, 1), 0.005

    def energy(r):
        pair = Atoms(atoms.symbols, positions=[[0, 0, 0], [r, 0, 0]], calculator=EMT())
        return pair.get_potential_energy()

    values = [energy(length + i * h) for i in (-2, -1, 0, 1, 2)]
    stiffness = (-values[0] + 16 * values[1] - 30 * values[2] + 16 * values[3] - values[4]) / (12 * h**2)
    m1, m2 = atoms.get_masses()
    result = vibrations(atoms, displacement=0.002, progress=False)
    assert result.linear and len(result.frequencies) == 1
    assert result.frequencies[0] == pytest.approx(inverse_cm(stiffness, m1 * m2 / (m1 + m2)), rel=1e-3)
    assert result.zero_point_energy == pytest.approx(result.frequencies[0] * units.invcm / 2)
    # rotations seen through finite displacements
    assert np.abs(result.rigid_frequencies).max() < 0.003 * result.frequencies[0]


def test_water_has_three_vibrations_and_six_rigid_motions():
    atoms = relaxed("H2O")
    before = atoms.copy()
    result = vibrations(atoms, displacement=0.002, progress=False)
    assert atoms == before
    assert result.frequencies.shape == (3,) and result.modes.shape == (3, 3, 3)
    assert result.n_imaginary == 0 and not result.linear
    assert np.abs(result.rigid_frequencies).max() < 0.02 * result.frequencies.max()
    # modes carry neither momentum nor angular momentum, and are orthogonal under the masses
    mass = atoms.get_masses()[:, None]
    centred = atoms.positions - atoms.get_center_of_mass()
    for mode in result.modes:
        assert (mass * mode).sum(axis=0) == pytest.approx([0, 0, 0], abs=1e-10)
        assert np.cross(centred, mass * mode).sum(axis=0) == pytest.approx([0, 0, 0], abs=1e-10)
    overlap = np.einsum("max,nax,a->mn", result.modes, result.modes, mass[:, 0])
    assert overlap == pytest.approx(np.diag(np.diag(overlap)), abs=1e-10)


def test_isotopes():
    """Deuterium: every mode of H2 slows by sqrt(2)."""
    light = relaxed("H2")
    heavy = with_emt(light.copy())
    heavy.set_masses(2 * light.get_masses())
    ratio = vibrations(light, progress=False).frequencies / vibrations(heavy, progress=False).frequencies
    assert ratio == pytest.approx([np.sqrt(2)], rel=1e-9)


def test_rigid_motions_span_what_moves_nothing():
    positions = np.random.default_rng(0).normal(size=(5, 3))
    masses = np.array([1.0, 12.0, 16.0, 14.0, 1.0])
    rows, linear = rigid_motions(positions, masses)
    assert rows.shape == (6, 15) and not linear
    assert rows @ rows.T == pytest.approx(np.eye(6), abs=1e-12)
    rotation = np.cross([0.3, -0.2, 0.9], positions) * np.sqrt(masses)[:, None]  # about the origin
    assert rows.T @ (rows @ rotation.ravel()) == pytest.approx(rotation.ravel(), abs=1e-10)
    line = np.outer(np.arange(3.0), [1, 2, 3])
    assert rigid_motions(line, masses[:3])[0].shape == (5, 9) and rigid_motions(line, masses[:3])[1]
    assert rigid_motions(positions[:1], masses[:1])[0].shape == (3, 3)


@pytest.mark.parametrize("off", [0.0, 1e-4, 0.01])
def test_a_linear_molecule_that_is_left_a_little_bent_is_linear(off):
    """A soft bending mode leaves atoms a hundredth of Å off the axis; one mode in four must not be lost."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    positions = np.outer([-1.16, 0.0, 1.16], axis)
    positions[1] += off * np.array([2.0, -1.0, 0.0]) / np.sqrt(5)
    rows, linear = rigid_motions(positions, np.array([16.0, 12.0, 16.0]))
    assert linear and rows.shape == (5, 9)


def test_a_molecule_in_a_field_is_told_of():
    """Springs to fixed places: all six modes are sqrt(k/m), none of them a motion of a free molecule."""
    places = np.array([[0.0, 0.0, 0.0], [1.5, 0.0, 0.0]])
    atoms = Atoms("HO", positions=places, calculator=Trap(places, 2.0))
    with pytest.warns(UserWarning, match=r"(?s)holds the molecule.*at 253 1/cm.*indices=range\(2\)"):
        assert len(vibrations(atoms, progress=False).frequencies) == 1
    expected = np.repeat(inverse_cm(2.0, atoms.get_masses()), 3)
    found = vibrations(atoms, indices=range(2), progress=False).frequencies
    assert found == pytest.approx(np.sort(expected), rel=1e-9)


class Trap(Calculator):
    """Every atom on a spring to its place."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, places, stiffness):
        super().__init__()
        self.places, self.stiffness = places, stiffness

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        moved = atoms.positions - self.places
        self.results = {"energy": self.stiffness / 2 * (moved**2).sum(), "forces": -self.stiffness * moved}


def test_free_energy_of_an_ideal_gas():
    atoms = relaxed("N2")
    result = vibrations(atoms, progress=False)
    reference = IdealGasThermo(
        result.frequencies * units.invcm, "linear", atoms=atoms, symmetrynumber=2, spin=0,
        potentialenergy=result.energy,
    ).get_gibbs_energy(300.0, 101325.0, verbose=False)  # fmt: skip
    assert result.free_energy(300.0, symmetry_number=2) == pytest.approx(reference)
    # doubling the symmetry number costs kT ln 2
    difference = result.free_energy(300.0, symmetry_number=2) - result.free_energy(300.0)
    assert difference == pytest.approx(units.kB * 300 * np.log(2), rel=1e-9)


def test_free_energy_needs_a_temperature_and_real_modes():
    result = vibrations(relaxed("N2"), displacement=0.002, progress=False)
    for wrong in (0.0, -300.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="temperature must be a positive number"):
            result.free_energy(wrong)
        with pytest.raises(ConfigError, match="pressure must be a positive number"):
            result.free_energy(300.0, pressure=wrong)
    for gas in ({"symmetry_number": 0}, {"symmetry_number": 1.5}, {"spin": -1.0}, {"spin": 0.3}):
        with pytest.raises(ConfigError, match=f"{next(iter(gas))} = .* is not allowed"):
            result.free_energy(300.0, **gas)
    for soft in (-0.5, 0.0):  # neither counts as imaginary in `n_imaginary`
        with pytest.raises(StructureError, match=r"1 imaginary modes .*no free energy"):
            replace(result, frequencies=np.array([soft])).free_energy(300.0)


def test_free_energy_of_a_frozen_mode_is_the_zero_point():
    slab = fcc111("Cu", (1, 1, 2), vacuum=6)
    add_adsorbate(slab, "N", 1.2, "fcc")
    slab.calc = EMT()
    result = vibrations(slab, indices=[2], relax="positions", progress=False)
    assert result.free_energy(1e-3) == pytest.approx(result.energy + result.zero_point_energy, abs=1e-9)


def test_saddle_point_has_an_imaginary_mode_and_no_free_energy():
    atoms = relaxed("C2H2")  # EMT prefers it bent
    result = vibrations(atoms, progress=False)
    assert result.n_imaginary > 0 and "imaginary" in result.summary()
    with pytest.raises(StructureError, match=r"imaginary modes \(lowest -.*no free energy"):
        result.free_energy(300.0)


def test_chosen_atoms_on_a_surface(tmp_path):
    slab = fcc111("Cu", (2, 2, 2), vacuum=6.0)
    add_adsorbate(slab, "O", 1.2, "fcc")
    slab.pbc = True
    slab.calc = EMT()
    result = vibrations(slab, indices=[8], relax="positions", fmax=1e-4, progress=False)
    assert result.frequencies.shape == (3,) and len(result.rigid_frequencies) == 0
    assert result.positions[:8] == pytest.approx(slab.positions[:8])  # only the chosen atom relaxed
    assert result.frequencies[0] == pytest.approx(result.frequencies[1], rel=1e-3)  # threefold site
    # normal mode along z: second difference of the energy
    top, h = result.atoms(), 0.005
    energies = []
    for step in (-h, 0, h):
        moved = top.copy()
        moved.positions[8, 2] += step
        moved.calc = EMT()
        energies.append(moved.get_potential_energy())
    stiffness = (energies[0] - 2 * energies[1] + energies[2]) / h**2
    assert result.hessian[2, 2] == pytest.approx(stiffness, rel=1e-3)
    assert result.free_energy(300.0) < result.energy + result.zero_point_energy
    loaded = Vibrations.load(result.save(tmp_path / "v.npz"))
    assert loaded.summary() == result.summary()


def held_slab():
    slab = fcc111("Cu", (2, 2, 2), vacuum=6.0)
    add_adsorbate(slab, "O", 1.2, "fcc")
    slab.calc = EMT()
    slab = relax(slab, fmax=1e-4, progress=False).atoms()
    slab.calc = EMT()
    return slab


def test_atoms_that_are_held_do_not_vibrate_as_in_ase(tmp_path):
    """FixAtoms means the same as the indices of the others, and the frequencies are those of ASE."""
    slab = held_slab()
    named = vibrations(slab, indices=[8], progress=False)
    slab.set_constraint(FixAtoms(range(8)))
    held = vibrations(slab, progress=False)
    assert held.indices.tolist() == [8] and not len(held.rigid_frequencies)
    np.testing.assert_array_equal(held.frequencies, named.frequencies)
    theirs = ASEVibrations(slab, name=tmp_path / "ase", delta=0.01)
    theirs.run()
    np.testing.assert_allclose(held.frequencies, theirs.get_frequencies().real, rtol=1e-6)
    slab.set_constraint([FixAtoms([0, 1, -2, -3]), FixAtoms(range(-9, -3))])  # counted from the end
    again = vibrations(slab, progress=False)
    assert again.indices.tolist() == [8] and np.array_equal(again.frequencies, named.frequencies)
    with pytest.warns(UserWarning, match=r"FixAtoms holds atoms \[0\], which vibrate all the same"):
        assert len(vibrations(slab, indices=[8, 0], progress=False).frequencies) == 6
    slab.set_constraint(FixAtoms(range(9)))
    with pytest.raises(StructureError, match="FixAtoms holds all 9 atoms, so nothing vibrates"):
        vibrations(slab, progress=False)


def test_constraints_that_are_not_used_are_told_of():
    atoms = relaxed("N2")
    free = vibrations(atoms, progress=False).frequencies
    atoms.set_constraint([FixBondLength(0, 1), FixCom()])
    with pytest.warns(UserWarning, match="vibrations: FixBondLengths on the atoms is not used") as told:
        np.testing.assert_array_equal(vibrations(atoms, progress=False).frequencies, free)
    assert len(told) == 1


def test_frames_of_a_mode():
    result = vibrations(relaxed("H2O"), progress=False)
    frames = result.mode_frames(2, amplitude=0.2, n_frames=8)
    moves = np.array([frame.positions - result.positions for frame in frames])
    assert moves[0] == pytest.approx(0.0)
    assert np.linalg.norm(moves[2], axis=1).max() == pytest.approx(0.2)
    assert moves[6] == pytest.approx(-moves[2])
    assert result.plot().get_xlabel().startswith("frequency")


def test_resumes_after_an_interruption(tmp_path):
    class Stopping(EMT):
        calls, stop = 0, 4

        def calculate(self, *args, **kwargs):
            type(self).calls += 1
            if self.calls == self.stop:
                raise KeyboardInterrupt
            super().calculate(*args, **kwargs)

    atoms = relaxed("N2")
    atoms.calc = Stopping()
    with pytest.raises(KeyboardInterrupt):
        vibrations(atoms, folder=tmp_path, progress=False)
    stored = len(list(tmp_path.glob("*.npz")))
    assert stored == 3 and not list(tmp_path.glob("*.part"))
    vibrations(atoms, folder=tmp_path, progress=False)
    assert Stopping.calls == 4 + 13 - 3  # the rest and twelve displacements, three of them known


def test_errors():
    atoms = with_emt(molecule("N2"))
    text = r"need a relaxed structure: the largest force is .* use relax='positions'"
    with pytest.raises(StructureError, match=text):
        vibrations(atoms, progress=False)
    with pytest.raises(ConfigError, match="indices must be different numbers from 0 to 1"):
        vibrations(atoms, indices=[0, 0], progress=False)
    with pytest.raises(ConfigError, match="indices must be a list of atom numbers"):
        vibrations(atoms, indices=[0.5], progress=False)
    with pytest.raises(ConfigError, match="displacement must be a positive number"):
        vibrations(atoms, displacement=0, progress=False)
    with pytest.raises(ConfigError, match="relax = 'cell' is not allowed; allowed: fixed, positions"):
        vibrations(atoms, relax="cell", progress=False)
    atoms.set_cell([10, 10, 10])
    atoms.pbc = True
    with pytest.raises(StructureError, match=r"use phonons\(\) for a crystal"):
        vibrations(atoms, progress=False)


@pytest.fixture(scope="module")
def peroxide():
    """A molecule at rest under a small model, whatever it looks like there."""
    atoms = Atoms("OHHO", [[0, 0, 0], [0.9, 0.2, 0], [-0.2, 0.9, 0.3], [0.6, 0.7, 1.2]])
    atoms.calc = DPA2Calculator(make_potential("dpa2-small"), dtype="float64", device="cpu")
    return relax(atoms, fmax=1e-6, max_steps=2000, progress=False).atoms()


def test_exact_hessian_equals_the_differences(peroxide):
    peroxide.calc = DPA2Calculator(make_potential("dpa2-small"), dtype="float64", device="cpu")
    exact = vibrations(peroxide, progress=False)
    moved = vibrations(peroxide, displacement=1e-3, progress=False)
    assert exact.displacement == 0 and "; exact, no displacements" in exact.summary()
    assert moved.displacement == 1e-3 and "displacement 0.001 Å" in moved.summary()
    np.testing.assert_allclose(exact.hessian, moved.hessian, atol=1e-5)
    np.testing.assert_allclose(exact.frequencies, moved.frequencies, atol=0.05)
    assert exact.asymmetry < 1e-13 and np.abs(exact.rigid_frequencies).max() < 5
    some = vibrations(peroxide, indices=[3, 0], progress=False)
    order = np.r_[9:12, 0:3]
    np.testing.assert_allclose(some.hessian, exact.hessian[np.ix_(order, order)], atol=1e-12)


def test_a_finished_hessian_is_kept(peroxide, tmp_path, monkeypatch):
    peroxide.calc = DPA2Calculator(make_potential("dpa2-small"), dtype="float64", device="cpu")
    first = vibrations(peroxide, folder=tmp_path, progress=False)
    monkeypatch.setattr("dpa2calc.calculator.hessian_rows", None)
    again = vibrations(peroxide, folder=tmp_path, progress=False)
    np.testing.assert_array_equal(first.hessian, again.hessian)
    (stored,) = tmp_path.glob("hessian-*.npz")
    stored.write_bytes(stored.read_bytes()[:100])
    with pytest.raises(DataError, match=stored.name):
        vibrations(peroxide, folder=tmp_path, progress=False)


def test_hessians_in_another_form_are_not_used():
    class Other(EMT):
        def get_hessian(self, atoms):
            raise AssertionError

    atoms = relaxed("N2")
    atoms.calc = Other()
    assert vibrations(atoms, progress=False).displacement == 0.01
