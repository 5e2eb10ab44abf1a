"""Names that users chose, as names of files; and patterns in lists of files."""

from pathlib import Path

import pytest

from dpa2calc import load_model
from dpa2calc.applications import Frames
from dpa2calc.deepmd.input_json import read_input
from dpa2calc.errors import DPA2CalcError
from dpa2calc.files.names import file_stems
from dpa2calc.files.patterns import expanded
from dpa2calc.files.structures import iread_structures
from dpa2calc.store.checkpoint import checkpoint_info
from dpa2calc.training import Dataset, TrainConfig
from dpa2calc.training.config.run_file import read_run_file


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


@pytest.mark.parametrize("name", ["x" * 5000, "folder/" + "x" * 300])
@pytest.mark.parametrize(
    ("read", "suffix"),
    [
        *((load_model, suffix) for suffix in ("", ".safetensors", ".pt", ".dp", ".json")),
        *((checkpoint_info, suffix) for suffix in ("", ".safetensors")),
        *((Dataset.read, suffix) for suffix in ("", ".extxyz", ".db", ".h5#a", "*")),
        *((lambda path: list(iread_structures(path)), suffix) for suffix in ("", ".traj")),
        *((Frames, suffix) for suffix in ("", ".traj")),
        (read_input, ".json"),
        (lambda path: read_run_file(path, TrainConfig), ".toml"),
    ],
)
def test_a_name_that_no_file_can_have_is_a_file_that_is_not_there(read, suffix, name):
    with pytest.raises(DPA2CalcError, match=r"there is no|neither a file nor|no file fits"):
        read(name + suffix)
