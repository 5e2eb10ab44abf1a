"""Values against the annotations of a dataclass: what JSON, TOML and Python hand in, refused where the type
is another one, never cast."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

import numpy as np

from dpa2calc.errors import ConfigError

_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}
_TABLE = "a table of names and values"

_hints: Callable[[Any], dict[str, Any]] = functools.cache(typing.get_type_hints)


def typed(hint: Any, value: Any, name: str) -> Any:
    """The value as its annotation has it: lists as tuples, whole numbers as float, NumPy numbers as Python's.

    Args:
        hint: bool, int, float, str, Literal, tuple, dict, Any, a dataclass, or one of these or None.
        name: of the option, for messages.

    Raises:
        ConfigError: of another type, or not finite.

    Example:
        >>> typed(tuple[int, ...], [1, 2], "neuron")
        (1, 2)
    """
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if hint is Any:
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _union(arguments, value, name)
    if origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
        raise wrong(name, value, ", ".join(map(str, arguments)))
    if origin is tuple:
        return _tuple(arguments, value, name)
    if origin is dict:
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: typed(arguments[1], item, f"{name}.{key}") for key, item in value.items()}
        raise wrong(name, value, _TABLE)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, name)
    return _plain(hint, value, name)


def _plain(hint: Any, value: Any, name: str) -> Any:
    if hint is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            if math.isfinite(number := float(value)):
                return number
        except OverflowError:
            pass  # a whole number of over 308 digits
    elif hint is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        if abs(int(value)) < 2**63:
            return int(value)
    elif hint in (bool, str) and isinstance(value, hint):
        return value
    raise wrong(name, value, _WORDS.get(hint, str(hint)))


def _union(arguments: tuple[Any, ...], value: Any, name: str) -> Any:
    """One type or None, or one of several dataclasses that are told apart by their `kind`."""
    if value is None and type(None) in arguments:
        return None
    inner = [a for a in arguments if a is not type(None)]
    if len(inner) == 1:
        return typed(inner[0], value, name)
    if isinstance(value, tuple(inner)):
        return value
    if not isinstance(value, Mapping):
        raise wrong(name, value, _TABLE)
    kinds = {get_args(_hints(cls)["kind"])[0]: cls for cls in inner}
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise wrong(f"{name}.kind", kind, ", ".join(kinds))
    return build(kinds[kind], value, name)


def _tuple(arguments: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        raise wrong(name, value, "a list")
    hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(hints) != len(value):
        raise wrong(name, value, f"a list of {len(hints)} entries")
    return tuple(typed(hint, item, f"{name}[{k}]") for k, (hint, item) in enumerate(zip(hints, value)))


def build(cls: Any, values: Any, name: str = "") -> Any:
    """A dataclass, or one of a union of them, from plain values.

    Raises:
        ConfigError: an unknown key (the nearest right one is named), a missing one, or a value of another
            type.
    """
    if get_origin(cls) in (types.UnionType, typing.Union):
        return typed(cls, values, name or "value")
    if not isinstance(values, Mapping):
        raise wrong(name or cls.__name__, values, _TABLE)
    hints = _hints(cls)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"unknown key {key!r} in {cls.__name__}{hint} Allowed: {', '.join(hints)}")
    where = f"{name}." if name else ""
    for field in dataclasses.fields(cls):
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and field.name not in values:
            raise ConfigError(f"{where}{field.name} is missing in {cls.__name__}")
    return cls(**{key: typed(hints[key], value, where + key) for key, value in values.items()})


def check_fields(instance: Any, name: str = "") -> None:
    """Hold the fields of a frozen dataclass against its annotations; for its `__post_init__`.

    Lists become tuples and NumPy's numbers Python's, in place.

    Raises:
        ConfigError: a field of another type.
    """
    hints = _hints(type(instance))
    where = f"{name}." if name else ""
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        object.__setattr__(instance, field.name, typed(hints[field.name], value, where + field.name))


def wrong(name: str, value: Any, allowed: str) -> ConfigError:
    """The error for a value that is not allowed; long values are cut."""
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # numbers of over 4300 digits have no text
        shown = f"a {type(value).__name__}"
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return ConfigError(f"{name} = {shown} is not allowed; allowed: {allowed}")
