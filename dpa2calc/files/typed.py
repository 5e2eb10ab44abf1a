"""Values against annotations: what JSON, TOML and Python hand in, refused where the type is another one.

NumPy's numbers are Python's, a whole number may be written as a float (2.0), lists become tuples. Nothing
else is cast: text is not a number, 1 is not True.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import functools
import math
import numbers
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, SupportsFloat, TypeAlias, get_args, get_origin

import numpy as np

from dpa2calc.errors import ConfigError

_LINE = 80  # characters of a value in a message
_TABLE = "a table of names and values"
_WORDS = {
    bool: "true or false", int: "a whole number", float: "a finite number", str: "a text",
    np.ndarray: "an array", os.PathLike: "a path", dict: _TABLE, types.NoneType: "nothing",
}  # fmt: skip
_LISTS = (tuple, list, collections.abc.Sequence, collections.abc.Iterable)
_UNIONS = (types.UnionType, typing.Union)

Json: TypeAlias = Any
"""What JSON and TOML hold: who takes one looks at what is in it."""
Hint: TypeAlias = Any
"""An annotation."""
Number = Callable[[SupportsFloat], float]
"""Makes a float of a number; raises ValueError or OverflowError for one that is not allowed."""
Read = Callable[[Hint, object, str], Any]
"""Of annotation, value and name, what is stored."""
option_types: Callable[[Hint], dict[str, Hint]] = functools.cache(typing.get_type_hints)


def finite(value: SupportsFloat) -> float:
    """A number as float; raises ValueError or OverflowError where it is not finite."""
    if math.isfinite(number := float(value)):
        return number
    raise ValueError


def as_written(value: SupportsFloat) -> float:
    """A finite number, a whole one still as int: names and identities on disk hold numbers as written."""
    number = finite(value)
    return value if isinstance(value, int) else number


def typed(hint: Hint, value: object, name: str, *, number: Number = finite) -> Any:
    """The value as its annotation has it.

    Args:
        hint: bool, int, float, str, Literal, a list, tuple, dict or sequence, a dataclass, or a union of
            these. Any and the classes of other libraries take a value as it is.
        name: of the option, for messages.
        number: what makes a float of a number, and raises ValueError for one that is not allowed.

    Raises:
        ConfigError: of another type, or a number that is not allowed.

    Example:
        >>> typed(tuple[int, ...], [1, 2], "neuron")
        (1, 2)
    """
    origin: Hint = get_origin(hint) or hint
    arguments = get_args(hint)
    inner = functools.partial(typed, number=number)
    if origin in _UNIONS:
        return _union(arguments, value, name, inner)
    if origin is Literal:
        value = _plain(value)
        if isinstance(value, str) and value in arguments:
            return value
        raise wrong(name, value, ", ".join(map(str, arguments)))
    if origin in _LISTS:
        return _list(origin, arguments, value, name, inner)
    if origin in (dict, Mapping):
        keys, items = arguments or (str, Any)
        if isinstance(value, Mapping) and (keys is not str or all(isinstance(key, str) for key in value)):
            return {key: inner(items, item, f"{name}.{key}") for key, item in value.items()}
        raise wrong(name, value, _TABLE)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, name, number=number)
    if origin in (np.ndarray, os.PathLike, types.NoneType) and not isinstance(value, origin):
        raise wrong(name, value, _WORDS[origin])
    if (
        isinstance(value, np.ndarray)
        and origin is np.ndarray
        and (value.ndim == 0 or value.dtype.kind not in "biuf")
    ):
        raise wrong(name, value, "an array of numbers")
    return _scalar(hint, _plain(value), name, number) if hint in (bool, int, float, str) else value


argument = functools.partial(typed, number=as_written)


def _plain(value: object) -> object:
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value


def _scalar(hint: Hint, value: Any, name: str, number: Number) -> bool | float | str:
    if hint in (bool, str) and isinstance(value, hint):
        if hint is str and "\x00" in value:  # no file, head or element has it in its name
            raise wrong(name, value, "a text without NUL characters")
        return value
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if hint in (int, float) and is_number:
        try:
            if hint is float:
                return number(value)
            if abs(value) < 2**63 and value == int(value):
                return int(value)
        except (ValueError, OverflowError):
            pass  # not finite, or a whole number of over 308 digits
    raise wrong(name, value, _WORDS[hint])


def _union(arguments: tuple[Hint, ...], value: object, name: str, inner: Read) -> object:
    """None, or what fits first; where a list fits but for one entry, the error names that one."""
    if value is None and types.NoneType in arguments:
        return None
    choices = [choice for choice in arguments if choice is not types.NoneType]
    reasons: list[str] = []
    entries: dict[int, ConfigError] = {}
    for choice in choices:
        try:
            return inner(choice, value, name)
        except ConfigError as error:
            if len(choices) == 1:
                raise
            reasons.append(str(error).rpartition("allowed: ")[2])
            if entry := re.match(rf"{re.escape(name)}\[(\d+)\]", str(error)):
                entries[int(entry[1])] = error
    if entries:
        raise entries[max(entries)]
    raise wrong(name, value, " or ".join(dict.fromkeys(reasons)))


def _list(origin: Hint, arguments: tuple[Hint, ...], value: object, name: str, inner: Read) -> object:
    single = isinstance(value, (str, bytes, Mapping)) or (isinstance(value, np.ndarray) and value.ndim == 0)
    if single or not isinstance(value, collections.abc.Iterable):  # an array of no dimension cannot be
        raise wrong(name, value, "a list")
    if arguments in ((), (Any,)) or origin is collections.abc.Iterable:
        return value
    items = list(value)
    fixed = origin is tuple and arguments[-1] is not Ellipsis
    if fixed and len(items) != len(arguments):
        raise wrong(name, value, f"a list of {len(arguments)} entries")
    hints = arguments if fixed else arguments[:1] * len(items)
    found = [inner(hint, item, f"{name}[{k}]") for k, (hint, item) in enumerate(zip(hints, items))]
    return tuple(found) if origin is tuple else found


def build(
    cls: Hint, values: object, name: str = "", *, read: Read | None = None, number: Number = finite
) -> Any:
    """A dataclass from plain values; one that has `kinds`, {kind: class}, is of the class of its `kind`.

    Args:
        read: of annotation, value and name, what is stored; `typed` with this `number` when left out.

    Raises:
        ConfigError: an unknown key (the nearest right one is named), a missing one, or a value of another
            type.
    """
    read = read or functools.partial(typed, number=number)
    if get_origin(cls) in _UNIONS:
        return read(cls, values, name or "value")
    if not isinstance(values, Mapping):
        raise wrong(name or cls.__name__, values, _TABLE)
    where = f"{name}." if name else ""
    cls = _of_kind(cls, values, where)
    hints = {field.name: option_types(cls)[field.name] for field in dataclasses.fields(cls)}
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(unknown_key(f"{where}{key}", value, [where + known for known in hints]))
    found = {key: read(hints[key], value, where + key) for key, value in values.items()}
    for field in dataclasses.fields(cls):
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and field.name not in found:
            raise ConfigError(f"{where}{field.name} is missing; it has no default")
    return cls(**found)


def to_dict(value: object) -> Json:
    """A dataclass and all that is in it as plain dicts and lists, ready for JSON.

    Fields younger than a file format, marked `left_out`, are written only where they differ from their
    default.
    """
    if dataclasses.is_dataclass(value):
        pairs = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        return {f.name: to_dict(v) for f, v in pairs if not (f.metadata.get("left_out") and v == f.default)}
    if isinstance(value, (tuple, list)):
        return [to_dict(item) for item in value]
    if isinstance(value, dict):
        return {key: to_dict(item) for key, item in value.items()}
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def to_json(value: object) -> Json:
    """Numbers, arrays and dataclasses of any kind as JSON holds them; what is not finite is None."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        names = ("-".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in value)
        return dict(zip(names, map(to_json, value.values())))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [to_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _of_kind(cls: Hint, values: Mapping[str, object], where: str) -> Hint:
    kinds = getattr(cls, "kinds", {})
    if not kinds:
        return cls
    default = cls.__dataclass_fields__["kind"].default
    kind = values.get("kind", None if default is dataclasses.MISSING else default)
    if not isinstance(kind, str) or kind not in kinds:
        raise wrong(f"{where}kind", kind, f"{', '.join(kinds)}, or what an imported package registered")
    return kinds[kind] if issubclass(kinds[kind], cls) else cls


def check_fields(instance: Any, name: str = "", *, read: Read = typed) -> None:
    """Hold the fields of a frozen dataclass against its annotations, in place; for its `__post_init__`.

    Args:
        read: of annotation, value and name, what is stored.

    Raises:
        ConfigError: a field of another type.
    """
    hints = option_types(type(instance))
    where = f"{name}." if name else ""
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        object.__setattr__(instance, field.name, read(hints[field.name], value, where + field.name))


def unknown_key(key: str, value: object, known: list[str]) -> str:
    """The message for a key that does not exist."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown option {key} = {shown(value)}{hint} Known: {', '.join(known)}"


def wrong(name: str, value: object, allowed: str) -> ConfigError:
    """The error for a value that is not allowed."""
    return ConfigError(f"{name} = {shown(value)} is not allowed; allowed: {allowed}")


def shown(value: object) -> str:
    """A value for a message, in one short line."""
    try:
        text = " ".join(_text(value).split())
    except (ValueError, RecursionError):  # numbers of over 4300 digits have no text
        text = f"a {type(value).__name__}"
    return text if len(text) <= _LINE else f"{text[: _LINE - 3]}..."


def _text(value: Any) -> str:
    """As Python shows it; of a list, which may be a whole trajectory, no more than fits into the line."""
    if type(value) not in (list, tuple):
        return repr(value)
    text = ""
    for item in value:
        text += f"{' '.join(_text(item).split())}, "
        if len(text) > _LINE:
            return f"{'[' if isinstance(value, list) else '('}{text}"
    return repr(value)
