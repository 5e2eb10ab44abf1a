"""Compiled kernels without their compiler: machine code that an earlier process left on disk.

    search = Native("streaming.cells", "search")
    search(0, n, points, start)  # tensors, arrays, numbers, and tuples of them

To import Numba and make it ready costs half a second and 80 MB in every process, before anything is compiled.
So it is used only where code is missing: `building.py` makes an object file of a kernel for these kinds of
arguments, and every later process links that with LLVM. A kernel allocates nothing that Python knows of and
raises nothing; it runs without Python's lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from dpa2calc.errors import OutputError
from dpa2calc.files.atomic import atomic_path

logger = logging.getLogger(__name__)
Given: TypeAlias = "Tensor | np.ndarray | np.generic | float | Ready | tuple[Given, ...]"

_FOLDER = Path(__file__).parent
_SOURCES = ("inference", "streaming", "tables", "training")
_LETTERS = {  # as NumPy has them
    torch.float32: "f",
    torch.float64: "d",
    torch.int64: np.dtype(np.int64).char,
    torch.int32: np.dtype(np.int32).char,
    torch.bool: "?",
}
_LOCK = threading.RLock()
_SECONDS = 30  # on an ordinary core, for the kernels of one model; inference takes less, training more


class Packed(NamedTuple):
    """Arguments for compiled code: what they are, in letters, and eight bytes for each number and pointer."""

    kinds: list[str]
    values: list[float]

    def add(self, given: Given) -> None:
        """An array is its address and its shape; a tuple is what it holds."""
        kinds, values = self
        if isinstance(given, Ready):
            kinds.append(given.kinds)
            values.extend(given.values)
        elif isinstance(given, Tensor):
            assert given.is_contiguous(), "kernels take contiguous arrays"
            shape = given.shape
            kinds.append(f"{_LETTERS[given.dtype]}:{len(shape)} ")
            values.append(given.data_ptr())
            values.extend(shape)
        elif isinstance(given, np.ndarray):
            assert given.flags.c_contiguous, "kernels take contiguous arrays"
            kinds.append(f"{given.dtype.char}:{given.ndim} ")
            values.append(given.__array_interface__["data"][0])
            values.extend(given.shape)
        elif isinstance(given, tuple):
            kinds.append(f"{type(given).__name__}(")
            for part in given:
                self.add(part)
            kinds.append(")")
        elif isinstance(given, bool | int | np.integer):
            kinds.append("b" if isinstance(given, bool) else "q")
            values.append(int(given))
        else:
            kinds.append("f" if isinstance(given, np.float32) else "d")
            values.append(float(given))


class Ready:
    """An argument that many calls share, packed once; it keeps its arrays alive."""

    def __init__(self, given: Given) -> None:
        packed = Packed([], [])
        packed.add(given)
        self.given, self.kinds, self.values = given, "".join(packed.kinds), packed.values


@functools.cache
def constant(number: int) -> Ready:
    """A number that compiled code knows when it is compiled, see `tables.numba_loops.width`."""
    return Ready(((0,) * (number // 16), (0,) * (number % 16)))


class Native:
    """A kernel by the module below `dpa2calc.kernels` that holds it, and its name there.

    Its arguments stay what they are, arrays are overwritten in place, and it returns nothing.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = f"dpa2calc.kernels.{module}", name
        self._loaded: dict[str, tuple[Callable[[bytes], None], struct.Struct]] = {}

    def __call__(self, *given: Given) -> None:
        packed = Packed([], [])
        for part in given:
            packed.add(part)
        kinds = "".join(packed.kinds)
        entry, layout = self._loaded.get(kinds) or self._load(kinds, packed, given)
        entry(layout.pack(*packed.values))

    def _load(
        self, kinds: str, packed: Packed, given: tuple[Given, ...]
    ) -> tuple[Callable[[bytes], None], struct.Struct]:
        with _LOCK:
            if kinds not in self._loaded:
                code = self._code(kinds, given)
                address = _linker().add(f"{self.module} {self.name} {kinds}", code)
                layout = "".join("d" if isinstance(value, float) else "q" for value in packed.values)
                entry = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(address)
                self._loaded[kinds] = entry, struct.Struct(f"={layout}")
            return self._loaded[kinds]

    def _code(self, kinds: str, given: tuple[Given, ...]) -> bytes:
        """The object file from disk, else made now and kept where the user can write."""
        name = f"{self.name}-{_hash(self.module.encode(), kinds.encode(), _machine())}.o"
        for folder in _folders():
            try:
                content = (folder / name).read_bytes()
            except OSError:
                continue
            if content.startswith(_stamp()):
                return content[len(_stamp()) :]
        _announce()
        from .building import machine_code

        code = machine_code(self.module, self.name, given)
        for folder in _folders():
            try:
                with atomic_path(folder / name) as temporary:
                    temporary.write_bytes(_stamp() + code)
                break
            except OutputError:
                continue
        return code


@functools.cache
def _announce() -> None:
    """Say, once a process, that kernels are being compiled: seconds that later calls do not take."""
    logger.warning("compiling kernels for this machine, once; about %d s", _SECONDS)


class _Linker:
    """LLVM, which puts object files into memory and finds what they call in this process."""

    def __init__(self) -> None:
        import llvmlite.binding as llvm

        if tuple(map(int, llvm.llvm_version_info[:1])) < (20,):
            llvm.initialize()
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self._llvm = llvm
        target = llvm.Target.from_triple(llvm.get_process_triple())
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target.create_target_machine())

    def add(self, key: str, code: bytes) -> int:
        """The address of the entry in an object file."""
        self._engine.add_object_file(self._llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        return self._engine.get_function_address(entry_name(key))


@functools.cache
def _linker() -> _Linker:
    return _Linker()


def entry_name(key: str) -> str:
    """What the entry of a kernel for some kinds of arguments is called in its object file."""
    return f"dpa2calc_{_hash(key.encode())}"


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


@functools.cache
def _machine() -> bytes:
    """The processor, and this installation of the package: code for another one lies beside it."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    return f"{llvm.get_host_cpu_name()} {features} {_FOLDER}".encode()


@functools.cache
def _stamp() -> bytes:
    """Of the kernels, their arguments and the compiler: code with another stamp is of other kernels."""
    import llvmlite

    files = [_FOLDER / f"{name}.py" for name in ("attention", "blas", "building")]
    files += [file for place in _SOURCES for file in sorted((_FOLDER / place).glob("*.py"))]
    return _hash(llvmlite.__version__.encode(), *(file.read_bytes() for file in files)).encode()


def _folders() -> Iterator[Path]:
    """Where code is kept: $NUMBA_CACHE_DIR, else beside the sources or, read-only, in the user's folder."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen)
        return
    yield _FOLDER / "__pycache__"
    with contextlib.suppress(RuntimeError):  # no home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dpa2calc" / "kernels"
