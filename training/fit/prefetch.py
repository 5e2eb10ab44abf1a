"""Makes the batches of the coming steps in a background thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetcher(Generic[Item]):
    """Runs `make(step)` ahead of the consumer, in order, in one thread; errors are raised at the consumer.

    `waited` is the time in seconds the consumer has spent waiting.
    """

    def __init__(self, make: Callable[[int], Item], steps: range, *, ahead: int):
        self._make, self._steps, self._ahead = make, steps, ahead
        self.waited = 0.0

    def __iter__(self) -> Iterator[tuple[int, Item]]:
        pool, steps = ThreadPoolExecutor(1), iter(self._steps)
        try:
            coming = deque((step, pool.submit(self._make, step)) for step in islice(steps, self._ahead))
            while coming:
                step, made = coming.popleft()
                coming.extend((later, pool.submit(self._make, later)) for later in islice(steps, 1))
                start = time.perf_counter()
                item = made.result()
                self.waited += time.perf_counter() - start
                yield step, item
        finally:
            pool.shutdown(cancel_futures=True)
