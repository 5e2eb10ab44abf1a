"""Says that kernels are being compiled: the first call on a machine takes seconds that later ones do not."""

from __future__ import annotations

import functools
import logging
from typing import Any

from numba.core import event

logger = logging.getLogger(__name__)
SECONDS = 30  # on an ordinary core, for the kernels of one model; inference takes less, training more


class _Announcement(event.Listener):
    """Hears of every compilation of Numba, and speaks at the first of this package's."""

    def __init__(self) -> None:
        self.said = False

    def on_start(self, event: Any) -> None:
        function = getattr(event.data.get("dispatcher"), "py_func", None)
        if not self.said and str(getattr(function, "__module__", "")).startswith("dpa2calc."):
            self.said = True
            logger.warning("compiling kernels for this machine, once; about %d s", SECONDS)

    def on_end(self, event: Any) -> None:
        """Nothing to say: the work that follows shows its own progress."""


@functools.cache
def announce_compilation() -> None:
    """Let the first compilation of a kernel of this package be announced by the log, once a process.

    Kernels that an earlier process compiled come from Numba's cache, without a message.
    """
    event.register("numba:compile", _Announcement())
