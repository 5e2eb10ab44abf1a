"""Options by name: from files and command lines into frozen dataclasses, every key checked."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
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


def unknown_key(key: str, value: Any, known: list[str]) -> str:
    """The message for a key that does not exist."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown option {key} = {value!r}{hint} Known: {', '.join(known)}"


def convert(value: Any, hint: Any, key: str) -> Any:
    """A value of a file or command line as the type that the option asks for.

    Raises:
        ConfigError: it is of another type.
    """
    arguments = get_args(hint)
    if get_origin(hint) in (types.UnionType, typing.Union):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "off")):
            return None
        return convert(value, next(a for a in arguments if a is not type(None)), key)
    if get_origin(hint) is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{key} = {value!r} is not allowed; allowed: {', '.join(map(str, arguments))}")
    if get_origin(hint) is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(convert(item, arguments[0], key) for item in items)
    if get_origin(hint) is dict or hint is dict:
        if isinstance(value, Mapping):
            return dict(value)
        raise ConfigError(f"{key} = {value!r} is not a table")
    return _scalar(value, hint, key)


def _scalar(value: Any, hint: Any, key: str) -> Any:
    try:
        if hint is bool:
            if isinstance(value, bool):
                return value
            if str(value).lower() in ("true", "false"):
                return str(value).lower() == "true"
            raise ValueError
        if hint is int:
            if isinstance(value, bool) or float(value) != int(float(value)):
                raise ValueError
            return int(float(value))
        if hint is float:
            if isinstance(value, bool):
                raise ValueError
            return float(value)
        if hint is str:
            if not isinstance(value, str):
                raise ValueError
            return value
    except (TypeError, ValueError):
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        raise ConfigError(f"{key} = {value!r} is not allowed; allowed: {words[hint]}") from None
    return value


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
