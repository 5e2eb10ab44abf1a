"""Potential -> files that deepmd-kit 3.2 loads, evaluates to the same numbers and freezes."""

from __future__ import annotations

import datetime
import json
import logging
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dpa2calc.ambient import own_modes
from dpa2calc.errors import CheckpointError, HeadError
from dpa2calc.files.atomic import atomic_path
from dpa2calc.heads import resolve_head
from dpa2calc.model.potential import Potential
from dpa2calc.version import __version__

from .arrays import branch_arrays, out_std, state_dict_arrays, table_arrays, table_values
from .branch import SMIN_ALPHA, Tree
from .model_section import model_params
from .schema import DESCRIPTORS
from .tree_writer import TreeWriter

logger = logging.getLogger(__name__)


@own_modes()
def write_deepmd(potential: Potential, path: str | Path, head: str | None = None) -> Path:
    """Write a potential for deepmd-kit.

    `.pt` holds all heads (several become a multi-task checkpoint) or the one named; `.dp` holds one.
    A model made under the neighbour rule "all" is written with its nsel, at which deepmd-kit cuts its
    neighbour lists; a warning says so.

    Args:
        path: ends in `.pt` or `.dp`.
        head: name of a head; None takes all (`.pt`) or the only one (`.dp`).

    Raises:
        CheckpointError: another suffix, a fitting net that excludes types by itself, a descriptor or a head
            that deepmd-kit does not have, a pair table that a `.pt` cannot describe.
        HeadError: no such head, or none named for a `.dp` of a model with several.
    """
    path = Path(path)
    if (kind := potential.config.descriptor.kind) not in DESCRIPTORS:
        raise CheckpointError(
            f"deepmd-kit has no descriptor {kind!r}; it has {', '.join(DESCRIPTORS)}. Keep this model in a "
            ".safetensors file"
        )
    known = potential.config.heads
    chosen = list(range(len(known))) if head is None else [known.index(resolve_head(head, known))]
    for index in chosen:
        one = known[index]
        if one.label:
            raise CheckpointError(f"head {one.name} predicts {one.label}; write a head of energies")
        if set(one.fitting.exclude_types) - set(potential.config.atom_exclude_types):
            raise CheckpointError(
                f"head {one.name} excludes the types {list(one.fitting.exclude_types)} in its fitting net, "
                "which deepmd-kit can say only of the whole model (atom_exclude_types)"
            )
    if potential.config.neighbor_rule == "all":
        logger.warning(
            "this model sums over all neighbours within the cutoff; deepmd-kit keeps the nearest %d only, so "
            "its energies differ for atoms with more neighbours",
            potential.config.descriptor.nsel,
        )
    if path.suffix == ".pt":
        return _write_pt(potential, path, chosen, multi=head is None and len(chosen) > 1)
    if path.suffix != ".dp":
        raise CheckpointError(
            f"{path} ends in {path.suffix!r}; .pt and .dp can be written. For .pth write a .dp, then run "
            f"`dp convert-backend {path.stem}.dp {path.stem}.pth` in deepmd-kit's environment"
        )
    if len(chosen) > 1:
        raise HeadError(f"a .dp file holds one head; name one of {', '.join(one.name for one in known)}")
    return _write_dp(potential, path, chosen[0])


