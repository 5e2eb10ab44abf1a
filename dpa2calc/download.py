"""Fetch one file over HTTP: mirrors in order, resume, checksum before the file gets its name."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from dpa2calc.errors import DownloadError
from dpa2calc.progress import progress_bar
from dpa2calc.version import __version__

_CHUNK = 1 << 20
# A connection that breaks is taken up again at the same mirror so many times without any progress.
_ATTEMPTS = 3
_PAUSE = 0.5  # seconds between attempts


class _MirrorFailed(Exception):
    """This mirror cannot serve the file; try the next one."""


class _Interrupted(Exception):
    """The connection broke; what arrived is in the .part file."""


def download(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str | None = None,
    timeout: float = 30.0,
    progress: bool = True,
) -> Path:
    """Download a file into place.

    Bytes go to `<target>.part`; a later call, or the next mirror, goes on where the last one
    stopped. The checksum is compared before the file is renamed to `target`.

    Args:
        urls: mirrors, tried in this order.
        target: final path; its folder is made.
        sha256: expected checksum; None warns with the checksum that was found.
        timeout: seconds without any data before a connection counts as broken.
        progress: show a bar on stderr.

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
                    _fetch_from(url, part, sha256, timeout, progress)
                except _MirrorFailed as failure:
                    failures.append(f"  {url}: {failure}")
                    continue
                if sha256 is None:
                    warnings.warn(
                        f"no checksum is published for {target.name}; the file from {url} has "
                        f"sha256 {file_sha256(part)}",
                        stacklevel=2,
                    )
                os.replace(part, target)
                return target
    except OSError as error:
        raise DownloadError(
            f"cannot write {part}: {error}; free the space or choose another folder with "
            "cache_dir=... or the environment variable DPA2CALC_CACHE"
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


def _fetch_from(url: str, part: Path, sha256: str | None, timeout: float, progress: bool) -> None:
    """Complete the .part file from one mirror and verify it; _MirrorFailed if that is impossible."""
    resumed = _size(part) > 0
    attempts = _ATTEMPTS
    while True:
        before = _size(part)
        try:
            _append(url, part, timeout, progress)
        except _Interrupted as broken:
            attempts = _ATTEMPTS if _size(part) > before else attempts - 1
            if attempts == 0:
                raise _MirrorFailed(str(broken)) from broken
            time.sleep(_PAUSE)
            continue
        found = file_sha256(part) if sha256 is not None else None
        if sha256 is None or found == sha256.lower():
            return
        part.unlink()
        if not resumed:
            raise _MirrorFailed(f"wrong checksum: sha256 {found}, expected {sha256}")
        resumed = False  # the old beginning may be to blame: once more from the start


def _append(url: str, part: Path, timeout: float, progress: bool) -> None:
    """One request: append what is missing to the .part file."""
    start = _size(part)
    response = _open(url, part, start, timeout)
    if response is None:
        return
    with response:
        if response.status == 206 and _range_start(response.headers.get("Content-Range")) != start:
            raise _MirrorFailed("it answered another range than asked for")
        chunk = _read(response)
        # Look before the old part is touched: a login page must not cost what was fetched already.
        if _is_web_page(response, b"" if response.status == 206 else chunk):
            raise _MirrorFailed("it answered with a web page instead of the file (login or block page?)")
        if response.status != 206:
            start = 0  # the server ignores ranges, or none was asked for
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            part.open("ab") as file,
            progress_bar(
                total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, shown=progress
            ) as bar,
        ):
            file.truncate(start)
            while chunk:
                file.write(chunk)
                bar.update(len(chunk))
                chunk = _read(response)
    if total is not None and _size(part) < total:
        raise _Interrupted(f"the connection broke after {_size(part)} of {total} bytes")


def _open(url: str, part: Path, start: int, timeout: float) -> http.client.HTTPResponse | None:
    """Ask for the bytes from `start` on; None if the part is complete already."""
    headers = {"User-Agent": f"dpa2calc/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        reason = f"HTTP {error.code} {error.reason}"
        if error.code == 416 and start:  # nothing from `start` on
            if _total_size(error.headers.get("Content-Range")) == start:
                return None
            part.unlink()  # longer than the file on the server: start again
            raise _Interrupted("the part on disk does not fit the file on the server") from error
        if error.code in (408, 429) or error.code >= 500:
            raise _Interrupted(reason) from error
        raise _MirrorFailed(reason) from error
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, (socket.gaierror, ConnectionRefusedError)):  # asking again is useless
            raise _MirrorFailed(_reason(error)) from error
        raise _Interrupted(_reason(error)) from error


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(_reason(error)) from error


def _is_web_page(response: http.client.HTTPResponse, beginning: bytes) -> bool:
    html = "text/html" in response.headers.get("Content-Type", "").lower()
    return html or beginning.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _range_start(content_range: str | None) -> int | None:
    """The first byte in 'bytes 100-199/200'."""
    try:
        return int((content_range or "").split()[1].split("-")[0])
    except (IndexError, ValueError):
        return None


def _total_size(content_range: str | None) -> int | None:
    """The last number in 'bytes */200'."""
    try:
        return int((content_range or "").rsplit("/", 1)[1])
    except (IndexError, ValueError):
        return None


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
