"""One process at a time in a folder, or on a file that grows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from itertools import takewhile
from pathlib import Path

from filelock import FileLock, Timeout

from dpa2calc.errors import ConfigError

from .atomic import writing

# folders that this call (of an application that calls others) has to itself
_MINE: ContextVar[frozenset[Path]] = ContextVar("_MINE", default=frozenset())


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes (and other callers in this one) away from a folder or file while the block runs.

    The operating system holds the lock (`flock`), so that of a process that died is free. The file `.lock` in
    the folder (`.NAME.lock` beside a file) goes with the lock; one that a kill left means nothing by itself.

    Args:
        path: an existing folder, or the name of a file that may not exist yet.

    Raises:
        ConfigError: another run is at work there.
        OutputError: the lock file cannot be made.
    """
    real = Path(os.path.realpath(path))  # at the end of links, which stand for the same file
    name = real / ".lock" if os.path.isdir(real) else real.with_name(f".{real.name}.lock")
    with _folder(name.parent):
        with writing(path):
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
            if os.name == "posix":  # while it is held; who opened it meanwhile looks again (filelock 3.24)
                with contextlib.suppress(OSError):
                    name.unlink()
            lock.release()


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Make a folder; what was made and is still empty at the end goes again."""
    made = list(takewhile(lambda place: not place.exists(), (folder, *folder.parents)))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the innermost first; one that holds a file ends it
            for place in made:
                place.rmdir()


@contextlib.contextmanager
def working_in(folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Make a folder and lock it; calls inside the block that work there need no lock of their own.

    Raises:
        ConfigError: another run is at work there.
        OutputError: the folder cannot be made or written.
    """
    path = None if folder is None else Path(folder).resolve()
    if path is None or path in _MINE.get():
        yield
        return
    with _folder(path), locked(path):
        token = _MINE.set(_MINE.get() | {path})
        try:
            yield
        finally:
            _MINE.reset(token)


@contextlib.contextmanager
def locked_files(*paths: str | os.PathLike[str] | None) -> Iterator[None]:
    """Lock files, except in a folder that this call has to itself already; None is passed over.

    Raises:
        ConfigError, OutputError: see `locked`.
    """
    given = [path for path in paths if path is not None]
    if len({Path(path).resolve() for path in given}) < len(given):
        raise ConfigError(f"each file needs a name of its own, not {', '.join(map(str, given))}")
    with contextlib.ExitStack() as locks:
        for path in given:
            if Path(path).resolve().parent not in _MINE.get():
                locks.enter_context(locked(path))
        yield
