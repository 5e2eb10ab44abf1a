"""Bounds that readers check before they allocate: what a file may ask for, measured by its own size.

A damaged or hostile file of a few kB can announce terabytes. Everything here compares what is announced
with what is there; honest files of any size pass.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import io
import json
import lzma
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from dpa2calc.errors import CheckpointError, DataError, DPA2CalcError, MissingDependencyError

from .typed import Json

# Small files may unpack to so much; large ones to so many times their size (text packs 5 to 20 times, frames
# that repeat themselves 50 times).
_FREE = 128 << 20
_RATIO = 100
# Sections within sections: models and results have about ten.
DEEPEST = 100
# What a network may have, and the type map; the largest published models have 24 layers and 118 types.
MOST_LAYERS = 1000
MOST_WIDTH = 1_000_000
MOST_TYPES = 1000
MOST_CUTOFF = 1000.0  # Å
# "Cu 0 0 0" and its line break are 9 bytes; a column may be as short as "1\n".
_BYTES_PER_ATOM = 2
_CUT = 1 << 20


def _open_zstd(path: str | os.PathLike[str], mode: str = "rb") -> IO[bytes]:
    for module in ("compression.zstd", "zstandard"):  # Python 3.14 has the first
        with contextlib.suppress(ImportError):
            return importlib.import_module(module).open(path, mode)
    raise MissingDependencyError(
        f"{path}: reading .zst needs the library zstandard: pip install zstandard, or unpack it: zstd -d"
    )


OPENERS: dict[str, Callable[..., Any]] = {
    ".xz": lzma.open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".zst": _open_zstd,
}
PACKED_ERRORS = (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile)


def most_bytes(size: int) -> int:
    """How many bytes a file of `size` bytes may unpack to."""
    return max(_FREE, _RATIO * size)


def check_bytes(asked: int, size: int, what: str, *, error: type[DPA2CalcError] = CheckpointError) -> None:
    """Refuse an announced size that a file of `size` bytes cannot honestly have."""
    if not 0 <= asked <= most_bytes(size):
        raise error(
            f"{what} announces {asked:,} bytes, but the whole file has {size:,} bytes (at most "
            f"{most_bytes(size):,} are read from it); it is damaged or was made to fill the memory"
        )


class _Bounded(io.RawIOBase):
    """Bytes of a packed stream up to a limit."""

    def __init__(self, stream: IO[bytes], name: str, size: int, error: type[DPA2CalcError]) -> None:
        self.stream, self.name, self.size, self.error, self.total = stream, name, size, error, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        self.total += len(data)
        if self.total > most_bytes(self.size):
            raise self.error(
                f"{self.name} has {self.size:,} bytes and unpacks to over {most_bytes(self.size):,}; it is "
                "damaged or was made to fill the memory. If it is honest, unpack it by hand first"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()


def open_unpacked(
    path: str | os.PathLike[str],
    *,
    packing: str | None = None,
    error: type[DPA2CalcError] = DataError,
) -> IO[bytes]:
    """The bytes of a file, unpacked from `.xz`, `.gz`, `.bz2` or `.zst`.

    Args:
        packing: one of these suffixes; None takes the file's own.

    Raises:
        error: while reading, once it has unpacked to more than such a file honestly can.
    """
    opener = OPENERS.get(Path(path).suffix.lower() if packing is None else packing)
    if opener is None:
        return open(path, "rb")
    raw = _Bounded(opener(path, "rb"), str(path), os.path.getsize(path), error)
    return io.BufferedReader(raw, 1 << 20)


def check_zip(archive: zipfile.ZipFile, size: int, name: str) -> None:
    """Refuse a zip whose members together unpack to more than a file of `size` bytes honestly holds."""
    check_bytes(sum(member.file_size for member in archive.infolist()), size, name)


def read_dataset(part: Any) -> Any:
    """The values of an HDF5 dataset whose declared size its file can honestly hold.

    Raises:
        DataError: the dataset is named.
    """
    if not hasattr(part, "nbytes"):
        raise DataError(f"{part.file.filename}#{part.name} is a group, expected an array")
    size = os.path.getsize(part.file.filename)
    check_bytes(int(part.nbytes), size, f"{part.file.filename}#{part.name}", error=DataError)
    return part[()]


def check_atom_count(n_atoms: int, left: int, name: str) -> None:
    """Refuse a number of atoms that the `left` bytes of the rest of the file have no room for by far.

    A frame that is merely cut off is left to the parser, which may know what to do with the frames before.
    """
    if n_atoms < 0:
        raise DataError(f"{name}: {n_atoms} atoms are announced; the number must be 0 or more")
    if n_atoms * _BYTES_PER_ATOM > left + _CUT:
        raise DataError(
            f"{name}: the file ends inside the frame ({n_atoms} atoms announced, {max(left, 0)} bytes "
            "follow); it is cut off or damaged"
        )


def parse_json(text: str | bytes, name: str, *, error: type[DPA2CalcError] = CheckpointError) -> Json:
    """JSON whose nesting and numbers are those of an honest file.

    Raises:
        error: no JSON, nested over 100 deep, or a number of thousands of digits; `name` is named.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as problem:
        reason = "it is nested too deeply" if isinstance(problem, RecursionError) else str(problem)
        raise error(f"{name} is damaged, no JSON can be read from it: {reason}") from None
    check_tree(tree, len(text), name, error=error)
    return tree


def check_tree(tree: object, size: int, name: str, *, error: type[DPA2CalcError] = CheckpointError) -> None:
    """Refuse a tree of dictionaries and lists that, written out, is larger than its source of `size` bytes.

    YAML and pickles can name a part again and again, so that a few lines stand for billions of entries.
    """
    done: dict[int, int] = {}

    def count(node: object, depth: int) -> int:
        if not isinstance(node, (Mapping, list, tuple)):
            return 1
        if depth > DEEPEST:
            raise error(f"{name} is nested too deeply; allowed: {DEEPEST} levels")
        if id(node) not in done:
            items = node.values() if isinstance(node, Mapping) else node
            done[id(node)] = 1 + sum(count(item, depth + 1) for item in items)
        return done[id(node)]

    total = count(tree, 0)
    if total > 4 * size + 10_000:
        raise error(
            f"{name} has {size:,} bytes and stands for {total:,} entries, because it repeats parts of "
            "itself; it was made to fill the memory"
        )
