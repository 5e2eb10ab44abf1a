"""Labels are read right, or refused with the frame: numbers, shapes, and whose they are."""

import dataclasses

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from dpa2calc.errors import DataError
from dpa2calc.labels.names import as_matrix
from dpa2calc.training import Dataset, LabelKeys, check_dataset
from dpa2calc.training.runs.identity import data_identity


def computed(atoms):
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def rattled(seed=0):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    return computed(atoms)


@pytest.mark.parametrize(
    "value",
    [-3.4, np.float32(-3.4), np.array(-3.4), np.array([-3.4]), [-3.4], (-3.4,), np.array([[-3.4]]), "-3.4",
     "-3.4e0", "-3.4D+00", " -3.4 ", ["-3.4"], np.array(["-3.4"])],
)  # fmt: skip
def test_one_number_in_any_dress_is_the_energy(value):
    atoms = Atoms("H", info={"energy": value})
    assert Dataset.from_atoms([atoms])[0].energy == pytest.approx(-3.4, rel=1e-6)


@pytest.mark.parametrize(
    "value",
    ["-3.4 eV", "", "none", False, [1.0, 2.0], [], {"value": 1.0}, 1j, np.array([None]), b"\xff",
     [[1], [2, 3]]],
)  # fmt: skip
def test_what_is_no_number_is_refused_with_its_frame(value):
    good, bad = Atoms("H", info={"energy": 1.0}), Atoms("H", info={"energy": value})
    with pytest.raises(DataError, match=r"^mine, frame 1: energy = .* is not one number"):
        Dataset.from_atoms([good, bad], name="mine")


def test_labels_written_as_none_are_missing(tmp_path):
    atoms = [Atoms("H", info={"energy": -1.0}), Atoms("H", info={"energy": None})]
    write(tmp_path / "a.extxyz", atoms)
    assert [f.energy for f in Dataset.read(tmp_path / "a.extxyz")] == [-1.0, None]
    text = "1\nProperties=species:S:1:pos:R:3 energy=None\nH 0 0 0\n"
    (tmp_path / "b.extxyz").write_text(text)
    assert [f.energy for f in Dataset.read(tmp_path / "b.extxyz")] == [None]
    assert Dataset.from_atoms(atoms).labels()["energy"] == 1


def test_stress_in_every_shape_is_the_same_tensor():
    tensor = np.array([[1.0, 4.0, 5.0], [4.0, 2.0, 6.0], [5.0, 6.0, 3.0]])
    voigt = [1.0, 2.0, 3.0, 6.0, 5.0, 4.0]
    atoms = bulk("Cu", cubic=True)
    for value in (tensor, tensor.ravel(), tensor.tolist(), voigt, np.array([voigt]), "1 2 3 6 5 4",
                  tensor.ravel().reshape(1, 9)):  # fmt: skip
        for key, scale in (("stress", 1.0), ("virial", -1.0 / atoms.get_volume())):
            atoms.info = {key: value}
            np.testing.assert_allclose(Dataset.from_atoms([atoms])[0].stress, scale * tensor, rtol=1e-12)


@pytest.mark.parametrize(
    "value", [[1.0, 2.0], np.zeros((2, 3)), np.zeros((3, 2)), 1.0, np.zeros((9, 1, 9)), "high"]
)
@pytest.mark.parametrize("key", ["stress", "virial"])
def test_other_shapes_are_refused(key, value):
    atoms = bulk("Cu")
    atoms.info[key] = value
    with pytest.raises(DataError, match=f"data, frame 0: {key}"):
        Dataset.from_atoms([atoms])


@pytest.mark.parametrize(
    "forces", [np.zeros(12), np.zeros((3, 4)), np.zeros((1, 4, 3)), "none", [[None] * 3] * 4]
)
def test_forces_of_another_shape_are_refused(forces):
    atoms = bulk("Cu", cubic=True)
    atoms.info["forces"] = forces
    with pytest.raises(DataError, match="data, frame 0: forces"):
        Dataset.from_atoms([atoms])


@pytest.mark.parametrize(("name", "value"), [("virial", np.zeros(6)), ("forces", np.zeros((3, 3)))])
def test_a_frame_with_a_label_of_another_shape_cannot_be_made(name, value):
    (frame,) = Dataset.from_atoms([rattled()])
    with pytest.raises(DataError, match=rf"data, frame 0: {name} has shape \(.*\), expected \(\d, 3\)"):
        dataclasses.replace(frame, **{name: value})


def moved(atoms):
    atoms.positions[1] += 0.01


def stretched(atoms):
    atoms.set_cell(atoms.cell * 1.01, scale_atoms=True)


def exchanged(atoms):
    atoms.numbers[0] = 29 + 18


