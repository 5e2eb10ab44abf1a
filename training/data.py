"""Reading labelled structures from files, one pass and frame by frame, also from compressed files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import ase.io
import ase.io.formats
from ase import Atoms

from dpa2calc.errors import DataError
from dpa2calc.files.frames import check_frames, unpacked_text
from dpa2calc.files.limits import OPENERS, PACKED_ERRORS, check_atom_count, most_bytes, open_text

from .databases import iread_ase_db, iread_lmdb
from .deepmd_data import iread_folder, is_system_folder

PathLike = str | os.PathLike[str]

_CHUNK = 64  # frames handed to ASE's parser at a time


def iread_extxyz(path: PathLike) -> Iterator[Atoms]:
    """Yield the frames of an extended XYZ file, compressed or not, reading it exactly once.

    ASE's own reader seeks back for every frame, which on a compressed file decompresses it from the
    start each time; here the text is cut into chunks of whole frames that ASE's parser reads from memory.

    Raises:
        DataError: the file is damaged; the message names the frame.
    """
    first = 0
    try:
        with open_text(path) as handle:
            for text, count in _chunks(handle, path):
                yield from _parse(text, path, first)
                first += count
    except (*PACKED_ERRORS, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read after frame {first}: {error}") from error


def _chunks(handle: IO[str], path: PathLike) -> Iterator[tuple[str, int]]:
    """Text of up to `_CHUNK` whole frames, and their number."""
    lines: list[str] = []
    count = total = 0
    size = os.path.getsize(path)
    left = most_bytes(size) if Path(path).suffix in OPENERS else size
    while header := handle.readline():
        left -= len(header)
        if not header.strip():
            continue
        try:
            n_atoms = int(header)
        except ValueError:
            raise DataError(
                f"{path}, frame {total}: expected the number of atoms, found {header.strip()[:60]!r}"
            ) from None
        check_atom_count(n_atoms, left, f"{path}, frame {total}")
        body = [handle.readline() for _ in range(n_atoms + 1)]
        if not body[-1]:
            raise DataError(
                f"{path}, frame {total}: the file ends inside the frame ({n_atoms} atoms announced)"
            )
        left -= sum(map(len, body))
        lines.append(header)
        lines.extend(body)
        count, total = count + 1, total + 1
        if count == _CHUNK:
            yield "".join(lines), count
            lines, count = [], 0
    if count:
        yield "".join(lines), count


def _parse(text: str, path: PathLike, first: int) -> list[Atoms]:
    try:
        return list(ase.io.iread(io.StringIO(text), index=":", format="extxyz"))
    except Exception as error:  # ASE raises many kinds; find out which frame it was
        for offset, (one, _) in enumerate(_single_frames(text)):
            try:
                ase.io.read(io.StringIO(one), index=":", format="extxyz")
            except Exception as cause:
                raise DataError(f"{path}, frame {first + offset}: {cause}") from cause
        raise DataError(f"{path}, near frame {first}: {error}") from error


def _single_frames(text: str) -> Iterator[tuple[str, int]]:
    handle = io.StringIO(text)
    while header := handle.readline():
        yield header + "".join(handle.readline() for _ in range(int(header) + 1)), 1


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
    place = Path(text)
    if not place.exists():
        raise DataError(f"there is no file or folder {place}")
    suffixes = [s.lower() for s in place.suffixes if s not in OPENERS]
    last = suffixes[-1] if suffixes else ""
    if last in (".xyz", ".extxyz"):
        yield from iread_extxyz(place)
    elif last in (".h5", ".hdf5", ".hdf"):
        from .hdf5_data import iread_hdf5

        yield from iread_hdf5(place, group)
    elif last in (".lmdb", ".aselmdb") or (place / "data.mdb").exists():
        yield from iread_lmdb(place)
    elif last == ".db":
        yield from iread_ase_db(place)
    elif is_system_folder(place):
        yield from iread_folder(place)
    else:
        yield from _iread_ase(place)


def _iread_ase(path: Path) -> Iterator[Atoms]:
    """ASE's own readers; files compressed in ways they handle badly are unpacked in memory first."""
    frames: Any
    try:
        if path.suffix in OPENERS:
            known = ase.io.formats.filetype(path.stem, read=False)
            frames = ase.io.iread(unpacked_text(path), index=":", format=known)
        else:
            check_frames(path)
            frames = ase.io.iread(str(path), index=":")
        yield from frames
    except DataError:
        raise
    except Exception as error:  # ASE raises many kinds
        raise DataError(f"{path} cannot be read: {error}") from error
