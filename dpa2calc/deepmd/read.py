"""A deepmd-kit model file -> Potential."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dpa2calc.ambient import own_modes
from dpa2calc.errors import CheckpointError, ConfigError, HeadError
from dpa2calc.heads import resolve_head
from dpa2calc.model.config import DPA1Config, DPA2Config, HeadConfig, ModelConfig
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import potential_for

from .arrays import (
    SHORT,
    Entry,
    branch_arrays,
    check_weights,
    descriptor_entries,
    head_entries,
    weight_types,
)
from .branch import Branch, Source, Tree
from .containers import open_source
from .model_section import model_config
from .option_reader import Reading
from .tree import differences
from .tree_writer import TreeWriter

logger = logging.getLogger(__name__)


@own_modes()
def read_deepmd(path: str | Path, head: str | None = None, *, dtype: torch.dtype | None = None) -> Potential:
    """A potential with every head of a deepmd-kit file, or with one.

    Args:
        path: `.pt`, `.pth`, `.dp` or `.yaml`.
        head: name of a branch of a multi-task file; None takes all of them.
        dtype: precision of the networks; None takes the file's.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or holds a model of another kind.
        HeadError: no such branch.
    """
    with ours(path):
        source = open_source(path)
    return potential_from_source(source, head, dtype=dtype)


_DAMAGE = (
    LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, MemoryError,
    AssertionError,
)  # fmt: skip


@contextlib.contextmanager
def ours(path: str | Path) -> Iterator[None]:
    """Whatever is wrong with a file becomes a CheckpointError that names it."""
    try:
        yield
    except HeadError:
        raise
    except (CheckpointError, ConfigError) as error:
        text = str(error)
        raise CheckpointError(text if str(path) in text else f"{path}: {text}") from error
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is damaged or of a layout not known here: {error!r}") from error


def potential_from_source(
    source: Source, head: str | None = None, *, dtype: torch.dtype | None = None
) -> Potential:
    """A potential from opened branches; see `read_deepmd`."""
    with ours(source.path):
        branches = source.branches if head is None else (_pick(source, head),)
        config, unknown = _joined_config(source, branches)
        if len(branches) > 1:
            _check_shared(source, branches)
        precision = max(map(stored_precision, branches), key=lambda dtype: dtype.itemsize)
        sizes = [value.numel() for branch in branches for value in branch.arrays.values()]
        potential = potential_for(config, sizes, dtype=precision, where=source.path)
        fill(potential, branches, where=source.path)
        if branches[0].nodes:  # a universal file, which has one branch
            _check_nodes(potential, branches[0])
        smooth = getattr(config.descriptor, "smooth_type_embedding", True)
        if config.neighbor_rule == "all" and smooth and getattr(config.descriptor, "attn_layer", 1):
            logger.warning(
                "%s was trained by deepmd-kit's exportable backend, whose attention leaves out the empty "
                "slots of neighbour lists; here, as in its PyTorch backend, they count (up to 1e-4 eV)",
                source.path,
            )
        if short := weight_types(branches[0]) & set(SHORT.values()):
            logger.warning(
                "%s is a model in %s, in which deepmd-kit also computes; here it is computed in %s, so that "
                "energies differ by what so few digits lose there (some 1e-2 eV)",
                source.path,
                " and ".join(sorted(str(kind).removeprefix("torch.") for kind in short)),
                str(dtype or precision).removeprefix("torch."),
            )
        _tell_unread(source.path, unknown, _unread_weights(potential, branches))
        if any("compress_data" in name and value.numel() for name, value in branches[0].arrays.items()):
            logger.info(
                "%s is compressed; the networks it also holds are used, not their tables", source.path
            )
        return potential.to(dtype or precision)


def _pick(source: Source, head: str) -> Branch:
    """The branch that a name, an alias or a unique ending of one means."""
    known = [
        HeadConfig(
            name=branch.name,
            aliases=branch.params.get("model_branch_alias") or (),
            elements=(branch.params.get("info") or {}).get("observed_type") or (),
        )
        for branch in source.branches
    ]
    return source.branches[known.index(resolve_head(head, known, model=source.path))]


def stored_precision(branch: Branch) -> torch.dtype:
    """float32 or float64, as the network weights are stored; where both are, the longer one."""
    weights = {name: value.dtype for name, value in branch.arrays.items() if name.endswith(".matrix")}
    if not any(name.startswith("fitting_net.") for name in weights):
        raise CheckpointError("the file holds no fitting net (no array fitting_net...matrix)")
    return torch.float64 if torch.float64 in weights.values() else torch.float32


def _joined_config(source: Source, branches: tuple[Branch, ...]) -> tuple[ModelConfig, list[str]]:
    """The configuration with a head a branch, and the options that are not known here."""
    heads: list[HeadConfig] = []
    first: ModelConfig | None = None
    ignored: set[str] = set()
    for branch in branches:
        config, unknown = model_config(branch.params, name=branch.name, reading=Reading(arrays=branch.arrays))
        config = _with_spread(_with_table_grid(config, branch), branch)
        config = _with_default_fparam(config, branch)
        config = _with_all_neighbors(config) if branch.on_graphs else config
        ignored.update(unknown)
        heads += config.heads
        if first is None:
            first = config
        for name in ("type_map", "descriptor", "pair_exclude_types", "atom_exclude_types", "bridging"):
            if getattr(config, name) != getattr(first, name):
                raise CheckpointError(
                    f"the heads {branches[0].name} and {branch.name} of {source.path} differ in {name}, so "
                    f"they cannot be one model; read one of them with head={branch.name!r}"
                )
    assert first is not None
    distances = [b.min_nbor_dist for b in branches if b.min_nbor_dist is not None]
    shortest = min(distances) if distances else None
    joined = dataclasses.replace(first, heads=tuple(heads), min_neighbor_distance=shortest)
    return joined, sorted(ignored)


def _with_table_grid(config: ModelConfig, branch: Branch) -> ModelConfig:
    if config.bridging is None:
        return config
    if "pairtab.tab_info" not in branch.arrays:
        raise CheckpointError("the model has a pair table (use_srtab), but its numbers are not in the file")
    info = branch.arrays["pairtab.tab_info"]
    if info.numel() != 4:
        raise CheckpointError(f"the pair table's tab_info has {info.numel()} numbers, expected 4")
    r_min, spacing, n_intervals, _ = info.reshape(-1).tolist()
    grid = dataclasses.replace(config.bridging, r_min=r_min, spacing=spacing, n_intervals=int(n_intervals))
    return dataclasses.replace(config, bridging=grid)


def _with_default_fparam(config: ModelConfig, branch: Branch) -> ModelConfig:
    """Default frame parameters from the array, where there is one: deepmd-kit evaluates with it.

    A run that starts from another model keeps its array, whatever the options of the run say.
    """
    stored, head = branch.arrays.get("fitting_net.default_fparam_tensor"), config.heads[0]
    given = head.fitting.default_fparam
    if stored is None or given is None or torch.equal(stored, torch.tensor(given).to(stored)):
        return config
    fitting = dataclasses.replace(head.fitting, default_fparam=tuple(stored.reshape(-1).tolist()))
    return config.with_heads((dataclasses.replace(head, fitting=fitting),))


def _with_all_neighbors(config: ModelConfig) -> ModelConfig:
    """The rule of the graphs of deepmd-kit's exportable backend, for the descriptors that it has them for."""
    c = config.descriptor
    if not isinstance(c, DPA1Config | DPA2Config) or config.bridging is not None:
        return config
    if isinstance(c, DPA2Config) and (c.three_body or c.padding_counts or not c.repformer.set_davg_zero):
        return config
    if c.padding_counts:
        raise CheckpointError(
            "the model was trained by deepmd-kit's exportable backend without set_davg_zero; there, empty "
            "slots of neighbour lists do not count, and here, as in its PyTorch backend, they do"
        )
    return dataclasses.replace(config, neighbor_rule="all")


