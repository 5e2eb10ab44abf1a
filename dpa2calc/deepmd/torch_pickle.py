"""Tensors and plain values of a torch zip (`.pt`, `.pth`), read without running anything that it names.

Such a zip has a pickle (`data.pkl`) and the arrays' bytes (`data/N`). The unpickler knows a few harmless
names, those that build tensors, lists and dictionaries; every other name is refused. What an array claims to
be is held against the bytes that are there.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from dpa2calc.errors import CheckpointError
from dpa2calc.files.limits import check_zip, parse_json

from .branch import Tree

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
_PICKLE = "/data.pkl"
# Modules within modules; deepmd-kit's have about ten.
_DEPTH = 100
# Of a model bridged to a pair table.
_MADE_WITH = ("smin_alpha", "sw_rmin", "sw_rmax")
# An array may repeat its numbers (stride 0), but not to more than so many.
_MOST_REPEATED = 1 << 20


class Bag:
    """Attributes of one pickled module."""


class TorchZip:
    """The members of a torch zip.

    Raises:
        CheckpointError: no zip, not torch's, or its members unpack to far more than the file has bytes.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.path = path
        size = file.seek(0, io.SEEK_END)
        try:
            self.archive = zipfile.ZipFile(file)
            self.names = set(self.archive.namelist())
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise CheckpointError(f"{path} is truncated or damaged: {error}") from error
        check_zip(self.archive, size, str(path))
        pickles = sorted((name for name in self.names if name.endswith(_PICKLE)), key=len)
        self.root = pickles[0].removesuffix(_PICKLE) if pickles else ""

    @property
    def is_script(self) -> bool:
        """Whether it is TorchScript: a frozen model."""
        return f"{self.root}/constants.pkl" in self.names

    def load(self) -> tuple[object, int]:
        """What was pickled, and the number of its bytes; modules of a TorchScript file as a `Bag` each.

        Raises:
            CheckpointError: damaged, or asking for anything but tensors and plain values.
        """
        # Anything can go wrong in a damaged or hostile stream; all of it means the same to the caller.
        try:
            data = self.archive.read(self.root + _PICKLE)
            return _unpickler(self, data).load(), len(data)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path} cannot be read as plain weights: {error}") from None
        except Exception as error:
            raise CheckpointError(
                f"{self.path} is damaged, it cannot be read as plain weights: {error!r}"
            ) from error

    def member(self, name: str) -> bytes:
        """The bytes of one member.

        Raises:
            CheckpointError: damaged, or packed in a way that is not known.
        """
        try:
            return self.archive.read(name)
        except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError) as error:
            raise CheckpointError(f"{self.path} is truncated or damaged: {error}") from error

    def storage(self, key: str, dtype: torch.dtype, numel: int) -> Tensor:
        """The numbers of one storage, (numel,)."""
        data = self.archive.read(f"{self.root}/data/{key}")
        if not 0 <= numel * dtype.itemsize <= len(data):
            raise CheckpointError(f"a storage of {numel} numbers has {len(data)} bytes only")
        if numel == 0:
            return torch.empty(0, dtype=dtype)
        flat = torch.frombuffer(bytearray(data), dtype=dtype, count=numel)
        if f"{self.root}/byteorder" in self.names and self.archive.read(f"{self.root}/byteorder") == b"big":
            flat.untyped_storage().byteswap(dtype)
        return flat


