"""The errors of dpa2calc.

Every error says what was wrong, the value seen, what is allowed and what to do next.
Each class also derives from the built-in exception that a caller would expect, so
`except ValueError` keeps working.
"""


class DPA2CalcError(Exception):
    """Base of all errors raised on purpose by this package."""


class ConfigError(DPA2CalcError, ValueError):
    """A model, training or command-line option has a wrong name or value."""


class StructureError(DPA2CalcError, ValueError):
    """The atoms handed in cannot be evaluated (NaN, empty, zero-volume cell, ...)."""


class ElementError(DPA2CalcError, ValueError):
    """An element is outside the type map, or was never seen in training by the head."""


class HeadError(DPA2CalcError, KeyError):
    """No head, or more than one, matches the name given."""

    def __str__(self) -> str:  # KeyError would print the repr, with \\n instead of lines
        return str(self.args[0]) if self.args else ""


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
