"""Kernels to machine code by Numba, and what they use besides it: arrays of their own, and views of arrays.

Only modules of kernels import this, and only processes that compile import those. Kernels do without
Numba's runtime, which would have to be in memory wherever they run: they make arrays with `empty`, give
them back with `free`, and take parts by `shaped` where a slice would not do.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.cpu import CPUContext
from numba.core.registry import CPUDispatcher, CPUTarget, cpu_target
from numba.core.typing.context import BaseContext
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from torch import Tensor

from .native import Given, Packed, Ready, entry_name

# Fused multiply-adds, but no reordering: results do not depend on how loops are split.
_FUSED = {"contract", "nsz"}
# For sums, which only vectorise when they may be reordered.
_REORDERED = {*_FUSED, "reassoc", "arcp"}
Function = TypeVar("Function", bound=Callable[..., object])


class _Library(JITCodeLibrary):
    """A function with all that it calls, tidied and not made ready to run: only whole kernels are wanted.

    Numba optimises every function that a kernel calls and makes machine code of it as well.
    """

    def _optimize_final_module(self) -> None:
        if hasattr(self._codegen, "_mpm_full"):  # Numba 0.60 makes slower kernels so
            return super()._optimize_final_module()
        level = {"opt": 0, "loop_vectorize": False, "slp_vectorize": False, "cost": "cheap"}
        tidy, options = self._codegen._module_pass_manager(**level)
        tidy.run(self._final_module, options)

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    def _finalize_specific(self) -> None:
        pass


class _Whole(_Library):
    """A kernel with all that it calls, optimised."""

    _optimize_final_module = JITCodeLibrary._optimize_final_module


class _Codegen(JITCPUCodegen):
    _library_class = _Library

    def _add_module(self, module: object) -> None:
        pass

    def set_env(self, env_name: str, env: object) -> None:
        pass


class _Target(CPUTarget):
    """Numba's own target, but for the machine code."""

    @functools.cached_property
    def _toplevel_target_context(self) -> CPUContext:
        context = cpu_target.target_context
        context.refresh()  # Numba's runtime belongs to its own context, whichever compiles first
        return context.subtarget(_internal_codegen=_Codegen("dpa2calc"))

    @property
    def typing_context(self) -> BaseContext:
        return cpu_target.typing_context


class _Kernel(CPUDispatcher):
    targetdescr = _Target("cpu")


def _kernel(fastmath: set[str]) -> Callable[[Function], Function]:
    """A decorator of kernels, and of functions that they call; `fastmath` is what LLVM may do to numbers."""
    options = {"nopython": True, "error_model": "numpy", "fastmath": fastmath, "_nrt": False}
    # Nothing here is called from Python or C; wrappers for that are a tenth of the work.
    options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return lambda function: _Kernel(function, locals={}, targetoptions=options)  # type: ignore[return-value]


compiled, exact = _kernel(_FUSED), _kernel(set())
summing, reducing = _kernel(_REORDERED), _kernel({*_REORDERED, "nnan"})

_ALIGNED = 64  # bytes
_I8, _I64 = ir.IntType(8), ir.IntType(64)


@global_compiler_lock
def machine_code(module: str, name: str, given: tuple[Given, ...]) -> bytes:
    """An object file whose entry takes the address of packed arguments of the kinds of `given`."""
    function = getattr(importlib.import_module(module), name)
    packed = Packed([], [])
    for part in given:
        packed.add(part)
    kinds = [_type(part) for part in given]
    function.compile(types.void(*kinds))
    made = function.overloads[tuple(kinds)]
    context = _Kernel.targetdescr.target_context
    library = _Whole(context.codegen(), f"entry of {name}")
    code = library.create_ir_module(name)
    symbol = entry_name(f"{module} {name} {''.join(packed.kinds)}")
    entry = ir.Function(code, ir.FunctionType(ir.VoidType(), [_I64.as_pointer()]), symbol)
    builder = ir.IRBuilder(entry.append_basic_block())
    reader = _Reader(context, builder, entry.args[0])
    inner = context.declare_function(code, made.fndesc)
    arguments = [reader.value(kind) for kind in kinds]
    context.call_conv.call_function(builder, inner, types.none, kinds, arguments)
    builder.ret_void()
    library.add_ir_module(code)
    library.add_linking_library(made.library)
    library.finalize()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    features = llvm.get_host_cpu_features().flatten()
    machine = target.create_target_machine(
        llvm.get_host_cpu_name(), features, opt=3, jit=True, reloc="default", codemodel="jitdefault"
    )
    return machine.emit_object(llvm.parse_assembly(library.get_llvm_str()))


def _type(given: Given) -> types.Type:
    if isinstance(given, Ready):
        return _type(given.given)
    if isinstance(given, tuple):
        named = type(given) if hasattr(given, "_fields") else None
        return types.BaseTuple.from_types([_type(part) for part in given], named)
    if isinstance(given, Tensor | np.ndarray):
        dtype = given.detach().numpy().dtype if isinstance(given, Tensor) else given.dtype
        return types.Array(from_dtype(dtype), given.ndim, "C")
    if isinstance(given, bool | int | np.integer):
        return types.boolean if isinstance(given, bool) else types.int64
    return types.float32 if isinstance(given, np.float32) else types.float64


