"""Everything a run needs to go on as if it had never stopped, in one safetensors file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dpa2calc.errors import CheckpointError

STATE_VERSION = 1


def write_tensors(path: str | os.PathLike[str], tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and a JSON header to a temporary file, flush it to disk and rename it."""
    target = Path(path)
    temporary = target.with_name(target.name + ".part")
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with open(temporary, "wb") as handle:
        handle.write(save(plain, metadata={"json": json.dumps(metadata)}))
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, target)


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        CheckpointError: the file is missing, truncated or of another kind.
    """
    try:
        with safe_open(str(path), framework="pt") as handle:
            metadata = json.loads((handle.metadata() or {})["json"])
            return {name: handle.get_tensor(name) for name in handle.keys()}, metadata
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is not a training state of dpa2calc, or is damaged: {error}"
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[int, str]) -> dict[str, Tensor]:
    """Adam's tensors by `optimizer.<quantity>.<parameter>`; `names` maps id(parameter) to its name."""
    out = {}
    for parameter, state in optimizer.state.items():
        for quantity, value in state.items():
            out[f"optimizer.{quantity}.{names[id(parameter)]}"] = torch.as_tensor(value).clone()
    return out


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, named: dict[str, torch.nn.Parameter], tensors: dict[str, Tensor]
) -> None:
    """Put Adam's tensors back; parameters without an entry start afresh."""
    optimizer.state.clear()
    for name, parameter in named.items():
        state = {}
        for quantity in ("step", "exp_avg", "exp_avg_sq"):
            value = tensors.get(f"optimizer.{quantity}.{name}")
            if value is not None:
                state[quantity] = value.to(parameter.device) if quantity != "step" else value
        if state:
            optimizer.state[parameter] = state
