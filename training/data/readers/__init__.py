"""Reading labelled structures from files, one pass and frame by frame, also from compressed files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ase import Atoms

from dpa2calc.errors import DataError
from dpa2calc.files.extxyz import iread_extxyz
from dpa2calc.files.opening import PathLike, plain_name, unpacked
from dpa2calc.files.structures import frame_slice, iread_structures

from .databases import iread_ase_db, iread_lmdb
from .deepmd_folder import iread_folder, is_system_folder

__all__ = ["PathLike", "iread_atoms", "iread_extxyz"]


def iread_atoms(path: PathLike, index: slice | int | str = slice(None)) -> Iterator[Atoms]:
    """Yield the chosen frames of any supported file or folder.

    * extended XYZ (`.xyz`, `.extxyz`, also `.xz`, `.gz`, `.bz2`), read in one pass;
    * deepmd-kit systems: folders with `type.raw` (or folders of such), plain or mixed, and HDF5;
    * HDF5 of ANI-1x and Transition1x; `file.h5#group` reads one group;
    * ASE databases: `.db`, `.json`, `.aselmdb`, `.lmdb`; deepmd-kit's `.lmdb`;
    * everything else that ASE reads.

    Args:
        index: as in ASE: a slice, a number, or a text such as "-1" or "::10".

    Raises:
        DataError: no such file, an unknown format, or a damaged frame, which is named.
    """
    chosen = frame_slice(index)
    text, _, group = os.fspath(path).partition("#")
    if os.path.exists(path):  # a "#" may also be part of a name
        text, group = os.fspath(path), ""
    place = Path(text)
    if not os.path.exists(place):
        raise DataError(f"there is no file or folder {place}")
    last = Path(plain_name(place)).suffix.lower()
    if last in (".xyz", ".extxyz"):
        yield from iread_extxyz(place, chosen)
    elif last in (".h5", ".hdf5", ".hdf"):
        from .hdf5 import iread_hdf5

        with unpacked(place) as plain:
            yield from _chosen(iread_hdf5(plain, group), chosen)
    elif last in (".lmdb", ".aselmdb") or (place / "data.mdb").exists():
        yield from _chosen(iread_lmdb(place), chosen)
    elif last in (".db", ".json"):
        with unpacked(place) as plain:
            yield from _chosen(iread_ase_db(plain), chosen)
    elif is_system_folder(place):
        yield from _chosen(iread_folder(place), chosen)
    else:
        yield from iread_structures(place, chosen)


def _chosen(frames: Iterator[Atoms], index: slice) -> Iterator[Atoms]:
    """The frames of a slice; those that count from the end need all to be read."""
    if min(index.start or 0, index.stop or 0, index.step or 1) < 0:
        return iter(list(frames)[index])
    return islice(frames, index.start, index.stop, index.step)
