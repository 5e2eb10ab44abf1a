"""The arrays and options of a frozen `.pth` file, read without TorchScript and without running any code.

A `.pth` is a zip with a pickle (`data.pkl`) of the module's attributes, the arrays' bytes (`data/N`), and
the module's code, which is never looked at. The pickle is read by an unpickler that knows eight harmless
names: those that build tensors, lists and dictionaries. Each `__torch__...` class becomes a bag of
attributes; every other name is refused.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpa2calc.errors import CheckpointError

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Bag:
    """Attributes of one pickled module."""


def read_torchscript(content: io.BytesIO, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Options (`model_def_script`) and arrays by state-dict name of a frozen model.

    Raises:
        CheckpointError: damaged, foreign, or asking for anything but tensors.
    """
    with zipfile.ZipFile(content) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).split("/")[0]
        # Anything can go wrong in a damaged or hostile stream; all of it means the same to the caller.
        try:
            module = _unpickler(archive, root).load()
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except Exception as error:
            raise CheckpointError(f"{path} is damaged: {error!r}") from error
    script = getattr(module, "model_def_script", None)
    if not isinstance(script, str) or not script:
        raise CheckpointError(f"{path} is a TorchScript file, but no deepmd-kit model (no model_def_script)")
    try:
        return json.loads(script), dict(_tensors(module, ""))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is damaged: model_def_script is no JSON ({error})") from error


def _tensors(bag: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(bag).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, Bag):
            yield from _tensors(value, f"{prefix}{name}.")


def _unpickler(archive: zipfile.ZipFile, root: str) -> pickle.Unpickler:
    """An unpickler whose classes and functions belong to this one file only."""

    class OwnBag(Bag):
        pass

    storages: dict[str, Tensor] = {}

    def storage(key: str, dtype: torch.dtype) -> Tensor:
        if key not in storages:
            data = archive.read(f"{root}/data/{key}")
            empty = torch.empty(0, dtype=dtype)
            storages[key] = torch.frombuffer(bytearray(data), dtype=dtype) if data else empty
        return storages[key]

    def rebuild(flat: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
        size, stride = tuple(size), tuple(stride)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride))
        if 0 not in size and not 0 <= last < flat.numel():
            raise CheckpointError("an array reaches beyond its data")
        return flat.as_strided(size, stride, offset).clone() if 0 not in size else flat.new_empty(size)

    def same(value: Any, *_: Any) -> Any:
        return value

    allowed: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild,
        ("torch.jit._pickle", "restore_type_tag"): same,
        ("torch.jit._pickle", "build_intlist"): same,
        ("torch.jit._pickle", "build_doublelist"): same,
        ("torch.jit._pickle", "build_boollist"): same,
        ("torch.jit._pickle", "build_tensorlist"): same,
    } | {("torch", name): dtype for name, dtype in _STORAGES.items()}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module == "__torch__" or module.startswith("__torch__."):
                return OwnBag
            if (module, name) not in allowed:
                raise CheckpointError(
                    f"the file asks for {module}.{name}, which is not needed to build tensors; refused"
                )
            return allowed[module, name]

        def persistent_load(self, pid: Any) -> Tensor:
            _, dtype, key, *_ = pid
            if not isinstance(dtype, torch.dtype):
                raise CheckpointError(f"unknown kind of storage {dtype!r}")
            return storage(str(key), dtype)

    return Unpickler(io.BytesIO(archive.read(f"{root}/data.pkl")))