def _with_spread(config: ModelConfig, branch: Branch) -> ModelConfig:
    """Keeps deepmd-kit's `out_std`, which plays no part in energies, for the way back."""
    stored = branch.arrays.get("out_std")
    if stored is None or bool((stored == 1.0).all()):
        return config
    head = config.heads[0]
    if stored.numel() != config.n_types:
        raise CheckpointError(f"out_std has {stored.numel()} numbers for {config.n_types} types")
    info = head.info | {"deepmd_out_std": stored.reshape(-1).tolist()}
    return config.with_heads((dataclasses.replace(head, info=info),))


def _check_shared(source: Source, branches: tuple[Branch, ...]) -> None:
    """All branches must hold the same descriptor: that is what makes them heads of one model."""
    first = branches[0]
    for branch in branches[1:]:
        for name, value in first.arrays.items():
            other = branch.arrays.get(name)
            if not name.startswith("descriptor."):
                continue
            if other is not None and other.data_ptr() == value.data_ptr() and other.shape == value.shape:
                continue  # one storage for all branches
            if other is None or not torch.equal(value, other):
                raise CheckpointError(
                    f"the branches {first.name} and {branch.name} of {source.path} do not share their "
                    f"descriptor ({name} differs), so they are different models; read one of them with "
                    f"head={branch.name!r}"
                )


