"""Opening deepmd-kit's files: torch zip (.pt), HDF5 (.dp) and YAML, without running code from them."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
from torch import Tensor

from dpa2calc.errors import CheckpointError
from dpa2calc.files.limits import PACKED_ERRORS, check_bytes, check_tree, open_unpacked, parse_json

from .branch import PREFIX, SMIN_ALPHA, Branch, Source, Tree
from .foreign import what_it_is
from .torch_pickle import TorchZip, read_torchscript
from .tree import branch_from_tree, exportable_name

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_ZIP_MAGIC = b"PK\x03\x04"
_XZ_MAGIC = b"\xfd7zXZ\x00"
_EXPORTED = "extra/model.json"


def open_source(path: str | Path) -> Source:
    """All branches of a deepmd-kit file; the kind is recognised by the content, not by the suffix.

    Args:
        path: `.pt`, `.pth`, `.dp`, `.hlo`, `.yaml`, `.pt2`, `.pte`, or one of these packed with xz.

    Raises:
        CheckpointError: missing, truncated or foreign file; a foreign one is named, with the way out.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise CheckpointError(f"there is no model file {path}")
    with open(path, "rb") as file:
        if file.read(len(_XZ_MAGIC)) == _XZ_MAGIC:
            return _open(_unpacked(path), path)
        file.seek(0)
        return _open(file, path)


def _unpacked(path: Path) -> io.BytesIO:
    try:
        with open_unpacked(path, packing=".xz", error=CheckpointError) as packed:
            return io.BytesIO(packed.read())
    except PACKED_ERRORS as error:
        raise CheckpointError(f"{path} is truncated or damaged: {error}") from error


def _open(file: IO[bytes], path: Path) -> Source:
    head = file.read(1024)
    file.seek(0)
    if head.startswith(_HDF5_MAGIC):
        return Source(path=str(path), kind="dp", branches=(branch_from_tree(read_hdf5_tree(file, path)),))
    if head.startswith(_ZIP_MAGIC):
        return read_zip(file, path)
    if any(suffix in (".yaml", ".yml") for suffix in path.suffixes):
        branch = branch_from_tree(read_yaml_tree(file, path))
        return Source(path=str(path), kind="yaml", branches=(branch,))
    raise CheckpointError(f"{path} is no deepmd-kit model that can be read: {what_it_is(head, path)}")


def read_hdf5_tree(content: IO[bytes], path: Path) -> Tree:
    """The tree of a `.dp` file with its arrays in place."""
    import h5py

    size = content.seek(0, io.SEEK_END)
    try:
        with h5py.File(content, "r") as file:
            if "json" not in file.attrs:
                raise CheckpointError(f"{path} is HDF5 but has no attribute 'json': no deepmd-kit model")
            text = file.attrs["json"]
            if not isinstance(text, (str, bytes)):
                raise CheckpointError(f"{path} is damaged: its attribute 'json' is a {type(text).__name__}")
            tree = parse_json(text, f"the attribute 'json' of {path}")
            total = 0

            def load(name: str) -> np.ndarray:
                nonlocal total
                part = file[name]
                if not isinstance(part, h5py.Dataset) or part.dtype.kind not in "fiub":
                    raise CheckpointError(f"{path} is damaged: {name} is not an array of numbers")
                if part.external or part.is_virtual:
                    raise CheckpointError(
                        f"{path}: the numbers of {name} lie in other files, which is refused"
                    )
                total += int(part.size or 0) * part.dtype.itemsize
                check_bytes(total, size, f"{path} up to {name}")
                return np.asarray(part[()])

            # a .hlo of JAX has its programs beside these
            model, variables = _fill(tree.get("model"), load), tree.get("@variables") or {}
            shortest = {k: load(name) for k, name in variables.items() if k == "min_nbor_dist"}
            return tree | {"model": model, "@variables": shortest}
    except (OSError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} is truncated or damaged: {error}") from error


def _fill(node: object, load: Callable[[str], np.ndarray], inside: bool = False) -> object:
    """The tree with every name of an array below "@variables" replaced by the array."""
    if isinstance(node, Mapping):
        return {key: _fill(value, load, inside or key == "@variables") for key, value in node.items()}
    if isinstance(node, list):
        return [_fill(item, load, inside) for item in node]
    return load(node) if inside and isinstance(node, str) else node


