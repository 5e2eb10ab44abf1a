"""Files of a run that grow with it, of which the log is one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np

from dpa2calc.errors import DataError
from dpa2calc.files.atomic import writing
from dpa2calc.files.typed import Json

PathLike = str | os.PathLike[str]
Mark = dict[str, Json]  # where a file stood: its name, bytes, number of frames, a hash of its end

# columns of the log, in order; an empty field means "not defined here" (no stress, no conserved quantity)
COLUMNS = (
    "step",
    "time_fs",
    "potential_energy_eV",
    "kinetic_energy_eV",
    "total_energy_eV",
    "conserved_energy_eV",
    "temperature_K",
    "target_temperature_K",
    "pressure_GPa",
    "volume_A3",
    "max_force_eV_per_A",
    "max_force_std_eV_per_A",
)


class GrowingFile:
    """A file of a run that grows while the run goes, and can be cut back to a mark."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._writer: Any = None  # a file of text, or a writer of ASE that has one

    @property
    def is_open(self) -> bool:
        """Whether the file was started or continued by this run."""
        return self._writer is not None

    def _handle(self) -> TextIO:
        """The open file itself."""
        return self._writer

    def sync(self) -> None:
        """Wait until everything is on disk."""
        if self._writer is not None:
            with writing(self.path):
                self._handle().flush()
                os.fsync(self._handle().fileno())

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with writing(self.path):
                writer.close()


class LogWriter(GrowingFile):
    """A CSV file with one row every few steps; numbers are written so that they read back exactly."""

    def __init__(self, path: PathLike) -> None:
        super().__init__(path)
        self._content = hashlib.sha256()  # of all that was written

    def open(self, keep: Mark | None, *, steps: range = range(0)) -> list[tuple[float, ...]]:
        """Start a new file, or cut an existing one back to a mark; returns the rows that stay.

        Args:
            steps: whose rows the file must hold up to the mark, or the last of these.

        Raises:
            DataError: the file is shorter than the mark, damaged, or another one.
            OutputError: it cannot be written.
        """
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        rows: list[tuple[float, ...]] = []
        if keep is not None and keep["bytes"]:
            check_size(self.path, keep["bytes"])
            with writing(self.path):
                content = self.path.read_bytes()[: keep["bytes"]]
            rows = _rows(content, self.path)
            self._content.update(content)
            found = [row[0] for row in rows]
            other = keep.get("content", self._content.hexdigest()) != self._content.hexdigest()
            if other or found != list(steps)[len(steps) - len(found) :]:
                raise DataError(
                    f"{self.path} is not the log that the restart file was written with; put the file back, "
                    "or delete the restart file to start afresh"
                )
            with writing(self.path):
                os.truncate(self.path, keep["bytes"])
                self._writer = open_text(self.path, "a")
            return rows
        with writing(self.path):
            self._writer = open_text(self.path, "w")
        self._put(",".join(COLUMNS) + "\n")
        return rows

    def write(self, row: tuple[float, ...]) -> None:
        """Append one row of values in the order of COLUMNS; NaN becomes an empty field.

        Raises:
            OutputError: full disk.
        """
        fields = [str(int(row[0]))] + ["" if np.isnan(value) else repr(float(value)) for value in row[1:]]
        self._put(",".join(fields) + "\n")

    def _put(self, text: str) -> None:
        with writing(self.path):
            self._writer.write(text)
        self._content.update(text.encode())

    def mark(self) -> Mark:
        """Where the file stands now, everything written so far being with the operating system.

        Raises:
            OutputError: full disk.
        """
        with writing(self.path):
            self._handle().flush()
            size = self.path.stat().st_size
        return {"name": self.path.name, "bytes": size, "content": self._content.hexdigest()}


def _rows(content: bytes, path: PathLike) -> list[tuple[float, ...]]:
    try:
        lines = content.decode("utf-8").splitlines()
        if not lines or lines[0] != ",".join(COLUMNS):
            raise ValueError("the first line is not the header that run_md writes")
        rows = [
            tuple(float(item) if item else float("nan") for item in line.split(",")) for line in lines[1:]
        ]
        if any(len(row) != len(COLUMNS) for row in rows):
            raise ValueError(f"a line has not {len(COLUMNS)} fields")
    except ValueError as error:
        raise DataError(f"{path} is not a log written by run_md: {error}") from error
    return rows


def open_text(path: Path, mode: str) -> TextIO:
    """Text of UTF-8 with the same line breaks on every system."""
    return cast(TextIO, open(path, mode, encoding="utf-8", newline="\n"))


def check_size(path: Path, expected: int, content: str = "") -> None:
    """Raise DataError where a file is shorter than it was when the restart file was written."""
    found = path.stat().st_size if path.exists() else -1
    if found < expected:
        had = content if content and found < 0 else f"{expected} bytes"
        raise DataError(
            f"{path} {'is missing' if found < 0 else f'has {found} bytes'}, but the restart file was written "
            f"when it had {had}; put the file back, or delete the restart file to start afresh"
        )
