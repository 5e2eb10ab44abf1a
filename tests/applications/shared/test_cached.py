"""The shared evaluation: folders that resume, damaged files, calculators that fail; supercell geometry."""

import json
import warnings
from functools import partial

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.stress import voigt_6_to_full_3x3_stress
from emt_cases import with_emt
from rewriting import rewrite_arrays

from dpa2calc import DPA2Calculator
from dpa2calc.applications import equation_of_state, relax, run_md
from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.applications.shared.cached import evaluate
from dpa2calc.applications.shared.structures import (
    conventional_matrix,
    image_distance,
    repeats_for_length,
    supercell_matrix,
)
from dpa2calc.errors import ConfigError, DataError, StructureError
from dpa2calc.files.lock import locked
from dpa2calc.store.load import load_model
from dpa2calc.structures.given import as_energy


def copper():
    atoms = bulk("Cu", a=3.7, cubic=True)
    atoms.rattle(0.05, seed=3)
    return atoms


def test_stored_results_are_those_computed(tmp_path):
    settings = Relaxation(fmax=0.01, free="cell")
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
    with pytest.raises(DataError, match=rf"{path.name} is damaged .*; delete it and run again"):
        evaluate([copper()], EMT(), what="test", folder=tmp_path, progress=False)


def test_nan_is_never_passed_on():
    class Broken(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"][0, 0] = np.nan

    for relaxation in (None, Relaxation(fmax=0.1)):
        with pytest.raises(StructureError, match="Broken returned NaN for Cu4"):
            evaluate([copper()], Broken(), what="test", relaxation=relaxation, progress=False)


def test_relaxation_that_does_not_converge():
    atoms = with_emt(copper())
    with pytest.raises(
        StructureError, match=r"test: the relaxation of Cu4 did not reach fmax=1e-06 .* in 2 steps"
    ):
        Relaxation(fmax=1e-6, max_steps=2).run(atoms, what="test")


def test_volume_or_symmetry_are_kept():
    atoms = with_emt(bulk("Cu", "hcp", a=2.5, c=4.4))
    volume = atoms.get_volume()
    Relaxation(fmax=1e-3, free="shape", symmetry=True).run(atoms, what="test")
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
        Relaxation(fmax=0.1, symmetry=True).run(atoms, what="test")


class Described(EMT):
    """A calculator with weights, a head and a device."""

    def __init__(self, weights=1.0, device="cpu"):
        super().__init__()
        self.weights = weights
        self.device = device

    def identity(self):
        return {"weights": str(self.weights)}

    def describe(self):
        return (
            f"a.pt: a page of text\nin use      head = b, dtype = float32, device = {self.device}, skin = 1.0"
        )


def test_a_model_trained_again_under_its_name_is_refused_and_another_device_is_not(tmp_path):
    options = {"what": "test", "folder": tmp_path, "progress": False}
    (first,) = evaluate([copper()], Described(), **options)
    (again,) = evaluate([copper()], Described(device="cuda:1"), **options)
    assert again.energy == first.energy
    with pytest.raises(ConfigError, match=r"belongs to other work; .*calculator: weights.*another folder"):
        evaluate([copper()], Described(2.0), **options)
    with pytest.raises(ConfigError, match=r'calculator: class \("Described" -> "EMT"\)'):
        evaluate([copper()], EMT(), **options)
    with pytest.raises(ConfigError, match=r"calculator: parameters"):
        (tmp_path / "lj").mkdir()
        for cutoff in (5.0, 6.0):
            evaluate([copper()], LennardJones(rc=cutoff), what="test", folder=tmp_path / "lj", progress=False)


def test_folders_of_earlier_versions(tmp_path):
    """They hold the class, and a description in words or the parameters."""
    label = tmp_path / "calculator.json"
    options = {"what": "test", "folder": tmp_path, "progress": False}
    evaluate([copper()], Described(), **options)
    text = "another wording\nin use      head = {}, dtype = float32, device = cuda, skin = 0.5{}"
    old = {"class": "Described", "settings": text.format("b", "")}
    label.write_text(json.dumps(old))
    with pytest.warns(UserWarning, match="did not note the weights") as found:
        evaluate([copper()], Described(), **options)
    assert len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # written anew: once is enough
        evaluate([copper()], Described(), **options)
    for words, named in ((("c", ""), "head"), (("b", ", dispersion = {}"), "dispersion")):
        label.write_text(json.dumps({**old, "settings": text.format(*words)}))
        with pytest.raises(ConfigError, match=rf"different are calculator: {named}"):
            evaluate([copper()], Described(), **options)
    label.write_text(json.dumps({"class": "EMT", "settings": dict(EMT().parameters)}))
    evaluate([copper()], EMT(), **options)
    for other in ({"class": "EMT", "settings": {}}, {"class": "A", "settings": dict(EMT().parameters)}, {}):
        label.write_text(json.dumps(other))
        with pytest.raises(ConfigError, match=r"belongs to other work; .*another folder"):
            evaluate([copper()], EMT(), **options)


@pytest.mark.parametrize("text", ["", "[]", "5", "{", "[" * 100_000])
def test_a_damaged_label_is_named(tmp_path, text):
    (tmp_path / "calculator.json").write_text(text)
    with pytest.raises(DataError, match=r"calculator\.json is damaged"):
        evaluate([copper()], EMT(), what="test", folder=tmp_path, progress=False)


@pytest.mark.parametrize(
    "change",
    [
        {"forces": np.zeros((3, 3))}, {"forces": np.full((4, 3), np.nan)}, {"energy": np.array("low")},
        {"positions": np.zeros((4, 3), dtype=complex)}, {"cell": np.zeros(3)}, {"energy": np.zeros(2)},
    ],
)  # fmt: skip
def test_a_stored_result_of_wrong_shape_or_type_is_refused(tmp_path, change):
    evaluate([copper()], EMT(), what="test", folder=tmp_path, progress=False)
    (path,) = tmp_path.glob("*.npz")
    rewrite_arrays(path, lambda h, a: a.update(change))
    with pytest.raises(DataError, match=rf"{path.name} is damaged: .*delete it and run again"):
        evaluate([copper()], EMT(), what="test", folder=tmp_path, progress=False)


def test_one_call_at_a_time_in_a_folder(tmp_path):
    class Calls(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            with pytest.raises(ConfigError, match="another run is writing to"), locked(tmp_path):
                pass

    evaluate([copper()], Calls(), what="test", folder=tmp_path, progress=False)
    with locked(tmp_path), pytest.raises(ConfigError, match="another run is writing to"):
        evaluate([copper()], Calls(), what="test", folder=tmp_path, progress=False)


def test_long_arrays_and_nameless_constraints_are_told_apart(tmp_path):
    """Their texts shorten numbers, or hold no more than an address."""
    one, two, three = copper(), copper(), copper()
    one.info["field"], two.info["field"] = np.zeros(2000), np.zeros(2000)
    two.info["field"][1000] = 1e-12
    three.arrays["aparam"] = np.ones((4, 1))
    evaluate([one, two, three, copper()], EMT(), what="test", folder=tmp_path, progress=False)
    assert len(list(tmp_path.glob("*.npz"))) == 4


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


def test_weights_that_were_trained_on_are_another_calculator(tmp_path):
    model = load_model("default")
    options = {"what": "test", "folder": tmp_path, "progress": False}
    (first,) = evaluate([copper()], DPA2Calculator(model, "mlearn-PBE"), **options)
    (again,) = evaluate(
        [copper()], DPA2Calculator("default", "mlearn-PBE", skin=0.2, device="cpu"), **options
    )
    assert again.energy == first.energy
    next(model.parameters()).data.mul_(1.001)
    with pytest.raises(ConfigError, match=r"belongs to other work; different are calculator: models"):
        evaluate([copper()], DPA2Calculator(model, "mlearn-PBE"), **options)


class OneNumber(EMT):
    """Energies as arrays of one number and stresses as matrices, as some calculators give them."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.results["energy"] = np.array([self.results["energy"]])
        if "stress" in self.results:
            self.results["stress"] = voigt_6_to_full_3x3_stress(self.results["stress"])


@pytest.mark.parametrize(
    "run",
    [
        partial(relax, relax="cell"),
        partial(equation_of_state, relax="fixed", strains=np.linspace(-0.06, 0.0, 7)),
        partial(run_md, steps=2),
    ],
)
def test_energies_of_one_number_in_an_array_are_numbers(run):
    told = []
    for calculator in (OneNumber(), EMT()):
        atoms = copper()
        atoms.calc = calculator
        told.append(run(atoms, progress=False).summary().split("speed")[0])
    assert told[0] == told[1]
    with pytest.raises(StructureError, match=r"energy of shape \(2,\); it must be one number"):
        as_energy(np.zeros(2))


def test_a_folder_in_which_nothing_was_finished_is_free_for_another_calculator(tmp_path):
    crystal = bulk("Cu", a=3.6)
    with pytest.raises(StructureError, match="did not reach"):
        evaluate([copper()], EMT(), what="x", folder=tmp_path, relaxation=Relaxation(fmax=1e-6, max_steps=1))
    other = LennardJones(sigma=2.3, rc=6.0)
    (found,) = evaluate([crystal], other, what="x", folder=tmp_path)
    assert found.energy == pytest.approx(as_energy(other.get_potential_energy(crystal)))
    with pytest.raises(ConfigError, match="belongs to other work"):
        evaluate([crystal], EMT(), what="x", folder=tmp_path)
