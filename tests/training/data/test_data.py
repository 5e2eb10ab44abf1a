"""Reading, labels, splits."""

import lzma

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import write

from dpa2calc.errors import DataError, DPA2CalcError
from dpa2calc.labels.names import LabelKeys
from dpa2calc.training import (
    TrainConfig,
    TrainingSet,
    evaluate,
    finetune,
    learning_curve,
    pretrain,
    rank_heads,
    train,
)
from dpa2calc.training.data.checks.report import check_dataset, clean
from dpa2calc.training.data.dataset import Dataset, frame_from_atoms
from dpa2calc.training.data.readers import iread_atoms


@pytest.fixture
def compressed(tmp_path, lj_frames):
    plain = tmp_path / "a.extxyz"
    write(plain, lj_frames(150))
    path = tmp_path / "a.extxyz.xz"
    path.write_bytes(lzma.compress(plain.read_bytes()))
    return path


def test_compressed_extxyz_gives_what_ase_gives(compressed, lj_frames):
    data = Dataset.read(compressed)
    assert len(data) == 150
    for frame, atoms in zip(data, lj_frames(150)):
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-7)
        np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-9)
    assert data[7].source.endswith("a.extxyz.xz, frame 7") and data[7].group == "g1"


def test_compressed_file_is_read_once(compressed, monkeypatch):
    # The point of the reader: no seeking back, whatever the number of frames.
    seeks = []
    monkeypatch.setattr(lzma.LZMAFile, "seek", lambda self, *a: seeks.append(a))
    assert sum(1 for _ in iread_atoms(compressed)) == 150
    assert not seeks


def test_truncated_and_damaged_files_name_the_frame(compressed, tmp_path):
    text = lzma.decompress(compressed.read_bytes()).decode().splitlines(keepends=True)
    short = tmp_path / "short.xyz"
    short.write_text("".join(text[:-1]))
    with pytest.raises(DataError, match=r"short.xyz, frame 149: the file ends inside"):
        Dataset.read(short)
    bad = tmp_path / "bad.xyz"
    text[6 * 3 + 4] = "Ar 1.0 oops 2.0 0 0 0\n"
    bad.write_text("".join(text))
    with pytest.raises(DataError, match=r"bad.xyz, frame 3"):
        Dataset.read(bad)
    broken = tmp_path / "broken.extxyz.xz"
    broken.write_bytes(compressed.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"broken.extxyz.xz"):
        Dataset.read(broken)
    with pytest.raises(DataError, match="there is no file"):
        Dataset.read(tmp_path / "none.xyz")


def test_virial_and_stress_have_opposite_signs_and_the_volume_between_them():
    stress = np.array([[0.01, 0.002, 0.003], [0.002, -0.02, 0.004], [0.003, 0.004, 0.03]])
    voigt = [0.01, -0.02, 0.03, 0.004, 0.003, 0.002]
    cell = [2.0, 3.0, 4.0]
    by_stress = Atoms("H", cell=cell, pbc=True, info={"stress": voigt})
    by_virial = Atoms("H", cell=cell, pbc=True, info={"virial": -24.0 * stress})
    for atoms in (by_stress, by_virial):
        np.testing.assert_allclose(frame_from_atoms(atoms).stress, stress, atol=1e-14)
        np.testing.assert_allclose(frame_from_atoms(atoms).virial, -24.0 * stress, atol=1e-13)


def test_compression_means_positive_virial(lj_frames):
    # A crystal squeezed below its equilibrium volume pushes outwards: negative stress (ASE), positive virial.
    from ase.calculators.lj import LennardJones

    atoms = lj_frames(1)[0].copy()
    atoms.set_cell(atoms.cell.array * 0.8, scale_atoms=True)
    atoms.calc = LennardJones(sigma=2.6, epsilon=0.05, rc=4.5, smooth=True)
    atoms.get_stress()
    frame = frame_from_atoms(atoms)
    assert np.trace(frame.stress) < 0 < np.trace(frame.virial)


def test_labels_under_other_names_and_no_calculation():
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]], info={"dft_energy": -31.0})
    atoms.arrays["dft_forces"] = np.ones((2, 3))
    frame = frame_from_atoms(atoms, keys=LabelKeys(energy="dft_energy", forces="dft_forces"))
    assert frame.energy == -31.0 and frame.forces.sum() == 6.0 and frame.virial is None
    assert frame_from_atoms(atoms).energy is None


