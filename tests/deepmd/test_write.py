"""Files written here against deepmd-kit's own: the same keys, types and bits (needs no deepmd-kit)."""

import dataclasses
import io
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deepmd_models import LARGE, SMALL

from dpa2calc.deepmd.containers import read_hdf5_tree
from dpa2calc.deepmd.read import read_deepmd
from dpa2calc.deepmd.write import write_deepmd
from dpa2calc.errors import CheckpointError, HeadError
from dpa2calc.model.config import FittingConfig, HeadConfig, ModelConfig
from dpa2calc.model.config.presets import preset
from dpa2calc.model.potential import Potential


def models(root: Path, suffix: str) -> list[Path]:
    return sorted(path for path in root.glob("models/*/model.*") if suffix in path.suffixes)


def content(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def check_pt(path: Path, folder: Path) -> None:
    """A strict loader finds every key of the original with its type, and every bit is the same."""
    written = write_deepmd(read_deepmd(path), folder / "out.pt")
    original = torch.load(io.BytesIO(content(path)), weights_only=True)["model"]
    whole = torch.load(written, weights_only=True)
    ours = whole["model"]
    assert whole["optimizer"] is None  # without the key `dp train --init-model` and `--restart` fail
    assert set(ours) == set(original)
    for name, value in original.items():
        if name == "_extra_state":
            continue
        # one golden file was cast to float32 by hand, biases included
        same_type = ours[name].dtype == value.dtype or path.parent.name == "dpa2_paper_fp32"
        assert same_type and torch.equal(ours[name], value.to(ours[name].dtype)), name
    branches = original["_extra_state"]["model_params"].get("model_dict", {})
    assert list(ours["_extra_state"]["model_params"].get("model_dict", {})) == list(branches)


def leaves(node: Any, at: str = "") -> dict[str, Any]:
    """Every leaf of a tree by its path."""
    if isinstance(node, dict):
        pairs: Any = node.items()
    elif isinstance(node, list) and any(isinstance(item, (dict, np.ndarray)) for item in node):
        pairs = enumerate(node)
    else:
        return {at: node}
    return {key: leaf for name, item in pairs for key, leaf in leaves(item, f"{at}/{name}").items()}


def check_dp(path: Path, folder: Path) -> None:
    """The tree has the same nodes, options and arrays as the original."""
    written = write_deepmd(read_deepmd(path), folder / "out.dp")
    original = leaves(read_hdf5_tree(io.BytesIO(content(path)), path)["model"])
    ours = leaves(read_hdf5_tree(io.BytesIO(written.read_bytes()), written)["model"])
    second_version = original["/descriptor/type"] if "/descriptor/type" in original else ""
    added = {"/descriptor/smooth_type_embedding", "/descriptor/tebd_input_mode"}
    assert set(ours) - set(original) <= (added if second_version == "se_atten_v2" else set())
    assert set(original) <= set(ours)
    for key, value in original.items():
        if _free(key):
            continue
        if isinstance(value, np.ndarray):
            assert ours[key].dtype == value.dtype and np.array_equal(ours[key], value), key
        else:
            assert ours[key] == value or second_version == "se_atten_v2", key


def _free(key: str) -> bool:
    """Values that mean nothing: options of a three-body part that is not there, and of a table's source."""
    return "repinit_args/three_body_" in key or key.endswith(("/tab/rmax", "/tab/@variables/vdata"))


@pytest.mark.parametrize("path", models(SMALL, ".pt"), ids=lambda path: path.parent.name)
def test_pt(path: Path, tmp_path: Path) -> None:
    check_pt(path, tmp_path)


@pytest.mark.parametrize("path", models(SMALL, ".dp"), ids=lambda path: path.parent.name)
def test_dp(path: Path, tmp_path: Path) -> None:
    check_dp(path, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("path", models(LARGE, ".pt"), ids=lambda path: path.parent.name)
def test_every_pt(path: Path, tmp_path: Path) -> None:
    check_pt(path, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("path", models(LARGE, ".dp"), ids=lambda path: path.parent.name)
def test_every_dp(path: Path, tmp_path: Path) -> None:
    check_dp(path, tmp_path)


@pytest.fixture
def two_heads() -> Potential:
    config = preset("compressible", ("H", "O"))
    heads = (HeadConfig(name="a", elements=("H", "O"), aliases=("first",)), HeadConfig(name="b"))
    return Potential(dataclasses.replace(config, heads=heads, min_neighbor_distance=0.9))


def test_branches_share_their_descriptor_on_disk(two_heads: Potential, tmp_path: Path) -> None:
    both = write_deepmd(two_heads, tmp_path / "both.pt")
    one = write_deepmd(two_heads, tmp_path / "one.pt", head="first")
    n_head = sum(parameter.numel() for parameter in two_heads.heads[1].parameters())
    assert both.stat().st_size - one.stat().st_size < 1.2 * 8 * n_head + 150_000
    state = torch.load(both, weights_only=True)["model"]
    name = "atomic_model.descriptor.repformers.g2_embd.matrix"
    assert state[f"model.a.{name}"].data_ptr() == state[f"model.b.{name}"].data_ptr()
    again = read_deepmd(both)
    assert again.config == dataclasses.replace(two_heads.config, neighbor_rule="nearest")
    assert next(iter(torch.load(one, weights_only=True)["model"])).startswith("model.Default.")


def test_a_warning_where_deepmd_cuts_the_list(
    two_heads: Potential, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_deepmd(two_heads, tmp_path / "m.pt")
    assert "keeps the nearest 120 only" in caplog.text
    caplog.clear()
    write_deepmd(read_deepmd(tmp_path / "m.pt"), tmp_path / "n.pt")
    assert not caplog.text


def test_what_cannot_be_written(two_heads: Potential, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"\.pt and \.dp can be written.*dp convert-backend m\.dp m\.pth"
    ):
        write_deepmd(two_heads, tmp_path / "m.pth")
    with pytest.raises(HeadError, match=r"holds one head; name one of a, b"):
        write_deepmd(two_heads, tmp_path / "m.dp")
    with pytest.raises(HeadError, match="no head 'c'"):
        write_deepmd(two_heads, tmp_path / "m.pt", head="c")
    fitting = FittingConfig(exclude_types=(1,))
    heads = (HeadConfig(name="a", fitting=fitting),)
    with pytest.raises(CheckpointError, match=r"head a excludes the types \[1\] in its fitting net"):
        write_deepmd(Potential(two_heads.config.with_heads(heads)), tmp_path / "m.dp")
    assert not list(tmp_path.iterdir())


def test_a_branch_cannot_have_a_dot_in_its_name(two_heads: Potential, tmp_path: Path) -> None:
    """deepmd-kit keeps branches in a ModuleDict of PyTorch, which refuses it."""
    first, second = two_heads.config.heads
    config = two_heads.config.with_heads((dataclasses.replace(first, name="PBE.v2"), second))
    potential = Potential(config)
    with pytest.raises(CheckpointError, match=r"head PBE\.v2 has a '\.' in its name"):
        write_deepmd(potential, tmp_path / "several.pt")
    assert write_deepmd(potential, tmp_path / "one.pt", "PBE.v2").exists()


def test_unknown_distance_is_left_out(tmp_path: Path) -> None:
    potential = Potential(ModelConfig(type_map=("H",), descriptor=preset("dpa1-l0", ("H",)).descriptor))
    for name in ("m.pt", "m.dp"):
        again = read_deepmd(write_deepmd(potential, tmp_path / name))
        assert again.config.min_neighbor_distance is None
