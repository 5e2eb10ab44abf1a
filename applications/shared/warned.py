"""The warnings of one thread: those of Python's `catch_warnings` are of the whole process."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_LOCK = threading.Lock()
_LISTS: dict[int, list[list[str]]] = {}  # of the threads that are collecting, the innermost last
_UNDO = ExitStack()


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """The texts of the warnings that this thread gives inside; other threads' are shown as ever.

    Every warning counts, also one that was shown before: filters are set aside until the last thread is out.
    """
    texts: list[str] = []
    thread = threading.get_ident()
    with _LOCK:
        if not _LISTS:
            _install()
        _LISTS.setdefault(thread, []).append(texts)
    try:
        yield texts
    finally:
        with _LOCK:
            _LISTS[thread].pop()
            if not _LISTS[thread]:
                del _LISTS[thread]
            if not _LISTS:
                _UNDO.close()


def _install() -> None:
    shown = warnings.showwarning
    _UNDO.enter_context(warnings.catch_warnings())
    warnings.simplefilter("always")

    def collect(message: Warning | str, *where: Any, **more: Any) -> None:
        lists = _LISTS.get(threading.get_ident())
        if lists:
            lists[-1].append(str(message))
        else:
            shown(message, *where, **more)

    warnings.showwarning = collect
