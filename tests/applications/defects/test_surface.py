"""Surface energies by counting bonds, against direct slabs, and for compounds."""

import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.calculators.lj import LennardJones
from emt_cases import CountingEMT, with_emt

from dpa2calc.applications.crystals.phonopy_bridge import primitive_cell
from dpa2calc.applications.defects.surface import (
    SurfaceEnergy,
    reference_cell,
    slab_from_unit,
    slab_unit,
    surface_energy,
)
from dpa2calc.errors import ConfigError

JOULE = 16.021766
BOND = 2.5


def bonded_crystal():
    """fcc with nearest-neighbour bonds at rest: nothing relaxes, energies are counts of bonds."""
    atoms = bulk("Cu", a=BOND * np.sqrt(2))
    atoms.calc = LennardJones(sigma=BOND / 2 ** (1 / 6), epsilon=0.1, rc=1.3 * BOND)
    return atoms


@pytest.mark.parametrize(
    ("miller", "broken", "area"),
    [
        ((1, 1, 1), 3, np.sqrt(3) / 2),
        ((1, 0, 0), 4, 1.0),
        ((1, 1, 0), 6, np.sqrt(2)),
        ((2, 1, 1), 10, np.sqrt(6)),
    ],
)
def test_counting_broken_bonds(miller, broken, area):
    """Broken bonds a surface cell: 3, 4, 6 and, on the stepped (211), 10; half a bond each to gamma A."""
    atoms = bonded_crystal()
    bond = -atoms.get_potential_energy() / 6
    result = surface_energy(atoms, miller, thicknesses=(6, 9, 12), progress=False)
    assert result.area == pytest.approx(area * BOND**2, rel=1e-6)
    assert result.energy / JOULE * result.area == pytest.approx(broken * bond / 2, rel=1e-6)
    assert result.unrelaxed_energy == pytest.approx(result.energy, rel=1e-6)
    assert result.fitted_bulk_energy == pytest.approx(result.bulk_energy, rel=1e-6)
    assert result.error < 1e-5 and result.symmetric


def test_direct_supercell_arithmetic():
    """EMT Cu(111) from ASE's own slab builder: (E_slab - N e) / 2A."""
    atoms = with_emt(bulk("Cu", a=3.59, cubic=True))
    result = surface_energy(atoms, (1, 1, 1), relax="fixed", relax_bulk=False, progress=False)
    slab = with_emt(fcc111("Cu", (1, 1, 9), a=3.59, vacuum=8.0))
    per_atom = atoms.get_potential_energy() / 4
    area = np.linalg.norm(np.cross(slab.cell[0], slab.cell[1]))
    direct = (slab.get_potential_energy() - 9 * per_atom) / (2 * area) * JOULE
    assert result.direct == pytest.approx([direct] * len(result.direct), rel=1e-4)
    assert result.energy == pytest.approx(direct, rel=1e-3)


def test_relaxation_lowers_the_energy_and_close_packed_faces_are_lowest():
    atoms = with_emt(bulk("Cu", a=3.6))
    millers = ((1, 1, 1), (1, 0, 0), (1, 1, 0))
    faces = {m: surface_energy(atoms, m, thicknesses=(8, 12), progress=False) for m in millers}
    energies = [result.energy for result in faces.values()]
    assert energies == sorted(energies)
    for result in faces.values():
        assert result.energy <= result.unrelaxed_energy + 1e-4
        assert result.error < 0.01


def test_one_plane_a_layer_and_the_same_crystal():
    """Stacking the unit periodically gives the bulk back: all its bonds and its volume."""
    cubic = bulk("Cu", a=BOND * np.sqrt(2), cubic=True)
    primitive = primitive_cell(cubic, 1e-3)
    for miller in ((1, 1, 1), (1, 0, 0), (3, 1, 0), (2, 1, 1), (-1, 2, 5)):
        unit = slab_unit(primitive, miller, reference=cubic.cell.array)
        assert len(unit) == 1
        assert unit.get_volume() == pytest.approx(primitive.get_volume())
        unit.calc = bonded_crystal().calc
        assert unit.get_potential_energy() == pytest.approx(bonded_crystal().get_potential_energy())
        slab = slab_from_unit(unit, 4, 12.0)
        assert slab.cell.array[2] == pytest.approx([0, 0, slab.cell.array[2, 2]], abs=1e-9)


