"""Progress bars: bars on a terminal and in a notebook, a line now and then where stderr is a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 60.0  # in a file


class _Lines:
    """Writes now and then what tqdm would draw over, as lines of a log, and how it ended."""

    def __init__(self) -> None:
        self.last, self.waiting = time.monotonic(), ""

    def write(self, text: str) -> int:
        """Write a line if the last one is long enough ago, or if tqdm closes the bar with a line's end."""
        self.waiting = text.strip("\r\n ") or self.waiting
        if self.waiting and (text == "\n" or time.monotonic() - self.last >= SECONDS_BETWEEN_LINES):
            sys.stderr.write(f"{self.waiting}\n")
            sys.stderr.flush()
            self.last, self.waiting = time.monotonic(), ""
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""


def progress_bar(iterable: Iterable[Any] | None = None, *, shown: bool, **options: object) -> tqdm[Any]:
    """A tqdm bar on stderr.

    Args:
        shown: whether the caller wants one at all.
        options: `total`, `initial`, `desc`, `unit` and other options of tqdm.
    """
    shown = shown and sys.stderr is not None  # programs without a console have none
    settings: dict[str, Any] = {"file": sys.stderr, **options, "disable": not shown}
    if shown and not _redraws(sys.stderr):
        settings |= {"file": _Lines(), "ascii": True, "dynamic_ncols": False, "ncols": 110}
    return tqdm(iterable, **settings)


def _redraws(stream: TextIO) -> bool:
    """Whether a line can be drawn over: a terminal, or the output of a notebook."""
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty()) or type(stream).__module__.startswith("ipykernel")
