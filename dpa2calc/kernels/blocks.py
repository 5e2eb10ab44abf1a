"""Work of the inference kernels, block of atoms by block, on the package's own threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from dpa2calc.kernels.threads import WORKERS

_DEVICE_BYTES = 256_000_000  # of one array of a block where the caches of CPU cores do not matter
_KEEP_BYTES = 64_000_000


Rows = TypeVar("Rows")  # what a block is: a slice of rows, or atoms and where their pairs are


def count_of(atoms: Tensor | slice) -> int:
    """How many atoms they are."""
    return atoms.stop - atoms.start if isinstance(atoms, slice) else len(atoms)


def of_atoms(values: Tensor, atoms: Tensor | slice) -> Tensor:
    """The rows (b, ...) of some atoms; of a range a view."""
    return values[atoms] if isinstance(atoms, slice) else values.index_select(0, atoms)


def to_atoms(values: Tensor, atoms: Tensor | slice, rows: Tensor) -> None:
    """Write the rows (b, ...) of some atoms."""
    if isinstance(atoms, slice):
        values[atoms].copy_(rows)
    else:
        values.index_copy_(0, atoms, rows)


def add_to_atoms(values: Tensor, atoms: Tensor | slice, rows: Tensor) -> None:
    """Add to the rows of some atoms, each of which is there once."""
    if isinstance(atoms, slice):
        values[atoms].add_(rows)
    else:
        values.index_add_(0, atoms, rows)


class Cut(NamedTuple):
    """Atoms whose last neighbour stands in about the same column of the table.

    atoms: (b,), or on a device that is not a CPU a range. width: columns up to the last one used.
    """

    atoms: Tensor | slice
    width: int

    def take(self, table: Tensor) -> Tensor:
        """(n, k, ...) -> (b, width, ...), contiguous."""
        return of_atoms(table[:, : self.width], self.atoms).contiguous()

    def put(self, table: Tensor, values: Tensor) -> None:
        """Write (b, width, ...) into (n, k, ...)."""
        to_atoms(table[:, : self.width], self.atoms, values)


@dataclass(frozen=True)
class Blocks(Generic[Rows]):
    """Rows (atoms) in blocks of nearly equal cost, shared by `parts` threads.

    All operations of a block run on one thread, whose cache holds the block, and no thread waits for
    another before the end: waking OpenMP's threads for every operation costs as much as a small operation,
    and on cores that others use, many times more.
    """

    rows: tuple[Rows, ...]
    parts: int

    def each(self, work: Callable[[int, Rows, int], None]) -> None:
        """work(number of the block, its rows, number of the thread below `parts`) for all blocks.

        A block always goes to the same thread, so that sums by thread are always the same.
        """

        def some(part: int) -> None:
            with torch.no_grad():  # a new thread records
                for number in range(part, len(self.rows), self.parts):
                    work(number, self.rows[number], part)

        WORKERS.run(some, [(part,) for part in range(self.parts)])


def consecutive(n: int, like: Tensor, numbers: int, cache_bytes: int) -> Blocks[slice]:
    """Blocks of n rows whose widest array, of so many `numbers` for one row, takes about `cache_bytes`.

    `like`: a tensor of the same type, on the same device.
    """
    length, parts = _room(like, cache_bytes) // numbers, _parts(like)
    count = min(n, _rounded(-(-n // max(1, length)), parts))
    rows = tuple(slice(n * k // count, n * (k + 1) // count) for k in range(count))
    return Blocks(rows, max(1, min(parts, count)))


def by_width(
    used: Tensor, like: Tensor, numbers: Callable[[Tensor], Tensor], cache_bytes: int
) -> Blocks[Cut]:
    """Blocks of atoms with similar numbers of neighbours, so that little work is done on padding.

    On a GPU they are ranges of atoms with all columns where one block is enough, as the CPU would have to
    wait for the widths, and while a step is recorded, which could not follow them.

    Args:
        used: (n, k) bool, which slots of the table hold something.
        numbers: of the widest array for one atom, from the widths (n,), float64.
    """
    n, k = used.shape
    if not n:
        return Blocks((), 1)
    if not used.is_cpu:
        of_atom = int(numbers(torch.tensor([float(k)], dtype=torch.float64, device="cpu")))
        blocks = consecutive(n, like, max(1, of_atom), cache_bytes)
        if len(blocks.rows) == 1 or torch.cuda.is_current_stream_capturing():
            return Blocks(tuple(Cut(rows, k) for rows in blocks.rows), 1)
    columns = torch.arange(1, k + 1, device=used.device)
    last = (used * columns).amax(dim=1).clamp_(min=1)
    widths, order = torch.sort(last.cpu(), stable=True)
    costs, parts = numbers(widths.double()).cumsum(0), _parts(like)
    count = min(n, _rounded(math.ceil(float(costs[-1]) / _room(like, cache_bytes)), parts))
    shares = torch.arange(1, count, dtype=torch.float64, device="cpu") * (costs[-1] / count)
    bounds = [0, *(torch.searchsorted(costs, shares) + 1).tolist(), n]
    order = order.to(used.device)
    cuts = tuple(Cut(order[a:b], int(widths[b - 1])) for a, b in zip(bounds, bounds[1:]) if b > a)
    return Blocks(cuts, min(parts, len(cuts)))


def kept_for_backward(like: Tensor, numbers: int) -> bool:
    """Whether an array of so many numbers is kept, not made again: on a GPU, where launches cost more."""
    return not like.is_cpu and numbers * like.element_size() <= _KEEP_BYTES


def _parts(like: Tensor) -> int:
    return WORKERS.count if like.is_cpu else 1


def _room(like: Tensor, cache_bytes: int) -> int:
    """Numbers of the widest array of a block.

    Elsewhere than on a CPU each operation of a block costs a launch, and blocks are as long as memory
    allows. Between two operations a thread holds Python's lock: with longer blocks several get along better.
    """
    room = cache_bytes * min(WORKERS.count, 2) if like.is_cpu else _DEVICE_BYTES
    return room // like.element_size()


def _rounded(count: int, parts: int) -> int:
    """So many blocks that every thread takes as many."""
    return -(-count // parts) * parts


def total(parts: Tensor) -> Tensor:
    """Sum over the first axis: what the threads added up."""
    return parts[0] if len(parts) == 1 else parts.sum(dim=0)
