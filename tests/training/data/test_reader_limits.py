"""Data files that announce more than they hold are refused at once; nothing is allocated for them."""

import json
import lzma
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dpa2calc.applications import Frames
from dpa2calc.errors import DataError
from dpa2calc.files import limits
from dpa2calc.training import Dataset


def first_frame(path: Path) -> object:
    return next(iter(Frames(path)))


@pytest.mark.parametrize("read", [Dataset.read, first_frame])
@pytest.mark.parametrize("filling", [b"\n", b" ", b"0"])
def test_packed_filling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Any, filling: bytes) -> None:
    monkeypatch.setattr(limits, "_FREE", 1 << 20)
    path = tmp_path / "a.extxyz.xz"
    path.write_bytes(lzma.compress(filling * (8 << 20), preset=0))
    with pytest.raises(DataError, match="unpacks to over"):
        read(path)


def test_hdf5_that_declares_terabytes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("C1H4")
        group["atomic_numbers"] = [6, 1, 1, 1, 1]
        group.create_dataset("coordinates", shape=(10**9, 5, 3), dtype="f8", chunks=(10**4, 5, 3))
    with pytest.raises(DataError, match=r"a\.h5#/C1H4/coordinates announces 120,000,000,000 bytes"):
        Dataset.read(tmp_path / "a.h5")


@pytest.mark.parametrize("cut", [True, False])
def test_npy_that_announces_terabytes(tmp_path: Path, cut: bool) -> None:
    folder = tmp_path / "set.000"
    folder.mkdir()
    (tmp_path / "type.raw").write_text("0\n")
    (tmp_path / "type_map.raw").write_text("Cu\n")
    (tmp_path / "nopbc").touch()
    np.save(folder / "coord.npy", np.zeros((2, 3)))
    content = (folder / "coord.npy").read_bytes()
    if not cut:  # of the header's own length
        content = content.replace(b"(2, 3), }        ", b"(2, 99999999999)}")
    (folder / "coord.npy").write_bytes(content[:-8] if cut else content)
    with pytest.raises(
        DataError, match=r"coord\.npy cannot be read \(mmap length is greater than file size\)"
    ):
        Dataset.read(tmp_path)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (zlib.compress(bytes(8 << 20)), "unpacks to far more"),
        (zlib.compress(b"[" * 100_000), "nested too deeply"),
        (zlib.compress(json.dumps({"numbers": [1]}).encode())[:-6], "cut off"),
    ],
)
def test_rows_of_an_lmdb_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: bytes, words: str
) -> None:
    lmdb = pytest.importorskip("lmdb")
    monkeypatch.setattr(limits, "_FREE", 1 << 20)
    with lmdb.open(str(tmp_path / "a.aselmdb"), subdir=False, map_size=2**24) as environment:
        with environment.begin(write=True) as transaction:
            transaction.put(b"1", row)
    with pytest.raises(DataError, match=words):
        Dataset.read(tmp_path / "a.aselmdb")


@pytest.mark.parametrize(
    "change", [{"frame_idx_fmt": "0999999999d"}, {"frame_idx_fmt": 5}, {"nframes": "two"}]
)
def test_metadata_of_deepmd_lmdb(tmp_path: Path, change: dict[str, Any]) -> None:
    lmdb, msgpack = pytest.importorskip("lmdb"), pytest.importorskip("msgpack")
    about = {"nframes": 1, "frame_idx_fmt": "06d", "type_map": ["H"]} | change
    with lmdb.open(str(tmp_path / "a.lmdb"), map_size=2**20) as environment:
        with environment.begin(write=True) as transaction:
            transaction.put(b"__metadata__", msgpack.packb(about))
    with pytest.raises(DataError, match="metadata are damaged"):
        Dataset.read(tmp_path / "a.lmdb")


def test_large_honest_files_are_read(tmp_path: Path) -> None:
    """Text that packs a hundred times, and one frame of many atoms."""
    frame = '4\nLattice="9 0 0 0 9 0 0 0 9"\n' + "Cu 0 0 0\n" * 4
    (tmp_path / "a.extxyz.xz").write_bytes(lzma.compress((frame * 2000).encode()))
    assert len(Dataset.read(tmp_path / "a.extxyz.xz")) == 2000
    rows = np.random.default_rng(0).random((30_000, 3))
    text = "30000\n\n" + "".join(f"H {x:.3f} {y:.3f} {z:.3f}\n" for x, y, z in rows)
    (tmp_path / "b.extxyz").write_text(text)
    assert Dataset.read(tmp_path / "b.extxyz")[0].n_atoms == 30_000
