"""Counts of atoms in XYZ files, held against the bytes that are there before a parser believes them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO

from dpa2calc.files.limits import check_atom_count, open_unpacked

# Suffixes of XYZ files, and those of which ASE looks at the content.
_XYZ = (".xyz", ".extxyz", "", ".txt", ".dat")


def check_frames(path: str | os.PathLike[str], *, stop: int | None = None) -> None:
    """Refuse an XYZ file that announces more atoms than it has bytes for; files of other formats pass.

    ASE's readers walk through as many lines as a frame announces, also beyond the end of the file.

    Args:
        stop: look at the first frames only; None or a negative number looks at all of them.

    Raises:
        DataError: the frame is named.
    """
    if Path(path).suffix.lower() in _XYZ and os.path.isfile(path):
        with open(path, "rb") as stream:
            _check(stream, str(path), os.path.getsize(path), stop)


def unpacked_text(path: Path) -> io.StringIO:
    """The text of a packed file of frames, checked like `check_frames`.

    Raises:
        DataError: it unpacks to far more than such a file honestly holds.
        OSError, EOFError, lzma.LZMAError, UnicodeDecodeError: it is damaged.
    """
    with open_unpacked(path) as stream:
        data = stream.read()
    if path.with_suffix("").suffix.lower() in _XYZ:
        _check(io.BytesIO(data), str(path), len(data), None)
    return io.StringIO(data.decode("utf-8"))


def _check(stream: IO[bytes], name: str, size: int, stop: int | None) -> None:
    number = 0
    while (stop is None or stop < 0 or number < stop) and (header := stream.readline()):
        if not header.strip():
            continue
        try:
            n_atoms = int(header)
        except ValueError:
            return  # of another format, or damaged: the parser says what it expected
        check_atom_count(n_atoms, size - stream.tell(), f"{name}, frame {number}")
        for _ in range(n_atoms + 1):
            stream.readline()
        number += 1
