"""Options by name: from files and command lines into frozen dataclasses, every key checked."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, SupportsFloat, TypeVar, Union, cast, get_args, get_origin

import numpy as np

from dpa2calc.errors import ConfigError

from .limits import DEEPEST, check_tree
from .typed import Hint, Json, Number, build, check_fields, finite, option_types, typed, wrong

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Config = TypeVar("Config")


def option_help(cls: type) -> dict[str, str]:
    """Help text of each option that has one."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        name: hint.__metadata__[0]
        for name, hint in hints.items()
        if get_origin(hint) is typing.Annotated and isinstance(hint.__metadata__[0], str)
    }


def parse_options(cls: type[Config], values: Mapping[str, object], name: str = "") -> Config:
    """Build a dataclass from what a file or a command line holds, checking every key and type.

    Args:
        name: of the section, for messages, such as "sets.water".

    Raises:
        ConfigError: an unknown key (with the nearest right one), a missing one, or a value of the wrong type.
    """
    return cast(Config, build(cls, values, name, read=convert))


def settle(config: object, name: str = "", *, number: Number | None = None) -> None:
    """Check the types of all options of a dataclass that was just made, and take NumPy's numbers as Python's.

    Call it first in `__post_init__`. Unlike in a file or a command line a text is not a number here.

    Raises:
        ConfigError: a value is of another type; the option is named.
    """
    check_fields(config, name, read=partial(convert, text=False, number=number))


def at_least(config: object, least: float, *names: str) -> None:
    """Check that numbers among the options of a dataclass are not below a bound.

    Raises:
        ConfigError: one is; it is named.
    """
    for name in names:
        value = getattr(config, name)
        if value < least:
            raise wrong(name, value, f"at least {least:g}")


def refuse_idle(config: Any, where: str, *names: str, section: str = "") -> None:
    """Refuse options that have no effect in company of others, where they are not at their defaults.

    Args:
        where: in which company, for the message: "beside minutes", "without lora_rank".
        section: of a file, before the names.

    Raises:
        ConfigError: it names the option.
    """
    for option in dataclasses.fields(config):
        value = getattr(config, option.name)
        default = option.default_factory() if callable(option.default_factory) else option.default
        if option.name in names and value != default:
            raise ConfigError(f"{section}{option.name} = {value!r} has no effect {where}; leave it out")


def convert(hint: Hint, value: object, name: str, *, text: bool = True, number: Number | None = None) -> Any:
    """The value of an option as `typed` has it; one item may stand for a list, a path for a text.

    Args:
        text: whether a text may stand for a number, as it does on a command line.
        number: see `typed`; None takes finite numbers, and infinity where it turns a limit off.

    Raises:
        ConfigError: it is of another type, or not finite.
    """
    if get_origin(hint) is tuple and not _several(value):
        return (convert(get_args(hint)[0], value, name, text=text, number=number),)
    endless = name.rpartition(".")[2].startswith(_ENDLESS)
    return typed(hint, _prepared(hint, value, text), name, number=number or (_limit if endless else finite))


def _prepared(hint: Hint, value: Json, text: bool) -> object:
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    if get_origin(hint) in (UnionType, Union):
        off = value is None or (text and isinstance(value, str) and value.lower() in ("none", "off"))
        return None if off else _prepared(kinds[0], value, text)
    if get_origin(hint) is tuple:
        return [_prepared(kinds[0], item, text) for item in value]
    if hint is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    return _from_text(value, hint) if text and isinstance(value, str) else value


def _several(value: object) -> bool:
    """Whether it is a list, a tuple, a range or an array."""
    if isinstance(value, np.ndarray):
        return bool(value.ndim)
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


# limits that infinity turns off
_ENDLESS = ("time_limit", "force_limit", "temperature_limit", "upper_bound", "gradient_clip")


def _limit(value: SupportsFloat) -> float:
    return math.inf if value == math.inf else finite(value)


def _from_text(text: str, hint: Hint) -> bool | float | str:
    """What a text stands for; the text itself where it is nothing of that type."""
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        if hint is int and re.fullmatch(r"[+-]?\d+", text):
            return int(text)  # exact beyond 2^53, too
        return float(text) if hint in (int, float) else text  # 1e4 is a whole number too
    except ValueError:
        return text


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


def _metavar(hint: Hint) -> str:
    """What an option takes, in a word."""
    kinds = [a for a in get_args(hint) if a is not type(None)] if get_origin(hint) is not Literal else []
    if kinds:
        return _metavar(kinds[0])
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    return {int: "N", float: "X", str: "TEXT"}.get(hint, "VALUE")


def given_options(arguments: argparse.Namespace, cls: type) -> dict[str, str]:
    """The options of a dataclass that the command line gave, still as text."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in vars(arguments).items() if name in names}


def read_toml(path: Path) -> dict[str, Json]:
    """The tables of a TOML file; texts that begin with ~/ are in the user's home, as in a shell.

    Raises:
        ConfigError: it is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply; allowed: {DEEPEST} levels") from None
    check_tree(values, len(text), str(path), error=ConfigError)
    return cast(dict[str, Json], with_home(values))


def with_home(value: Json) -> Json:
    """Texts, and those in lists and tables, with the home folder for a leading ~/, also after `--option=`.

    A shell leaves `--out=~/runs` alone, and a folder called ~ would be made.
    """
    if isinstance(value, dict):
        return {key: with_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_home(item) for item in value]
    found = re.fullmatch(r"(--[\w-]+=)?(~(/.*)?)", value, re.DOTALL) if isinstance(value, str) else None
    return (found[1] or "") + os.path.expanduser(found[2]) if found else value
