"""This package's own checkpoint: one `.safetensors` file (docs/checkpoint.md).

The tensors are the potential's state; the header's metadata has one JSON entry "dpa2calc" with the
format version, the model configuration (heads, elements, ... included), the precision, and `extra`:
whatever the maker wants to say (test errors, data sources, licence). Nothing in it can run code.
"""

from __future__ import annotations

import copy
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from dpa2calc.ambient import own_modes
from dpa2calc.errors import CheckpointError, ConfigError
from dpa2calc.files.atomic import atomic_path
from dpa2calc.files.limits import parse_json
from dpa2calc.files.typed import check_fields, typed
from dpa2calc.heads import resolve_head
from dpa2calc.model.config import ModelConfig, from_dict, to_dict
from dpa2calc.model.potential import Potential
from dpa2calc.model.rigidity import Rigidity, RigidityFacts
from dpa2calc.validation import check_dtype
from dpa2calc.version import __version__

FORMAT_VERSION = 2  # 2 is written where fitting nets are stored as halves, else 1
_KEY = "dpa2calc"
_UNCERTAINTY = "uncertainty."  # what the names of its tensors begin with
# names of the types in safetensors
_STORED = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.bool: "BOOL"}
_NET = re.compile(r"heads\.\d+\.nets\..*\.matrix")  # the matrices of fitting nets

# Format v -> v + 1: each entry changes the parsed JSON of one version into that of the next.
_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: dict}


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What a checkpoint says about itself, without its weights.

    Attributes:
        config: the model, its heads and what is known of them.
        dtype: "float32" or "float64", the precision of the stored networks.
        format_version: of the file as it was written.
        written_by: package version.
        extra: anything JSON-able that was given to `save_checkpoint`.
        compressed: whether the calculator is to use tables for this model.
        uncertainty: what that of each head was measured on, by its name, where it was.
    """

    config: ModelConfig
    dtype: Literal["float32", "float64"]
    format_version: int
    written_by: str
    extra: dict[str, Any] = field(default_factory=dict, hash=False)
    compressed: bool = False
    uncertainty: dict[str, RigidityFacts] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_fields(self)


@own_modes()
def save_checkpoint(
    potential: Potential, path: str | Path, *, extra_info: Mapping[str, object] | None = None
) -> Path:
    """Write a potential with all its heads; the file appears under its name only when complete.

    Matrices of fitting nets that are exact in float16 (`store.rounding`) take half the room, without loss.

    Args:
        path: should end in `.safetensors`.
        extra_info: JSON-able facts for `extra`.

    Raises:
        CheckpointError: `extra_info` is not JSON-able.
    """
    path = Path(path)
    # Copies, because heads may share one net (training's `shared_steps`) and safetensors refuses that.
    tensors = {
        name: _as_stored(name, value.detach().cpu().contiguous().clone())
        for name, value in potential.state_dict().items()
    }
    halves = any(value.dtype == torch.float16 for value in tensors.values())
    header = {
        "format_version": 2 if halves else 1,
        "written_by": __version__,
        "dtype": potential.precision,
        "config": to_dict(potential.config),
        "compressed": potential.prefers_compression,
        "extra": extra_info or {},
    }
    heads = enumerate(potential.config.heads)
    rigidities = {head.name: r for k, head in heads if (r := potential.rigidity(k)) is not None}
    if rigidities:
        header["uncertainty"] = {name: to_dict(rigidity.facts) for name, rigidity in rigidities.items()}
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"extra_info cannot be written as JSON: {error}; use plain values") from error
    for place, rigidity in enumerate(rigidities.values()):
        tensors |= {f"{_UNCERTAINTY}{place}.{name}": value for name, value in rigidity.tensors().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: text, "format": "pt"})
    return path


def _as_stored(name: str, value: torch.Tensor) -> torch.Tensor:
    """A float32 matrix of a fitting net as halves where these are equal to it."""
    if value.dtype != torch.float32 or not _NET.fullmatch(name):
        return value
    halves = value.half()
    return halves if torch.equal(halves.float(), value) else value


def is_checkpoint(path: str | Path) -> bool:
    """Whether a file looks like safetensors: eight bytes of header length, then JSON."""
    with open(path, "rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000


def checkpoint_info(path: str | Path) -> CheckpointInfo:
    """The header of a checkpoint; no weights are read.

    Raises:
        CheckpointError: missing, truncated, foreign, or of a newer format.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise CheckpointError(f"there is no model file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or no safetensors file ({error}); fetch it again"
        ) from error
    if _KEY not in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file, but not one of dpa2calc (its metadata has no {_KEY!r} entry)"
        )
    return _parse(metadata[_KEY], path)


