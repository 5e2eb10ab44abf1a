"""Everything a run needs to go on as if it had never stopped, in one safetensors file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dpa2calc.errors import CheckpointError

STATE_VERSION = 2


def write_tensors(path: str | os.PathLike[str], tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and a JSON header to a temporary file, flush it to disk and rename it."""
    target = Path(path)
    temporary = target.with_name(target.name + ".part")
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
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
