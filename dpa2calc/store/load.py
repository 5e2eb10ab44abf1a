"""One door for every model file: this package's own and deepmd-kit's, told apart by content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from dpa2calc.ambient import own_modes
from dpa2calc.errors import CheckpointError, ConfigError
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import checkpoint_info, is_checkpoint, load_checkpoint, one_head
from dpa2calc.validation import check_dtype

_SUFFIXES = (".safetensors", ".pt", ".pth", ".dp", ".yaml", ".yml")


@own_modes()
def load_model(
    path_or_name: str | Path = "default", head: str | None = None, *, dtype: torch.dtype | None = None
) -> Potential:
    """A potential with all its heads or with one, on the CPU.

    Args:
        path_or_name: path of a `.safetensors` file of this package or of a deepmd-kit `.pt`, `.pth`, `.dp`
            or `.yaml`, or a name that the registry knows ("default" is inside the package).
        head: keep only this head (its name or an alias). A deepmd-kit file whose branches do not share
            their descriptor can only be read one branch at a time.
        dtype: precision of the networks; None takes the file's.

    Raises:
        ConfigError: an argument of another type.
        CheckpointError: missing, truncated, foreign or unsupported file.
        HeadError: no such head.
        DownloadError: a published model that could not be fetched.

    Example:
        >>> potential = load_model("default")
    """
    dtype = None if dtype is None else check_dtype(dtype)
    path = _file(path_or_name)
    if is_checkpoint(path):
        potential = load_checkpoint(path, dtype=dtype)
        return potential if head is None else one_head(potential, head)
    # Imported here: HDF5 and YAML are not needed for our own files.
    from dpa2calc.deepmd.read import read_deepmd

    return read_deepmd(path, head, dtype=dtype)


def extra_facts(path_or_name: str | Path) -> dict[str, Any]:
    """What the maker of a file of this package said beside the model (`save_checkpoint`'s `extra_info`).

    Raises:
        CheckpointError, ConfigError, DownloadError: as `load_model`.
    """
    path = _file(path_or_name)
    return checkpoint_info(path).extra if is_checkpoint(path) else {}


def _file(path_or_name: str | Path) -> Path:
    if not isinstance(path_or_name, (str, os.PathLike)):
        raise ConfigError(
            f"model = {path_or_name!r} of type {type(path_or_name).__name__} is not allowed; allowed: the "
            "name of a model, or the path of a file"
        )
    path = Path(path_or_name)
    # Imported only for names: the registry brings the downloader with it.
    if not (path.suffix in _SUFFIXES and os.path.isfile(path)):
        from dpa2calc.store.registry import resolve_model

        path = resolve_model(path_or_name)
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; fetch it again")
    return path