def _rebuild(flat: Tensor, offset: int, sizes: Iterable[int], strides: Iterable[int], *_: object) -> Tensor:
    size, stride = tuple(sizes), tuple(strides)
    if 0 in size:
        return flat.new_empty(0).reshape(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if min((*size, *stride, offset), default=0) < 0 or not last < flat.numel():
        raise CheckpointError("an array reaches beyond its data")
    array = flat.as_strided(size, stride, offset)
    if array.numel() > max(flat.numel(), _MOST_REPEATED):
        raise CheckpointError(
            f"an array of {array.numel():,} numbers is made of {flat.numel():,} repeated ones"
        )
    return array


def _same(value: object, *_: object) -> object:
    return value


def _entries(*values: object) -> tuple[object, ...]:
    return values


_ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): Counter,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _same,
    ("torch", "Size"): tuple,
    ("torch", "device"): _entries,
    ("torch.jit._pickle", "restore_type_tag"): _same,
    ("torch.jit._pickle", "build_intlist"): _same,
    ("torch.jit._pickle", "build_doublelist"): _same,
    ("torch.jit._pickle", "build_boollist"): _same,
    ("torch.jit._pickle", "build_tensorlist"): _same,
}
_ALLOWED |= {("torch", name): dtype for name, dtype in _STORAGES.items()}
_ALLOWED |= {("torch", str(dtype).removeprefix("torch.")): dtype for dtype in _STORAGES.values()}


def _refused(module: str, name: str) -> CheckpointError:
    whole = (
        "; it seems to be a whole Python object (torch.save(model)) of another program, which only that "
        "program can open: save its state there in a form that is documented"
    )
    if module in ("builtins", "__builtin__", "posix", "nt", "os"):
        whole = ""
    return CheckpointError(
        f"the file asks for {module}.{name}, which is not needed to build tensors; refused, as it could run "
        f"code{whole}"
    )


def _set_state(unpickler: Any) -> None:
    """The opcode BUILD, for attributes of modules and of ordered dictionaries only."""
    held, state = unpickler.stack[-2:]
    if not isinstance(held, (Bag, OrderedDict)) or not isinstance(state, dict):
        raise CheckpointError(f"the file sets the state of a {type(held).__name__}; refused")
    _BUILD(unpickler)


# Without the opcodes that allocate what they announce.
_DISPATCH: Any = {
    code: work
    for code, work in pickle._Unpickler.dispatch.items()
    if code not in (pickle.BYTEARRAY8[0], pickle.NEXT_BUFFER[0])
}
_BUILD = _DISPATCH[pickle.BUILD[0]]
_DISPATCH[pickle.BUILD[0]] = _set_state


def _unpickler(source: TorchZip, data: bytes) -> Any:
    """An unpickler whose classes belong to this one file only.

    It is Python's own in Python: the one in C allocates whatever an opcode announces.
    """

    class OwnBag(Bag):
        pass

    storages: dict[str, Tensor] = {}

    class Unpickler(pickle._Unpickler):
        dispatch = _DISPATCH

        def find_class(self, module: str, name: str) -> object:
            if source.is_script and (module == "__torch__" or module.startswith("__torch__.")):
                return OwnBag
            if (module, name) not in _ALLOWED:
                raise _refused(module, name)
            return _ALLOWED[module, name]

        def persistent_load(self, pid: tuple[object, object, str, object, int]) -> Tensor:
            _, dtype, key, _, numel = pid
            if not isinstance(dtype, torch.dtype):
                raise CheckpointError(f"unknown kind of storage {dtype!r}")
            if key not in storages:
                storages[key] = source.storage(str(key), dtype, int(numel))
            return storages[key]

    return Unpickler(io.BytesIO(data))


def read_torchscript(source: TorchZip) -> tuple[Tree, dict[str, Tensor]]:
    """Options (`model_def_script`) and arrays by state-dict name of a frozen model.

    Raises:
        CheckpointError: damaged, foreign, or asking for anything but tensors.
    """
    module, size = source.load()
    script = getattr(module, "model_def_script", None)
    if not isinstance(module, Bag) or not isinstance(script, str) or not script:
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
    params = parse_json(script, f"model_def_script of {source.path}")
    # what the model was made with goes before what the options say
    made_with = vars(getattr(module, "atomic_model", Bag()))
    return params | {name: made_with[name] for name in _MADE_WITH if name in made_with}, arrays
