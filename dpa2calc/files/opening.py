"""Opening files that may be compressed, or begin with a byte-order mark."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dpa2calc.errors import DataError

from .limits import OPENERS, PACKED_ERRORS, open_unpacked

PathLike = str | os.PathLike[str]


def compression(path: PathLike) -> str:
    """The suffix of a compressed file (.xz, .gz, .bz2, .zst), or an empty text."""
    suffix = Path(path).suffix.lower()
    return suffix if suffix in OPENERS else ""


def plain_name(path: PathLike) -> str:
    """The name of a file without the suffix of its compression."""
    return Path(path).stem if compression(path) else Path(path).name


def open_text(path: PathLike) -> IO[str]:
    """Open a text file, decompressing by suffix within bounds; a byte-order mark of UTF-8 is passed over.

    What is no UTF-8, such as a comment of an old program, is replaced: numbers and names are ASCII.
    """
    return io.TextIOWrapper(open_unpacked(path), encoding="utf-8-sig", errors="replace")


def first_bytes(path: PathLike, size: int = 8192) -> bytes:
    """The beginning of a file, decompressed.

    Raises:
        DataError: it cannot be read, or is text of UTF-16.
    """
    try:
        with open_unpacked(path) as handle:
            found = handle.read(size)
    except PACKED_ERRORS as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if found.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is text of UTF-16; save it as UTF-8, or plain ASCII")
    return found


@contextlib.contextmanager
def unpacked(path: PathLike) -> Iterator[Path]:
    """The file itself, or a temporary copy without compression and byte-order mark, under the same name.

    Raises:
        DataError: the file is damaged. Errors inside the block name the file, not the copy.
    """
    place = Path(path)
    marked = os.path.isfile(place) and first_bytes(place, 3) == codecs.BOM_UTF8
    if not compression(place) and not marked:
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="dpa2calc-") as folder:
        copy = Path(folder) / plain_name(place)
        try:
            with open_unpacked(place) as packed, open(copy, "wb") as out:
                packed.read(3 if marked else 0)
                shutil.copyfileobj(packed, out, 1 << 20)
        except PACKED_ERRORS as error:
            raise DataError(f"{place} cannot be read: {error}") from error
        try:
            yield copy
        except DataError as error:
            raise DataError(str(error).replace(str(copy), str(place))) from error
