"""Ctrl-C during long work: finish the running step, then stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether Ctrl-C has come; a second one stops at once."""

    def __init__(self) -> None:
        self.seen = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Inside, the first Ctrl-C is only noted."""

        def handle(signum: int, frame: FrameType | None) -> None:
            if self.seen:
                raise KeyboardInterrupt
            self.seen = True

        try:
            previous = signal.signal(signal.SIGINT, handle)
        except ValueError:  # not the main thread: Ctrl-C does not arrive here
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
