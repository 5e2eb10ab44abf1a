"""One process at a time in a folder, or on a file that grows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from dpa2calc.errors import ConfigError

from .atomic import writing


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes (and other callers in this one) away from a folder or file while the block runs.

    The operating system holds the lock (`flock`), so that of a process that died is free. The empty file
    `.lock` in the folder (`.NAME.lock` beside a file) stays behind and means nothing by itself.

    Args:
        path: an existing folder, or the name of a file that may not exist yet.

    Raises:
        ConfigError: another run is at work there.
        OutputError: the lock file cannot be made.
    """
    path = Path(path)
    name = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    with writing(name):
        name.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(name, timeout=0, is_singleton=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise ConfigError(
                f"another run is writing to {path}; wait until it ends, or choose another place"
            ) from error
    try:
        yield
    finally:
        lock.release()
