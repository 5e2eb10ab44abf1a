"""Write files so that they appear whole or not at all; the only place that renames a temporary file."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from dpa2calc.errors import DPA2CalcError, OutputError


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn errors of the operating system inside the block into one that names the file.

    Raises:
        OutputError: full disk, read-only or missing folder, no permission.
    """
    try:
        yield
    except DPA2CalcError:
        raise
    except (OSError, SafetensorError) as error:  # safetensors has its own word for a full disk
        reason, way = getattr(error, "strerror", None) or error, "free some space or choose another place"
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            for place in Path(path).parents:
                if place.is_file():
                    reason, way = f"{place} is a file, not a folder", "choose another place"
        raise OutputError(f"{path} cannot be written: {reason}; {way}") from error


def check_writable(path: str | os.PathLike[str], *, folder: bool = False) -> Path:
    """Find out before the work that its output cannot be written; nothing is made.

    Args:
        folder: `path` is a folder that will be made, not a file.

    Raises:
        OutputError: a file stands where a folder is needed or the other way round, or no permission.
    """
    path = Path(path)
    with writing(path):
        place = path if folder else _plain_target(path).parent
        existing = next((p for p in (place, *place.parents) if p.exists()), place)
        if not existing.is_dir():
            raise OutputError(f"{path} cannot be written: {existing} is a file, not a folder; choose another")
        if not folder and path.is_dir():
            raise OutputError(f"{path} cannot be written: it is a folder; give the name of a file in it")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise OutputError(f"{path} cannot be written: no permission in {existing}; choose another place")
    return path


def _plain_target(path: str | os.PathLike[str]) -> Path:
    """The file that a name stands for, at the end of its links.

    Raises:
        OutputError: a device or a pipe, such as /dev/null, which a file would take the place of.
    """
    path, target = Path(path), Path(os.path.realpath(path))
    device = path.absolute().parent == Path("/dev")
    if path.name == "-" or device or (target.exists() and not target.is_file() and not target.is_dir()):
        raise OutputError(f"{path} cannot be written: it is a device or a pipe; give the name of a file")
    return target


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it when the block ends well and removed when not.

    The content is on disk before the name is: a machine that loses power has the old file or the new one.

    A link stays one: what it leads to is written. A file that is replaced keeps its permissions; a new one
    has those that the user's umask leaves.

    Raises:
        OutputError: full disk, read-only folder, no permission, a device or pipe.
    """
    path = _plain_target(path)
    own = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.stem}.{own}.partial{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
            mode = (path if path.exists() else temporary).stat().st_mode
            temporary.unlink()  # not every writer takes a file that is there
            yield temporary
            if os.name == "posix":  # safetensors writes files that only their owner can read
                temporary.chmod(stat.S_IMODE(mode) | stat.S_IWUSR)
            rename(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def rename(grown: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Give a file that grew under another name its own, once it is whole and on disk."""
    with writing(path):
        with open(grown, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(grown, path)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text, names of files that are none as they are; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: str | os.PathLike[str], content: object) -> None:
    """Write JSON; see `atomic_path`."""
    write_text(path, json.dumps(content, indent=1))
