"""Patterns in lists of files."""

from pathlib import Path

from dpa2calc.files.patterns import expanded


def test_a_group_of_a_file_is_there_where_the_file_is(tmp_path: Path) -> None:
    """`systems` of an input.json name groups of HDF5 files so."""
    (tmp_path / "data.h5").write_bytes(b"")
    (tmp_path / "odd#name").mkdir()
    assert expanded("data.h5#/water", tmp_path) == [tmp_path / "data.h5#" / "water"]
    assert expanded("odd#name", tmp_path) == [tmp_path / "odd#name"]
    assert expanded("other.h5#/water", tmp_path) == []


def test_an_empty_name_is_no_file(tmp_path: Path) -> None:
    """`--train "$FRAMES"` without such a variable must not mean the whole folder."""
    assert expanded("", tmp_path) == []