def test_indices_refer_to_the_given_cell():
    """A tetragonal cell given with its long axis first: (100) is the face across the long axis."""
    atoms = bulk("Cu", cubic=True, a=3.85)
    atoms.symbols[[0, 3]] = "Au"  # L1_0 with planes stacked along z
    turned = atoms.copy()
    turned.set_cell([4.1, 3.85, 3.85], scale_atoms=True)
    turned.positions = atoms.positions[:, [2, 0, 1]] * [4.1 / 3.85, 1, 1]
    reference = reference_cell(turned, 1e-3)
    unit = slab_unit(primitive_cell(turned, 1e-3), (1, 0, 0), reference=reference)
    assert np.linalg.norm(np.cross(unit.cell[0], unit.cell[1])) == pytest.approx(3.85**2 / 2)


def test_diamond_is_cut_through_its_widest_gap():
    """Si(111) between the widely spaced planes: one broken bond an atom; the other cut breaks three."""
    silicon = bulk("Si", a=5.43)
    primitive, reference = primitive_cell(silicon, 1e-3), reference_cell(silicon, 1e-3)
    assert reference == pytest.approx(5.43 * np.eye(3), abs=1e-6)
    gaps = {}
    for name, shift in (("widest", 0.0), ("narrow", 0.5)):
        slab = slab_from_unit(slab_unit(primitive, (1, 1, 1), reference=reference, shift=shift), 3, 10.0)
        gaps[name] = np.diff(np.sort(slab.positions[:, 2]))[:3]
    spacing = 5.43 * np.sqrt(3) / 12  # a sqrt(3)/12 and three times that, in turn
    assert gaps["widest"] == pytest.approx([spacing, 3 * spacing, spacing], abs=1e-3)
    assert gaps["narrow"] == pytest.approx([3 * spacing, spacing, 3 * spacing], abs=1e-3)


def test_faces_of_a_compound_may_differ():
    """L1_0 CuAu (001): one face Cu, one Au."""
    atoms = with_emt(bulk("Cu", cubic=True, a=3.85))
    atoms.symbols[[0, 3]] = "Au"
    with pytest.warns(UserWarning, match="the two faces of the .* slab differ, the result is their mean"):
        result = surface_energy(atoms, (0, 0, 1), thicknesses=(6, 10), relax="fixed", progress=False)
    assert not result.symmetric and "their mean" in result.summary()


def test_round_trip_plot_and_resume(tmp_path):
    atoms = bulk("Cu", a=3.6)
    atoms.calc = CountingEMT()
    options = {"thicknesses": (6, 9), "folder": tmp_path / "work", "progress": False}
    result = surface_energy(atoms, (1, 0, 0), **options)
    done = atoms.calc.calls
    again = surface_energy(atoms, (1, 0, 0), **options)
    assert atoms.calc.calls == done and again.energy == result.energy
    loaded = SurfaceEnergy.load(result.save(tmp_path / "s.npz"))
    assert loaded.summary() == result.summary() and loaded.miller == (1, 0, 0)
    assert "(100)" in loaded.plot().get_title()
    assert len(loaded.atoms()) == result.n_atoms[-1]


@pytest.mark.parametrize(
    ("miller", "change", "text"),
    [
        ((0, 0, 0), {}, "three whole numbers that are not all zero"),
        ((1, 1), {}, "miller = .1, 1. is not allowed; allowed: a list of 3 entries"),
        ((1, 1, 1), {"thicknesses": (10,)}, "two or more different lengths"),
        ((1, 1, 1), {"thicknesses": (10.0, 10.1)}, "are all 6 planes of"),
        ((1, 1, 1), {"vacuum": 0}, "vacuum must be a positive number"),
        ((1, 1, 1), {"relax": "cell"}, "relax = 'cell' is not allowed; allowed: fixed, positions"),
    ],
)
def test_wrong_options(miller, change, text):
    atoms = with_emt(bulk("Cu", a=3.59))
    with pytest.raises(ConfigError, match=text):
        surface_energy(atoms, miller, progress=False, **change)


def test_planes_of_high_indices_are_refused():
    """Their lattice vectors would be sought among more than memory holds."""
    with pytest.raises(ConfigError, match=r"miller = \(1000, 1, 0\) is the plane .* 50 at most"):
        surface_energy(bonded_crystal(), (1000, 1, 0), relax_bulk=False, progress=False)