def renamed(data):
    """The same frames with the labels under the names that MACE's users give them."""
    out = []
    for frame in data:
        atoms = frame.atoms()
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = frame.energy, frame.forces
        out.append(atoms)
    return out


def test_labels_under_other_names_are_named_and_read(lj_data):
    structures = renamed(lj_data(3))
    blind = Dataset.from_atoms(structures)
    assert not any(frame.labelled for frame in blind)
    assert blind.subset([1]).unread_labels == {"energy": ("REF_energy",), "forces": ("REF_forces",)}
    keys = LabelKeys(energy="REF_energy", forces="REF_forces", stress="")
    for frame, expected in zip(Dataset.from_atoms(structures, keys=keys), lj_data(3)):
        assert frame.energy == expected.energy and np.array_equal(frame.forces, expected.forces)
    with pytest.raises(DataError, match=r"no frame has a label 'E' \(energy\); there are REF_energy"):
        Dataset.from_atoms(structures, keys=LabelKeys(energy="E", forces="forces"))


def test_labels_in_other_capitals_are_read_alike(lj_frames):
    """What GPUMD and its converters write: Energy, Virial, force."""
    for atoms in lj_frames(3):
        plain = frame_from_atoms(atoms)
        spelled = atoms.copy()
        spelled.calc = None
        spelled.info = {"Energy": plain.energy, "Virial": -atoms.get_volume() * plain.stress}
        spelled.arrays["force"] = plain.forces
        read = frame_from_atoms(spelled)
        assert read.energy == plain.energy and np.array_equal(read.forces, plain.forces)
        np.testing.assert_allclose(read.virial, plain.virial, rtol=1e-12)
        assert frame_from_atoms(spelled, keys=LabelKeys(energy="E")).energy is None
        left_out = frame_from_atoms(spelled, keys=LabelKeys(energy="", forces="", stress="", virial=""))
        assert not left_out.labelled


def test_a_part_of_the_labels_under_other_names_is_said(lj_data, lj_frames):
    """Forces alone were learned in silence where the energy had another name."""
    structures = renamed(lj_data(3))
    for atoms in structures:
        atoms.arrays["forces"] = atoms.arrays.pop("REF_forces")
    report = check_dataset(Dataset.from_atoms(structures))
    assert report.labels == {"energy": 0, "forces": 3, "stress": 0}
    assert any(remark.startswith("no energy was read, but there are REF_energy") for remark in report.remarks)
    meant = check_dataset(Dataset.from_atoms(structures, keys=LabelKeys(energy="")))
    assert not any("was read" in remark for remark in meant.remarks)
    mixed = Dataset.from_atoms([*structures, *lj_frames(1)])
    assert not any("was read" in remark for remark in check_dataset(mixed).remarks)


def test_a_dataset_and_a_frame_show_what_they_hold(lj_data):
    data = lj_data(3)
    assert repr(data) == "<Dataset A: 3 frames, 12 atoms, Ar; energy on 3, forces on 3, stress on 3>"
    assert repr(data[1]).startswith("<Frame Ar4, energy forces stress: ")


def test_an_empty_name_leaves_a_label_out(lj_data):
    frame = lj_data(1)[0]
    atoms = frame.atoms()
    atoms.pbc = (True, True, False)
    atoms.info["energy"], atoms.info["stress"] = 1.0, np.zeros(6)
    left_out = Dataset.from_atoms([atoms])[0]
    assert left_out.virial is None and "periodic in three directions" in left_out.left_out
    assert Dataset.from_atoms([atoms], keys=LabelKeys(stress=""))[0].energy == 1.0


def test_frames_are_chosen_by_whole_numbers_and_no_mask(lj_data):
    """A mask was taken as the frames 0 and 1, again and again."""
    data = lj_data(5)
    mask = np.arange(len(data)) % 2 == 0
    even = data.subset(np.flatnonzero(mask))
    assert [frame.source for frame in even] == [frame.source for frame in data.frames[::2]]
    assert data.subset(torch.tensor([-1]))[0] is data[len(data) - 1]
    for wrong in (mask, mask.tolist(), torch.from_numpy(mask), [0.5], ["0"]):
        for choose in (data.subset, lambda frames: clean(data, frames=frames)):
            with pytest.raises(DataError, match=r"no index of a frame.*flatnonzero"):
                choose(wrong)
    with pytest.raises(DataError, match=f"there is no frame {len(data)}"):
        data.subset([len(data)])


