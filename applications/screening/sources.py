"""Structures for a screening, one at a time: from Atoms, files, databases and folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from dpa2calc.errors import ConfigError, DataError, DPA2CalcError, StructureError
from dpa2calc.files.identity import structure_identity, text_digest
from dpa2calc.files.patterns import expanded
from dpa2calc.files.structures import iread_structures, named_frame, read_structures
from dpa2calc.structures.given import as_atoms

_BESIDE = (".jsonl", "-journal", "-wal", "-shm")  # ends of names of files beside an output, while it grows


@dataclass(frozen=True)
class Item:
    """One structure of a screening.

    Attributes:
        key: the same for the same structure in a later call.
        name: "file@frame", or its number in a list.
        atoms: None where it could not be read; `problem` then says why.
    """

    key: str
    name: str
    atoms: Atoms | None
    problem: str = ""


def iread_items(structures: object, output: Path) -> Iterator[Item]:
    """All structures with keys; what cannot be read is an item too.

    Args:
        output: what grows meanwhile, and is no source where it lies among the structures.

    Raises:
        ConfigError: a source is the output itself.
        DataError: there is no such file or folder, or nothing in it.
    """
    seen: Counter[str] = Counter()
    ours = {Path(os.path.realpath(f"{output}{end}")) for end in ("", *_BESIDE)}
    for given, found in _named(structures, ours):
        name = _storable(given)
        if not isinstance(found, Atoms):
            yield Item(f"{text_digest([name])}-0", name, None, _storable(str(found)))
            continue
        key = text_digest(structure_identity(found))
        seen[key] += 1  # a structure that occurs twice is two structures
        yield Item(f"{key}-{seen[key]}", name, found)


def _storable(text: str) -> str:
    """Text that databases take: the bytes of a file's name that are no UTF-8 by their numbers."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _named(structures: object, ours: Collection[Path]) -> Iterator[tuple[str, Atoms | DPA2CalcError]]:
    given = as_atoms(structures)
    if isinstance(given, (str, os.PathLike)):
        yield from _from_path(Path(given), ours)
    elif isinstance(given, Atoms):
        yield from _named([given], ours)
    elif isinstance(given, Iterable):
        for number, item in enumerate(given):
            if isinstance(item, (str, os.PathLike)):
                yield from _from_path(Path(item), ours)
            else:
                yield f"structure {number}", _as_atoms(item)
    else:
        raise DataError(
            f"structures cannot be a {type(given).__name__}; give a file, a folder, or a list of "
            "Atoms or files"
        )


def _as_atoms(item: object) -> Atoms | DPA2CalcError:
    try:
        atoms = as_atoms(item)
    except StructureError as error:
        return error
    return atoms if isinstance(atoms, Atoms) else StructureError(f"a {type(item).__name__} is no structure")


def _from_path(path: Path, ours: Collection[Path]) -> Iterator[tuple[str, Atoms | DPA2CalcError]]:
    """Frames of a file, of all files of a folder in alphabetical order, or of those that fit a pattern.

    "file@frame" is one of them.
    """
    plain, frame = named_frame(os.fspath(path))
    if Path(os.path.realpath(plain)) in ours:
        raise ConfigError(f"{plain} holds the structures and is the output as well; give another output")
    if frame is not None:
        yield os.fspath(path), _one_frame(plain, frame)
        return
    if path.is_dir() and path.suffix != ".bundle":
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    else:
        files = expanded(os.fspath(path), Path())
    if not files:
        raise DataError(f"there is no structure file {path}; give a file, a folder of files or a pattern")
    for file in files:
        if Path(os.path.realpath(file)) in ours:
            continue
        number = -1
        try:
            for number, atoms in enumerate(iread_structures(file)):
                yield f"{file}@{number}", atoms
        except DPA2CalcError as error:
            yield f"{file}@{number + 1}", error


def _one_frame(file: str, frame: int) -> Atoms | DPA2CalcError:
    try:
        return read_structures(file, frame)[0]
    except DPA2CalcError as error:
        return error
