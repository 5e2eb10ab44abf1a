"""`--json FILE`: a result as plain JSON, with the units of its fields and where it comes from."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dpa2calc.files.atomic import write_json

if TYPE_CHECKING:
    from dpa2calc.files.results import Result


def add_json_argument(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Add --json."""
    group.add_argument("--json", metavar="FILE", help="also write the numbers, units and provenance as JSON")


def write_result(args: argparse.Namespace, result: Result) -> None:
    """Write what --json asks for, if it is given.

    The keys are `result` (its class), `fields` (what they are, with units: the documentation of the class),
    `values` and `provenance`. What is not a finite number is null.

    Raises:
        OutputError: the file cannot be written.
    """
    if args.json is None:
        return
    values = {f.name: _plain(getattr(result, f.name)) for f in dataclasses.fields(result)}
    provenance = values.pop("provenance")
    about = {"result": type(result).__name__, "fields": inspect.getdoc(type(result))}
    write_json(args.json, {**about, "values": values, "provenance": provenance})


def _plain(value: object) -> object:
    """As JSON holds it."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _key(key: object) -> str:
    return "-".join(map(str, key)) if isinstance(key, tuple) else str(key)
