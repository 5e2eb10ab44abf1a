"""A few threads for compiled kernels that release the GIL, as many as PyTorch uses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


class Workers:
    """Splits ranges over threads; the caller's thread takes the first part.

    The threads are made at first use, and made anew when torch.set_num_threads changes their number.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0

    @property
    def count(self) -> int:
        """Number of threads: that of PyTorch."""
        return torch.get_num_threads()

    def parts(self, total: int, *, least: int = 1) -> list[tuple[int, int]]:
        """Cut 0..total into at most `count` ranges of at least `least`."""
        n = max(1, min(self.count, total // max(1, least)))
        bounds = [total * k // n for k in range(n + 1)]
        return list(zip(bounds, bounds[1:]))

    def split(self, work: Callable[[int, int], None], total: int, *, least: int = 1) -> None:
        """work(first, last) for the parts of 0..total, at the same time."""
        self.run(work, self.parts(total, least=least))

    def run(self, work: Callable[..., None], arguments: list[tuple]) -> None:
        """work(*a) for each of `arguments`, at the same time; errors are raised here."""
        if len(arguments) > 1 and (self._pool is None or self._size < len(arguments) - 1):
            self.close()
            self._size = len(arguments) - 1
            self._pool = ThreadPoolExecutor(self._size, thread_name_prefix="dpa2calc")
        waiting = [self._pool.submit(work, *a) for a in arguments[1:]] if self._pool else []
        try:
            if arguments:
                work(*arguments[0])
        finally:
            for future in waiting:
                future.result()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self._pool, self._size = None, 0

    def __del__(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def __reduce__(self) -> tuple:
        return Workers, ()  # threads are neither copied nor pickled