def _parse(text: str, path: Path) -> CheckpointInfo:
    header = parse_json(text, f"the header of {path}")
    try:
        version = typed(int, header["format_version"], "format_version")
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has checkpoint format {version}, written by dpa2calc {header.get('written_by')}; "
                f"this is dpa2calc {__version__}, which reads formats up to {FORMAT_VERSION}: upgrade it"
            )
        for step in range(version, FORMAT_VERSION):
            header = _UPGRADES[step](header)
        return CheckpointInfo(
            config=from_dict(ModelConfig, header["config"]),
            dtype=header["dtype"],
            format_version=version,
            written_by=header["written_by"],
            extra=header["extra"],
            compressed=header.get("compressed", False),
            uncertainty={
                name: from_dict(RigidityFacts, facts) for name, facts in header.get("uncertainty", {}).items()
            },
        )
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"the header of {path} is damaged: {error!r}") from error


@own_modes()
def load_checkpoint(path: str | Path, *, dtype: torch.dtype | None = None) -> Potential:
    """The potential of a checkpoint, on the CPU.

    Args:
        dtype: precision of the networks; None takes the file's.

    Raises:
        CheckpointError: missing, truncated, foreign, of a newer format, or inconsistent.
    """
    info = checkpoint_info(path)
    with safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        beside = {name for name in slices if name.startswith(_UNCERTAINTY)}
        found = {
            name: (tuple(part.get_shape()), part.get_dtype())
            for name, part in slices.items()
            if name not in beside
        }
        sizes = (math.prod(shape) for shape, _ in found.values())
        potential = potential_for(info.config, sizes, dtype=check_dtype(info.dtype), where=path)
        _check_stored(info, potential.state_dict(), found, path)
        stored = {name: file.get_tensor(name) for name in slices}
    bad = [name for name, value in stored.items() if not bool(value.isfinite().all())]
    if bad:
        raise CheckpointError(
            f"{path} holds weights that are not finite, in {len(bad)} tensors, among them "
            f"{', '.join(bad[:5])}; the file is damaged, or its training diverged: fetch or train it again"
        )
    potential.load_state_dict({name: stored[name] for name in found})
    _put_rigidities(potential, info, {name: stored[name] for name in beside}, path)
    potential.prefers_compression = info.compressed
    return potential.to(dtype) if dtype is not None else potential


def _put_rigidities(
    potential: Potential, info: CheckpointInfo, stored: dict[str, torch.Tensor], path: str | Path
) -> None:
    """Give the heads their uncertainties.

    Raises:
        CheckpointError: a head or an array is missing, unknown or of another shape.
    """
    names = [head.name for head in info.config.heads]
    try:
        for place, (name, facts) in enumerate(info.uncertainty.items()):
            index = names.index(name)
            prefix = f"{_UNCERTAINTY}{place}."
            own = {n.removeprefix(prefix): stored.pop(n) for n in sorted(stored) if n.startswith(prefix)}
            config, width = info.config, info.config.heads[index].fitting.neuron[-1]
            n_nets = 1 if config.descriptor.mixed_types else config.n_types
            made = Rigidity.from_tensors(own, facts, (n_nets, width, config.n_types))
            potential.heads[index].rigidity = made.to(potential.dtype)
    except (ConfigError, ValueError) as error:
        raise CheckpointError(f"the uncertainties in {path} do not fit its heads: {error}") from error
    if stored:
        raise CheckpointError(f"{path} holds unknown tensors, among them {', '.join(sorted(stored)[:5])}")


