"""The compiled loops of inference, where they can be had."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpa2calc.kernels.threads import has_numba


class Loops(NamedTuple):
    """One call for each block: pair_loops.py, neighbor_loops.py, embedding_loops.py; and what all are given.

    product: where PyTorch's matrix product is in memory. terms: of the exponential.
    """

    mix: Callable[..., None]
    mix_backward: Callable[..., None]
    sums: Callable[..., None]
    gradients: Callable[..., None]
    moments: Callable[..., None]
    moments_backward: Callable[..., None]
    product: int
    terms: tuple[np.floating, ...]


def loops(like: Tensor) -> Loops | None:
    """For tensors of this kind, where Numba is at hand and PyTorch exports its matrix product."""
    return _made(like.dtype) if like.is_cpu and has_numba() else None


@functools.cache
def _made(dtype: torch.dtype) -> Loops | None:
    from dpa2calc.kernels.blas import gemm_address

    from .embedding_loops import moments, moments_backward
    from .neighbor_loops import gradients, sums
    from .pair_loops import mix, mix_backward
    from .softmax_loops import exponential_terms

    address = gemm_address(dtype)
    terms = exponential_terms(torch.empty(0, dtype=dtype).numpy().dtype)
    if not address:
        return None
    return Loops(mix, mix_backward, sums, gradients, moments, moments_backward, address, terms)
