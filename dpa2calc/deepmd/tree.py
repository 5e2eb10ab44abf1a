"""The backend-neutral tree of `.dp` and `.yaml` files -> options and named arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpa2calc.errors import CheckpointError

from .branch import Branch, Tree
from .schema import BRIDGING, DESCRIPTORS, plain_activation

Arrays = dict[str, Tensor]

_VARIABLES = "@variables"
# Keys of the tree whose part of an array's name in a `.pt` file is another one.
PARTS = {
    "embeddings": "filter_layers",
    "embeddings_strip": "filter_layers_strip",
    "nets": "filter_layers",
    "repformer_layers": "layers",
    "repinit_variable": "repinit",
    "repinit_three_body_variable": "repinit_three_body",
    "repformers_variable": "repformers",
}
# Of layers and statistics; others have the same name in both.
ARRAY_NAMES = {"w": "matrix", "b": "bias", "davg": "mean", "dstd": "stddev"}
# Parts of names in a `.pt` of the exportable backend, beside those of `PARTS`.
_EXPORTABLE = (
    ("._module_networks.", ".networks."),
    (".type_embedding.embedding_net.", ".type_embedding.embedding.embedding_net."),
    (".descriptor.embeddings.", ".descriptor.sea.embeddings."),
    (".descriptor.davg", ".descriptor.sea.davg"),
    (".descriptor.dstd", ".descriptor.sea.dstd"),
    ("._min_nbor_dist", ".min_nbor_dist"),
)
# The part that the body of a single-block descriptor has in a `.pt` file.
_BODIES = (("dpa1", "se_atten"), ("deeppot_se", "sea"))
_BODY = {name: body for kind, body in _BODIES for name in DESCRIPTORS[kind][0]}


def branch_from_tree(tree: Tree) -> Branch:
    """The one branch of a universal file.

    Raises:
        CheckpointError: the tree is no energy model that this package knows.
    """
    if not isinstance(tree.get("model"), Mapping):
        raise CheckpointError("the file has no 'model' entry, so it is no deepmd-kit model")
    model = tree["model"]
    script = dict(tree.get("model_def_script") or {})
    arrays: Arrays = {}
    outer = model
    bridging: Tree = {}
    if model.get("type") == "zbl":
        model, table = model["models"]
        for name, value in _variables(model).items():
            arrays[f"inner.{name}"] = value
        for name, value in table["tab"][_VARIABLES].items():
            arrays[f"pairtab.{name}"] = tensor(value)
        bridging = {row.theirs: outer[row.theirs] for row in BRIDGING.rows}
        bridging["use_srtab"] = script.get("use_srtab") or "table"
    if model.get("type") not in ("standard", "ener"):
        raise CheckpointError(f"model type {model.get('type')!r} is not supported; supported: standard, zbl")
    arrays |= _variables(outer)
    descriptor, fitting = model["descriptor"], model["fitting"]
    arrays |= _descriptor_arrays(descriptor)
    arrays |= _collect(fitting, "fitting_net")
    shortest = tree.get(_VARIABLES, {}).get("min_nbor_dist")
    return Branch(
        name="Default",
        params={
            "type_map": model["type_map"],
            "descriptor": _descriptor_params(descriptor),
            "fitting_net": _scalars(fitting),
            "pair_exclude_types": outer.get("pair_exclude_types") or [],
            "atom_exclude_types": outer.get("atom_exclude_types") or [],
            "info": script.get("info") or {},
            "model_branch_alias": script.get("model_branch_alias") or [],
            **bridging,
        },
        arrays=arrays,
        nodes={"descriptor": descriptor, "fitting": fitting},
        min_nbor_dist=None if shortest is None else float(np.asarray(shortest)),
    )


def exportable_name(name: str) -> str:
    """A name in a `.pt` of deepmd-kit's exportable backend as its PyTorch backend has it."""
    for theirs, plain in _EXPORTABLE:
        name = name.replace(theirs, plain)
    *parts, last = name.split(".")
    return ".".join([*(PARTS.get(part, part) for part in parts), ARRAY_NAMES.get(last, last)])


