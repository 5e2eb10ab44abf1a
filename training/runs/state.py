"""Everything a run needs to resume as if it had never stopped, in one safetensors file."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dpa2calc.errors import CheckpointError
from dpa2calc.files.atomic import atomic_path
from dpa2calc.files.opening import PathLike

STATE_VERSION = 3  # 2 has neither the identity of the run nor a checksum
READABLE = (2, 3)
Header = dict[str, Any]  # the JSON text beside the tensors


def write_tensors(path: PathLike, tensors: dict[str, Tensor], metadata: Header) -> None:
    """Write tensors, a JSON header and a checksum of both; the file appears whole or not at all."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    text = json.dumps(metadata)
    content = save(plain, metadata={"json": text, "checksum": _checksum(text, plain)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_tensors(path: PathLike) -> tuple[dict[str, Tensor], Header]:
    """Read what `write_tensors` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, changed, of another kind or another version.
    """
    try:
        with safe_open(str(path), framework="pt") as handle:
            found = handle.metadata() or {}
            header = json.loads(found["json"])
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise damaged(path, f"it is not a training state of dpa2calc, or cut off ({error})") from error
    version = header.get("version") if isinstance(header, dict) else None
    if version not in READABLE or isinstance(version, bool):
        raise damaged(path, f"its version is {version!r}; this package reads {READABLE[0]} to {READABLE[-1]}")
    if version > 2 and found.get("checksum") != _checksum(found["json"], tensors):
        raise damaged(path, "its content does not fit its checksum")
    return tensors, header


def damaged(path: PathLike, reason: str) -> CheckpointError:
    """The error for a state that no run can resume from."""
    return CheckpointError(
        f"{path} cannot be resumed from: {reason}. Put back a copy of the file, or remove it to start again"
    )


def _checksum(text: str, tensors: dict[str, Tensor]) -> str:
    found = zlib.crc32(text.encode())
    for name in sorted(tensors):
        found = zlib.crc32(tensors[name].numpy().tobytes(), zlib.crc32(name.encode(), found))
    return f"{found:08x}"


# --- the header's entries -----------------------------------------------------------------------


def count(header: Header, name: str) -> int:
    """A whole number of at least 0; a ValueError for anything else."""
    value = header.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} = {value!r} is not a number of at least 0")
    return value


def number(header: Header, name: str) -> float | None:
    """A number that is not NaN, or None where it is None or missing; a ValueError for anything else."""
    value = header.get(name)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or math.isnan(value):
        raise ValueError(f"{name} = {value!r} is not a number")
    return float(value)


def same_tensors(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Raise a ValueError where names, shapes or types of what is to be put back are not the run's."""
    for name, like in wanted.items():
        if name not in found:
            raise ValueError(f"the tensor {name} is missing")
        value = found[name]
        if value.shape != like.shape or value.dtype != like.dtype:
            raise ValueError(
                f"{name} is {value.dtype} of shape {tuple(value.shape)}, expected {like.dtype} of "
                f"{tuple(like.shape)}"
            )
