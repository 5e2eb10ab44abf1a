"""ASE databases: SQLite and JSON through ASE itself, and LMDB files: of OC20-like sets, and of deepmd-kit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
from ase import Atoms

from dpa2calc.errors import DataError, optional_library
from dpa2calc.files.limits import most_bytes, parse_json
from dpa2calc.labels.names import set_labels

from . import deepmd_lmdb

# What to do with a file of a layout of its own.
OF_ANOTHER_KIND = (
    "a file of a layout of its own is read in Python: give its frames as a list of ase.Atoms with energy "
    "(eV) and forces (eV/Å), or write them as extended XYZ"
)
_NOT_ROWS = (b"nextid", b"deleted_ids", b"metadata")


def iread_ase_db(path: Path) -> Iterator[Atoms]:
    """Rows of an ASE database (`.db`, `.json`), in the order of their ids; a DataError for anything else.

    Key-value pairs and data of a row, such as labels under names of their own, go to `atoms.info`.
    """
    try:
        with ase.db.connect(path) as database:
            for row in database.select():
                atoms = row.toatoms()
                atoms.info.update({"group": "", **row.data, **row.key_value_pairs})
                yield atoms
    except Exception as error:  # SQLite, JSON and ASE raise different kinds
        raise DataError(
            f"{path} is not an ASE database, or is damaged ({error}); {OF_ANOTHER_KIND}"
        ) from error


def iread_lmdb(path: Path) -> Iterator[Atoms]:
    """Rows of an ASE database kept in LMDB, zlib-compressed JSON under the rows' numbers, or of deepmd-kit's.

    LMDB files of other kinds (the older OC20 ones) hold Python pickles, which are never opened here.

    Raises:
        DataError: the rows are not compressed JSON. MissingDependencyError: lmdb is not installed.
    """
    lmdb = optional_library("lmdb", "reading .aselmdb and .lmdb needs lmdb: pip install lmdb")
    try:
        environment = lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False)
    except lmdb.Error as error:
        raise DataError(f"{path} is not an LMDB file: {error}") from error
    _require_whole(environment, path)
    with environment, environment.begin() as transaction:
        if transaction.get(deepmd_lmdb.METADATA) is not None:
            yield from deepmd_lmdb.iread_frames(transaction, str(path))
            return
        keys = [key for key, _ in transaction.cursor() if key not in _NOT_ROWS]
        for key in sorted(keys, key=_number):
            yield _atoms(transaction.get(key), f"{path}, row {key.decode(errors='replace')}")


def _require_whole(environment: Any, path: Path) -> None:
    """Raise a DataError for a cut file: reading pages beyond its end would kill the process."""
    used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = (path / "data.mdb" if path.is_dir() else path).stat().st_size
    if size < used:
        environment.close()
        raise DataError(f"{path} is cut off: {size} of at least {used} bytes are there")


def _number(key: bytes) -> tuple[int, bytes]:
    return (int(key), b"") if key.isdigit() else (2**62, key)


def _atoms(value: bytes | None, name: str) -> Atoms:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(value or b"", most_bytes(len(value or b"")))
        whole = unpacker.eof
    except zlib.error:
        text, whole = b"", True
    if not whole:
        raise DataError(f"{name} is cut off, or unpacks to far more than such a row can hold")
    if text.lstrip()[:1] not in (b"{", b"["):
        raise DataError(
            f"{name} is not compressed JSON (older LMDB sets hold pickles, which can run code and are not "
            "read); convert the set with its own tools to .aselmdb or extxyz"
        )
    row = parse_json(text, name, error=DataError)
    try:
        atoms = Atoms(
            numbers=_array(row["numbers"]),
            positions=_array(row["positions"]),
            cell=_array(row.get("cell", np.zeros((3, 3)))).reshape(3, 3),
            pbc=_array(row.get("pbc", [False] * 3)).astype(bool),
        )
        for key, value in chain(*((row.get(part) or {}).items() for part in ("data", "key_value_pairs"))):
            atoms.info[key] = _array(value) if isinstance(value, dict) and "__ndarray__" in value else value
        given = {name: row.get(name) for name in ("energy", "forces", "stress")}
        set_labels(atoms, {name: None if v is None else _array(v) for name, v in given.items()})
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{name} is not a row of an ASE database: {error!r}") from error
    return atoms


def _array(value: object) -> np.ndarray:
    """Plain lists, or ASE's own JSON form of an array."""
    if isinstance(value, dict) and "array" in value:  # a cell
        value = value["array"]
    if isinstance(value, dict) and "__ndarray__" in value:
        shape, dtype, flat = value["__ndarray__"]
        return np.array(flat, dtype=dtype).reshape(shape)
    return np.asarray(value)
