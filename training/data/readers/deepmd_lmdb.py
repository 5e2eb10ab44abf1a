"""deepmd-kit's LMDB files: a frame a row, packed by msgpack, as `dp --pt train` reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from ase import Atoms

from dpa2calc.errors import DataError, optional_library
from dpa2calc.labels.names import set_labels

from .deepmd_folder import label_shapes, numbers_only, shaped, whole_numbers
from .type_map import TypeMap

Row = dict[str, Any]  # what msgpack makes of one
METADATA = b"__metadata__"
# Both spellings of each field that deepmd-kit 3.2 accepts -> where `Dataset` looks for it.
_FIELDS = {
    "positions": ("coords", "coord"),
    "cell": ("cells", "box"),
    "types": ("atom_types", "atype"),
    "energy": ("energies", "energy"),
    "forces": ("forces", "force"),
    "virial": ("virials", "virial"),
    "fparam": ("fparam",),
    "aparam": ("aparam",),
}


def iread_frames(transaction: Any, path: str) -> Iterator[Atoms]:
    """Frames of an open LMDB transaction, in their order.

    Raises:
        DataError: no type_map in the file, a damaged row, or an array of the wrong size; the row is named.
        MissingDependencyError: msgpack is not installed.
    """
    text = "reading deepmd-kit's LMDB files needs msgpack: pip install msgpack"
    msgpack = optional_library("msgpack", text)
    about = _unpacked(msgpack, transaction.get(METADATA), f"{path}, its metadata")
    symbols = about.get("type_map")
    if not isinstance(symbols, list) or not symbols:
        raise DataError(f"{path}: its metadata name no elements for the types (type_map = {symbols})")
    type_map = TypeMap.of(symbols, f"{path}: type_map")
    form, n_frames = about.get("frame_idx_fmt", "012d"), about.get("nframes")
    if not (isinstance(form, str) and re.fullmatch(r"\d{0,3}d", form)) or not isinstance(n_frames, int):
        raise DataError(
            f"{path}: its metadata are damaged (nframes = {n_frames!r}, frame_idx_fmt = {form!r})"
        )
    for index in range(n_frames):
        name = f"{path}, frame {index}"
        yield _atoms(_unpacked(msgpack, transaction.get(f"{index:{form}}".encode()), name), type_map, name)


def _unpacked(msgpack: ModuleType, row: bytes | None, name: str) -> Row:
    if row is None:
        raise DataError(f"{name} is missing")
    try:
        found = msgpack.unpackb(row, raw=False, strict_map_key=False)
    except Exception as error:  # msgpack raises many kinds for what is cut
        raise DataError(f"{name} cannot be read: {error or type(error).__name__}") from error
    if not isinstance(found, dict):
        raise DataError(f"{name} is not a table of names and values")
    return found


def _atoms(row: Row, type_map: TypeMap, name: str) -> Atoms:
    fields = {ours: _field(row, theirs, name) for ours, theirs in _FIELDS.items()}
    types, positions, cell = fields["types"], fields["positions"], fields["cell"]
    if types is None or positions is None:
        raise DataError(f"{name} has no {'types' if types is None else 'coordinates'} of its atoms")
    types = whole_numbers(types.ravel(), f"{name}: types")
    if types.max(initial=-1) >= len(type_map) or types.min(initial=0) < 0:
        raise DataError(f"{name}: a type outside the type_map ({len(type_map)} types)")
    positions = shaped(positions, (len(types), 3), f"{name}: coordinates")
    atoms = type_map.atoms(types, positions)
    if cell is not None and np.any(cell):  # zeros stand for no cell
        atoms.set_cell(shaped(cell, (3, 3), f"{name}: cell"))
        atoms.pbc = True
    for label, shape in label_shapes(len(types)).items():
        if (values := fields[label]) is not None:
            set_labels(atoms, {label: shaped(values, shape, f"{name}: {label}")})
    return atoms


def _field(row: Row, names: tuple[str, ...], place: str) -> np.ndarray | None:
    """An array of the row; None where there is none, or find_NAME = 0 says that it means nothing."""
    flags = [row[f"find_{name}"] for name in names if f"find_{name}" in row]
    if any(not np.any(_array(flag, place)) for flag in flags):
        return None
    present = [name for name in names if row.get(name) is not None]
    if not present:
        return None
    name = f"{place}: {present[0]}"
    return numbers_only(_array(row[present[0]], name), name).astype(np.float64)


def _array(value: object, name: str) -> np.ndarray:
    """A number, a list, or a table of dtype, shape and bytes."""
    if not isinstance(value, dict):
        try:
            return np.asarray(value)
        except ValueError as error:
            raise DataError(f"{name} is not an array: {error}") from error
    parts = {key.decode() if isinstance(key, bytes) else key: item for key, item in value.items()}
    try:
        dtype = np.dtype(parts["type"])
        if dtype.hasobject:
            raise ValueError("an array of Python objects")
        flat = np.frombuffer(parts["data"], dtype=dtype)
        return flat.reshape(parts.get("shape", flat.shape))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name} is not a packed array: {error}") from error