def fill(potential: Potential, branches: tuple[Branch, ...], *, where: str) -> None:
    """Copy the arrays of the branches into the potential, one head a branch.

    Raises:
        CheckpointError: arrays that the model needs are missing (all are named) or of another shape.
    """
    targets = potential.state_dict()
    missing: list[str] = []
    with torch.no_grad():
        for index, branch in enumerate(branches):
            types = weight_types(branch)
            entries = head_entries(potential, index) + (descriptor_entries(potential) if index == 0 else [])
            for entry in entries:
                # network collections are stored twice, and either copy will do
                twin = entry.theirs.replace(".networks.", "._networks.")
                value = branch.arrays.get(entry.theirs, branch.arrays.get(twin))
                if value is None:
                    if entry.theirs != "fitting_net.bias_atom_e":  # zero where it is not stored
                        missing.append(f"model.{branch.name}.atomic_model.{entry.theirs}")
                    continue
                check_weights(value, f"{where}: {entry.theirs}", types)
                _copy(targets[entry.ours], value, entry, where)
            inner = branch.arrays.get("inner.out_bias")
            if inner is not None and bool(inner.any()):
                raise CheckpointError(
                    "a ZBL model whose network has an energy bias of its own, on top of the model's, is not "
                    "supported"
                )
        if potential.bridging is not None:
            table = branches[0].arrays["pairtab.tab_data"]
            check_weights(table, f"{where}: the pair table", {torch.float64, torch.float32})
            potential.bridging.coefficients.copy_(table.reshape(potential.bridging.coefficients.shape))
    if missing:
        more = [f"... and {len(missing) - 20} more"] if len(missing) > 20 else []
        shown = "\n  ".join(missing[:20] + more)
        raise CheckpointError(f"{where} lacks {len(missing)} arrays that its model needs:\n  {shown}")


# Of descriptors and fitting nets in deepmd-kit 3.2.
_NEWEST = 4


def _check_nodes(potential: Potential, branch: Branch) -> None:
    """Refuse a universal file whose layers are others than its options say."""
    writer = TreeWriter(potential.config, 0, branch_arrays(potential, 0), potential.precision)
    found = []
    for name, written in (("descriptor", writer.descriptor()), ("fitting", writer.fitting())):
        parts: Tree = {key: value for key, value in written.items() if isinstance(value, Mapping)}
        parts["@version"] = _NEWEST
        found += list(differences(branch.nodes[name], parts, name))
    if found:
        raise CheckpointError(f"the model has layers that are not supported: {'; '.join(sorted(found)[:5])}")


# Weights, in distinction from statistics, masks and what compression adds.
_WEIGHT = re.compile(r"(descriptor|fitting_net)\..*(\.matrix|\.bias|\.idt|_residual\.\d+)")


def _unread_weights(potential: Potential, branches: tuple[Branch, ...]) -> list[str]:
    """Names of weights in the file that the model has no place for."""
    unread: set[str] = set()
    for index, branch in enumerate(branches):
        read = {entry.theirs for entry in descriptor_entries(potential) + head_entries(potential, index)}
        names = {name.replace("._networks.", ".networks.") for name in branch.arrays}
        unread |= {name for name in names - read if _WEIGHT.fullmatch(name)}
    return sorted(unread)


def _tell_unread(where: str, options: list[str], weights: list[str]) -> None:
    """Warn of options or weights that play no part here; both together are a part of another model.

    Raises:
        CheckpointError: there are both.
    """
    if options and weights:
        raise CheckpointError(
            f"{where} has options ({', '.join(options)}) and {len(weights)} weights ({weights[0]} first) "
            "that are not known here; without them its energies would be others"
        )
    for kind, names in (("options", options), ("weights", weights)):
        if names:
            logger.warning("%s: %s not known here, ignored: %s", where, kind, ", ".join(names))


def _copy(target: Tensor, value: Tensor, entry: Entry, where: str) -> None:
    stored = tuple(value.shape)
    if entry.form == "slots":
        if value.dim() == 3 and not bool((value == value[:, :1]).all()):
            raise CheckpointError(
                f"{where}: {entry.theirs} differs between neighbour slots, which is not supported"
            )
        value = value[:, 0] if value.dim() == 3 else value
    elif entry.form in ("column", "bias"):
        value = value.reshape(-1)
    if value.shape != target.shape:
        raise CheckpointError(
            f"{where}: {entry.theirs} has shape {stored}, but the model's options ask for "
            f"{tuple(target.shape)}"
        )
    target.copy_(value)
