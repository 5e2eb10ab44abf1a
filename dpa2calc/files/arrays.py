"""Arrays and one JSON text in a `.npz` file: no pickle, written whole, and checked before memory is taken."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from dpa2calc.errors import DataError

from .atomic import atomic_path
from .limits import parse_json
from .typed import Json

HEADER = "__json__"
# deflate packs 1032 bytes into one at best; a declared size beyond that is a lie
_BEST_PACKING = 1100


def write_arrays(
    path: str | os.PathLike[str],
    header: object,
    arrays: Mapping[str, npt.ArrayLike],
    *,
    compress: bool = True,
    key: str = HEADER,
) -> None:
    """Write arrays and a header that JSON can hold, under `key`; see `atomic_path`.

    Raises:
        OutputError: the file cannot be written.
    """
    content: dict[str, Any] = {key: np.array(json.dumps(header)), **arrays}
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        (np.savez_compressed if compress else np.savez)(handle, **content)


def read_arrays(
    path: str | os.PathLike[str], what: str, *, key: str = HEADER
) -> tuple[Json, dict[str, np.ndarray]]:
    """Header (None where there is none) and arrays of such a file.

    Args:
        what: what the file should be, for the message.

    Raises:
        DataError: missing, damaged, or something else.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _check_size(archive, member, path)
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = parse_json(str(arrays.pop(key)), "the header") if key in arrays else None
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except Exception as error:  # zipfile, zlib, json, numpy, recursion and memory: all mean the same here
        raise DataError(f"{path} is not {what}, or is damaged ({type(error).__name__}: {error})") from error
    return header, arrays


def declared(handle: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that the header of a `.npy` file announces; ValueError where there is no header."""
    read = npy.read_array_header_1_0 if npy.read_magic(handle)[0] == 1 else npy.read_array_header_2_0
    shape, _, dtype = read(handle)
    return tuple(shape), dtype


def _check_size(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Raise ValueError where an array says that it is larger than its bytes can be."""
    if member.file_size > _BEST_PACKING * max(member.compress_size, 1):
        raise ValueError(f"{member.filename} cannot hold {member.file_size} bytes")
    with archive.open(member) as handle:
        shape, dtype = declared(handle)
        if dtype.kind not in "biufcU":
            raise ValueError(f"{member.filename} holds {dtype}, not numbers or text")
        if int(np.prod(shape, dtype=object)) * dtype.itemsize != member.file_size - handle.tell():
            raise ValueError(f"{member.filename} has not the bytes that its shape {shape} needs")
