"""Files of JSON lines that grow while work is done: a line a record, the last one perhaps half-written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from dpa2calc.errors import DataError

from .atomic import write_text
from .typed import Json

Record = TypeVar("Record")


def read_json_lines(path: Path, take: Callable[[Json], Record], what: str, way: str) -> list[Record]:
    """All records of a file; a last line that a killed run left half-written is left out.

    Args:
        take: makes a record of what stands in a line; TypeError, KeyError, ValueError and AttributeError say
            that it is none.
        what: a record is, and `way` what else may be done about a wrong one, for the message.

    Raises:
        DataError: the file cannot be read, or a line is no record; it is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; {way}") from error
    lines, records = text.splitlines(), []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(take(json.loads(line)))
        except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
            broken = isinstance(error, (json.JSONDecodeError, RecursionError))
            if broken and number == len(lines) and line.startswith("{") and not text.endswith("\n"):
                break
            raise DataError(
                f"{path}, line {number} is not a {what}: {line[:60]!r}; remove this line, or {way}"
            ) from error
    return records


def write_json_lines(path: Path, records: Iterable[object]) -> None:
    """Write a record a line; see `atomic_path`."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))
