"""Progress bars: bars on a terminal and in a notebook, a line now and then where stderr is a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 60.0  # in a file; work that is done sooner leaves none


class _Lines:
    """Writes now and then what tqdm would draw over, as a line of a log."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def write(self, text: str) -> int:
        """Write a line if the last one is long enough ago."""
        line = text.strip("\r\n ")
        if line and time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""


def progress_bar(iterable: Iterable[Any] | None = None, *, shown: bool, **options: Any) -> tqdm[Any]:
    """A tqdm bar on stderr.

    Args:
        shown: whether the caller wants one at all.
        options: `total`, `initial`, `desc`, `unit` and other options of tqdm.
    """
    settings: dict[str, Any] = {"file": sys.stderr, **options, "disable": not shown}
    if shown and not _redraws(sys.stderr):
        settings |= {"file": _Lines(), "ascii": True, "dynamic_ncols": False, "ncols": 110}
    return tqdm(iterable, **settings)


def _redraws(stream: Any) -> bool:
    """Whether a line can be drawn over: a terminal, or the output of a notebook."""
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty()) or type(stream).__module__.startswith("ipykernel")
