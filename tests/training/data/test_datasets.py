"""The registries against the tables they come from."""

from __future__ import annotations

import pytest
from ase.data import atomic_numbers
from ase.io import write

from dpa2calc.errors import DataError
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
    assert len(sets) == 29
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
    assert len({s.head for s in sets.values()}) == 20


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
