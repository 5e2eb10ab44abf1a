"""`dpa2calc --completion SHELL`: a script that completes verbs, options, words and files with the Tab key.

It is made once and kept, so that the Tab key starts no Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from dpa2calc.errors import optional_library

SHELLS = ("bash", "zsh", "tcsh")
_FILES = ("FILE", "STRUCTURES", "CONFIG", "IN", "OUT", "MODEL", "[GROUP=]FILE", "LOG")  # metavars
_FOLDERS = ("FOLDER",)


def add_completion_argument(
    parser: argparse.ArgumentParser, whole: Callable[[], argparse.ArgumentParser]
) -> None:
    """Add --completion.

    Args:
        whole: makes the parser with the options of all verbs.
    """

    class Completion(argparse.Action):
        """Prints the script and leaves."""

        def __call__(self, own: argparse.ArgumentParser, _: object, shell: object, __: object = None) -> None:
            print(completion(whole(), str(shell)))
            own.exit()

    text = "print a script for this shell that completes verbs and options, and leave"
    parser.add_argument("--completion", choices=SHELLS, action=Completion, help=text)


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for a shell.

    Raises:
        MissingDependencyError: shtab is not installed.
    """
    text = "--completion needs the package shtab: pip install 'dpa2calc[completion]'"
    shtab = optional_library("shtab", text)
    for one in _all(parser):
        for action in one._actions:
            if action.choices is None and action.nargs != 0:
                kind = shtab.DIRECTORY if action.metavar in _FOLDERS else shtab.FILE
                if action.metavar in (*_FILES, *_FOLDERS) or action.dest in (
                    "trajectory",
                    "trajectories",
                    "model",
                ):
                    action.complete = kind  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell=shell))


def _all(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parser and those of its verbs."""
    verbs = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return [parser, *(one for action in verbs for one in action.choices.values())]
