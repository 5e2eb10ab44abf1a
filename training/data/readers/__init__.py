"""Reading labelled structures from files, one pass and frame by frame, also from compressed files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ase import Atoms

from dpa2calc.errors import DataError
from dpa2calc.files.extxyz import iread_extxyz
from dpa2calc.files.opening import PathLike, plain_name, unpacked
from dpa2calc.files.structures import iread_structures

from .databases import iread_ase_db, iread_lmdb
from .deepmd_folder import iread_folder, is_system_folder

__all__ = ["PathLike", "iread_atoms", "iread_extxyz"]


def iread_atoms(path: PathLike) -> Iterator[Atoms]:
    """Yield all frames of any supported file or folder.

    * extended XYZ (`.xyz`, `.extxyz`, also `.xz`, `.gz`, `.bz2`), read in one pass;
    * deepmd-kit systems: folders with `type.raw` (or folders of such), plain or mixed, and HDF5;
    * HDF5 of ANI-1x and Transition1x; `file.h5#group` reads one group;
    * ASE databases: `.db`, `.aselmdb`, `.lmdb`; deepmd-kit's `.lmdb`;
    * everything else that ASE reads.

    Raises:
        DataError: no such file, an unknown format, or a damaged frame, which is named.
    """
    text, _, group = os.fspath(path).partition("#")
    if os.path.exists(path):  # a "#" may also be part of a name
        text, group = os.fspath(path), ""
    place = Path(text)
    if not os.path.exists(place):
        raise DataError(f"there is no file or folder {place}")
    last = Path(plain_name(place)).suffix.lower()
    if last in (".xyz", ".extxyz"):
        yield from iread_extxyz(place)
    elif last in (".h5", ".hdf5", ".hdf"):
        from .hdf5 import iread_hdf5

        with unpacked(place) as plain:
            yield from iread_hdf5(plain, group)
    elif last in (".lmdb", ".aselmdb") or (place / "data.mdb").exists():
        yield from iread_lmdb(place)
    elif last == ".db":
        with unpacked(place) as plain:
            yield from iread_ase_db(plain)
    elif is_system_folder(place):
        yield from iread_folder(place)
    else:
        yield from iread_structures(place)