def read_yaml_tree(content: IO[bytes], path: Path) -> Tree:
    """The tree of a `.yaml` file with its arrays in place."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    data = content.read()
    try:
        tree = yaml.load(data, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no YAML file: {error}") from error
    if not isinstance(tree, Mapping):
        raise CheckpointError(f"{path} is YAML, but no deepmd-kit model")
    check_tree(tree, len(data), str(path))
    return {key: _listed_arrays(node, path) for key, node in tree.items()}


def _listed_arrays(node: object, path: Path) -> object:
    """The tree with the arrays that are written out as lists in place."""
    if isinstance(node, Mapping):
        if node.get("@class") == "np.ndarray":
            return _listed_array(node, path)
        return {key: _listed_arrays(value, path) for key, value in node.items()}
    return [_listed_arrays(item, path) for item in node] if isinstance(node, list) else node


def _listed_array(node: Mapping[str, object], path: Path) -> np.ndarray:
    name = node["dtype"]
    dtype = np.dtype(name) if isinstance(name, str) and len(name) < 16 else None
    if dtype is None or dtype.kind not in "fiub":
        raise CheckpointError(f"{path} is damaged: an array has the dtype {str(name)[:40]!r}")
    values = np.array(node["value"])
    if values.size and values.dtype.kind not in "fiub":
        raise CheckpointError(f"{path} is damaged: an array holds something else than numbers")
    return values.astype(dtype)


def read_zip(file: IO[bytes], path: Path) -> Source:
    """A torch zip: `.pt` training checkpoint, `.pth` frozen model, or exported `.pt2` and `.pte`."""
    source = TorchZip(file, path)
    exported = sorted((name for name in source.names if name.endswith(_EXPORTED)), key=len)
    if exported:
        kind = path.suffix.removeprefix(".")
        return Source(path=str(path), kind=kind, branches=(_exported_branch(source, exported[0]),))
    if not source.root:
        names = ", ".join(itertools.islice(sorted(source.names), 5))
        raise CheckpointError(
            f"{path} is a zip file, but of no state dictionary or frozen model of torch (it holds {names}); "
            "a `.pt2` or `.pte` of deepmd-kit without an extra/model.json becomes readable by "
            "`dp convert-backend model.pt2 model.dp`"
        )
    if source.is_script:
        params, tensors = read_torchscript(source)
        branch = _branch("Default", params, tensors, prefix="")
        return Source(path=str(path), kind="pth", branches=(branch,))
    return read_checkpoint(source)


def _exported_branch(source: TorchZip, name: str) -> Branch:
    """The model of an exported file: a tree in JSON beside the programs, of which nothing is read."""
    place = name.removesuffix("model.json")
    tree, script, facts = (
        parse_json(source.member(file), f"{source.path}, {file}") if file in source.names else {}
        for file in (name, f"{place}model_def_script.json", f"{place}metadata.json")
    )
    tree = {key: _listed_arrays(node, source.path) for key, node in tree.items()}
    branch = branch_from_tree(tree | {"model_def_script": script})
    return replace(branch, on_graphs=facts.get("lower_input_kind", "nlist") != "nlist")


def read_checkpoint(source: TorchZip) -> Source:
    """A `.pt` training checkpoint: a state dict, alone or under "model"."""
    path = source.path
    content, size = source.load()
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or "_extra_state" not in state:
        holds = list(content)[:5] if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"{path} is a torch file, but no deepmd-kit checkpoint (no `_extra_state`): it holds {holds}; if "
            "another program wrote it, use that program's own export"
        )
    extra = state["_extra_state"]
    check_tree(extra, size, f"{path}, its options")
    params = extra["model_params"]
    by_branch = params.get("model_dict") or {"Default": params}
    exportable = any(name.endswith(".w") for name in state)
    if exportable:
        # this backend takes default frame parameters from the options
        kept = (name for name in state if not name.endswith("default_fparam_tensor"))
        state = {exportable_name(name): state[name] for name in kept}
    else:  # deepmd-kit's PyTorch backend does not read it
        by_branch = {name: {**section, "smin_alpha": SMIN_ALPHA} for name, section in by_branch.items()}
    branches = [_branch(name, part, state, prefix=f"model.{name}.") for name, part in by_branch.items()]
    if exportable:
        branches = [
            replace(b, on_graphs=not bool(b.arrays.get("descriptor.graph_lower_disabled"))) for b in branches
        ]
    training = dict(extra.get("train_infos") or {})
    return Source(path=str(path), kind="pt", branches=tuple(branches), info=training)


def _branch(name: str, params: Tree, state: Mapping[str, Tensor], *, prefix: str) -> Branch:
    own = {
        k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix) and isinstance(v, Tensor)
    }
    shortest = own.get("min_nbor_dist")
    arrays = {k.removeprefix(PREFIX): v for k, v in own.items() if k.startswith(PREFIX)}
    return Branch(
        name=name,
        params=params,
        arrays=bridged(arrays),
        min_nbor_dist=None if shortest is None or float(shortest) < 0 else float(shortest),
    )


# Beginnings of the names in a ZBL model, and those in a plain one; the first that fits.
_BRIDGED = {"models.0.out_": "inner.out_", "models.0.": "", "models.1.tab_": "pairtab.tab_"}


def bridged(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of a ZBL model (`models.0` the network, `models.1` the table) as those of a plain one."""
    if not any(name.startswith("models.1.") for name in arrays):
        return arrays
    plain = {}
    for name, value in arrays.items():
        theirs = next((theirs for theirs in _BRIDGED if name.startswith(theirs)), "")
        plain[_BRIDGED.get(theirs, "") + name.removeprefix(theirs)] = value
    return plain
