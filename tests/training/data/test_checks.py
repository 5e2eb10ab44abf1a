"""Bad frames are found, named, and dropped only when told to."""

import dataclasses

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from dpa2calc.errors import DataError
from dpa2calc.training.data.checks.report import check_dataset, clean, require_sound
from dpa2calc.training.data.dataset import Dataset


def _change(data, index, **changes):
    frames = list(data.frames)
    frames[index] = dataclasses.replace(frames[index], **changes)
    return Dataset(tuple(frames), data.name)


def test_good_data_have_no_findings(lj_data):
    data = lj_data(20)
    report = check_dataset(data, type_map=("Ar",))
    assert report.findings == () and report.remarks == ()
    assert report.labels == {"energy": 20, "forces": 20, "stress": 20}
    assert report.force_rms == pytest.approx(np.sqrt(np.mean(np.concatenate([f.forces for f in data]) ** 2)))
    assert "20 frames, 80 atoms, Ar" in report.summary()
    require_sound(report)


@pytest.mark.parametrize(
    ("changes", "kind", "detail"),
    [
        ({"energy": float("nan")}, "not a number", "in the energy"),
        ({"forces": np.full((4, 3), np.inf)}, "not a number", "in the forces"),
        ({"cell": np.zeros((3, 3))}, "zero volume", "without a volume"),
        ({"energy": None, "forces": None, "virial": None}, "no label", "neither energy"),
        ({"forces": np.full((4, 3), 500.0)}, "large force", "500.0 eV/Å"),
        ({"energy": 40.0}, "energy outlier", "meV/atom from the fit"),
    ],
)
def test_each_finding_names_the_frame(lj_data, changes, kind, detail):
    report = check_dataset(_change(lj_data(20), 7, **changes))
    found = [f for f in report.findings if f.frame == 7]
    assert [f.kind for f in found] == [kind] and detail in found[0].detail
    assert found[0].source == "data, frame 7"
    assert report.frames() == [7]


def test_overlap_names_the_pair(lj_data):
    data = lj_data(5)
    positions = data[2].positions.copy()
    positions[3] = positions[1] + [0.3, 0.0, 0.0]
    report = check_dataset(_change(data, 2, positions=positions))
    assert report.frames("overlap") == [2]
    assert "Ar1 and Ar3 are 0.300 Å apart" in report.findings[0].detail
    with pytest.raises(DataError, match=r"data, frame 2: overlap: Ar1 and Ar3 .*drop these frames"):
        require_sound(report)


def test_hot_water_does_not_overlap():
    from ase import Atoms

    from dpa2calc.training.data.dataset import Frame

    # An O-H bond compressed to 0.75 Å occurs in path-integral water.
    atoms = Atoms("OH", positions=[[0, 0, 0], [0.75, 0, 0]])
    frame = Frame(atoms.numbers, atoms.positions, np.zeros((3, 3)), np.zeros(3, bool), energy=-1.0)
    assert check_dataset(Dataset((frame,))).findings == ()


def test_elements_outside_the_type_map(lj_data):
    report = check_dataset(lj_data(3), type_map=("Ne", "He"))
    assert {f.kind for f in report.findings} == {"element outside the type map"}
    assert report.fatal[0].detail == "Ar"


def test_reversed_stress_and_wrong_units_are_remarked(lj_frames):
    data = Dataset.from_atoms(lj_frames(30))
    # Volumes of the fixture vary by about 10 %, so the sign shows.
    assert not check_dataset(data).remarks
    turned = Dataset(tuple(dataclasses.replace(f, virial=-f.virial) for f in data))
    assert any("sign looks reversed" in r for r in check_dataset(turned).remarks)
    in_gpa = Dataset(tuple(dataclasses.replace(f, virial=160.2 * f.virial * 1e3) for f in data))
    assert any("not GPa or kB" in r for r in check_dataset(in_gpa).remarks)
    shifted = Dataset(tuple(dataclasses.replace(f, forces=f.forces + 0.1) for f in data))
    assert any("net force (median 0.40" in r for r in check_dataset(shifted).remarks)


def test_forces_that_add_up_like_unrelated_numbers_are_told_from_noise(lj_frames):
    data, rng = Dataset.from_atoms(lj_frames(30)), np.random.default_rng(0)
    assert not any("net force" in r for r in check_dataset(data).remarks)

    def remarks(change):
        frames = tuple(dataclasses.replace(f, forces=change(f.forces)) for f in data)
        return [r for r in check_dataset(Dataset(frames)).remarks if "net force" in r]

    noise = 0.1 * np.sqrt(np.mean(np.concatenate([f.forces for f in data]) ** 2))
    (said,) = remarks(lambda f: f + noise * rng.normal(size=f.shape))
    assert said.endswith("an error floor")
    for change in (lambda f: rng.normal(size=f.shape), lambda f: f * (np.arange(len(f)) < 2)[:, None]):
        (said,) = remarks(change)  # made up; of two atoms alone
        assert "nothing to do with each other; are they those of these atoms, and of all of them?" in said


def test_nothing_is_dropped_unless_told(lj_data):
    data = _change(_change(lj_data(20), 3, energy=30.0), 5, energy=float("nan"))
    same, dropped = clean(data)
    assert len(same) == 20 and dropped == ()
    fewer, dropped = clean(data, drop=("energy outlier", "not a number"))
    assert [f.source for f in fewer] == [f.source for i, f in enumerate(data) if i not in (3, 5)]
    assert [(f.frame, f.kind) for f in dropped] == [(3, "energy outlier"), (5, "not a number")]
    with pytest.raises(DataError, match=r"unknown findings \['outliers'\]; known: .*energy outlier"):
        clean(data, drop=("outliers",))
    fewer, dropped = clean(data, frames=(3, 7, 7))
    assert [f.source for f in fewer] == [f.source for i, f in enumerate(data) if i not in (3, 7)]
    assert [(f.frame, f.kind) for f in dropped] == [(3, "energy outlier"), (7, "named")]
    with pytest.raises(DataError, match=r"has frames 0 to 19; there is no frame 20"):
        clean(data, frames=(2, 20))


def test_labels_of_one_structure_that_contradict_each_other_are_named(lj_frames):
    def remark(*changed):
        (said,) = check_dataset(Dataset.from_atoms([*lj_frames(5), *changed])).remarks or ("",)
        return said

    def copy(energy=0.0, force=0.0, **info):
        (atoms, *_) = lj_frames(1)
        made = atoms.copy()
        made.positions += 1e-9
        made.info.update(info)
        results = {"energy": atoms.get_potential_energy() + energy, "forces": atoms.get_forces() + force}
        made.calc = SinglePointCalculator(made, **results)
        return made

    assert remark(copy()) == remark(copy(energy=1e-3)) == remark(copy(force=1e-3)) == ""
    assert "1 frame repeats the structure of another one with other labels" in remark(copy(energy=4.0))
    assert "such as data, frame 0 and data, frame 5, 1e+03 meV/atom apart: of the two" in remark(
        copy(energy=4.0)
    )
    both = remark(copy(force=0.5), copy(energy=-0.4, charge=1))
    assert "2 frames repeat" in both and "0.5 eV/Å apart" in both
    assert "100 meV/atom apart (which differ in charge, as no model sees)" in remark(
        copy(energy=0.4, charge=1)
    )
    assert remark(copy(energy=4.0, fparam=[2.0])) == ""  # which tells the two apart
