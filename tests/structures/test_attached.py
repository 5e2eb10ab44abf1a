"""What a structure carries beside elements and places survives a calculation; old labels do not."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read
from emt_cases import with_emt

from dpa2calc.applications import (
    MDResult,
    RelaxResult,
    elastic_constants,
    nudged_elastic_band,
    relax,
    run_md,
    surface_energy,
    vacancy_formation_energy,
    vacancy_hop,
    vibrations,
)
from dpa2calc.structures.attached import attach, attached, bare
from dpa2calc.training import Dataset


def labelled_copper():
    """With isotopes, tags, a name, numbers that calculators read, labels and velocities."""
    atoms = bulk("Cu", cubic=True, a=3.6)
    atoms.set_masses([63, 65, 63, 65])
    atoms.set_tags([0, 1, 2, 3])
    atoms.set_initial_magnetic_moments([1, -1, 1, -1])
    atoms.set_array("molecule", np.array(["a", "a", "b", "b"]))
    atoms.set_array("REF_forces", np.ones((4, 3)))
    atoms.set_velocities(np.full((4, 3), 0.01))
    atoms.info.update(name="mine", charge=1, fparam=np.array([0.5, 2.0]), energy=-3.0, of={"run": (1, "b")})
    atoms.calc = EMT()
    return atoms


def same(found, given, rows=slice(None)):
    moments = given.get_initial_magnetic_moments()[rows]
    assert found.get_masses() == pytest.approx(given.get_masses()[rows])
    assert found.get_tags().tolist() == given.get_tags()[rows].tolist()
    assert found.get_initial_magnetic_moments().tolist() == moments.tolist()
    assert found.info["name"] == "mine" and found.info["charge"] == 1
    assert "energy" not in found.info and "REF_forces" not in found.arrays


def test_everything_that_a_file_holds_is_attached_but_labels_and_velocities():
    atoms = labelled_copper()
    atoms.info["object"] = object()
    kept = attached(atoms)
    assert set(kept["arrays"]) == {"masses", "tags", "initial_magmoms", "molecule"}
    assert set(kept["info"]) == {"name", "charge", "fparam", "of"}
    copy = attach(Atoms("Cu4"), kept)
    assert copy.get_tags().tolist() == [0, 1, 2, 3] and copy.info["of"] == {"run": (1, "b")}
    copy.info["fparam"][0] = 7.0  # copies of their own
    assert atoms.info["fparam"][0] == kept["info"]["fparam"][0] == 0.5


def test_bare_atoms_keep_what_results_depend_on():
    atoms = labelled_copper()
    atoms.set_constraint(FixAtoms([0]))
    found = bare(atoms)
    assert set(found.arrays) == {"numbers", "positions", "masses", "initial_magmoms"}
    assert set(found.info) == {"charge", "fparam"}
    assert found.calc is None and not found.constraints


def test_results_of_the_same_atoms_give_them_back_whole(tmp_path):
    atoms = labelled_copper()
    for made, kind in (
        (relax(atoms, progress=False), RelaxResult),
        (run_md(atoms, steps=2, progress=False), MDResult),
    ):
        result = kind.load(made.save(tmp_path / f"{kind.__name__}.npz"))
        same(result.atoms() if kind is RelaxResult else result.final_atoms(), atoms)


def test_the_last_frame_of_dynamics_has_its_temperature():
    water = with_emt(molecule("H2O"))
    water.set_masses([16.0, 2.014, 2.014])
    result = run_md(water, steps=3, log_interval=1, temperature=300, progress=False)
    assert result.final_atoms().get_kinetic_energy() == pytest.approx(result.kinetic_energy[-1], rel=1e-12)


def test_results_of_defects_and_strained_crystals_keep_what_is_attached():
    pytest.importorskip("spglib")
    atoms = relax(labelled_copper(), relax="cell", fmax=1e-4, progress=False).atoms()
    atoms.set_masses([65.0] * 4)
    atoms.set_initial_magnetic_moments([0.5] * 4)
    atoms.set_tags(3)
    atoms.calc = EMT()
    quick = {"progress": False, "fmax": 0.05}
    same(elastic_constants(atoms, relax="fixed", relax_ions=False, progress=False).atoms(), atoms)
    hole = vacancy_formation_energy(atoms, min_lengths=[7.0], relax="fixed", relax_bulk=False, **quick)
    same(hole.atoms(), atoms, np.zeros(len(hole.numbers), dtype=int))
    slab = surface_energy(
        atoms, (1, 0, 0), thicknesses=(3, 6), relax="fixed", relax_bulk=False, **quick
    ).atoms()
    assert slab.get_masses() == pytest.approx([65.0] * len(slab))


def test_molecules_and_paths_keep_what_is_attached():
    atoms = molecule("H2O")
    atoms.set_masses([16.0, 2.014, 1.008])
    atoms.info["charge"] = 1
    atoms.calc = EMT()
    found = vibrations(atoms, relax="positions", progress=False)
    assert found.atoms().info["charge"] == 1 and found.atoms().get_masses()[1] == 2.014
    pytest.importorskip("spglib")
    copper = bulk("Cu", cubic=True, a=3.59)
    copper.set_masses([65.0] * 4)
    copper.info["charge"] = 1
    copper.calc = EMT()
    first, last = vacancy_hop(copper, min_length=7.0)
    with pytest.warns(UserWarning, match="not converged"):
        band = nudged_elastic_band(first, last, n_images=3, max_steps=3, progress=False)
    for image in band.images():
        assert image.info["charge"] == 1 and image.get_masses() == pytest.approx([65.0] * len(image))


@pytest.mark.parametrize("ending", ["traj", "extxyz"])
def test_labels_of_the_start_are_not_those_of_a_trajectory(tmp_path, ending):
    atoms = labelled_copper()
    atoms.rattle(0.05, seed=1)
    atoms.info.update(virial=np.eye(3), REF_energy=-9.0)
    run_md(atoms, steps=1, trajectory=tmp_path / f"md.{ending}", trajectory_interval=1, progress=False)
    relax(atoms, trajectory=tmp_path / f"relax.{ending}", progress=False)
    for name in ("md", "relax"):
        last = Dataset.read(tmp_path / f"{name}.{ending}")[-1]
        check = with_emt(last.atoms())
        assert last.energy == pytest.approx(check.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(last.stress, check.get_stress(voigt=False), atol=1e-6)
        frame = read(tmp_path / f"{name}.{ending}")
        assert "REF_energy" not in frame.info and "REF_forces" not in frame.arrays
        assert frame.info["name"] == "mine"
    assert atoms.info["REF_energy"] == -9.0  # the caller's atoms are as they were
