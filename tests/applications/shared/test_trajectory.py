"""Frames: selection, broken files."""

import bz2
import gzip
import lzma

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from dpa2calc.applications import Frames
from dpa2calc.errors import DataError
from dpa2calc.files.results import plus_minus


def numbered(n: int) -> list[Atoms]:
    return [Atoms("Ar", positions=[[float(k), 0.0, 0.0]], cell=[50.0] * 3, pbc=True) for k in range(n)]


def xs(frames: Frames) -> list[float]:
    return [float(atoms.positions[0, 0]) for atoms in frames]


@pytest.mark.parametrize(
    "suffix, opener", [("", open), (".xz", lzma.open), (".gz", gzip.open), (".bz2", bz2.open)]
)
def test_slices_of_files_equal_those_of_lists(suffix: str, opener, tmp_path) -> None:
    write(tmp_path / "a.extxyz", numbered(20))
    path = tmp_path / f"b.extxyz{suffix}"
    with opener(path, "wb") as handle:
        handle.write((tmp_path / "a.extxyz").read_bytes())
    for start, stop, step in [(None, None, None), (3, None, 4), (-5, None, 1), (2, -3, 7), (0, 1, 1)]:
        expected = [float(k) for k in range(20)][slice(start, stop, step)]
        for source in (path, numbered(20)):
            frames = Frames(source, start=start, stop=stop, step=step)
            assert xs(frames) == expected == xs(frames)  # twice: repeatable
            assert frames.first().positions[0, 0] == expected[0]


def test_nested_frames_and_iterators() -> None:
    assert xs(Frames(Frames(numbered(20), start=4, step=2), start=1, stop=3)) == [6.0, 8.0]
    once = Frames(iter(numbered(10)), start=2, step=3)
    assert not once.repeatable and xs(once) == [2.0, 5.0, 8.0]
    with pytest.raises(DataError, match="read only once, but this analysis reads it twice"):
        once.first()


def test_frames_of_all_frames_are_the_same_ones() -> None:
    atoms = [Atoms("H", positions=[[k, 0, 0]]) for k in range(6)]
    inner = Frames(atoms, start=1, step=2)
    outer = Frames(inner)
    assert outer.count == inner.count == 3 and outer.repeatable
    assert [frame.positions[0, 0] for frame in outer] == [1, 3, 5]
    assert [frame.positions[0, 0] for frame in Frames(inner, stop=2)] == [1, 3]


def test_broken_files_name_file_frame_and_way_out(tmp_path) -> None:
    (tmp_path / "bad.extxyz.xz").write_bytes(b"this is not compressed")
    with pytest.raises(DataError, match=r"bad\.extxyz\.xz: frame 0 of the selection cannot be read"):
        xs(Frames(tmp_path / "bad.extxyz.xz"))
    (tmp_path / "unknown.bin").write_bytes(bytes(range(200)))
    with pytest.raises(DataError, match=r"unknown\.bin: frame 0 .* cannot be read"):
        xs(Frames(tmp_path / "unknown.bin"))
    write(tmp_path / "a.traj", numbered(5))
    whole = (tmp_path / "a.traj").read_bytes()
    (tmp_path / "a.traj").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.traj: frame \d .* cannot be read"):
        xs(Frames(tmp_path / "a.traj"))
    with pytest.raises(DataError, match=r"frame 1 is a str, not ase\.Atoms"):
        xs(Frames([numbered(1)[0], "x"]))
    with pytest.raises(DataError, match="step = 0, but frames are read forwards"):
        Frames(numbered(2), step=0)


@pytest.mark.parametrize(
    "source", [5, None, 1.5, b"a.traj", {"a": 1}, np.zeros((3, 3)), np.array("a"), object()]
)
def test_what_is_no_trajectory_is_refused(source) -> None:
    with pytest.raises(DataError, match=rf"cannot be a {type(source).__name__}; give a file, Atoms, a list"):
        Frames(source)


def test_a_single_structure_a_folder_and_names_that_are_no_file(tmp_path) -> None:
    assert xs(Frames(numbered(1)[0])) == [0.0]
    with pytest.raises(DataError, match="folder"):
        Frames(tmp_path)
    for name in ("nowhere.traj", "x" * 5000):
        with pytest.raises(DataError, match=rf"^there is no trajectory file {name[:200]}$"):
            Frames(name)


def test_errors_of_the_callers_own_iterator_pass_through() -> None:
    def generator():
        yield numbered(1)[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        xs(Frames(generator()))


def test_numbers_are_written_to_the_second_digit_of_their_error() -> None:
    assert plus_minus(0.25134, 0.0022) == "0.2513 ± 0.0022"
    assert plus_minus(1618.9, 463.0) == "1620 ± 460"
    assert plus_minus(12.34, 1.26) == "12.3 ± 1.3"
    assert plus_minus(-29941.8123, 0.098) == "-29941.812 ± 0.098"
    assert plus_minus(353.993, 0.0) == "353.993 ± 0"
    assert plus_minus(1.0, float("nan")) == "1 ± unknown"
    assert plus_minus(float("nan"), 1.0) == "not determined"
    assert plus_minus(3e-12, 1e-13) == "3e-12 ± 1e-13"
