"""Messages in the command line's own words: `--head NAME` where the library says `head=...`.

The library speaks of the arguments of its functions. Each option of a verb has the name of such an argument
as its `dest`, so a verb's parser is the dictionary: nothing here knows a single message. An argument that no
one option stands for is named by `parser.set_defaults(python_names={"strains": "--range and --points"})`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

# Arguments that are no English words although they have no underscore.
_NOT_ENGLISH = ("dtype", "fmax", "symprec")
# Functions whose verb has another name.
_FUNCTIONS = {
    "angular_distribution": "adf",
    "elastic_constants": "elastic",
    "equation_of_state": "eos",
    "nudged_elastic_band": "neb",
    "phase_transition": "phase-transition",
    "phonon_convergence": "phonons --convergence",
    "quasi_harmonic": "phonons --quasi-harmonic",
    "radial_distribution": "rdf",
    "representation_map": "map",
    "run_md": "md",
    "surface_energy": "surface",
    "vacancy_formation_energy": "vacancy",
}
_SAME_NAME = re.compile(r"(?<![\w./'\"\[-])(phonons|relax|vibrations)\((?:\.\.\.)?\)")
_REMARK = re.compile(r"\s*\(in Python:? (?:[^()]|\([^()]*\))*\)")  # for those who call the library
_OUTSIDE = r"(?<![\w./'\"\[-])"  # not inside a path, a name in quotes or a longer word
_ENDED = r"(?![\w'\"=(\]/-]|\.\w)"
_VALUE = r"""\.\.\.|'[^']*'|"[^"]*"|\[[^\]]*\]|\([^)]*\)|\{[^}]*\}|[^\s,;:()]*[^\s,;:().]"""


def printable(text: str) -> str:
    """Text from a file for a terminal: without control characters, which could write anything there."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)


def in_options(text: str, parser: argparse.ArgumentParser, args: argparse.Namespace | None = None) -> str:
    """A message of the library with a verb's options in place of the arguments of functions.

    Args:
        args: what was parsed. Options that may also stand in a file are then named only where the command
            line gave them.

    Example:
        >>> parser.add_argument("--head", metavar="NAME")
        >>> in_options("choose one with head=...", parser)
        'choose one with --head NAME'
    """
    text = _SAME_NAME.sub(r"dpa2calc \1", _REMARK.sub("", text))
    for function, verb in _FUNCTIONS.items():
        text = re.sub(rf"{_OUTSIDE}{function}(\((\.\.\.)?\))?{_ENDED}", f"dpa2calc {verb}", text)
    for name, options in (parser.get_default("python_names") or {}).items():
        text = _named(re.sub(rf"{_OUTSIDE}{name}=(?:{_VALUE})", options, text), name, options)
    for action in parser._actions:
        option = next((o for o in action.option_strings if o.startswith("--")), None)
        in_file = action.default == argparse.SUPPRESS and args is not None and action.dest not in vars(args)
        if option is not None and action.dest != "help" and not in_file:
            text = re.sub(rf"{_OUTSIDE}{action.dest}=({_VALUE})", _given(action, option), text)
            text = _named(text, action.dest, option)
    return text


def _named(text: str, name: str, option: str) -> str:
    """An argument's bare name: anywhere if it cannot be an English word, else where a clause is about it."""
    if "_" in name or name in _NOT_ENGLISH:
        return re.sub(rf"{_OUTSIDE}{name}{_ENDED}", option, text)
    return re.sub(rf"(^|(?<=[;:] )){name}(?= (?:is|are|must|has|=) )", option, text)


def _given(action: argparse.Action, option: str) -> Callable[[re.Match[str]], str]:
    """Writes `name=value` as on the command line."""
    metavar = action.metavar or action.dest.upper()
    shown = " ".join(metavar) if isinstance(metavar, tuple) else metavar

    def write(found: re.Match[str]) -> str:
        value = found[1]
        if isinstance(action, argparse.BooleanOptionalAction):
            return option.replace("--", "--no-", 1) if value == "False" else option
        if action.nargs == 0:
            return option if value in ("...", str(action.const), repr(action.const)) else f"no {option}"
        if value in ("...", "None") or value.startswith("{"):
            return f"{option} {shown}"
        plain = re.sub(r"""[\[\](){},'"]""", "", value)
        return f"{option} {plain or repr('')}"

    return write
