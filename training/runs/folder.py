"""The folder of a run: made, tried and locked before the work begins."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from dpa2calc.errors import ConfigError, OutputError
from dpa2calc.files.atomic import writing
from dpa2calc.files.lock import locked
from dpa2calc.files.opening import PathLike

from .processes import ALONE, Processes

# of a finished run, beside its log and its model; only a run that resumes needs them
LARGE_FILES = ("state.safetensors", "last.safetensors", "best.safetensors", "model.safetensors")
# By what each kind of work in a folder is known: a run of another kind would write over its model.
_MARKS = {
    "state.safetensors": "a training",
    "state.json": "a distillation or active learning",
    "points.jsonl": "a learning curve",
}


@contextlib.contextmanager
def run_folder(
    path: PathLike, processes: Processes = ALONE, *, mark: str, inside: Iterable[str] = ()
) -> Iterator[Path]:
    """The folder, held by this process (the first of several) while the block runs.

    Files that killed processes left half-written are removed, also from folders `inside` (patterns).

    Args:
        mark: the file by which this kind of work is known.

    Raises:
        ConfigError: another run is at work there, or it holds work of another kind.
        OutputError: it cannot be made or written to.
    """
    folder = Path(path)
    if not processes.first:
        yield folder
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be written: no permission; choose another place")
    with locked(folder):
        for name, what in _MARKS.items():
            if name != mark and (folder / name).exists():
                raise ConfigError(f"{folder} holds {what} ({name}); choose another output")
        for place in (folder, *(found for pattern in inside for found in folder.glob(pattern))):
            for leftover in place.glob(".*.partial*"):
                leftover.unlink(missing_ok=True)
        yield folder


def remove_large_files(folder: Path) -> None:
    """Leave of a finished run only its log and its figures."""
    for name in LARGE_FILES:
        (folder / name).unlink(missing_ok=True)
