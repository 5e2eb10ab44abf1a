"""The registries against the tables they come from."""

import dataclasses

import pytest
from ase.data import atomic_numbers
from ase.io import write

from dpa2calc.errors import DataError
from dpa2calc.training.config.run_file import load_sets, read_run_file
from dpa2calc.training.config.sections import SetSection
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.collection import registry
from dpa2calc.training.data.collection.paper_sets import paper_sets
from dpa2calc.training.data.collection.registry import load_registered, registered_sets, training_collection


def test_table_1_adds_up_to_the_papers_sums():
    pretrain, downstream = (list(paper_sets(role).values()) for role in ("pretrain", "downstream"))
    assert (len(pretrain), len(downstream)) == (18, 15)
    assert sum(s.n_train for s in pretrain) == 4_045_094
    assert sum(s.n_test for s in pretrain) == 1_074_285
    assert sum(s.n_train for s in downstream) == 13_003_158
    assert sum(s.n_test for s in downstream) == 1_079_693
    # The second table prints 9.0 as the sum of its weights; its rows give 9.7.
    assert sum(s.weight for s in pretrain) == pytest.approx(13.2)
    assert sum(s.weight for s in downstream) == pytest.approx(9.7)
    for entry in (*pretrain, *downstream):
        if not isinstance(entry.elements, int):
            assert all(e in atomic_numbers for e in entry.elements)


def test_collection_names_source_licence_and_head():
    sets = registered_sets()
    assert len(sets) == 67
    for entry in sets.values():
        assert "@" in entry.source and entry.citation and entry.functional and entry.weight > 0
        # Only what a licence allows may be carried along.
        assert entry.licence or not entry.redistributable
        assert not (entry.redistributable and entry.licence.startswith("GPL"))
    shared = [n for n, s in sets.items() if s.head == "mlearn-PBE"]
    assert sorted(shared) == [
        "Alloy-NbMoTaW",
        *sorted(f"{e}-mlearn" for e in ("Cu", "Ge", "Li", "Mo", "Ni", "Si")),
    ]
    assert len({s.head for s in sets.values()}) == 57


def test_loading_a_collection(tmp_path, lj_frames):
    import lzma

    for name in ("Mol-AcAc", "SSE-PBE"):
        folder = tmp_path / name
        folder.mkdir()
        for split, n in (("train", 40), ("test", 6)):
            write(folder / "x.extxyz", lj_frames(n))
            (folder / f"{split}.extxyz.xz").write_bytes(lzma.compress((folder / "x.extxyz").read_bytes()))
    assert len(load_registered("SSE-PBE", tmp_path, split="test")) == 6
    sets, test = training_collection(tmp_path, names=("Mol-AcAc", "SSE-PBE", "Ta-SNAP"), exclude=("Ta-SNAP",))
    assert list(sets) == ["Mol-AcAc", "SSE-PBE"] and len(test["SSE-PBE"]) == 6
    assert (len(sets["SSE-PBE"].train), len(sets["SSE-PBE"].validation)) == (38, 2)
    assert (sets["SSE-PBE"].weight, sets["SSE-PBE"].head) == (1.0, "SSE-PBE")
    with pytest.raises(DataError, match="no registered dataset 'SSE'"):
        load_registered("SSE", tmp_path)
    with pytest.raises(DataError, match="build it from FitSNAP/FitSNAP@1a9b0507"):
        load_registered("Ta-SNAP", tmp_path)


def test_corrections_of_the_collection_are_options_of_a_set():
    known = {f.name for f in dataclasses.fields(SetSection)}
    for entry in registered_sets().values():
        assert set(entry.corrections) <= known
        SetSection(train=("a.xyz",), **entry.corrections).corrections  # noqa: B018
        places = [entry.corrections.get(key, ()) for key in ("drop_test_frames", "test_to_train")]
        assert len({*places[0], *places[1]}) == len(places[0]) + len(places[1])
        assert all(0 <= i < entry.n_test for i in (*places[0], *places[1]))


def test_a_registered_set_is_read_alike_in_python_and_from_a_file(tmp_path, lj_frames, monkeypatch):
    """Labels are corrected, near copies of training frames are moved, broken frames are left out."""
    import lzma

    entry = dataclasses.replace(
        registered_sets()["Ta-SNAP"],
        corrections={
            "energy_shift_by_group": {"*": 0.5},
            "drop_frames": (1,),
            "drop_test_frames": (3,),
            "test_to_train": (0, 4),
        },
    )
    monkeypatch.setattr(registry, "_entries", lambda: (entry,))
    folder = tmp_path / "Ta-SNAP"
    folder.mkdir()
    frames = lj_frames(16)
    for split, part in (("train", frames[:10]), ("test", frames[10:])):
        write(folder / "x.extxyz", part)
        (folder / f"{split}.extxyz.xz").write_bytes(lzma.compress((folder / "x.extxyz").read_bytes()))
    train, test = (load_registered("Ta-SNAP", tmp_path, split=split) for split in ("train", "test"))
    energies = [float(a.get_potential_energy()) + 0.5 * len(a) for a in frames]
    assert [f.energy for f in train] == pytest.approx([energies[i] for i in (0, *range(2, 11), 14)])
    assert [f.energy for f in test] == pytest.approx([energies[i] for i in (11, 12, 15)])
    (tmp_path / "run.toml").write_text(
        f"data = '{tmp_path}'\noutput = 'run'\n[sets.Ta-SNAP]\nregistered = true\nvalidation_fraction = 0.0\n"
    )
    sets, tests = load_sets(read_run_file(tmp_path / "run.toml", TrainConfig))
    assert [f.energy for f in sets["Ta-SNAP"].train] == [f.energy for f in train]
    assert [f.energy for f in tests["Ta-SNAP"]] == [f.energy for f in test]
