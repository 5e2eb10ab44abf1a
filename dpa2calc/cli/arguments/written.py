"""`--json FILE` and `--csv FILE` of every verb: its numbers for scripts, with their units and provenance.

`main` adds the options; a verb calls `write_result` or `write_values` once, at its end, and has the text
TABLE where it also has a table: what a row is.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import inspect
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dpa2calc.errors import ConfigError
from dpa2calc.files.atomic import atomic_path, write_json
from dpa2calc.files.patterns import expanded
from dpa2calc.files.typed import to_json

from .output import check_files

if TYPE_CHECKING:
    from dpa2calc.files.results import Result

# what `description.model_facts` says
MODEL_FIELDS = (
    "what a model is: cutoffs in Å; parameters: numbers of weights; heads: functional, elements, and `info` "
    "on data and training (errors there in meV/atom for energies and virials, meV/Å for forces)"
)
_UNITS = {"energy": "_meV_per_atom", "force": "_meV_per_A", "virial": "_meV_per_atom"}  # of `labels.Errors`
_OUTPUTS = ("json", "csv", "figure", "data", "save", "map", "html", "chemiscope", "out", "output", "target")
Table: TypeAlias = Mapping[str, Iterable[object]]  # name of a column, with its unit -> its values


def add_written_arguments(parser: argparse.ArgumentParser, table: str) -> None:
    """Add --json, where the verb has none of its own, and --csv.

    Args:
        table: what a row of the verb's table is, such as "a row a volume"; an empty text adds no --csv.
    """
    add = parser.add_argument_group("for scripts").add_argument
    if "--json" not in parser._option_string_actions:
        add("--json", metavar="FILE", help="also write the numbers, units and provenance as JSON")
    if table:
        add("--csv", metavar="FILE", help=f"also write a table as CSV, {table}; units are in its header")


def check_written(args: argparse.Namespace) -> None:
    """Find out before the work that a file of `add_written_arguments` cannot be written.

    Raises:
        OutputError: one of them cannot.
        ConfigError: two outputs of the verb have one name, or one has that of a file that is read.
    """
    named = [name for key in _OUTPUTS if isinstance(name := getattr(args, key, None), str)]
    if twice := [name for name, n in Counter(map(os.path.realpath, named)).items() if n > 1]:
        raise ConfigError(f"two outputs are named {twice[0]}; give each a file of its own")
    there = [name for name in named if os.path.isfile(name)]  # often none, and patterns take time
    read = {os.path.realpath(name) for name in _files_read(args)} if there else set()
    if lost := [name for name in there if os.path.realpath(name) in read]:
        raise ConfigError(f"{lost[0]} is read, and would be written over; give the output another name")
    check_files(*(name for name in (args.json, getattr(args, "csv", None)) if isinstance(name, str)))


def _files_read(args: argparse.Namespace) -> Iterator[str]:
    """Existing files that an option or argument names which is no output; also as GROUP=FILE and FILE@N."""
    waiting = [value for name, value in vars(args).items() if name not in (*_OUTPUTS, "command")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, str) and value:
            for name in (value, value.partition("=")[2], value.rpartition("@")[0]):
                yield from (str(path) for path in expanded(name, Path()) if path.is_file())


def write_result(args: argparse.Namespace, result: Result, table: Table | None = None) -> None:
    """Write what --json and --csv ask for of one result; see `write_values`."""
    write_values(args, type(result), values_of(result), table, made_by=result.provenance)


def write_values(
    args: argparse.Namespace,
    kind: type | tuple[str, str],
    values: Mapping[str, object],
    table: Table | None = None,
    *,
    made_by: Mapping[str, object] | None = None,
) -> None:
    """Write what --json and --csv ask for.

    The keys of the JSON are `result` (what it is), `fields` (what the values are, with units), `values` and
    `provenance`, which holds the command line. What is not a finite number is null, and empty in the table.
    The --json of a verb that only shows something takes no file: it prints the values themselves.

    Args:
        kind: a class whose documentation says what the values are, or a name and such a text.
        made_by: the provenance of the values; None for that of this call.

    Raises:
        OutputError: a file cannot be written.
    """
    from dpa2calc.files.results import provenance

    name, fields = kind if isinstance(kind, tuple) else (kind.__name__, inspect.getdoc(kind) or "")
    values = to_json(values)
    record = {**to_json(provenance() if made_by is None else made_by), "command": args.command}
    if args.json is True:
        print(json.dumps({**values, "fields": fields, "provenance": record}, indent=2))
    elif args.json:
        document = {"result": name, "fields": fields, "values": values, "provenance": record}
        write_json(args.json, document)
    if getattr(args, "csv", None):
        _write_table(args.csv, table or {})


def values_of(result: Result) -> dict[str, object]:
    """The fields of a result, without its provenance."""
    return {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name != "provenance"}


def rounds_to_table(rounds: Iterable[Any], spread: str) -> Table:
    """The rounds of a distillation or of active learning as a table.

    Args:
        spread: name of the field with quantiles over frames of a deviation of forces, such as "doubts".
    """
    return rows_to_table([_round(one, spread) for one in rounds])


def _round(one: Any, spread: str) -> dict[str, object]:
    found = {name: value for name, value in dataclasses.asdict(one).items() if name != "notes"}
    found["threshold_eV_per_A"] = found.pop("threshold")
    quantiles = zip((5, 25, 50, 75, 95, 100), found.pop(spread))
    word = spread.removesuffix("s")
    return {**found, **{f"{word}_{percent}_percent_eV_per_A": value for percent, value in quantiles}}


def rows_to_table(rows: Iterable[Mapping[str, object]]) -> Table:
    """Columns of records, which may hold records.

    Example:
        >>> rows_to_table([{"step": 1, "errors": {"force_rmse": 50.0}}])
        {'step': [1], 'errors.force_rmse_meV_per_A': [50.0]}
    """
    flat = [_flat(row) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    return {name: [row.get(name) for row in flat] for name in names}


def _flat(row: Mapping[str, object], before: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{key}.")
        else:
            found[before + key + _UNITS.get(key.partition("_")[0] * key.endswith(("_rmse", "_mae")), "")] = (
                value
            )
    return found


def _write_table(path: str, table: Table) -> None:
    kept = "surrogateescape"  # of names of files that are no UTF-8
    with atomic_path(path) as place, open(place, "w", newline="", encoding="utf-8", errors=kept) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow("" if (cell := to_json(value)) is None else cell for value in row)
