"""Work of the inference kernels, block of atoms by block, on the package's own threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dpa2calc.kernels.threads import WORKERS

_DEVICE_BYTES = 256_000_000  # of one array of a block where the caches of CPU cores do not matter


@dataclass(frozen=True)
class Blocks:
    """Consecutive rows (atoms) in blocks of nearly equal length, shared by `parts` threads.

    All operations of a block run on one thread, whose cache holds the block, and no thread waits for
    another before the end: waking OpenMP's threads for every operation costs as much as a small operation,
    and on cores that others use, many times more.
    """

    rows: tuple[slice, ...]
    parts: int

    @classmethod
    def of(cls, n: int, like: Tensor, numbers: int, cache_bytes: int) -> Blocks:
        """Blocks of n rows whose widest array takes about `cache_bytes`.

        Elsewhere than on a CPU each operation of a block costs a launch, and blocks are as long as memory
        allows.

        Args:
            like: a tensor of the same type, on the same device. numbers: of the widest array, for one row.
        """
        on_cpu = like.device.type == "cpu"
        parts = WORKERS.count if on_cpu else 1
        # Between two operations a thread holds Python's lock: with longer blocks several get along better.
        room = cache_bytes * min(parts, 2) if on_cpu else _DEVICE_BYTES
        length = max(1, room // (numbers * like.element_size()))
        rounds = -(-n // (length * parts))  # every thread takes so many blocks
        count = min(n, rounds * parts)
        rows = tuple(slice(n * k // count, n * (k + 1) // count) for k in range(count))
        return cls(rows, max(1, min(parts, len(rows))))

    def each(self, work: Callable[[int, slice, int], None]) -> None:
        """work(number of the block, its rows, number of the thread below `parts`) for all blocks.

        A block always goes to the same thread, so that sums by thread are always the same.
        """

        def some(part: int) -> None:
            with torch.no_grad():  # a new thread records
                for number in range(part, len(self.rows), self.parts):
                    work(number, self.rows[number], part)

        WORKERS.run(some, [(part,) for part in range(self.parts)])


def total(parts: Tensor) -> Tensor:
    """Sum over the first axis: what the threads added up."""
    return parts[0] if len(parts) == 1 else parts.sum(dim=0)
