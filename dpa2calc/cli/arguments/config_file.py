"""`--config FILE`: a verb's options from a TOML file, under those of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dpa2calc.errors import ConfigError
from dpa2calc.files.options import read_toml
from dpa2calc.files.typed import unknown_key


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """Add --config, for the help; `with_config` takes it off the command line."""
    text = "TOML file of options, under those given here"
    parser.add_argument("--config", dest="options_file", metavar="FILE", action=_Shortened, help=text)


class _Shortened(argparse.Action):
    """What argparse takes for --config is a shortened form of it, which `with_config` left there."""

    def __call__(self, *_: object) -> None:
        raise argparse.ArgumentError(self, "write --config in full")


def with_config(words: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """The words after a verb without --config FILE, whose options become the defaults of the parser.

    A key is an option's name without the dashes, or the name of a positional argument; a list gives several
    values, of an option that may be repeated one each time, and true sets an option that takes none. A verb
    that has a file of its own kind as its first argument takes FILE as that. The parser's default `in_file`
    names what stands there.

    Raises:
        ConfigError: FILE is missing, no TOML, or has a key or a value that the verb does not take.
    """
    path, rest = _taken_off(words)
    if path is None:
        return rest
    if any(action.dest == "config" and not action.option_strings for action in parser._actions):
        return [path, *rest]
    if not Path(path).is_file():
        raise ConfigError(f"--config {path}: there is no such file; name a TOML file of options")
    parser.set_defaults(options_file=path)
    actions = {name.removeprefix("--"): a for a in parser._actions for name in a.option_strings or [a.dest]}
    exclusive = _Exclusive(parser, rest, path)
    for key, value in read_toml(Path(path)).items():
        action = actions.get(key.replace("_", "-"), actions.get(key))
        if action is None or key in ("config", "help"):
            known = [name for name in actions if not name.startswith("-") and name not in ("config", "help")]
            raise ConfigError(f"{path}: {unknown_key(key, value, known)}")
        try:
            found = _value(action, key, value, parser)
        except argparse.ArgumentError as error:
            raise ConfigError(f"{path}: {error.message} ({key})") from error
        if not exclusive.takes(action, key, found):
            continue
        for other in parser._actions:  # argparse takes the default of the first option with this dest
            if other is action or (other.dest == action.dest and other.default is not argparse.SUPPRESS):
                other.default = found
        action.required = False
        parser.set_defaults(in_file=(*(parser.get_default("in_file") or ()), action.dest))
        if not action.option_strings:
            action.nargs = "*" if action.nargs == "+" else action.nargs or "?"
    return rest


class _Exclusive:
    """Options that exclude each other: those of the command line stand above those of the file."""

    def __init__(self, parser: argparse.ArgumentParser, words: Sequence[str], path: str):
        options = parser._option_string_actions
        names = [word.partition("=")[0] for word in words if word.startswith("--") and word != "--"]
        self._given = [options[known] for name in names for known in options if known.startswith(name)]
        self._groups = [group._group_actions for group in parser._mutually_exclusive_groups]
        self._in_file: dict[argparse.Action, str] = {}
        self._path = path

    def takes(self, action: argparse.Action, key: str, value: object) -> bool:
        """Whether the file's value holds: it is set, and the command line has no other of the group.

        Raises:
            ConfigError: the file sets two of a group.
        """
        others = [
            other for group in self._groups if action in group for other in group if other is not action
        ]
        if value == action.default or any(other in self._given for other in others):
            return not others
        for other in others:
            if other in self._in_file:
                raise ConfigError(
                    f"{self._path}: {self._in_file[other]} and {key} exclude each other; keep one of them"
                )
        self._in_file[action] = key
        return True


def _value(action: argparse.Action, key: str, value: object, parser: argparse.ArgumentParser) -> object:
    """What the command line would have made of it."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise argparse.ArgumentError(None, f"{value!r} is not allowed; allowed: true or false")
        if isinstance(action, argparse.BooleanOptionalAction):
            return value != key.replace("_", "-").startswith("no-")
        return action.const if value else action.default
    if not isinstance(action, argparse._AppendAction):
        return _words(action, value, parser)
    times = value if isinstance(value, list) else [value]
    if action.nargs is not None and not any(isinstance(item, list) for item in times):
        times = [times]
    return [_words(action, item, parser) for item in times]


def _words(action: argparse.Action, value: object, parser: argparse.ArgumentParser) -> object:
    texts = [str(item) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, (bool, dict)) or (action.nargs in (None, "?") and len(texts) != 1):
        raise argparse.ArgumentError(None, f"{value!r} is not allowed")
    return parser._get_values(action, texts)


def _taken_off(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The file, and the words without it."""
    file, rest, waiting = None, [], iter(words)
    for word in waiting:
        if word == "--config":
            file = next(waiting, "")
        elif word.startswith("--config="):
            file = word.partition("=")[2]
        else:
            rest.append(word)
    if file == "":
        raise ConfigError("--config needs the name of a TOML file")
    return file, rest
