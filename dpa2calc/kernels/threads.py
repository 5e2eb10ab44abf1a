"""A few threads for compiled kernels and single-threaded matrix products, as many as PyTorch uses."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from dpa2calc.ambient import threads_of_caller, torch_function

Item = TypeVar("Item")


@functools.cache
def has_numba() -> bool:
    """Whether compiled kernels are at hand."""
    return importlib.util.find_spec("numba") is not None


class Workers:
    """Threads that each do whole pieces of work, inside which PyTorch runs on that thread alone.

    So nothing waits for the slowest thread between the steps of a piece, and OpenMP's threads, which
    keep a core busy for a while after every parallel operation, are never woken. The threads are made at
    first use, once for each number of threads that PyTorch is given. With one thread nothing is started,
    and the caller does the work. Several threads of the caller may share one `Workers`.
    """

    def __init__(self) -> None:
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._lock, self._process = threading.Lock(), os.getpid()

    @property
    def count(self) -> int:
        """Number of threads: that of PyTorch in the caller's thread, outside `own_threads_only`."""
        return threads_of_caller()

    def parts(self, total: int, *, least: int = 1) -> list[tuple[int, int]]:
        """Cut 0..total into at most `count` ranges of at least `least`."""
        n = max(1, min(self.count, total // max(1, least)))
        bounds = [total * k // n for k in range(n + 1)]
        return list(zip(bounds, bounds[1:]))

    def split(self, work: Callable[[int, int], None], total: int, *, least: int = 1) -> None:
        """work(first, last) for the parts of 0..total, at the same time."""
        self.run(work, self.parts(total, least=least))

    def run(self, work: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
        """work(*a) for each of `arguments`, at most `count` of them, at the same time; raises its errors."""
        if len(arguments) == 1:
            work(*arguments[0])
            return
        pool = self._threads()
        waiting = [pool.submit(work, *a) for a in arguments]
        errors = [future.exception() for future in waiting]  # waits for all of them
        for error in errors:
            if error is not None:
                raise error

    def share(self, work: Callable[[int, Sequence[Item]], None], items: Sequence[Item]) -> None:
        """work(part, some items) in every thread: always the same ones, so that sums by thread are too."""
        n = min(self.count, len(items))
        self.run(work, [(part, items[part::n]) for part in range(n)])

    def _threads(self) -> ThreadPoolExecutor:
        count = self.count
        with self._lock:
            if self._process != os.getpid():  # after a fork the threads are the parent's
                self._pools, self._process = {}, os.getpid()
            if count not in self._pools:
                self._pools[count] = _alone_in_torch(count)
            return self._pools[count]

    def close(self) -> None:
        """End the threads."""
        for pool in self._pools.values():
            pool.shutdown(wait=True)
        self._pools = {}

    def __del__(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Workers, ()  # threads are neither copied nor pickled


def _alone_in_torch(count: int) -> ThreadPoolExecutor:
    """`count` threads that each use one thread of PyTorch; the caller's numbers stay what they are."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="dpa2calc")
    asked, ready = threading.Barrier(count), threading.Barrier(count)

    def begin() -> int:
        # A thread takes over the number last given anywhere when it first asks for it: before that, a
        # number set here would be lost.
        usual = torch.get_num_threads()
        asked.wait()
        torch.set_num_threads(1)
        alone = torch_function("MKL_Set_Num_Threads_Local")
        if alone is not None:  # PyTorch tells MKL one number for the whole process
            alone(1)
        ready.wait()
        return usual

    with _BEGINNING:
        _keep_freed_memory()
        waiting = [pool.submit(begin) for _ in range(count)]
        usual = max(future.result() for future in waiting)
        # Threads yet to come get the number that they would have got: it is given in a passing thread,
        # so that the caller's own stays.
        passing = threading.Thread(target=torch.set_num_threads, args=(usual,))
        passing.start()
        passing.join()
    return pool


def _keep_freed_memory() -> None:
    """Let GNU's allocator keep up to 64 MB that a thread has freed, instead of giving each block back.

    A block's arrays are freed at its end. Threads other than the main one then return the memory to the
    system, which clears every page again for the next block: up to half of the time of a small system.
    glibc takes the same two values by itself once a process has freed an array of 32 MB. Nothing is done
    where the user has set them, nor with another allocator.
    """
    set_by_user = os.environ.get("GLIBC_TUNABLES") or any(key.startswith("MALLOC_") for key in os.environ)
    if sys.platform != "linux" or set_by_user:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_BEGINNING = threading.Lock()  # two pools that begin at once would take each other's 1 for the usual number
WORKERS = Workers()  # of the kernels of the models
