"""Opening deepmd-kit's files: torch zip (.pt), HDF5 (.dp) and YAML, without running code from them."""

from __future__ import annotations

import io
import json
import lzma
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpa2calc.deepmd.branch import PREFIX, Branch, Source
from dpa2calc.deepmd.torchscript import read_torchscript
from dpa2calc.deepmd.tree import branch_from_tree
from dpa2calc.errors import CheckpointError

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_ZIP_MAGIC = b"PK\x03\x04"
_XZ_MAGIC = b"\xfd7zXZ\x00"


def open_source(path: str | Path) -> Source:
    """All branches of a deepmd-kit file; the kind is told from the content, not from the suffix.

    Args:
        path: `.pt`, `.pth`, `.dp`, `.yaml`, or one of these packed with xz.

    Raises:
        CheckpointError: missing, truncated or foreign file.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no model file {path}")
    content = io.BytesIO(path.read_bytes())
    if content.getvalue().startswith(_XZ_MAGIC):
        try:
            content = io.BytesIO(lzma.decompress(content.getvalue()))
        except (lzma.LZMAError, EOFError) as error:
            raise CheckpointError(f"{path} is truncated or damaged: {error}") from error
    head = content.getvalue()[:16]
    if head.startswith(_HDF5_MAGIC):
        return Source(path=str(path), kind="dp", branches=(branch_from_tree(read_hdf5_tree(content, path)),))
    if head.startswith(_ZIP_MAGIC):
        return read_zip(content, path)
    if any(suffix in (".yaml", ".yml") for suffix in path.suffixes):
        branch = branch_from_tree(read_yaml_tree(content, path))
        return Source(path=str(path), kind="yaml", branches=(branch,))
    raise CheckpointError(
        f"{path} is no deepmd-kit model: it is neither a torch zip (.pt, .pth), HDF5 (.dp) nor YAML (.yaml)"
    )


def read_hdf5_tree(content: io.BytesIO, path: Path) -> dict[str, Any]:
    """The tree of a `.dp` file with its arrays in place."""
    import h5py

    try:
        with h5py.File(content, "r") as file:
            if "json" not in file.attrs:
                raise CheckpointError(f"{path} is HDF5 but has no attribute 'json': no deepmd-kit model")
            tree = json.loads(file.attrs["json"])
            return _fill(tree, lambda name: np.array(file[name]))
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is truncated or damaged: {error}") from error


def _fill(node: Any, load: Any, inside: bool = False) -> Any:
    """The tree with every name of an array below "@variables" replaced by the array."""
    if isinstance(node, Mapping):
        return {key: _fill(value, load, inside or key == "@variables") for key, value in node.items()}
    if isinstance(node, list):
        return [_fill(item, load, inside) for item in node]
    return load(node) if inside and isinstance(node, str) else node


def read_yaml_tree(content: io.BytesIO, path: Path) -> dict[str, Any]:
    """The tree of a `.yaml` file with its arrays in place."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        tree = yaml.load(content, Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no YAML file: {error}") from error
    if not isinstance(tree, Mapping):
        raise CheckpointError(f"{path} is YAML, but no deepmd-kit model")
    return _yaml_arrays(tree)


def _yaml_arrays(node: Any) -> Any:
    if isinstance(node, Mapping):
        if node.get("@class") == "np.ndarray":
            return np.array(node["value"], dtype=node["dtype"])
        return {key: _yaml_arrays(value) for key, value in node.items()}
    return [_yaml_arrays(item) for item in node] if isinstance(node, list) else node


def read_zip(content: io.BytesIO, path: Path) -> Source:
    """A torch zip: `.pt` training checkpoint or `.pth` frozen model."""
    try:
        with zipfile.ZipFile(content) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is truncated or damaged: {error}") from error
    content.seek(0)
    if any(name.endswith("/constants.pkl") for name in names):
        params, tensors = read_torchscript(content, path)
        branch = _branch("Default", params, tensors, prefix="")
        return Source(path=str(path), kind="pth", branches=(branch,))
    return read_checkpoint(content, path)


def read_checkpoint(file: io.BytesIO, path: Path) -> Source:
    """A `.pt` training checkpoint: a state dict, alone or under "model"."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} cannot be read as plain weights: {error}") from error
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or "_extra_state" not in state:
        raise CheckpointError(f"{path} is a torch file, but no deepmd-kit checkpoint (no `_extra_state`)")
    params = state["_extra_state"]["model_params"]
    by_branch = params.get("model_dict") or {"Default": params}
    branches = tuple(
        _branch(name, section, state, prefix=f"model.{name}.") for name, section in by_branch.items()
    )
    training = dict(state["_extra_state"].get("train_infos") or {})
    return Source(path=str(path), kind="pt", branches=branches, info=training)


def _branch(name: str, params: dict[str, Any], state: Mapping[str, Tensor], *, prefix: str) -> Branch:
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    shortest = own.get("min_nbor_dist")
    arrays = {k.removeprefix(PREFIX): v for k, v in own.items() if k.startswith(PREFIX)}
    return Branch(
        name=name,
        params=params,
        arrays=bridged(arrays),
        min_nbor_dist=None if shortest is None or float(shortest) < 0 else float(shortest),
    )


def bridged(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of a ZBL model (`models.0` the network, `models.1` the table) as those of a plain one."""
    if not any(name.startswith("models.1.") for name in arrays):
        return arrays
    out = {}
    for name, value in arrays.items():
        if name in ("models.0.out_bias", "models.0.out_std"):
            out["inner." + name.removeprefix("models.0.")] = value
        elif name.startswith("models.0."):
            out[name.removeprefix("models.0.")] = value
        elif name.startswith("models.1.tab_"):
            out["pairtab." + name.removeprefix("models.1.")] = value
        else:
            out[name] = value
    return out