def opened(atoms):
    atoms.pbc = False


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (moved, "other positions \\(an atom is 0.0"),
        (stretched, "another cell"),
        (exchanged, "other atoms \\(Cu4, not AgCu3\\)"),
        (opened, "pbc"),
        (lambda atoms: atoms.pop(), "other atoms"),
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_results_of_other_structures_are_no_labels(change, what, live):
    atoms = rattled()
    if live:
        atoms.calc = EMT()
        atoms.get_forces()
    change(atoms)
    with pytest.raises(DataError, match=f"data, frame 1: the calculator's energy belongs to {what}"):
        Dataset.from_atoms([rattled(), atoms])


def test_one_calculator_shared_by_structures_has_only_the_last_ones_results():
    calculator, frames = EMT(), [rattled(seed) for seed in range(3)]
    for atoms in frames:
        atoms.calc = calculator
        atoms.get_potential_energy()
    with pytest.raises(DataError, match="several structures share one calculator"):
        Dataset.from_atoms(frames)
    assert Dataset.from_atoms(frames[-1:])[0].energy == pytest.approx(frames[-1].get_potential_energy())


def test_wrapped_and_shifted_atoms_keep_their_results(tmp_path):
    atoms = rattled()
    energy = atoms.get_potential_energy()
    atoms.positions += atoms.cell.array.sum(axis=0) * [[1], [0], [-3], [2]]
    atoms.positions += [0.1, -0.7, 0.3]
    atoms.wrap()
    assert Dataset.from_atoms([atoms])[0].energy == energy
    lone = computed(molecule("H2O"))
    lone.center(vacuum=5.0)  # another cell, which a molecule does not feel
    assert Dataset.from_atoms([lone])[0].energy == pytest.approx(
        computed(molecule("H2O")).calc.results["energy"]
    )
    write(tmp_path / "a.extxyz", rattled())
    assert Dataset.read(tmp_path / "a.extxyz")[0].forces is not None


def test_stresses_of_molecules_and_slabs_are_left_out_and_counted():
    solid, slab, lone = rattled(), fcc111("Cu", (1, 1, 3), vacuum=5.0), Atoms("Cu", cell=[9, 9, 9])
    for atoms in (solid, slab, lone):
        computed(atoms)
        atoms.info["stress"] = np.full(6, 0.01)
    data = Dataset.from_atoms([solid, slab, lone])
    assert data.labels() == {"energy": 3, "forces": 3, "stress": 1}
    np.testing.assert_allclose(np.diag(data[0].stress), 0.01, rtol=1e-12)
    report = check_dataset(data)
    assert report.frames("stress left out") == [1, 2] and not report.fatal
    assert (
        "2 x stress left out, for example data, frame 1: a stress needs a cell periodic" in report.summary()
    )


def test_read_takes_atoms_files_and_patterns(tmp_path):
    frames = [rattled(seed) for seed in range(4)]
    for number in (0, 1):
        write(tmp_path / f"{number}.extxyz", frames[number])
    wanted = [atoms.get_potential_energy() for atoms in frames]
    pattern = str(tmp_path / "*.extxyz")
    for given in (frames, tuple(frames), iter(frames), [pattern, *frames[2:]],
                  [tmp_path / "0.extxyz", str(tmp_path / "1.extxyz"), frames[2], frames[3]]):  # fmt: skip
        assert [frame.energy for frame in Dataset.read(given, name="mine")] == pytest.approx(wanted)
    assert Dataset.read(frames[0])[0].energy == wanted[0] and Dataset.read(frames).name == "data"
    assert Dataset.read(frames, name="mine")[3].source == "mine, frame 3"
    assert Dataset.read(pattern)[1].source == f"{tmp_path / '1.extxyz'}, frame 0"
    with pytest.raises(DataError, match="no file was named"):
        Dataset.read([])
    with pytest.raises(DataError, match="expected the names of files, or Atoms, got int"):
        Dataset.read([1])


def test_names_of_a_type_map_that_are_no_elements_are_passed_over():
    data = Dataset.from_atoms([molecule("H2O")])
    np.testing.assert_array_equal(data.compositions(("OW", "H", "ZN", "O")), [[0, 2, 0, 1]])


def test_a_matrix_of_nine_is_made_symmetric():
    np.testing.assert_array_equal(as_matrix(np.arange(9.0), "x"), [[0, 2, 4], [2, 4, 6], [4, 6, 8]])


