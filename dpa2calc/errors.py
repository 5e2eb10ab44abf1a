"""The errors of dpa2calc.

Every error says what was wrong, the value seen, what is allowed and what to do next.
Each class also derives from the built-in exception that a caller would expect, so
`except ValueError` keeps working.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpa2calc.heads import HeadLike


class DPA2CalcError(Exception):
    """Base of all errors raised on purpose by this package."""


class ConfigError(DPA2CalcError, ValueError):
    """A model, training or command-line option has a wrong name or value."""


class StructureError(DPA2CalcError, ValueError):
    """The atoms cannot be evaluated (NaN, empty, zero-volume cell, ...)."""


class ElementError(DPA2CalcError, ValueError):
    """An element is outside the type map, or was never seen in training by the head."""


class HeadError(DPA2CalcError, KeyError):
    """No head, or more than one, matches the name given.

    Args:
        message: what is wrong.
        heads: those to choose from, listed after the message.
        elements: what the head is wanted for; only heads that know all of them are then listed.
    """

    def __init__(
        self, message: str = "", heads: Sequence[HeadLike] = (), elements: Iterable[str] = ()
    ) -> None:
        super().__init__(message)
        self.heads, self.elements = tuple(heads), tuple(elements)

    def for_elements(self, elements: Iterable[str]) -> HeadError:
        """The same error for a structure of these elements."""
        return HeadError(str(self.args[0]), self.heads, elements)

    def __reduce__(self) -> tuple[type[HeadError], tuple[str, tuple[HeadLike, ...], tuple[str, ...]]]:
        return HeadError, (self.args[0], self.heads, self.elements)

    def __str__(self) -> str:  # KeyError would print the repr, with \\n instead of lines
        from dpa2calc.heads import heads_that_know, list_heads

        lines = [str(self.args[0])]
        listed = self.heads
        if listed and self.elements:
            known = heads_that_know(self.elements, listed)
            names, listed = ", ".join(head.name for head in known), tuple(known) or listed
            lines.append(f"heads that know {' '.join(self.elements)}: {names or 'none of them'}")
        return "\n".join([*lines, list_heads(listed)] if listed else lines)


class CheckpointError(DPA2CalcError, ValueError):
    """A checkpoint is missing, truncated, foreign or inconsistent."""


class DownloadError(DPA2CalcError, OSError):
    """A published checkpoint could not be fetched or failed its checksum."""


class OutputError(DPA2CalcError, OSError):
    """A file cannot be written: full disk, read-only or missing folder, no permission."""


class DataError(DPA2CalcError, ValueError):
    """A dataset or trajectory is unusable; the message names file and frame."""


class TrainingError(DPA2CalcError, RuntimeError):
    """Training cannot go on (a loss that is not finite); the message names the batch."""


class MissingDependencyError(DPA2CalcError, ImportError):
    """An optional library is not installed; the message says how to install it."""


def optional_library(name: str, message: str) -> ModuleType:
    """Import a library that not all need.

    Args:
        message: what needs it, and how to install it.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(message) from error
