"""What a caller has switched on around a call must not change its numbers.

PyTorch and NumPy keep modes for each thread that reach into everything called inside them: inference mode
(no gradients, so no forces), autocast (half precision), a default device, errors at underflow. Every
public entry that computes is decorated with `own_modes`, once; nothing inside has to think of them.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class _Process:
    """The process that computes: one that was forked has no threads of OpenMP, but waits for its parent's."""

    def __init__(self) -> None:
        self.number = os.getpid()

    def one_thread_after_a_fork(self) -> None:
        """Let PyTorch use one thread in a forked process, once; a parallel operation would never end there.

        `multiprocessing` and `ProcessPoolExecutor` fork by default on Linux before Python 3.14.
        """
        if os.getpid() != self.number:
            self.number = os.getpid()
            torch.set_num_threads(1)


_OWN = _Process()


@contextmanager
def own_modes(*, grad: bool = True) -> Iterator[None]:
    """Computes as in a fresh thread; the caller's modes are back afterwards. Also a decorator.

    The default dtype and the number of threads hold for the whole process, which other threads share: they
    are left alone, and no code here depends on them. Deterministic algorithms stay as the caller wants.

    Args:
        grad: derivatives are recorded even under `torch.no_grad`. False leaves that to the caller.
    """
    _OWN.one_thread_after_a_fork()
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if grad and not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda", "mps"):
            # older versions of PyTorch refuse to be asked about MPS where there is none
            if (kind != "mps" or torch.backends.mps.is_available()) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(np.errstate(divide="warn", over="warn", invalid="warn", under="ignore"))
        yield


def differentiable(values: Tensor) -> Tensor:
    """A copy cut off from what made the values, with respect to which can be differentiated."""
    return values.detach().requires_grad_()


def gradient(total: Tensor, values: Tensor, *, retain_graph: bool, create_graph: bool = False) -> Tensor:
    """d total / d values; zero where nothing depends on them (atoms without neighbours).

    Raises:
        RuntimeError: derivatives are switched off, so that it cannot be told.
    """
    if not torch.is_grad_enabled():
        raise RuntimeError("forces asked for where gradients are switched off; call Potential.compute")
    if not total.requires_grad:
        return torch.zeros_like(values)
    return torch.autograd.grad(
        total,
        values,
        retain_graph=retain_graph,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )[0]


def has_float64(device: torch.device) -> bool:
    """Whether a device has double precision; MPS has not."""
    return device.type != "mps"


@functools.cache
def torch_function(name: str) -> Callable[[int], int] | None:
    """A C function that PyTorch's shared library exports, or None."""
    for file in sorted((Path(torch.__file__).parent / "lib").glob("*torch_cpu*")):
        try:
            return getattr(ctypes.CDLL(str(file)), name, None)
        except OSError:
            continue
    return None


_SMALL = 512  # atoms
_HERE = threading.local()


@contextmanager
def own_threads_only(n_atoms: int) -> Iterator[None]:
    """For a small system: inside, operations of PyTorch use one thread, and `Workers` as many as before.

    A parallel operation of PyTorch wakes all threads of OpenMP, which then spin for a while. On a machine
    with other work they wait for each other's time slices, and a small system takes many times as long. What
    of a step is not done by `Workers` is worth threads in large systems only (15 % at 1500 atoms on two).
    Both numbers that are set here are the calling thread's own.
    """
    usual = torch.get_num_threads()
    one, alone = torch_function("omp_set_num_threads"), torch_function("MKL_Set_Num_Threads_Local")
    if n_atoms > _SMALL or usual == 1 or one is None:
        yield
        return
    before, _HERE.count = getattr(_HERE, "count", None), getattr(_HERE, "count", None) or usual
    mkl = alone(1) if alone is not None else 0
    one(1)
    try:
        yield
    finally:
        one(usual)
        if alone is not None:
            alone(mkl)
        _HERE.count = before


def threads_of_caller() -> int:
    """Number of threads of PyTorch in this thread, outside `own_threads_only`."""
    return getattr(_HERE, "count", None) or torch.get_num_threads()
