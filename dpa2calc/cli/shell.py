"""What stands between a verb and the shell: encodings, warnings, closed pipes, errors of the system."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import difflib
import io
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from dpa2calc.errors import DPA2CalcError

from .words import in_options, printable

_NO_MEMORY = re.compile(r"out of memory|(not enough|allocate) memory")  # in errors of torch
CLOSED_PIPE = 141  # what a shell says of a tool that SIGPIPE ended


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Of a verb: words that it does not know are its error, with the option that was meant."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown and self.get_default("run") is not None:
            known = [name for name in self._option_string_actions if name.startswith("--")]
            close = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            if os.path.exists(unknown[0]):
                hint = f"; a file of that name is written ./{unknown[0]}"
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        for action in self._actions:
            self._refuse_empty(action, getattr(found, action.dest, None))
        return found, unknown

    def _refuse_empty(self, action: argparse.Action, value: object) -> None:
        """Leave where an empty word was given: a file of that name would not be written, and nobody told."""
        words = value if isinstance(value, list) else [value]
        # argparse makes an empty list of the word in `--json=--`
        none = (not words and action.nargs is None) or "" in words or [] in words
        if none and value != action.default:
            name = max(action.option_strings, key=len, default=action.metavar or action.dest)
            self.error(f"{name} is empty; give a value, or leave it out (is a shell variable not set?)")

    def error(self, message: str) -> NoReturn:
        """Leave with the exit code 2."""
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` lists what it takes\n")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Text as written, and the default of every option that has one, always in the same form."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        default = action.default
        hidden = default is None or default is argparse.SUPPRESS or isinstance(default, bool) or default == ""
        if hidden or "default:" in text or not action.option_strings or action.nargs == 0:
            return text
        shown = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)
        return f"{text} (default: {shown})".replace("%", "%%").strip()


class Speaker:
    """Puts messages into the words of a verb, "dpa2calc VERB: ..." in front."""

    def __init__(self) -> None:
        self.args: argparse.Namespace | None = None  # once they are parsed

    def __call__(self, text: str) -> str:
        text = printable(text)
        if self.args is None:
            return f"dpa2calc: {text}"
        verb, said = self.args.verb, in_options(text, self.args.parser, self.args)
        # some messages name the function that they are from
        return f"dpa2calc {verb}: " + re.sub(f"^(warning: )?(dpa2calc )?{verb}: ", r"\1", said)


def readable_streams() -> None:
    """Let stdout and stderr write letters that their encoding lacks as the nearest that it has: Å as A.

    Names of files that are no UTF-8 are written as they are. What the shell closed goes nowhere.
    """
    codecs.register_error("dpa2calc-nearest", _nearest)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            utf = stream.encoding.lower().startswith("utf")
            stream.reconfigure(errors="surrogateescape" if utf else "dpa2calc-nearest")


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = unicodedata.normalize("NFKD", error.object[error.start : error.end])
    return letters.encode("ascii", "ignore").decode() or "?", error.end


def run_verb(run: Callable[[], int], say: Speaker) -> int:
    """Run a verb; whatever a user can meet becomes one line on stderr and an exit code."""
    try:
        with _one_line_warnings(say):
            code = run()
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        return _leave_pipe()
    except MET as error:
        print(say(one_line(error)), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(say("stopped; what was written so far is kept"), file=sys.stderr)
        return 130


# What a user can meet; see `one_line`.
MET = (DPA2CalcError, OSError, MemoryError, RuntimeError)


def one_line(error: BaseException) -> str:
    """What is wrong, of an error of `MET`; raises it where it is a fault of a program, or a closed pipe."""
    if isinstance(error, DPA2CalcError):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        place = f"{error.filename}: " if error.filename is not None else ""
        return f"{place}{error.strerror or error}; check the disk, the name and the permissions"
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return "there is not enough memory; take fewer or smaller structures, or close other programs"
    raise error


def _leave_pipe() -> int:
    """Nobody reads on, as in `dpa2calc models | head`; nothing more is written, not even when Python ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return CLOSED_PIPE


@contextlib.contextmanager
def _one_line_warnings(say: Speaker) -> Iterator[None]:
    """Show Python's warnings as lines of the verb, without file and source."""

    def shown(message: Warning | str, *_: object, **__: object) -> str:
        return say(f"warning: {' '.join(str(message).split())}") + "\n"

    before = warnings.formatwarning
    warnings.formatwarning = shown
    try:
        yield
    finally:
        warnings.formatwarning = before
