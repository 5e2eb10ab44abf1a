"""Names that users chose, as names of files; and patterns in lists of files."""

from pathlib import Path

import pytest

from dpa2calc.files.names import file_stems
from dpa2calc.files.patterns import expanded


@pytest.mark.parametrize(
    "names",
    [
        ["a/b", "a_b"],
        ["a_b", "a/b", "a\\b", "A_B"],
        ["x" * 300, "x" * 301],
        ["Å" * 200, "Å" * 200 + "b"],
        ["nul\0name", "nul_name", "line\nbreak"],
    ],
)
def test_all_names_are_files_of_their_own(names, tmp_path):
    stems = file_stems(names)
    for name, stem in stems.items():
        (tmp_path / f"evaluation_{stem}.npz").write_text(name)
    assert len({stem.casefold() for stem in stems.values()}) == len(names)
    assert {file.read_text() for file in tmp_path.iterdir()} == set(names)


def test_ordinary_names_stay_as_they_are():
    assert file_stems(["H2O-PBE0TS", "mlearn/Cu"]) == {"H2O-PBE0TS": "H2O-PBE0TS", "mlearn/Cu": "mlearn_Cu"}


def test_patterns(tmp_path):
    for name in ("b.xyz", "a.xyz", "deep/c.xyz", "[1].xyz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert expanded("?.xyz", tmp_path) == [tmp_path / "a.xyz", tmp_path / "b.xyz"]
    assert expanded("**/c.xyz", tmp_path) == [tmp_path / "deep/c.xyz"]
    assert expanded("[1].xyz", tmp_path) == [tmp_path / "[1].xyz"]  # a file of that very name
    assert expanded("none*.xyz", tmp_path) == expanded("none.xyz", tmp_path) == []
    assert expanded(str(tmp_path / "a*"), Path("elsewhere")) == [tmp_path / "a.xyz"]
