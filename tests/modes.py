"""What a caller may have switched on around a call; none of it may change a number."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch


@contextlib.contextmanager
def _set(switch: Callable[..., object], on: object, off: object) -> Iterator[None]:
    switch(on)
    try:
        yield
    finally:
        switch(off)


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """All warnings are errors, but the remark on relaxations that are kept short on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*not converged")
        yield


MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float16": lambda: _set(torch.set_default_dtype, torch.float16, torch.get_default_dtype()),
    "float64": lambda: _set(torch.set_default_dtype, torch.float64, torch.get_default_dtype()),
    "meta": lambda: torch.device("meta"),
    "default_device": lambda: _set(torch.set_default_device, "meta", None),
    "deterministic": lambda: _set(torch.use_deterministic_algorithms, True, False),
    "warnings": _strict,
    "errstate": lambda: np.errstate(all="raise"),
}