def _check_stored(
    info: CheckpointInfo,
    outline: dict[str, torch.Tensor],
    found: dict[str, tuple[tuple[int, ...], str]],
    path: str | Path,
) -> None:
    """Hold the stored tensors' names, shapes and types against those of the model."""
    wrong = sorted(set(outline) ^ set(found))
    wrong += [n for n, value in outline.items() if n in found and tuple(value.shape) != found[n][0]]
    if wrong:
        raise CheckpointError(
            f"{path} does not fit its own configuration: {len(wrong)} tensors are missing, unknown or of "
            f"another shape, among them {', '.join(wrong[:5])}"
        )
    kinds = {name: _STORED[value.dtype] for name, value in outline.items()}
    halves = {n for n in kinds if info.format_version > 1 and info.dtype == "float32" and _NET.fullmatch(n)}
    wrong = [n for n, (_, kind) in found.items() if kind != kinds[n] and not (kind == "F16" and n in halves)]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path} says that it holds {info.dtype} networks, but {len(wrong)} tensors are of another type "
            f"({name} is {found[name][1]}, expected {kinds[name]}); it was changed by another program: "
            "write it again with save_checkpoint"
        )


def blank_potential(config: ModelConfig, *, dtype: torch.dtype) -> Potential:
    """A potential whose weights are about to be overwritten; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        return Potential(config, dtype=dtype)


def potential_for(
    config: ModelConfig, sizes: Iterable[int], *, dtype: torch.dtype, where: str | Path
) -> Potential:
    """The same for a model from a file, which may not grow beyond what the file holds.

    Args:
        sizes: how many numbers each stored array has.

    Raises:
        CheckpointError: the configuration asks for far more layers or numbers than there are.
    """
    stored = list(sizes)
    if (least := config.n_arrays) > len(stored):
        raise CheckpointError(
            f"{where} describes a model of {least} layers or more, but holds {len(stored)} arrays; it is "
            "damaged"
        )
    with _Budget(2 * sum(stored) + 1_000_000, str(where)):
        return blank_potential(config, dtype=dtype)


class _Budget(TorchFunctionMode):
    """Counts the numbers of new tensors before they are made, and refuses more than so many."""

    def __init__(self, most: int, where: str) -> None:
        super().__init__()
        self.left, self.where = most, where

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> object:
        if func in _FACTORIES:
            shape = (args[0], args[0]) if func is torch.eye else args
            flat = shape[0] if shape and isinstance(shape[0], (tuple, list)) else shape
            self.left -= math.prod(n for n in flat if isinstance(n, int))
            if self.left < 0:
                raise CheckpointError(
                    f"{self.where} describes a model that is far larger than the weights it holds; it is "
                    "damaged"
                )
        return func(*args, **(kwargs or {}))


_FACTORIES = {torch.randn, torch.empty, torch.zeros, torch.ones, torch.full, torch.eye}


def one_head(potential: Potential, head: str) -> Potential:
    """The same model with one of its heads only; weights are copies.

    Args:
        head: exact name, alias or unique ending of one.

    Raises:
        HeadError: no such head.
    """
    chosen = resolve_head(head, potential.config.heads)
    index = potential.config.heads.index(chosen)
    if len(potential.heads) == 1:
        return potential
    single = blank_potential(potential.config.with_heads((chosen,)), dtype=potential.dtype)
    state = {
        name.replace(f"heads.{index}.", "heads.0.", 1): value
        for name, value in potential.state_dict().items()
        if not name.startswith("heads.") or name.startswith(f"heads.{index}.")
    }
    single.load_state_dict(state)
    single.heads[0].rigidity = copy.deepcopy(potential.heads[index].rigidity)
    single.prefers_compression = potential.prefers_compression
    return single.to(potential.device)
