"""Values of options and stored fields against their annotations: NumPy's numbers are numbers, text is not."""

from __future__ import annotations

import collections.abc
import os
import types
import typing
from typing import Any

import numpy as np

from dpa2calc.errors import ConfigError

_SEQUENCES = (collections.abc.Sequence, collections.abc.Iterable, list, tuple)


def conform(name: str, value: Any, hint: Any) -> Any:
    """The value as its annotation says: NumPy scalars and 0-d arrays become Python's, arrays sequences.

    Nothing is cast: text is no number, a fraction no whole number, 1 is not True. NaN is a number. What the
    annotation does not tell (Any, classes of other libraries, the choices of a Literal) is taken as it is.

    Raises:
        ConfigError: names the value and what it must be.
    """
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _one_of(name, value, hint)
    if origin is typing.Literal:
        _require(
            name, value, isinstance(value, type(typing.get_args(hint)[0])), "one of its choices, as text"
        )
        return value
    if origin in _SEQUENCES:
        return _sequence(name, value, hint)
    if origin in (dict, collections.abc.Mapping):
        _require(name, value, isinstance(value, collections.abc.Mapping), "a mapping")
        inner = typing.get_args(hint)[1]
        return {key: conform(f"{name}[{key!r}]", item, inner) for key, item in value.items()}
    if hint in (bool, int, float, str):
        return _scalar(name, value, hint)
    plain = origin or hint
    if plain is types.NoneType or plain in (np.ndarray, os.PathLike, dict, list, tuple):
        _require(name, value, isinstance(value, plain), f"a {plain.__name__}")
    return value


def conform_all(values: collections.abc.Mapping[str, Any], hints: dict[str, Any]) -> dict[str, Any]:
    """`conform` for each value that has an annotation."""
    return {name: conform(name, v, hints[name]) if name in hints else v for name, v in values.items()}


def _scalar(name: str, value: Any, hint: type) -> Any:
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    is_bool = isinstance(value, bool)
    if hint is bool:
        _require(name, value, is_bool, "True or False")
    elif hint is str:
        _require(name, value, isinstance(value, str), "text")
    elif hint is int:
        _require(name, value, isinstance(value, int) and not is_bool, "a whole number")
    else:
        _require(name, value, isinstance(value, (int, float)) and not is_bool, "a number")
    return value


def _one_of(name: str, value: Any, hint: Any) -> Any:
    choices = typing.get_args(hint)
    if value is None and types.NoneType in choices:
        return None
    reasons = []
    for choice in choices:
        if choice is types.NoneType:
            continue
        try:
            return conform(name, value, choice)
        except ConfigError as error:
            reasons.append(str(error).rpartition("it must be ")[2])
    raise ConfigError(f"{name} is {_short(value)}; it must be {' or '.join(dict.fromkeys(reasons))}")


def _sequence(name: str, value: Any, hint: Any) -> Any:
    inner = [item for item in typing.get_args(hint) if item is not Ellipsis]
    several = isinstance(value, collections.abc.Iterable) and not isinstance(
        value, (str, bytes, collections.abc.Mapping)
    )
    # a 0-d array says that it can be iterated, and cannot; a string is one thing here
    _require(name, value, several and np.ndim(value if isinstance(value, np.ndarray) else [0]) > 0, "a list")
    if inner in ([], [Any]) or any(isinstance(item, typing.TypeVar) for item in inner):
        return value
    if all(item not in (bool, int, float, str) for item in inner):
        return value  # of structures or results: their users look at each
    is_tuple = typing.get_origin(hint) is tuple
    items = list(value)
    fixed = is_tuple and Ellipsis not in typing.get_args(hint)
    if fixed:
        _require(name, value, len(items) == len(inner), f"{len(inner)} values")
    kinds = inner if fixed else inner[:1] * len(items)
    found = [conform(f"{name}[{i}]", item, kind) for i, (item, kind) in enumerate(zip(items, kinds))]
    return tuple(found) if is_tuple else found


def _require(name: str, value: Any, right: bool, what: str) -> None:
    if not right:
        raise ConfigError(f"{name} is {_short(value)}; it must be {what}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