class _Reader:
    """Reads packed arguments, eight bytes each."""

    def __init__(self, context, builder, pointer) -> None:
        self.context, self.builder, self.pointer, self.at = context, builder, pointer, 0

    def next(self) -> ir.Value:
        place = self.builder.gep(self.pointer, [_I64(self.at)])
        self.at += 1
        return self.builder.load(place)

    def value(self, kind: types.Type) -> ir.Value:
        if isinstance(kind, types.Array):
            address, shape = self.next(), [self.next() for _ in range(kind.ndim)]
            number = self.context.get_data_type(kind.dtype)
            data = self.builder.inttoptr(address, number.as_pointer())
            return _array(self.context, self.builder, kind, data, shape)
        if isinstance(kind, types.Tuple | types.UniTuple | types.NamedTuple | types.NamedUniTuple):
            return self.context.make_tuple(self.builder, kind, [self.value(part) for part in kind.types])
        word = self.next()
        if kind in (types.float32, types.float64):
            number = self.builder.bitcast(word, ir.DoubleType())
            return number if kind == types.float64 else self.builder.fptrunc(number, ir.FloatType())
        return word if kind == types.int64 else self.builder.trunc(word, ir.IntType(1))


def _array(context, builder, kind: types.Array, data: ir.Value, shape: list[ir.Value]) -> ir.Value:
    """A contiguous array of this kind on memory that somebody else holds."""
    size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    strides: list[ir.Value] = []
    step = _I64(size)
    for length in reversed(shape):
        strides.insert(0, step)
        step = builder.mul(step, length)
    array = context.make_array(kind)(context, builder)
    populate_array(array, data, shape, strides, _I64(size), meminfo=None)
    return array._getvalue()


def _unpacked(builder, kind: types.Type, value: ir.Value) -> list[ir.Value]:
    """The lengths of a shape, given as a number or a tuple."""
    count = len(kind) if isinstance(kind, types.BaseTuple) else 0
    return cgutils.unpack_tuple(builder, value, count) if count else [value]


def _dimensions(shape: types.Type) -> int:
    return len(shape) if isinstance(shape, types.BaseTuple) else 1


@intrinsic
def _empty(typingctx, shape, number):
    kind = types.Array(number.dtype, _dimensions(shape), "C")

    def codegen(context, builder, signature, given):
        lengths = _unpacked(builder, shape, given[0])
        real = context.get_data_type(kind.dtype)
        size = _I64(context.get_abi_sizeof(real))
        for length in lengths:
            size = builder.mul(size, length)
        call = ir.FunctionType(_I8.as_pointer(), [_I64])
        take = cgutils.get_or_insert_function(builder.module, call, "malloc")
        whole = builder.call(take, [builder.add(size, _I64(_ALIGNED + 8))])
        start = builder.add(builder.ptrtoint(whole, _I64), _I64(_ALIGNED + 7))
        start = builder.and_(start, _I64(-_ALIGNED))
        before = builder.inttoptr(builder.sub(start, _I64(8)), _I8.as_pointer().as_pointer())
        builder.store(whole, before)
        return _array(context, builder, kind, builder.inttoptr(start, real.as_pointer()), lengths)

    return kind(shape, number), codegen


@intrinsic
def _free(typingctx, arrays):
    def codegen(context, builder, signature, given):
        kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer()])
        give = cgutils.get_or_insert_function(builder.module, kind, "free")
        for array, value in zip(arrays, cgutils.unpack_tuple(builder, given[0])):
            start = builder.ptrtoint(context.make_array(array)(context, builder, value).data, _I64)
            before = builder.inttoptr(builder.sub(start, _I64(8)), _I8.as_pointer().as_pointer())
            builder.call(give, [builder.load(before)])
        return context.get_dummy_value()

    return types.void(arrays), codegen


@intrinsic
def _shaped(typingctx, array, begin, shape):
    kind = types.Array(array.dtype, _dimensions(shape), "C")

    def codegen(context, builder, signature, given):
        data = context.make_array(array)(context, builder, given[0]).data
        lengths = _unpacked(builder, shape, given[2])
        return _array(context, builder, kind, builder.gep(data, [given[1]]), lengths)

    return kind(array, types.int64, shape), codegen


if TYPE_CHECKING:
    Number = TypeVar("Number", bound=np.generic)
    Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[Number]]

    def empty(shape: int | tuple[int, ...], number: type[Number] | np.dtype[Number]) -> Array[Number]:
        """A new array of anything, which `free` must give back."""

    def free(arrays: tuple[Array[np.generic], ...]) -> None:
        """Give the memory of arrays of `empty` back."""

    def shaped(array: Array[Number], begin: int, shape: int | tuple[int, ...]) -> Array[Number]:
        """Numbers of a contiguous array from place `begin` on, in another shape."""
else:
    empty, free, shaped = _empty, _free, _shaped
