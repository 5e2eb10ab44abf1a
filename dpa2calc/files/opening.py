"""Opening files that may be compressed, or begin with a byte-order mark."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import importlib
import lzma
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from dpa2calc.errors import DataError, MissingDependencyError

PathLike = str | os.PathLike[str]


def _zstd(path: PathLike, mode: str, **options: Any) -> Any:
    for module in ("compression.zstd", "zstandard"):  # Python 3.14 has the first
        with contextlib.suppress(ImportError):
            return importlib.import_module(module).open(path, mode, **options)
    raise MissingDependencyError(
        f"{path}: reading .zst needs the library zstandard: pip install zstandard, or unpack it: zstd -d"
    )


_OPENERS: dict[str, Callable[..., Any]] = {
    ".xz": lzma.open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".zst": _zstd,
}


def compression(path: PathLike) -> str:
    """The suffix of a compressed file (.xz, .gz, .bz2, .zst), or an empty text."""
    suffix = Path(path).suffix.lower()
    return suffix if suffix in _OPENERS else ""


def plain_name(path: PathLike) -> str:
    """The name of a file without the suffix of its compression."""
    return Path(path).stem if compression(path) else Path(path).name


def open_text(path: PathLike) -> IO[str]:
    """Open a text file, decompressing by suffix; a byte-order mark of UTF-8 is passed over."""
    handle: IO[str] = _OPENERS.get(compression(path), open)(path, "rt", encoding="utf-8-sig")
    return handle


def open_bytes(path: PathLike) -> IO[bytes]:
    """Open a file in binary mode, decompressing by suffix."""
    handle: IO[bytes] = _OPENERS.get(compression(path), open)(path, "rb")
    return handle


def first_bytes(path: PathLike, size: int = 8192) -> bytes:
    """The beginning of a file, decompressed.

    Raises:
        DataError: it cannot be read, or is text of UTF-16.
    """
    try:
        with open_bytes(path) as handle:
            found = handle.read(size)
    except (OSError, EOFError, lzma.LZMAError) as error:
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
    marked = place.is_file() and first_bytes(place, 3) == codecs.BOM_UTF8
    if not compression(place) and not marked:
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="dpa2calc-") as folder:
        copy = Path(folder) / plain_name(place)
        try:
            with open_bytes(place) as packed, open(copy, "wb") as out:
                packed.seek(3 if marked else 0)
                shutil.copyfileobj(packed, out, 1 << 20)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise DataError(f"{place} cannot be read: {error}") from error
        try:
            yield copy
        except DataError as error:
            raise DataError(str(error).replace(str(copy), str(place))) from error
