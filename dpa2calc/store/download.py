"""Fetch one file over HTTP: mirrors in order, resume, checksum before the file gets its name."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import socket
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpa2calc.deepmd.foreign import is_page
from dpa2calc.errors import DownloadError
from dpa2calc.files.atomic import rename
from dpa2calc.progress import progress_bar
from dpa2calc.store.web import RedirectRefused, open_url
from dpa2calc.version import __version__

_CHUNK = 1 << 20
# A connection that breaks is taken up again at the same mirror so many times without progress worth the name.
_ATTEMPTS = 3
_PROGRESS = 1 << 16  # bytes
_PAUSE = 0.5  # seconds between attempts
# No model is larger; a server that does not say how much it will send gets less.
_MOST = 8 << 30
_MOST_UNANNOUNCED = 512 << 20
# Slower mirrors are given up, and so is one that takes longer than this in all.
_SLOWEST = 2048  # bytes a second, over `timeout` seconds
_MOST_SECONDS = 6 * 3600.0


class _MirrorFailed(Exception):
    """This mirror cannot serve the file; try the next one."""


class _Interrupted(Exception):
    """The connection broke; what arrived is in the .part file."""


def download(urls: Sequence[str], target: Path, *, sha256: str | None = None, timeout: float = 30.0) -> Path:
    """Download a file into place, with a bar on stderr.

    Bytes go to `<target>.part`; a later call, or the next mirror, continues where the last one
    stopped. The checksum is compared before the file is renamed to `target`.

    Args:
        urls: mirrors, tried in this order.
        target: final path; its folder is made.
        sha256: expected checksum; None opens the file as a model before it is kept, and warns with the
            checksum that was found.
        timeout: seconds without any data before a connection counts as broken; slower than 2 kB/s on
            average over that time counts as broken too.

    Raises:
        DownloadError: every mirror failed (the message has each reason and how to put the file
            there by hand), or the folder cannot be written.
    """
    part = target.with_name(target.name + ".part")
    failures: list[str] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent):
            if target.is_file():  # another process finished it while this one waited
                return target
            for url in urls:
                try:
                    _fetch_from(url, part, sha256, timeout)
                except _MirrorFailed as failure:
                    failures.append(f"  {url}: {failure}")
                    continue
                except OSError:  # of the disk: those of the network are failures of the mirror
                    raise
                except Exception as error:
                    failures.append(f"  {url}: {type(error).__name__}: {error}")
                    continue
                if sha256 is None:
                    found = f"the file from {url} has sha256 {file_sha256(part)}"
                    warnings.warn(f"no checksum is published for {target.name}; {found}", stacklevel=2)
                rename(part, target)
                return target
    except OSError as error:
        raise DownloadError(
            f"cannot write {part}: {error}; free the space or choose another folder with "
            "the environment variable DPA2CALC_CACHE"
        ) from error
    reasons = "\n".join(failures)
    raise DownloadError(
        f"{target.name} could not be downloaded:\n{reasons}\n{manual_instructions(urls, target, sha256)}"
    )


def manual_instructions(urls: Sequence[str], target: Path, sha256: str | None) -> str:
    """How to bring the file onto this machine by hand."""
    check = f" (sha256 {sha256})" if sha256 else ""
    return f"Fetch it on a machine with internet from {urls[0]}{check} and put it at {target}"


def file_sha256(path: Path) -> str:
    """Checksum of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Raise DownloadError unless the file has the expected checksum."""
    found = file_sha256(path)
    if found != expected.lower():
        raise DownloadError(
            f"{path} has the wrong checksum: sha256 {found}, expected {expected}; "
            "it is damaged or another file. Delete it, so that it is fetched again"
        )


def _fetch_from(url: str, part: Path, sha256: str | None, timeout: float) -> None:
    """Complete the .part file from one mirror and verify it; _MirrorFailed if that is impossible."""
    if sha256 is None:
        part.unlink(missing_ok=True)  # nothing tells whether an old beginning belongs to this file
    resumed = _size(part) > 0
    attempts = _ATTEMPTS
    visit = _Visit(timeout, time.monotonic() + _MOST_SECONDS)
    while True:
        before = _size(part)
        try:
            _append(url, part, visit)
        except _Interrupted as broken:
            attempts = _ATTEMPTS if _size(part) >= before + _PROGRESS else attempts - 1
            if attempts == 0:
                raise _MirrorFailed(str(broken)) from broken
            if time.monotonic() > visit.end:
                raise _MirrorFailed(f"it took over {_MOST_SECONDS / 3600:g} hours ({broken})") from broken
            time.sleep(_PAUSE)
            continue
        if sha256 is None:
            _check_model(part)
            return
        found = file_sha256(part)
        if found == sha256.lower():
            return
        part.unlink()
        if not resumed:
            raise _MirrorFailed(f"wrong checksum: sha256 {found}, expected {sha256}")
        resumed = False  # the old beginning may be to blame: once more from the start


def _check_model(part: Path) -> None:
    """Open a file that has no published checksum; _MirrorFailed, and the file is gone, if it is no model."""
    from dpa2calc.deepmd.containers import open_source
    from dpa2calc.store.checkpoint import is_checkpoint, load_checkpoint

    try:
        if is_checkpoint(part):
            load_checkpoint(part)
        else:
            open_source(part)
    except Exception as error:  # whatever is wrong with it, the next mirror may have the right one
        part.unlink()
        raise _MirrorFailed(f"what it sent cannot be opened as a model: {error}") from error


@dataclass
class _Visit:
    """What holds for all requests to one mirror: seconds without data, the end of its time, and what the
    server called the file in its first answer (another name later means another file)."""

    timeout: float
    end: float
    version: str | None = None


def _append(url: str, part: Path, visit: _Visit) -> None:
    """One request: append what is missing to the .part file."""
    start = _size(part)
    response = _open(url, part, start, visit.timeout)
    if response is None:
        return
    with response:
        total = _announced(response, start)
        chunk = _read(response)
        # Look before the old part is touched: a login page must not cost what was fetched already.
        declared = "text/html" in response.headers.get("Content-Type", "").lower()
        if declared or (response.status != 206 and is_page(chunk)):
            raise _MirrorFailed("it answered with a web page instead of the file (login or block page?)")
        if response.status != 206:
            start = 0  # the server ignores ranges, or none was asked for
        name = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        if start and visit.version not in (None, name):
            part.unlink()
            visit.version = None
            raise _Interrupted("the file on the server changed in between")
        visit.version = name
        with (
            part.open("ab") as file,
            progress_bar(
                total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, shown=True
            ) as bar,
        ):
            file.truncate(start)
            watch = _Watch(start, total, visit)
            while chunk:
                watch.took(len(chunk))
                file.write(chunk)
                bar.update(len(chunk))
                chunk = _read(response)
    if total is not None and _size(part) < total:
        raise _Interrupted(f"the connection broke after {_size(part)} of {total} bytes")
    if _size(part) == 0:
        raise _MirrorFailed("it answered with an empty file")


def _announced(response: http.client.HTTPResponse, start: int) -> int | None:
    """The size that the whole file is to have, None where the server does not say; refuses wrong answers."""
    if response.status not in (200, 206):
        raise _MirrorFailed(f"it answered with HTTP {response.status} instead of the file")
    if response.status == 206 and not start:
        raise _MirrorFailed("it answered with a piece of the file, which was not asked for")
    if response.status == 206 and _range(response.headers.get("Content-Range"))[0] != start:
        raise _MirrorFailed("it answered another range than asked for")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise _MirrorFailed(f"it answered with the file packed ({encoding}), which was not asked for")
    length = response.headers.get("Content-Length")
    if length is None:
        return _range(response.headers.get("Content-Range"))[1] if response.status == 206 else None
    if not (length.strip().isascii() and length.strip().isdigit() and len(length) < 20):
        raise _MirrorFailed(f"it announces a length that is not a number: {length[:40]!r}")
    total = int(length) + (start if response.status == 206 else 0)
    if total > _MOST:
        raise _MirrorFailed(f"it announces {total:,} bytes; no model has more than {_MOST:,}")
    return total


class _Watch:
    """Size and speed of what arrives."""

    def __init__(self, start: int, total: int | None, visit: _Visit) -> None:
        self.size, self.visit = start, visit
        self.most = _MOST_UNANNOUNCED if total is None else total
        self.since, self.window = time.monotonic(), 0

    def took(self, count: int) -> None:
        """Note bytes that came in; _MirrorFailed for more than announced, or for less than a trickle."""
        self.size += count
        self.window += count
        if self.size > self.most:
            raise _MirrorFailed(f"it sends more than {self.most:,} bytes; that is not the file")
        if time.monotonic() > self.visit.end:
            raise _MirrorFailed(f"it took over {_MOST_SECONDS / 3600:g} hours")
        seconds = time.monotonic() - self.since
        if seconds > self.visit.timeout:
            if self.window < _SLOWEST * seconds:
                raise _MirrorFailed(f"it is too slow: {self.window} bytes in {seconds:.1f} s")
            self.since, self.window = time.monotonic(), 0


def _open(url: str, part: Path, start: int, timeout: float) -> http.client.HTTPResponse | None:
    """Ask for the bytes from `start` on; None if the part is complete already."""
    headers = {"User-Agent": f"dpa2calc/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        return open_url(urllib.request.Request(url, headers=headers), timeout)
    except urllib.error.HTTPError as error:
        reason = f"HTTP {error.code} {error.reason}"
        if error.code == 416 and start:  # nothing from `start` on
            if _range(error.headers.get("Content-Range"))[1] == start:
                return None
            part.unlink()  # longer than the file on the server: start again
            raise _Interrupted("the part on disk does not fit the file on the server") from error
        if error.code in (408, 429) or error.code >= 500:
            raise _Interrupted(reason) from error
        raise _MirrorFailed(reason) from error
    except RedirectRefused as error:
        raise _MirrorFailed(str(error)) from error
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, (socket.gaierror, ConnectionRefusedError)):  # asking again is useless
            raise _MirrorFailed(_reason(error)) from error
        raise _Interrupted(_reason(error)) from error
    except ValueError as error:
        raise _MirrorFailed(f"its address or answer makes no sense: {error}") from error


def _read(response: http.client.HTTPResponse) -> bytes:
    """What has arrived; waiting for a whole block would hide a mirror that trickles."""
    try:
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(_reason(error)) from error
    except ValueError as error:  # a chunk whose length is not a number
        raise _MirrorFailed(f"its answer makes no sense: {error}") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _range(header: str | None) -> tuple[int | None, int | None]:
    """First byte and size of the file in 'bytes 100-199/200' or 'bytes */200', None where it is not said."""
    found = re.match(r"\s*\S+\s+(?:(\d{1,19})-\d*|\*)/(\d{1,19})?", header or "")
    first, total = found.groups() if found else (None, None)
    return None if first is None else int(first), None if total is None else int(total)


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", None) or error
    return f"{cause}" if str(cause) else type(cause).__name__


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One download at a time in this folder; where locks do not work the checksum must do."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # gives the lock back
