"""Files of this package changed by hand, as the tests of damaged and of older ones need them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def rewrite_arrays(path: Path, change: Callable[[Any, dict[str, Any]], object]) -> None:
    """Change the header and the arrays of an .npz file in place."""
    with np.load(path) as stored:
        arrays = dict(stored)
    header = json.loads(str(arrays.pop("__json__", "null")))
    change(header, arrays)
    np.savez(path, **{"__json__": np.array(json.dumps(header)), **arrays})


def rewrite_checkpoint(path: Path, change: Callable[[Any, dict[str, Any]], object]) -> None:
    """Change the header and the tensors of a checkpoint in place."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["dpa2calc"])
    tensors = load_file(path)
    change(header, tensors)
    save_file(tensors, path, metadata={"dpa2calc": json.dumps(header)})