def _write_pt(potential: Potential, path: Path, heads: list[int], *, multi: bool) -> Path:
    """A training checkpoint whose optimiser has nothing to remember."""
    dotted = [name for name in (potential.config.heads[k].name for k in heads) if "." in name]
    if multi and dotted:
        raise CheckpointError(
            f"the head {dotted[0]} has a '.' in its name, which no branch of a .pt may have; write one head"
        )
    state: OrderedDict[str, object] = OrderedDict()
    sections = {}
    shared: dict[str, Tensor] = {}
    table = f"{path.stem}_pair_table.txt" if potential.bridging is not None else None
    alpha = SMIN_ALPHA if potential.bridging is None else potential.bridging.config.smin_alpha
    if alpha != SMIN_ALPHA:
        raise CheckpointError(
            f"the pair table's smin_alpha is {alpha:g}, and deepmd-kit takes {SMIN_ALPHA:g} (Å) for any .pt; "
            "its energies would be others, so write a .dp"
        )
    distance = potential.config.min_neighbor_distance
    shortest = -1.0 if distance is None else distance  # -1: not known
    for index in heads:
        name = potential.config.heads[index].name if multi else "Default"
        section = model_params(potential.config, index, precision=potential.precision)
        if table is not None:
            section["use_srtab"] = table
        sections[name] = section
        arrays = state_dict_arrays(branch_arrays(potential, index), potential.dtype)
        for key, value in arrays.items():
            if key.startswith("descriptor."):
                arrays[key] = shared.setdefault(key, value)  # one storage for all branches
        state[f"model.{name}.min_nbor_dist"] = torch.tensor(shortest, dtype=torch.float64)
        for key, value in _with_table(potential, index, arrays).items():
            state[f"model.{name}.atomic_model.{key}"] = value
    params: Tree = next(iter(sections.values()))
    if multi:
        params = {"shared_dict": {}, "model_dict": sections}
    state["_extra_state"] = {"model_params": params, "train_infos": {"lr": 0.0, "step": 0}}
    with atomic_path(path) as temporary:
        # `dp --pt train --init-model` and `--restart` want the key, and take None for a fresh optimiser
        torch.save({"model": state, "optimizer": None}, temporary)
    if table is not None and potential.bridging is not None:
        with atomic_path(path.with_name(table)) as temporary:
            np.savetxt(temporary, table_values(potential.bridging))
        logger.warning("deepmd-kit loads %s only where %s lies in the current directory", path.name, table)
    return path


def _with_table(potential: Potential, head: int, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """A ZBL model's names: `models.0` is the network, `models.1` the table, the bias is the whole's."""
    if potential.bridging is None:
        return arrays
    spread = out_std(potential, head)
    out = {"out_bias": arrays["out_bias"], "out_std": spread}
    for k in (0, 1):
        out[f"models.{k}.out_bias"] = torch.zeros_like(spread)
        out[f"models.{k}.out_std"] = torch.ones_like(spread)
    out |= {f"models.0.{key}": value for key, value in arrays.items() if key not in ("out_bias", "out_std")}
    return out | {f"models.1.{key}": value for key, value in table_arrays(potential.bridging).items()}


def _write_dp(potential: Potential, path: Path, head: int) -> Path:
    """A backend-neutral file."""
    precision = potential.precision
    arrays = branch_arrays(potential, head)
    params = model_params(potential.config, head, precision=precision)
    writer = TreeWriter(potential.config, head, arrays, precision)
    if potential.bridging is not None:
        params["use_srtab"] = f"{path.stem}_pair_table.txt"
    tree = {
        "software": "dpa2calc",
        "version": __version__,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(sep=" "),
        "backend": "dpa2calc",
        "model": writer.model() if potential.bridging is None else writer.bridged(potential.bridging),
        "model_def_script": params,
        "@variables": {},
    }
    if potential.config.min_neighbor_distance is not None:
        tree["@variables"] = {"min_nbor_dist": np.array(potential.config.min_neighbor_distance)}
    with atomic_path(path) as temporary:
        _save_tree(tree, temporary)
    return path


def _save_tree(tree: Tree, path: Path) -> None:
    """HDF5 with one dataset an array, and the rest as JSON in an attribute."""
    import h5py

    with h5py.File(path, "w") as file:

        def store(node: object) -> object:
            if isinstance(node, dict):
                return {key: store(value) for key, value in node.items()}
            if isinstance(node, (list, tuple)):
                return [store(item) for item in node]
            if isinstance(node, (Tensor, np.ndarray)):
                name = f"/variable_{len(file):04d}"
                file.create_dataset(name, data=node.numpy() if isinstance(node, Tensor) else node)
                return name
            return node

        file.attrs["json"] = json.dumps(store(tree), separators=(",", ":"))