@pytest.mark.parametrize("label", ["virial", "stress"])
def test_how_far_a_stress_is_from_symmetric_is_said(label):
    """Noise of a grid passes, more is remarked and halved, and nine numbers in another order are refused."""
    atoms = bulk("Cu", cubic=True)
    unit = 1.0 if label == "virial" else -1.0 / atoms.get_volume()
    virial = np.array([[3.0, 0.4, 0.1], [0.4, 2.0, -0.2], [0.1, -0.2, 4.0]])
    skew = np.array([[0, 1.0, 0], [-1, 0, 0], [0, 0, 0]])

    def read(size):
        own = atoms.copy()
        own.info = {"energy": -1.0, label: unit * (virial + size * skew)}
        return Dataset.from_atoms([own, own])

    for size, said in ((0.0, False), (0.03, False), (0.3, True)):
        data = read(size)
        np.testing.assert_allclose(data[1].virial, virial, atol=1e-12)
        found = [f for f in check_dataset(data).findings if f.kind == "asymmetric stress"]
        assert [f.frame for f in found] == ([0, 1] if said else [])
    assert found[1].detail.startswith("its virial is 0.3 eV from a symmetric one (tolerance 0.04 eV, largest")
    assert data_identity(read(0.3)) == data_identity(read(0.0))
    with pytest.raises(
        DataError, match=rf"data, frame 0: {label} is no stress: .* xx xy xz yx yy yz zx zy zz"
    ):
        read(1.5)
    voigt_in_nine = np.array([3.0, 2.0, 4.0, 0.4, 0.1, -0.2, 0.0, 0.0, 0.0])
    own = atoms.copy()
    own.info = {"energy": -1.0, label: unit * voigt_in_nine}
    with pytest.raises(DataError, match=r"no stress: its components (xy|yx|xz|zx)"):
        Dataset.from_atoms([own])


def test_a_large_set_is_split_in_no_time():
    """Ten times the frames take ten times the work: counted by comparisons of group names."""

    class Name(str):
        compared = 0

        def __eq__(self, other):
            Name.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    one = Dataset.from_atoms([Atoms("H", info={"energy": 0.0})])[0]
    frames = []
    for number in range(2000):
        copy = Dataset.from_atoms([Atoms("H", info={"energy": 0.0})])[0]
        object.__setattr__(copy, "group", Name(f"g{number // 4}"))
        frames.append(copy)
    first, second = Dataset((one, *frames)).split(0.5, seed=1, by_group=True)
    assert len(first) + len(second) == 2001 and abs(len(first) - 1000) < 5
    assert not {f.group for f in first} & {f.group for f in second}
    assert Name.compared < 50_000


def test_dummy_atoms_are_named_by_frame(tmp_path):
    atoms = rattled()
    atoms.numbers[2] = 0
    write(tmp_path / "dummy.extxyz", [Atoms("H", info={"energy": -1.0}), atoms], format="extxyz")
    with pytest.raises(DataError, match=r"dummy.extxyz, frame 1: atom 2 is X, a dummy without an element"):
        Dataset.read(tmp_path / "dummy.extxyz")


def test_a_stress_and_a_virial_that_contradict_each_other_are_refused():
    atoms = rattled()
    atoms.info["stress"] = np.diag([0.01, 0.02, 0.03])
    atoms.info["virial"] = -atoms.get_volume() * atoms.info["stress"]
    (frame,) = Dataset.from_atoms([atoms])
    np.testing.assert_allclose(frame.virial, atoms.info["virial"])
    atoms.info["virial"] *= -1  # the sign of a stress
    with pytest.raises(DataError, match=r"frame 0: stress and virial contradict .* -volume \* stress"):
        Dataset.from_atoms([atoms])
    (frame,) = Dataset.from_atoms([atoms], keys=LabelKeys(stress=""))
    np.testing.assert_allclose(frame.virial, atoms.info["virial"])


def test_the_virial_of_a_layer_is_a_label_beside_a_stress_that_is_none():
    labels = {"virial": np.eye(3), "stress": np.eye(3), "energy": 0.0}
    layer = Atoms("Cu", cell=[3, 3, 20], pbc=[True, True, False], info=labels)
    (frame,) = Dataset.from_atoms([layer])
    np.testing.assert_array_equal(frame.virial, np.eye(3))
    assert frame.left_out is None
    # what is left in the open direction is no height of a cell
    layer.cell[2, 2] = 1e-9
    (frame,) = Dataset.from_atoms([layer])
    assert frame.stress is None and frame.volume == 0.0


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"config_weight": 1.0, "config_energy_weight": 1.0, "molecular_weight": 18.0, "weight": 2.0}, ""),
        ({"config_weight": 0.5}, "config_weight is"),
        (
            {"energy_weight": 10, "force_weight": 0, "energy_sigma": 0.01},
            "energy_weight, force_weight, energy_sigma are",
        ),
        ({"config_type": "bulk", "Config_Weight": "2"}, "Config_Weight is"),
        ({"force_mask": np.array([True, False])}, "force_mask is"),
    ],
)
def test_weights_of_frames_that_are_not_used_are_said_once(tmp_path, names, said, caplog):
    frames = []
    for _ in range(3):
        atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.7]])
        for name, value in names.items():
            (atoms.arrays if isinstance(value, np.ndarray) else atoms.info)[name] = value
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((2, 3)))
        frames.append(atoms)
    write(tmp_path / "frames.extxyz", frames)
    Dataset.read(tmp_path / "frames.extxyz", name="weighted")
    texts = [r.getMessage() for r in caplog.records]
    assert len(texts) == bool(said)
    assert all(text.startswith(f"weighted: {said} not used: all frames count alike") for text in texts)
