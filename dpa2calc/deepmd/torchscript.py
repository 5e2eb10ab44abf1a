"""The arrays and options of a frozen `.pth` file, read without TorchScript and without running any code."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dpa2calc.errors import CheckpointError
from dpa2calc.files.limits import parse_json

from .torch_pickle import Bag, TorchZip

# Modules within modules; deepmd-kit's have about ten.
_DEPTH = 100


def read_torchscript(source: TorchZip) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Options (`model_def_script`) and arrays by state-dict name of a frozen model.

    Raises:
        CheckpointError: damaged, foreign, or asking for anything but tensors.
    """
    module, size = source.load()
    script = getattr(module, "model_def_script", None)
    if not isinstance(script, str) or not script:
        raise CheckpointError(
            f"{source.path} is a TorchScript file, but no deepmd-kit model (no model_def_script); models of "
            "other programs can only be used with those"
        )
    arrays: dict[str, Tensor] = {}
    visits = 0

    def collect(bag: Bag, prefix: str, depth: int) -> None:
        nonlocal visits
        visits += 1
        # a hostile file can hang one module into many places, so that the names multiply
        if depth > _DEPTH or visits + len(arrays) > size:
            raise CheckpointError(f"{source.path} is damaged: its modules contain themselves or one another")
        for name, value in vars(bag).items():
            if isinstance(value, Tensor):
                arrays[prefix + name] = value
            elif isinstance(value, Bag):
                collect(value, f"{prefix}{name}.", depth + 1)

    collect(module, "", 0)
    return parse_json(script, f"model_def_script of {source.path}"), arrays
