"""The shared evaluation: folders that resume, damaged files, calculators that fail; supercell geometry."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from dpa2calc.applications._evaluate import Relaxation, evaluate, relax_in_place
from dpa2calc.applications._structures import (
    conventional_matrix,
    image_distance,
    repeats_for_length,
    supercell_matrix,
)
from dpa2calc.errors import DataError, StructureError


def copper():
    atoms = bulk("Cu", a=3.7, cubic=True)
    atoms.rattle(0.05, seed=3)
    return atoms


def test_stored_results_are_those_computed(tmp_path):
    settings = Relaxation(fmax=0.01, cell="free")
    options = {"what": "test", "relaxation": settings, "stress": True, "progress": False}
    (fresh,) = evaluate([copper()], EMT(), **options)
    for _ in range(2):
        (stored,) = evaluate([copper()], EMT(), folder=tmp_path, **options)
        assert stored.energy == fresh.energy
        assert np.array_equal(stored.forces, fresh.forces) and np.array_equal(stored.stress, fresh.stress)
        assert np.array_equal(stored.atoms.positions, fresh.atoms.positions)
        assert np.array_equal(stored.atoms.cell, fresh.atoms.cell)
    assert fresh.max_force < 0.01


def test_what_changes_a_result_changes_its_file(tmp_path):
    atoms = copper()
    others = [atoms.copy() for _ in range(4)]
    others[0].positions[0, 0] += 1e-6
    others[1].set_initial_charges([1, 0, 0, 0])
    others[2].info["charge"] = 1
    others[3].pbc = (True, True, False)
    evaluate([atoms, *others], EMT(), what="test", folder=tmp_path, progress=False)
    evaluate([atoms], EMT(), what="test", folder=tmp_path, stress=True, progress=False)
    assert len(list(tmp_path.glob("*.npz"))) == 6


def test_damaged_file_is_named(tmp_path):
    evaluate([copper()], EMT(), what="test", folder=tmp_path, progress=False)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        DataError, match=rf"{path.name} is not a stored result; delete it and run again, or is damaged"
    ):
        evaluate([copper()], EMT(), what="test", folder=tmp_path, progress=False)


def test_nan_is_never_passed_on():
    class Broken(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"][0, 0] = np.nan

    with pytest.raises(StructureError, match="Broken returned NaN for Cu4"):
        evaluate([copper()], Broken(), what="test", progress=False)


def test_relaxation_that_does_not_converge():
    atoms = copper()
    atoms.calc = EMT()
    with pytest.raises(
        StructureError, match=r"test: the relaxation of Cu4 did not reach fmax=1e-06 .* in 2 steps"
    ):
        relax_in_place(atoms, Relaxation(fmax=1e-6, max_steps=2), what="test")


def test_volume_or_symmetry_are_kept():
    atoms = bulk("Cu", "hcp", a=2.5, c=4.4)
    atoms.calc = EMT()
    volume = atoms.get_volume()
    relax_in_place(atoms, Relaxation(fmax=1e-3, cell="volume", symmetry=True), what="test")
    assert atoms.get_volume() == pytest.approx(volume, rel=1e-6)
    assert atoms.cell.angles() == pytest.approx([90, 90, 120], abs=1e-8)
    assert atoms.cell.lengths()[0] == pytest.approx(atoms.cell.lengths()[1], abs=1e-9)
    assert not atoms.constraints
    stress = atoms.get_stress()
    assert stress[0] == pytest.approx(stress[2], abs=2e-4)


def test_overlapping_atoms_are_named_as_the_cause():
    atoms = bulk("Cu", cubic=True)
    atoms.positions[1] = atoms.positions[0]
    atoms.calc = EMT()
    with pytest.raises(StructureError, match=r"keeping the symmetry .* no symmetry .*; do atoms overlap\?"):
        relax_in_place(atoms, Relaxation(fmax=0.1, symmetry=True), what="test")


def test_image_distance_of_a_slanted_cell():
    """Rows (1, 0), (5, 1): the lattice is the square one."""
    assert image_distance(np.array([[1, 0, 0], [5, 1, 0], [0, 0, 7]])) == pytest.approx(1.0)
    assert image_distance(bulk("Cu", a=4.0).cell.array) == pytest.approx(4 / np.sqrt(2))


@pytest.mark.parametrize("kind", ["fcc", "bcc", "diamond", "hcp"])
def test_supercells_of_the_conventional_cell(kind):
    atoms = bulk("X", kind, a=4.0, c=6.5) if kind == "hcp" else bulk("X", kind, a=4.0)
    matrix = supercell_matrix(atoms, 10.0, 1e-4)
    cell = matrix @ atoms.cell.array
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    assert heights.min() >= 10.0 - 1e-9
    expected = {"fcc": 27 * 4, "bcc": 27 * 2, "diamond": 27 * 4, "hcp": 3 * 3 * 2}[kind]
    assert abs(round(np.linalg.det(matrix))) == expected
    if kind != "hcp":
        assert np.linalg.norm(cell, axis=1) == pytest.approx([12.0] * 3)
        assert cell @ cell.T == pytest.approx(144 * np.eye(3), abs=1e-9)


def test_supercell_of_the_conventional_cell_is_taken_as_it_is():
    assert conventional_matrix(bulk("Cu", cubic=True) * (2, 1, 1), 1e-4).tolist() == np.eye(3).tolist()
    assert repeats_for_length(np.diag([3.0, 10.0, 4.0]), 10.0).tolist() == [4, 1, 3]
    assert repeats_for_length(Atoms(cell=[5, 5, 5, 90, 90, 60]).cell.array, 8.7).tolist() == [3, 3, 2]