# Without meaning for the numbers of a network, or read with the options of the whole.
_FREE = {"precision", "trainable", "trainable_ln", "exclude_types", "type_map", "protection"}
_FREE |= {"repinit_args", "repformer_args"}


def differences(given: object, written: object, at: str) -> Iterator[str]:
    """Options within a tree that are others than in the tree of the same model as it is written here.

    A universal file says of each layer what the options say of the whole, and other programs may write there
    what the options cannot say.
    """
    if isinstance(given, Mapping) and isinstance(written, Mapping):
        version = given.get("@version", 0)
        if version > written.get("@version", version):
            yield f"{at}.@version = {version}, known up to {written['@version']}"
        for key in written.keys() & given.keys() - _FREE:
            if not key.startswith("@"):
                yield from differences(given[key], written[key], f"{at}.{key}")
    elif isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        for k, (one, other) in enumerate(zip(given, written)):
            yield from differences(one, other, f"{at}.{k}")
    elif _plain(given) != _plain(written):
        yield f"{at} = {given!r}, expected {written!r}"


def _plain(value: object) -> object:
    return plain_activation("none" if value is None else value)


def tensor(value: npt.ArrayLike) -> Tensor:
    """An array of the tree as a tensor that owns its memory."""
    return torch.from_numpy(np.array(value))


def _variables(node: Tree) -> Arrays:
    return {name: tensor(v) for name, v in (node.get(_VARIABLES) or {}).items() if v is not None}


def _scalars(node: Tree) -> Tree:
    """Options of a node: everything but sub-nodes and arrays."""
    skip = {"nets", "embeddings", "env_mat", "type_embedding", "trainable"}
    return {
        key: value
        for key, value in node.items()
        if not key.startswith("@") and key not in skip and not isinstance(value, Mapping)
    }


def _descriptor_params(node: Tree) -> Tree:
    if "type" not in node:
        raise CheckpointError("the descriptor names no type")
    params = _scalars(node)
    blocks = [node, *(value for value in node.values() if isinstance(value, Mapping))]
    environments = [sub["env_mat"] for sub in blocks if isinstance(sub.get("env_mat"), Mapping)]
    params["use_exp_switch"] = any(environment.get("use_exp_switch") for environment in environments)
    if node["type"] == "dpa2":
        params["repinit"] = dict(node["repinit_args"])
        params["repformer"] = dict(node["repformer_args"])
    return params


def _descriptor_arrays(node: Tree) -> Arrays:
    arrays = _collect(node, "descriptor")
    body = _BODY.get(node["type"])
    if body is None:
        return arrays
    renamed = {}
    for name, value in arrays.items():
        rest = name.removeprefix("descriptor.")
        if rest.startswith("attention_layers."):
            rest = "dpa1_attention." + rest.removeprefix("attention_layers.")
        inside = rest if rest.startswith("type_embedding.") else f"{body}.{rest}"
        renamed[f"descriptor.{inside}"] = value
    return renamed


def _collect(node: object, prefix: str) -> Arrays:
    """All arrays below a node under the names of a `.pt` file."""
    arrays: Arrays = {}
    if isinstance(node, (list, tuple)):
        for k, item in enumerate(node):
            arrays |= _collect(item, f"{prefix}.{k}")
        return arrays
    if not isinstance(node, Mapping):
        return arrays
    for name, value in (node.get(_VARIABLES) or {}).items():
        arrays |= _named(ARRAY_NAMES.get(name, name), value, prefix)
    for key, value in node.items():
        if key == _VARIABLES or not isinstance(value, (Mapping, list, tuple)):
            continue
        part = PARTS.get(key, key)
        if key == "embedding" and node.get("@class") == "TypeEmbedNet":
            part = "embedding.embedding_net"
        arrays |= _collect(value, f"{prefix}.{part}")
    return arrays


def _named(name: str, value: npt.ArrayLike | None, prefix: str) -> Arrays:
    if value is None:
        return {}
    if isinstance(value, (list, tuple)) and all(x is None or isinstance(x, np.ndarray) for x in value):
        return {f"{prefix}.{name}.{k}": tensor(item) for k, item in enumerate(value) if item is not None}
    return {f"{prefix}.{name}": tensor(value)}
