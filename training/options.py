"""Options by name: from files and command lines into frozen dataclasses, every key checked."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from dpa2calc.errors import ConfigError

Config = TypeVar("Config")


def option_types(cls: type) -> dict[str, Any]:
    """Type of each option, without its help text."""
    return typing.get_type_hints(cls)


def option_help(cls: type) -> dict[str, str]:
    """Help text of each option that has one."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        name: hint.__metadata__[0]
        for name, hint in hints.items()
        if get_origin(hint) is typing.Annotated and isinstance(hint.__metadata__[0], str)
    }


def parse_options(cls: type[Config], values: Mapping[str, Any], *, where: str = "") -> Config:
    """Build a dataclass from a mapping, checking every key and type.

    Args:
        where: what messages put before the key, such as "sets.water.".

    Raises:
        ConfigError: an unknown key (with the nearest right one), a missing one, or a value of the wrong type.
    """
    hints = option_types(cls)
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(unknown_key(f"{where}{key}", value, [f"{where}{name}" for name in hints]))
    converted = {key: convert(value, hints[key], f"{where}{key}") for key, value in values.items()}
    required = {
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(converted))
    if missing:
        raise ConfigError(f"{where}{missing[0]} is missing; it has no default")
    return cls(**converted)


def settle(config: Any, *, where: str = "", keep_whole: bool = False) -> None:
    """Check the types of all options of a dataclass that was just made, and take NumPy's numbers as Python's.

    Call it first in `__post_init__`. Unlike in a file or a command line a text is no number here.

    Args:
        keep_whole: leave whole numbers that stand for floats as they were written.

    Raises:
        ConfigError: a value is of another type; the option is named.
    """
    for name, hint in option_types(type(config)).items():
        given = getattr(config, name)
        value = convert(given, hint, f"{where}{name}", text=False)
        if not (keep_whole and hint in (float, tuple[float, ...]) and _is_plain(given)):
            object.__setattr__(config, name, value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return type(value) in (int, float)


def unknown_key(key: str, value: Any, known: list[str]) -> str:
    """The message for a key that does not exist."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown option {key} = {shown(value)}{hint} Known: {', '.join(known)}"


def convert(value: Any, hint: Any, key: str, *, text: bool = True) -> Any:
    """A value of a file or command line as the type that the option asks for.

    Args:
        text: whether a text may stand for a number, as it does on a command line.

    Raises:
        ConfigError: it is of another type, or not finite.
    """
    arguments = get_args(hint)
    if get_origin(hint) in (types.UnionType, typing.Union):
        if value is None or (text and isinstance(value, str) and value.lower() in ("none", "off")):
            return None
        return convert(value, next(a for a in arguments if a is not type(None)), key, text=text)
    if get_origin(hint) is Literal:
        if isinstance(value, str) and value in arguments:
            return str(value)
        raise ConfigError(f"{key} = {shown(value)} is not allowed; allowed: {', '.join(map(str, arguments))}")
    if get_origin(hint) is tuple:
        return tuple(convert(item, arguments[0], key, text=text) for item in _items(value))
    if get_origin(hint) is dict or hint is dict:
        if isinstance(value, Mapping):
            return dict(value)
        raise ConfigError(f"{key} = {shown(value)} is not a table")
    return _scalar(value, hint, key, text=text)


def _items(value: Any) -> list[Any]:
    """What a list, a tuple, a range or an array holds; anything else is the only item."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 0) == 1:
        return list(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]


def _scalar(value: Any, hint: Any, key: str, *, text: bool) -> Any:
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()  # NumPy's numbers, and arrays of one number without axes
    if text and isinstance(value, str):
        value = _from_text(value, hint)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int and is_number and abs(value) < 2**63 and value == int(value):
        return int(value)
    if hint is float and is_number and (abs(value) < math.inf or (value == math.inf and _endless(key))):
        return float(value)
    if hint is str and isinstance(value, (str, os.PathLike)):
        return str(os.fspath(value))
    if hint is bool and isinstance(value, bool):
        return value
    if hint in _WORDS:
        raise ConfigError(f"{key} = {shown(value)} is not allowed; allowed: {_WORDS[hint]}")
    return value


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
# limits that infinity turns off
_ENDLESS = ("time_limit", "force_limit", "temperature_limit", "upper_bound", "gradient_clip")


def _endless(key: str) -> bool:
    return key.rpartition(".")[2].startswith(_ENDLESS)


def _from_text(text: str, hint: Any) -> Any:
    """What a text stands for; the text itself where it is nothing of that type."""
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return float(text) if hint in (int, float) else text  # 1e4 is a whole number too
    except ValueError:
        return text


def shown(value: Any) -> str:
    """A value for a message, in one short line."""
    try:
        text = " ".join(repr(value).split())
    except RecursionError:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def add_options(parser: argparse.ArgumentParser, cls: type, *, title: str) -> None:
    """Add `--name VALUE` for every option of a dataclass; options not given stay out of the namespace."""
    group = parser.add_argument_group(title)
    texts, hints = option_help(cls), option_types(cls)
    for field in dataclasses.fields(cls):
        default = "" if field.default in (None, "", dataclasses.MISSING) else f" (default: {field.default})"
        flag = hints[field.name] is bool
        group.add_argument(
            "--" + field.name.replace("_", "-"),
            dest=field.name,
            metavar="true|false" if flag else _metavar(hints[field.name]),
            nargs="?" if flag else None,  # --flag means true; --flag false is for what a file sets
            const="true" if flag else None,
            default=argparse.SUPPRESS,
            help=(texts.get(field.name, "") + default).replace("%", "%%"),
        )


def _metavar(hint: Any) -> str:
    """What an option takes, in a word."""
    kinds = [a for a in get_args(hint) if a is not type(None)] if get_origin(hint) is not Literal else []
    if kinds:
        return _metavar(kinds[0])
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    return {int: "N", float: "X", str: "TEXT"}.get(hint, "VALUE")


def given_options(arguments: argparse.Namespace, cls: type) -> dict[str, Any]:
    """The options of a dataclass that the command line gave, still as text."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in vars(arguments).items() if name in names}
