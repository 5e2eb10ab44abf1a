"""Makes the batches of the coming steps in a background thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetcher(Generic[Item]):
    """Runs `make(step)` ahead of the consumer, in order, in one thread; errors are raised at the consumer.

    `waited` is the time in seconds the consumer has spent waiting.
    """

    def __init__(self, make: Callable[[int], Item], steps: range, *, ahead: int):
        self._make, self._steps = make, steps
        self._queue: queue.Queue[tuple[int, Item | None, BaseException | None]] = queue.Queue(maxsize=ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.waited = 0.0

    def _work(self) -> None:
        for step in self._steps:
            try:
                entry: tuple[int, Item | None, BaseException | None] = (step, self._make(step), None)
            except BaseException as error:  # handed to the consumer
                entry = (step, None, error)
            while not self._stop.is_set():
                try:
                    self._queue.put(entry, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if self._stop.is_set() or entry[2] is not None:
                return

    def __iter__(self) -> Iterator[tuple[int, Item]]:
        self._thread.start()
        try:
            for _ in self._steps:
                start = time.perf_counter()
                step, item, error = self._queue.get()
                self.waited += time.perf_counter() - start
                if error is not None:
                    raise error
                yield step, item  # type: ignore[misc]
        finally:
            self.close()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=10.0)
