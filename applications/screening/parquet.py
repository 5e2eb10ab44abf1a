"""Results of a screening as a Parquet file: a row a structure, for pandas, polars and DuckDB."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpa2calc.errors import DataError, optional_library
from dpa2calc.files.atomic import atomic_path
from dpa2calc.files.identity import Part

from .records import UNITS, Record
from .stores import Lines, check, header

_KEY = b"dpa2calc"  # of the header in the file's metadata
_ROWS = 5000  # of a group


class Parquet:
    """A Parquet file cannot grow: records gather in NAME.parquet.jsonl, of which `close` makes NAME.parquet.

    A kill leaves the lines; they are read as well, and taken over by the next call.
    """

    def __init__(self, path: Path, identity: Mapping[str, Part] | None) -> None:
        _library()
        self.path, self._identity = path, identity
        self._growing = path.with_name(f"{path.name}.jsonl")
        if path.exists():
            check(self._header(), identity, path)
        there = self._growing.exists()
        self._lines = Lines(self._growing, identity) if there or identity is not None else None

    def _header(self) -> Any:
        try:
            return json.loads(_library().read_schema(self.path).metadata[_KEY])
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path} was not written by `screen` ({error}); choose another output"
            ) from error

    def _written(self, *columns: str) -> Iterator[Record]:
        """Rows of the Parquet file itself."""
        if self.path.exists():
            file = _library().ParquetFile(self.path)
            for batch in file.iter_batches(_ROWS, columns=list(columns)):
                yield from batch.to_pylist()

    def statuses(self) -> dict[str, str]:
        found = {row["key"]: row["status"] for row in self._written("key", "status")}
        return {**found, **(self._lines.statuses() if self._lines else {})}

    def append(self, records: Sequence[Record]) -> None:
        assert self._lines is not None
        self._lines.append(records)

    def records(self) -> Iterator[Record]:
        found = {row["key"]: json.loads(row["record"]) for row in self._written("key", "record")}
        if self._lines is not None:
            found.update({record["key"]: record for record in self._lines.records()})
        yield from found.values()

    def close(self) -> None:
        if self._lines is None:
            return
        self._lines.close()
        if self._identity is not None:
            self._write(list(self.records()))
            self._growing.unlink()

    def _write(self, records: list[Record]) -> None:
        import pyarrow

        schema = _schema(records).with_metadata({_KEY: json.dumps(header(self._identity or {})).encode()})
        with atomic_path(self.path) as temporary, _library().ParquetWriter(temporary, schema) as writer:
            for begin in range(0, max(len(records), 1), _ROWS):
                rows = [_row(record, schema.names) for record in records[begin : begin + _ROWS]]
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


def _schema(records: Sequence[Record]) -> Any:
    """Texts, the structure, results that are one number, truth or word, and `record`, the whole as JSON."""
    import pyarrow

    number, text = pyarrow.float64(), pyarrow.string()
    vectors = pyarrow.list_(pyarrow.list_(number))
    types = {name: text for name in ("key", "name", "formula", "status", "error")}
    types |= {"numbers": pyarrow.list_(pyarrow.int64()), "pbc": pyarrow.list_(pyarrow.bool_())}
    types |= {"positions": vectors, "cell": vectors}
    if any("forces" in record.get("results", {}) for record in records):
        types["forces"] = vectors
    for record in records:
        for name, value in record.get("results", {}).items():
            if isinstance(value, bool):
                types.setdefault(name, pyarrow.bool_())
            elif isinstance(value, (int, float)):
                types.setdefault(name, number)
            elif isinstance(value, str):
                types.setdefault(name, text)
    fields = [
        pyarrow.field(name, kind, metadata={"unit": UNITS[name]} if name in UNITS else None)
        for name, kind in {**types, "record": text}.items()
    ]
    return pyarrow.schema(fields)


def _row(record: Record, names: Sequence[str]) -> Record:
    whole = {**record.get("results", {}), **record}
    return {**{name: whole.get(name) for name in names}, "record": json.dumps(record)}


def _library() -> Any:
    return optional_library(
        "pyarrow.parquet",
        "output = NAME.parquet needs the package pyarrow: pip install 'dpa2calc[parquet]'; NAME.db and "
        "NAME.jsonl need nothing",
    )