def test_split_and_sample_are_reproducible(lj_data):
    data = lj_data(30)
    first, second = data.split(0.8, seed=3)
    assert (len(first), len(second)) == (24, 6)
    assert {f.source for f in first}.isdisjoint(f.source for f in second)
    assert [f.source for f in data.split(0.8, seed=3)[1]] == [f.source for f in second]
    groups, others = data.split(0.6, seed=0, by_group=True)
    assert {f.group for f in groups}.isdisjoint(f.group for f in others)
    small, large = data.sample(5, seed=1), data.sample(12, seed=1)
    assert [f.source for f in large][:5] == [f.source for f in small]
    with pytest.raises(DataError, match="31 were asked for"):
        data.sample(31)
    with pytest.raises(DataError, match="between 0 and 1"):
        data.split(1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda wrong: train("small", wrong, output="run"),
        lambda wrong: TrainingSet(wrong),
        lambda wrong: TrainingSet(Dataset(()), validation=wrong),
        lambda wrong: evaluate(None, wrong),
        lambda wrong: finetune("default", wrong, output="run"),
        lambda wrong: rank_heads(None, wrong),
        lambda wrong: check_dataset(wrong),
        lambda wrong: learning_curve(wrong, wrong, sizes=[1], schemes={}, output="run"),
    ],
)
@pytest.mark.parametrize("wrong", ["train.extxyz", [Atoms("H")]])
def test_what_is_no_dataset_is_named_with_the_way_to_make_one(call, wrong):
    with pytest.raises(DataError, match=r"must be a Dataset, not (str|list): Dataset.read"):
        call(wrong)


def test_several_sets_are_for_pretrain():
    with pytest.raises(DataError, match=r"not dict: .*; pretrain takes several sets"):
        train("small", {"a": Dataset(())}, output="run")


DATA = Dataset.from_atoms([Atoms("H", info={"energy": float(i)}) for i in range(3)], name="atoms")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pretrain("small", [DATA], output="run"), "sets must be datasets by name, not list"),
        (lambda: pretrain("small", DATA, output="run"), "sets must be datasets by name, not Dataset"),
        (lambda: train(3, DATA, output="run"), "model = 3 is not allowed; allowed: the name of a preset"),
        (lambda: train("small", DATA, {"steps": 1}, output="run"), r"must be TrainConfig\(...\), not dict"),
        (lambda: finetune("default", DATA, TrainConfig(), output="run"), r"FinetuneConfig\(...\), not Train"),
        (lambda: finetune(None, DATA, output="run"), "model = None of type NoneType is not allowed"),
        (lambda: rank_heads("default", DATA), "potential = 'default' is not allowed; .*load_model"),
        (lambda: evaluate(None, DATA), "model = None is not allowed; allowed: a Potential"),
        (lambda: evaluate(EMT, DATA), "is not allowed; allowed: a Potential"),
        (lambda: evaluate(EMT(), DATA, head="water"), "head = 'water' is for models"),
        (lambda: DATA.split("half"), "fraction = 'half' is not allowed"),
        (lambda: DATA.sample(-1), "atoms has 3 frames, -1 were asked for"),
        (lambda: DATA.sample(1.5), "n = 1.5 is not allowed"),
        (lambda: Dataset.read(None), "expected the names of files, or Atoms, got NoneType"),
        (
            lambda: Dataset.from_atoms(Atoms("H")),
            "frame 0: expected Atoms, got Atom; from_atoms takes",
        ),
        (lambda: Dataset.from_atoms("train.xyz"), "frame 0: expected Atoms, got str; .* Dataset.read also"),
        (lambda: Dataset.from_atoms([], keys={}), r"keys must be LabelKeys\(.*\), not dict"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(DPA2CalcError, match=message):
        call()
    assert len(DATA.sample(0)) == 0
