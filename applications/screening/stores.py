"""Results of a screening on disk as they come, also after a kill: JSON lines, an ASE database, Parquet."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from dpa2calc.errors import ConfigError, DataError, OutputError
from dpa2calc.files.atomic import writing
from dpa2calc.files.identity import Part, require_same
from dpa2calc.files.json_lines import read_json_lines
from dpa2calc.structures.attached import attach

from .records import UNITS, Record

_KIND = "dpa2calc screening"
_WAYS = "Give the same task, options and calculator, or another output"
_OF_A_CALCULATOR = ("energy", "forces", "stress")
_OWN_WORDS = (*_OF_A_CALCULATOR, "volume")  # of ASE's databases


class Store(Protocol):
    """A file of records that grows."""

    def statuses(self) -> dict[str, str]:
        """Key -> "done" or "failed" of what the file holds."""

    def append(self, records: Sequence[Record]) -> None:
        """Add records; they are in the file when this returns."""

    def records(self) -> Iterator[Record]:
        """All records, the last of each structure."""

    def close(self) -> None:
        """Nothing more will be added."""


def open_store(path: Path, identity: Mapping[str, Part] | None) -> Store:
    """The file's store; begun if it is not there, resumed if its identity is this one.

    Args:
        identity: None only reads.

    Raises:
        ConfigError: an ending of no known format, or a file that belongs to other work.
        DataError: a file that is damaged or foreign.
    """
    from .parquet import Parquet

    kinds: dict[str, type[Lines | _Database | Parquet]]
    kinds = {".jsonl": Lines, ".db": _Database, ".parquet": Parquet}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(
            f"output = {str(path)!r} is not allowed; allowed: a name ending in .db, .jsonl or .parquet"
        )
    return kind(path, identity)


def header(identity: Mapping[str, Part]) -> dict[str, Any]:
    """What a file of a screening begins with."""
    return {"kind": _KIND, "version": 1, "identity": identity, "units": UNITS}


def check(found: object, identity: Mapping[str, Part] | None, path: Path) -> None:
    """Raise unless it is the header of this work (of any where `identity` is None)."""
    if not isinstance(found, dict) or found.get("kind") != _KIND:
        raise DataError(f"{path} was not written by `screen`; choose another output")
    if identity is not None:
        require_same(found["identity"], identity, where=str(path), ways=_WAYS)


class Lines:
    """A header and then a record a line."""

    def __init__(self, path: Path, identity: Mapping[str, Part] | None) -> None:
        self.path = path
        if path.exists() and path.stat().st_size:
            lines = self._lines()
            if lines or identity is None or not self._began(header(identity)):
                check(lines[0] if lines else None, identity, path)
            if identity is not None:  # what a killed run left; not before the file is known to be ours
                self._cut_half_line()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a", encoding="utf-8") if identity is not None else None
        if self._file is not None and not path.stat().st_size:
            assert identity is not None
            self.append([header(identity)])

    def _lines(self) -> list[Any]:
        return read_json_lines(self.path, dict, "record of a screening", "choose another output")

    def _began(self, whole: Mapping[str, Any]) -> bool:
        """Whether the file is what a kill left of this header."""
        return (json.dumps(whole) + "\n").startswith(self.path.read_text(encoding="utf-8"))

    def _cut_half_line(self) -> None:
        """Take off what a killed run left of its last record."""
        with writing(self.path), open(self.path, "rb+") as file:
            content = file.read()
            if not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)

    def statuses(self) -> dict[str, str]:
        return {record["key"]: record["status"] for record in self._lines()[1:]}

    def append(self, records: Sequence[Record]) -> None:
        assert self._file is not None
        with writing(self.path):
            self._file.write("".join(json.dumps(record) + "\n" for record in records))
            self._file.flush()

    def records(self) -> Iterator[Record]:
        last = {record["key"]: record for record in self._lines()[1:]}
        yield from last.values()

    def close(self) -> None:
        if self._file is not None:
            with writing(self.path):  # what a full disk left in the buffer is tried again
                self._file.close()


class _Database:
    """An ASE database: a row a structure, `status` and numbers to select by, the rest in `data`."""

    def __init__(self, path: Path, identity: Mapping[str, Part] | None) -> None:
        import ase.db

        self.path = path
        there = path.exists()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # no lock of ASE's: one that a kill left would stop every later run
            self._db = ase.db.connect(os.fspath(path), use_lock_file=False)
        if there and (identity is None or self._header() or self._db.count()):
            check(self._header(), identity, path)
        elif identity is not None:  # also where a kill came before the header
            try:
                with _writing_database(path):
                    self._db.metadata = header(identity)
            except OutputError:
                if not there:  # half of ASE's tables, which nobody could read
                    path.unlink(missing_ok=True)
                raise

    def _header(self) -> Any:
        try:
            return self._db.metadata
        except (sqlite3.DatabaseError, TypeError) as error:  # tables of ASE without a version
            raise DataError(
                f"{self.path} cannot be read ({error}): no database of `screen`, or one that is "
                "only just begun; try again, or choose another output"
            ) from error

    def statuses(self) -> dict[str, str]:
        rows = list(self._db.select(include_data=False))
        self._ids = {row.screen_key: row.id for row in rows}
        return {row.screen_key: row.status for row in rows}

    def append(self, records: Sequence[Record]) -> None:
        with _writing_database(self.path), self._db as db:  # one transaction
            for record in records:
                before = self._ids.get(record["key"])
                if before is not None:  # a failure, tried again
                    db.delete([before])
                self._ids[record["key"]] = db.write(_row(record), _columns(record), data=record)

    def records(self) -> Iterator[Record]:
        for row in self._db.select():
            yield dict(row.data)

    def close(self) -> None:
        """Every transaction is on disk already."""


@contextmanager
def _writing_database(path: Path) -> Iterator[None]:
    """`writing`, with SQLite's words for a full disk and the like.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(path):
        try:
            yield
        except sqlite3.Error as error:
            raise OutputError(
                f"{path} cannot be written: {error}; free some space or choose another place"
            ) from error


def _row(record: Record) -> Atoms:
    if record["status"] != "done":
        return Atoms()
    atoms = Atoms(record["numbers"], positions=record["positions"], cell=record["cell"], pbc=record["pbc"])
    attach(atoms, record.get("attached", {}))
    # NaN is not itself, so that ASE would leave the results out
    for name, values in list(atoms.arrays.items()):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            del atoms.arrays[name]
    found = {name: record["results"][name] for name in _OF_A_CALCULATOR if name in record["results"]}
    atoms.calc = SinglePointCalculator(atoms, **found)
    return atoms


def _columns(record: Record) -> dict[str, Any]:
    """What rows can be selected by: ASE allows numbers, truths and texts that are no numbers."""
    found = {"screen_key": record["key"], "status": record["status"], "source": f"./{record['name']}"}
    for name, value in record.get("results", {}).items():
        if isinstance(value, (bool, int, float)) and math.isfinite(value) and name not in _OWN_WORDS:
            found[name] = value
    return found
