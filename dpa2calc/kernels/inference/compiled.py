"""What compiled loops are given, and how they are run, where they can be had."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpa2calc.ambient import torch_function
from dpa2calc.kernels.native import Given, Native, Ready
from dpa2calc.kernels.threads import WORKERS, has_numba

if TYPE_CHECKING:
    from dpa2calc.kernels.blas import Floats

_PRODUCTS = {torch.float32: "sgemm_", torch.float64: "dgemm_"}


class Tools(NamedTuple):
    """What all compiled loops are given.

    product: where PyTorch's matrix product is in memory. terms: of the exponential.
    """

    product: int
    terms: tuple[np.floating, ...]


class Layers(NamedTuple):
    """An embedding net as compiled loops take it: slope and table are the first layer, see `ScalarNet`."""

    slope: Floats
    table: Floats
    matrices: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    skips: tuple[int, ...]

    @staticmethod
    def of(weights: Sequence[Tensor], skips: tuple[int, ...]) -> Layers:
        """From what a `ScalarNet` calls by the same names."""
        slope, table, *later = (w.detach().contiguous().numpy() for w in weights)
        return Layers(slope, table, tuple(later[::2]), tuple(later[1::2]), skips)


def has_loops(like: Tensor) -> bool:
    """Whether compiled loops take such tensors: Numba is at hand and PyTorch exports its matrix product."""
    return like.is_cpu and has_numba() and tools_of(like.dtype) is not None


def run(
    kernel: Native,
    parts: int,
    like: Tensor,
    *given: Given,
    own: Callable[[int], tuple[Given, ...]] | None = None,
) -> None:
    """A kernel in `parts` threads for tensors like this one; own(part): what each is given in the end."""
    tools = tools_of(like.dtype)
    assert tools is not None
    shared = tuple(map(Ready, given))

    def work(part: int) -> None:
        kernel(tools, part, parts, *shared, *(own(part) if own is not None else ()))

    WORKERS.run(work, [(part,) for part in range(parts)])


@functools.cache
def tools_of(dtype: torch.dtype) -> Ready | None:
    """`Tools` for numbers of this kind; None where PyTorch does not export its matrix product."""
    found = torch_function(_PRODUCTS[dtype])
    if found is None:
        return None
    address = ctypes.cast(found, ctypes.c_void_p).value or 0  # type: ignore[arg-type]
    return Ready(Tools(address, exponential_terms(torch.empty(0, dtype=dtype).numpy().dtype)))


def exponential_terms(dtype: np.dtype[np.floating]) -> tuple[np.floating, ...]:
    """What `softmax_loops.exponentials` needs: smallest argument, 1 / ln 2, what rounds a sum, ln 2 in
    two parts, and 1 / k! as far as it counts."""
    single = dtype == np.float32
    high = 355.0 / 512.0 if single else float.fromhex("0x1.62e42fee00000p-1")
    low = math.log(2.0) - high if single else float.fromhex("0x1.a39ef35793c76p-33")
    given = (-87.0 if single else -708.0, 1.0 / math.log(2.0), 1.5 * 2.0 ** (23 if single else 52), high, low)
    series = (1.0 / math.factorial(k) for k in range(8 if single else 14))
    return tuple(dtype.type(x) for x in (*given, *series))
