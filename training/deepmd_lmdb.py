"""deepmd-kit's LMDB files: a frame a row, packed by msgpack, as `dp --pt train` reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from dpa2calc.errors import DataError, MissingDependencyError

from .deepmd_data import shaped

METADATA = b"__metadata__"
# Both spellings of each field that deepmd-kit 3.2 accepts -> where `Dataset` looks for it.
_FIELDS = {
    "positions": ("coords", "coord"),
    "cell": ("cells", "box"),
    "types": ("atom_types", "atype"),
    "energy": ("energies", "energy"),
    "forces": ("forces", "force"),
    "virial": ("virials", "virial"),
}


def iread_frames(transaction: Any, path: str) -> Iterator[Atoms]:
    """Frames of an open LMDB transaction, in their order.

    Raises:
        DataError: no type_map in the file, a damaged row, or an array of the wrong size; the row is named.
        MissingDependencyError: msgpack is not installed.
    """
    try:
        import msgpack
    except ImportError as error:
        raise MissingDependencyError(
            "reading deepmd-kit's LMDB files needs msgpack: pip install msgpack"
        ) from error
    about = _unpacked(msgpack, transaction.get(METADATA), f"{path}, its metadata")
    symbols = about.get("type_map")
    if not symbols or any(symbol not in atomic_numbers for symbol in symbols):
        raise DataError(f"{path}: its metadata name no elements for the types (type_map = {symbols})")
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
    form, n_frames = about.get("frame_idx_fmt", "012d"), about.get("nframes")
    if not (isinstance(form, str) and re.fullmatch(r"\d{0,3}d", form)) or not isinstance(n_frames, int):
        raise DataError(
            f"{path}: its metadata are damaged (nframes = {n_frames!r}, frame_idx_fmt = {form!r})"
        )
    for index in range(n_frames):
        name = f"{path}, frame {index}"
        yield _atoms(_unpacked(msgpack, transaction.get(f"{index:{form}}".encode()), name), numbers, name)


def _unpacked(msgpack: Any, row: bytes | None, name: str) -> dict[str, Any]:
    if row is None:
        raise DataError(f"{name} is missing")
    try:
        found = msgpack.unpackb(row, raw=False, strict_map_key=False)
    except (ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{name} is no table of names and values")
    return found


def _atoms(row: dict[str, Any], numbers: np.ndarray, name: str) -> Atoms:
    fields = {ours: _field(row, theirs, name) for ours, theirs in _FIELDS.items()}
    types, positions, cell = fields["types"], fields["positions"], fields["cell"]
    if types is None or positions is None:
        raise DataError(f"{name} has no {'types' if types is None else 'coordinates'} of its atoms")
    types = types.astype(np.int64).ravel()
    if types.max(initial=-1) >= len(numbers) or types.min(initial=0) < 0:
        raise DataError(f"{name}: a type outside the type_map ({len(numbers)} types)")
    positions = shaped(positions, (len(types), 3), f"{name}: coordinates")
    atoms = Atoms(numbers=numbers[types], positions=positions)
    if cell is not None and np.any(cell):  # zeros stand for no cell
        atoms.set_cell(shaped(cell, (3, 3), f"{name}: cell"))
        atoms.pbc = True
    if fields["energy"] is not None:
        atoms.info["energy"] = float(shaped(fields["energy"], (), f"{name}: energy"))
    if fields["forces"] is not None:
        atoms.arrays["forces"] = shaped(fields["forces"], (len(types), 3), f"{name}: forces")
    if fields["virial"] is not None:
        atoms.info["virial"] = shaped(fields["virial"], (3, 3), f"{name}: virial")
    return atoms


def _field(row: dict[str, Any], names: tuple[str, ...], place: str) -> np.ndarray | None:
    """An array of the row; None where there is none, or find_NAME = 0 says that it means nothing."""
    flags = [row[f"find_{name}"] for name in names if f"find_{name}" in row]
    if any(not np.any(_array(flag, place)) for flag in flags):
        return None
    present = [name for name in names if row.get(name) is not None]
    return _array(row[present[0]], f"{place}: {present[0]}").astype(np.float64) if present else None


def _array(value: Any, name: str) -> np.ndarray:
    """A number, a list, or a table of dtype, shape and bytes."""
    if not isinstance(value, dict):
        return np.asarray(value)
    parts = {key.decode() if isinstance(key, bytes) else key: item for key, item in value.items()}
    try:
        dtype = np.dtype(parts["type"])
        if dtype.hasobject:
            raise ValueError("an array of Python objects")
        flat = np.frombuffer(parts["data"], dtype=dtype)
        return flat.reshape(parts.get("shape", flat.shape))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name} is no packed array: {error}") from error
