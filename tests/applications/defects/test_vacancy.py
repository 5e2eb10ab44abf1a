"""Vacancy formation energies by counting bonds and by direct supercell arithmetic."""

import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.optimize import BFGS
from emt_cases import CountingEMT, with_emt

from dpa2calc.applications.defects.vacancy import (
    VacancyFormation,
    inequivalent_sites,
    vacancy_formation_energy,
    vacancy_hop,
)
from dpa2calc.errors import ConfigError, StructureError

BOND = 2.5


def test_counting_bonds():
    """Nearest-neighbour bonds at rest: 12 are cut, the atom put back on the surface regains 6."""
    atoms = bulk("Cu", a=BOND * np.sqrt(2))
    atoms.calc = LennardJones(sigma=BOND / 2 ** (1 / 6), epsilon=0.1, rc=1.3 * BOND)
    result = vacancy_formation_energy(atoms, min_lengths=(7, 10), progress=False)
    six_bonds = -atoms.get_potential_energy()
    assert result.energies == pytest.approx([six_bonds] * 2, abs=1e-5)
    assert result.energy == pytest.approx(six_bonds, abs=1e-4)
    assert list(result.n_atoms) == [32, 108]


def test_direct_supercell_arithmetic():
    atoms = with_emt(bulk("Cu", a=3.59))
    result = vacancy_formation_energy(
        atoms, min_lengths=(7.0, 10.0), relax_bulk=False, fmax=1e-3, progress=False
    )
    for repeat, found, rigid in zip((2, 3), result.energies, result.unrelaxed_energies):
        cell = with_emt(bulk("Cu", a=3.59, cubic=True) * repeat)
        whole = cell.get_potential_energy()
        n = len(cell)
        del cell[5]
        assert rigid == pytest.approx(cell.get_potential_energy() - (n - 1) / n * whole, abs=1e-6)
        BFGS(cell, logfile=None).run(fmax=1e-3, steps=100)
        assert found == pytest.approx(cell.get_potential_energy() - (n - 1) / n * whole, abs=1e-4)
    assert (result.energies < result.unrelaxed_energies).all()
    # 1/N through two sizes
    (e1, e2), (n1, n2) = result.energies, result.n_atoms
    assert result.energy == pytest.approx((n2 * e2 - n1 * e1) / (n2 - n1))
    assert result.error == pytest.approx(abs(result.energy - e2))


def test_symmetric_saddle_is_left():
    """The seed changes only where the relaxation starts."""
    atoms = with_emt(bulk("Cu", a=3.59))
    one, other = (
        vacancy_formation_energy(atoms, min_lengths=(7.0,), seed=seed, progress=False) for seed in (0, 1)
    )
    assert one.energy == pytest.approx(other.energy, abs=1e-4)
    assert np.isnan(one.error)


def test_compound_needs_a_chemical_potential():
    atoms = with_emt(bulk("Cu", cubic=True, a=3.75))
    atoms.symbols[0] = "Au"
    assert inequivalent_sites(atoms) == [0, 1]
    with pytest.raises(ConfigError, match=r"is a compound: .* give chemical_potential=\{'Cu'"):
        vacancy_formation_energy(atoms, site=1, progress=False)
    with pytest.raises(ConfigError, match=r"no entry for Au, only for \['Cu'\]"):
        vacancy_formation_energy(atoms, chemical_potential={"Cu": 0.0}, progress=False)
    options = {"site": 1, "min_lengths": (7.0,), "relax": "none", "progress": False}
    low, high = (
        vacancy_formation_energy(atoms, chemical_potential={"Cu": mu}, **options) for mu in (-0.2, 0.1)
    )
    assert high.energy - low.energy == pytest.approx(0.3)
    assert low.element == "Cu"


def test_caller_round_trip_plot_and_resume(tmp_path):
    atoms = bulk("Cu", a=3.6)
    atoms.calc = CountingEMT()
    before = atoms.copy()
    options = {"min_lengths": (6.0, 7.5), "folder": tmp_path / "work", "progress": False}
    result = vacancy_formation_energy(atoms, **options)
    done = atoms.calc.calls
    assert vacancy_formation_energy(atoms, **options).energy == result.energy
    assert atoms.calc.calls == done and atoms == before
    loaded = VacancyFormation.load(result.save(tmp_path / "v.npz"))
    assert loaded.summary() == result.summary()
    assert "Cu vacancy" in loaded.plot().get_title()
    assert len(loaded.atoms()) == result.n_atoms[-1] - 1


def test_hop_moves_one_atom_to_the_nearest_site():
    initial, final = vacancy_hop(bulk("Cu", a=3.6), min_length=7.0)
    moved = np.flatnonzero(np.linalg.norm(final.positions - initial.positions, axis=1) > 0.1)
    assert len(moved) == 1 and len(initial) == 31
    assert initial.positions.shape == final.positions.shape
    shortest = final.get_distances(int(moved[0]), range(31), mic=True)
    assert np.sort(shortest)[1] == pytest.approx(3.6 / np.sqrt(2))
    with pytest.raises(ConfigError, match="neighbour must be 0 to 30"):
        vacancy_hop(bulk("Cu", a=3.6), min_length=7.0, neighbour=40)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"site": 3}, "site must be an atom number from 0 to 0, got 3"),
        ({"min_lengths": ()}, "min_lengths must be lengths"),
        ({"relax": "cell"}, "relax = 'cell' is not allowed; allowed: fixed, positions"),
        ({"rattle": -1}, "rattle >= 0"),
    ],
)
def test_wrong_options(change, text):
    atoms = with_emt(bulk("Cu", a=3.6))
    with pytest.raises(ConfigError, match=text):
        vacancy_formation_energy(atoms, progress=False, **change)


@pytest.mark.parametrize("options", [{"seed": -1}, {"min_lengths": [1e6]}, {"symprec": 2.0}])
def test_what_is_used_after_the_work_is_refused_before_it(options):
    class Never(EMT):
        def calculate(self, *args, **kwargs):
            raise AssertionError("asked")

    atoms = bulk("Cu", cubic=True)
    atoms.calc = Never()
    with pytest.raises(ConfigError, match=r"seed is -1|would have .* cells|symprec is 2"):
        vacancy_formation_energy(atoms, progress=False, **options)


def test_the_mean_energy_of_a_slab_is_no_chemical_potential():
    """Against the energies themselves: with the bulk's energy of an atom a slab has a vacancy energy."""
    slab = fcc111("Cu", (1, 1, 4), a=3.6, vacuum=6.0)
    slab.pbc = True
    slab.calc = EMT()
    options = {"min_lengths": (5.0,), "relax": "fixed", "relax_bulk": False, "progress": False}
    with pytest.raises(StructureError, match=r"as those of a slab.*give chemical_potential=\{'Cu': eV"):
        vacancy_formation_energy(slab, **options)
    result = vacancy_formation_energy(slab, chemical_potential={"Cu": -0.007}, **options)
    whole = slab.repeat((3, 3, 1))
    holed = whole.copy()
    del holed[0]
    holed.calc = whole.calc = EMT()
    expected = holed.get_potential_energy() - 0.007 - whole.get_potential_energy()
    assert result.n_atoms.tolist() == [36] and result.energy == pytest.approx(expected, abs=1e-9)
    layer = fcc111("Cu", (1, 1, 1), a=3.6, vacuum=6.0)  # all atoms alike, its own bulk
    layer.pbc = True
    layer.calc = EMT()
    assert vacancy_formation_energy(layer, **options).chemical_potential == layer.get_potential_energy()
