"""Embedding nets as tables: how they are made, and the compiled loops that look them up."""

from __future__ import annotations

import importlib.util

import torch

from dpa2calc.errors import ConfigError, MissingDependencyError

# What compiles the kernels on each kind of device, and where to get it.
_COMPILERS = {
    "cpu": ("numba", "pip install 'dpa2calc[compress]' (or numba)"),
    "cuda": ("triton", "pip install triton (on Linux it comes with torch)"),
}


def why_no_kernels(device: torch.device | str = "cpu") -> str | None:
    """The reason why tables cannot be evaluated on a device, or None if they can."""
    kind = torch.device(device).type
    if kind not in _COMPILERS:
        return f"tables can be looked up on CPU and CUDA devices, and device is {str(device)!r}"
    package, advice = _COMPILERS[kind]
    if importlib.util.find_spec(package) is None:
        return f"compressed models need {package.capitalize()} here: {advice}"
    return None


def require_kernels(device: torch.device | str = "cpu") -> None:
    """Raise unless tables can be evaluated on a device.

    Raises:
        ConfigError: never on such a device. MissingDependencyError: a package is missing.
    """
    reason = why_no_kernels(device)
    if reason is not None:
        error = MissingDependencyError if torch.device(device).type in _COMPILERS else ConfigError
        raise error(f"{reason}; compress=False evaluates the same model without tables, several times slower")
