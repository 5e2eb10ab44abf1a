"""Small files with large appetites are refused before anything is allocated; large honest ones are read."""

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dpa2calc.errors import CheckpointError, DataError
from dpa2calc.files import limits
from dpa2calc.files.limits import check_tree, check_zip, parse_json
from dpa2calc.files.opening import open_text
from dpa2calc.files.structures import iread_structures

PACKERS = {".xz": lzma.compress, ".gz": gzip.compress, ".bz2": bz2.compress}


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_zeros_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(limits, "_FREE", 1 << 20)
    path = tmp_path / f"a.extxyz{suffix}"
    path.write_bytes(PACKERS[suffix](bytes(8 << 20)))
    with pytest.raises(DataError, match="unpacks to over 1,048,576"), open_text(path) as handle:
        handle.read()
    path.write_bytes(PACKERS[suffix](bytes(1 << 19)))
    with open_text(path) as handle:
        assert len(handle.read()) == 1 << 19


def test_a_zip_that_announces_more_than_it_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_FREE", 1 << 20)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(8 << 20))
    with (
        zipfile.ZipFile(buffer) as archive,
        pytest.raises(CheckpointError, match="announces 8,388,608 bytes"),
    ):
        check_zip(archive, len(buffer.getvalue()), "file")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("[" * 200 + "]" * 200, "nested too deeply; allowed: 100 levels"),
        ("9" * 5000, "digits"),
        ("{", "no JSON"),
        ("", "no JSON"),
    ],
)
def test_json_of_no_honest_file(text: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=f"header.*{words}"):
        parse_json(text, "header")


def test_json_of_honest_files() -> None:
    assert parse_json('{"a": [1, 2.5, null, {"b": []}]}', "header") == {"a": [1, 2.5, None, {"b": []}]}


def doubled(times: int) -> list[Any]:
    node: list[Any] = ["x"]
    for _ in range(times):
        node = [node, node]
    return node


def test_trees_that_repeat_themselves() -> None:
    check_tree(doubled(5), 100, "file")
    with pytest.raises(CheckpointError, match="repeats parts of itself"):
        check_tree(doubled(60), 100, "file")
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(CheckpointError, match="nested too deeply"):
        check_tree(endless, 100, "file")


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.xyz.gz"])
@pytest.mark.parametrize("frames_before", [0, 3])
@pytest.mark.parametrize("count", [10**12, 10**6, -5])
def test_counts_of_atoms_against_bytes(tmp_path: Path, name: str, frames_before: int, count: int) -> None:
    path = tmp_path / name
    text = ("1\n\nCu 0 0 0\n" * frames_before + f"{count}\n\nCu 0 0 0\n").encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    with pytest.raises(DataError, match=f"frame {frames_before}: .*{count} atoms"):
        list(iread_structures(path))
    if frames_before:
        assert len(list(iread_structures(path, slice(frames_before)))) == frames_before
