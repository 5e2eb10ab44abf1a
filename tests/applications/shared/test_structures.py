"""Bounds of options that would crash spglib, never end, or fill the memory; structures in results."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import find_mic
from emt_cases import with_emt

from dpa2calc.applications import (
    elastic_constants,
    equation_of_state,
    phonons,
    quasi_harmonic,
    relax,
    run_md,
    screen,
    vibrations,
)
from dpa2calc.applications.crystals import phonopy_bridge
from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.applications.shared.structures import (
    check_symprec,
    fields_of,
    repeats_for_length,
    structure_of,
    symmetry_dataset,
)
from dpa2calc.errors import ConfigError, StructureError

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("mass", [0.0, -1.0, NAN, INF])
@pytest.mark.parametrize("application", [phonons, elastic_constants, quasi_harmonic, vibrations])
def test_what_needs_masses_says_which_atom_has_none(application, mass):
    atoms = with_emt(bulk("Cu", cubic=True))
    if application is vibrations:
        atoms.pbc = False
    atoms.set_masses([63.5, 63.5, mass, 63.5])
    with pytest.raises(StructureError, match=rf"atom 2 \(Cu\) has the mass {mass:g}; give every atom"):
        application(atoms, progress=False)


def test_a_tolerance_of_symmetry_is_a_distance():
    copper = bulk("Cu")
    for symprec in (1e-8, 1e-5, 1.0):
        check_symprec(symprec)
        assert symmetry_dataset(copper, symprec, "a test").number == 225
    copper.calc = EMT()
    for symprec in (-1e-5, 0.0, 1e-9, 1.5, NAN, INF, 1e300):
        for call in (check_symprec, lambda s: symmetry_dataset(copper, s, "a test")):
            with pytest.raises(ConfigError, match=r"symprec is .*; it must be a distance from 1e-8 to 1 Å"):
                call(symprec)
        with pytest.raises(ConfigError, match="symprec"):
            relax(copper, symprec=symprec, progress=False)


@pytest.mark.parametrize(
    ("min_length", "repeats"), [(0.0, [1, 1, 1]), (5.0, [2, 2, 3]), (12.0, [4, 3, 6]), (200.0, [67, 50, 100])]
)
def test_repeats_reach_a_length(min_length, repeats):
    np.testing.assert_array_equal(repeats_for_length(np.diag([3.0, 4.0, 2.0]), min_length), repeats)


@pytest.mark.parametrize("min_length", [400.0, 1e9, 1e300])
def test_a_supercell_has_at_most_a_million_cells(min_length):
    with pytest.raises(ConfigError, match=r"the supercell would have .* cells, at most 1e\+06 are allowed"):
        repeats_for_length(np.diag([3.0, 4.0, 2.0]), min_length)
    copper = with_emt(bulk("Cu", cubic=True))
    with pytest.raises(ConfigError, match="at most 1e\\+06 are allowed; lower min_length"):
        phonons(copper, min_length=min_length, relax="none", progress=False)


@pytest.mark.parametrize("how", ["relax", "kept relaxation", "primitive cell"])
def test_errors_of_spglib_are_errors_of_the_structure(how, monkeypatch):
    class SpglibError(Exception):
        pass

    SpglibError.__module__ = "spglib.error"

    def broken(*args, **kwargs):
        raise SpglibError("Generic Spglib error:\n")

    copper = with_emt(bulk("Cu"))
    monkeypatch.setattr("ase.constraints.FixSymmetry", broken)
    monkeypatch.setattr(phonopy_bridge, "refine_symmetry", broken)
    with pytest.raises(StructureError, match=r"spglib finds no symmetry \(Generic Spglib error:\); do atoms"):
        if how == "relax":
            relax(copper, keep_symmetry=True, progress=False)
        elif how == "primitive cell":
            phonopy_bridge.primitive_cell(copper, 0.5)
        else:
            Relaxation(fmax=0.1, symmetry=True).run(copper, what="a test")


@pytest.mark.parametrize("places", ["positions", "scaled_positions"])
def test_structures_go_through_results_unchanged(places):
    for atoms in (bulk("NaCl", "rocksalt", a=5.6), molecule("H2O", vacuum=3.0)):
        atoms.set_masses(atoms.get_masses() + 0.5)
        fields = fields_of(atoms, "numbers", "masses", "cell", "pbc", places, prefix="slab_")
        back = structure_of(SimpleNamespace(**fields), "slab_")
        assert back.numbers.tolist() == atoms.numbers.tolist() and back.pbc.tolist() == atoms.pbc.tolist()
        # scaled positions are those of the home cell
        moved = find_mic(back.positions - atoms.positions, atoms.cell, atoms.pbc)[1]
        assert moved.max() < 1e-10 and np.allclose(back.cell, atoms.cell)
        assert back.get_masses() == pytest.approx(atoms.get_masses())
        assert not np.shares_memory(fields["slab_numbers"], atoms.numbers)
    plain = SimpleNamespace(numbers=[29], cell=[3, 3, 3], positions=[[0, 0, 0]], attached={})
    assert structure_of(plain).pbc.all()


def test_results_of_a_file_are_no_calculator(tmp_path):
    atoms = with_emt(bulk("Cu", cubic=True))
    atoms.rattle(0.05, seed=0)
    stored = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
    atoms.calc = stored
    for work in (relax, phonons, equation_of_state):
        with pytest.raises(StructureError, match=f"{work.__name__}: the atoms hold the results of a file"):
            work(atoms, progress=False)
    with pytest.raises(StructureError, match="molecular dynamics: the atoms hold the results of a file"):
        run_md(atoms, steps=1, progress=False)
    with pytest.raises(StructureError, match="no calculator: give calculator="):
        screen([atoms], "relax", output=tmp_path / "out.jsonl", progress=False)
