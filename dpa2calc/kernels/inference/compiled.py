"""The compiled loops of inference, where they can be had."""

from __future__ import annotations

import ctypes
import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpa2calc.ambient import torch_function
from dpa2calc.kernels.native import Native, Ready
from dpa2calc.kernels.threads import has_numba

_PRODUCTS = {torch.float32: "sgemm_", torch.float64: "dgemm_"}


class Loops(NamedTuple):
    """What all compiled loops are given.

    product: where PyTorch's matrix product is in memory. terms: of the exponential.
    """

    product: int
    terms: Ready


MIX, MIX_BACKWARD = (Native("inference.pair_loops", name) for name in ("mix", "mix_backward"))
SUMS, GRADIENTS = (Native("inference.neighbor_loops", name) for name in ("sums", "gradients"))
MOMENTS, MOMENTS_BACKWARD = (
    Native("inference.embedding_loops", name) for name in ("moments", "moments_backward")
)


def loops(like: Tensor) -> Loops | None:
    """For tensors of this kind, where Numba is at hand and PyTorch exports its matrix product."""
    return _made(like.dtype) if like.is_cpu and has_numba() else None


@functools.cache
def _made(dtype: torch.dtype) -> Loops | None:
    found = torch_function(_PRODUCTS[dtype])
    if found is None:
        return None
    address = ctypes.cast(found, ctypes.c_void_p).value or 0  # type: ignore[arg-type]
    return Loops(address, Ready(exponential_terms(torch.empty(0, dtype=dtype).numpy().dtype)))


def exponential_terms(dtype: np.dtype[np.floating]) -> tuple[np.floating, ...]:
    """What `softmax_loops.exponentials` needs: smallest argument, 1 / ln 2, what rounds a sum, ln 2 in
    two parts, and 1 / k! as far as it counts."""
    single = dtype == np.float32
    high = 355.0 / 512.0 if single else float.fromhex("0x1.62e42fee00000p-1")
    low = math.log(2.0) - high if single else float.fromhex("0x1.a39ef35793c76p-33")
    given = (-87.0 if single else -708.0, 1.0 / math.log(2.0), 1.5 * 2.0 ** (23 if single else 52), high, low)
    series = (1.0 / math.factorial(k) for k in range(8 if single else 14))
    return tuple(dtype.type(x) for x in (*given, *series))
