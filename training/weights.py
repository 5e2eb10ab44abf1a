"""Writing a trained potential to a file and reading it back."""

from __future__ import annotations

import os
from typing import Any

import torch

from dpa2calc.model.config import ModelConfig, from_dict, to_dict
from dpa2calc.model.potential import Potential

from .state import read_tensors, write_tensors


def save_potential(potential: Potential, path: str | os.PathLike[str], **extra: Any) -> None:
    """Write configuration and weights; `extra` goes into the header (JSON-able)."""
    dtype = str(potential.dtype).removeprefix("torch.")
    write_tensors(
        path, potential.state_dict(), {"config": to_dict(potential.config), "dtype": dtype, **extra}
    )


def load_potential(path: str | os.PathLike[str]) -> Potential:
    """Read what `save_potential` wrote.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    tensors, header = read_tensors(path)
    potential = Potential(from_dict(ModelConfig, header["config"]), dtype=getattr(torch, header["dtype"]))
    potential.load_state_dict(tensors)
    return potential
