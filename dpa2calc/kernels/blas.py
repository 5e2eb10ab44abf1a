"""Matrix products inside compiled code: PyTorch's own BLAS, called without Python.

PyTorch's shared library exports the Fortran interface of the BLAS that it was built with. A product called
through it runs where PyTorch's own would, on as many threads, and gives the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

Floats: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.floating]]


@intrinsic
def _gemm(typingctx, address, a, b, c, sizes, turned, add):
    """See `gemm`."""
    if any(kind.layout != "C" for kind in (a, b, c)):
        raise TypingError("the arrays of a product must be contiguous")
    signature = types.void(address, a, b, c, sizes, turned, add)
    number = a.dtype

    def codegen(context, builder, _, given):
        where, arrays, shape, flags = given[0], given[1:4], given[4], given[5]
        data = [
            context.make_array(kind)(context, builder, value).data for kind, value in zip((a, b, c), arrays)
        ]
        i32, real = ir.IntType(32), context.get_value_type(number)
        m, n, k = (builder.trunc(x, i32) for x in cgutils.unpack_tuple(builder, shape, 3))
        a_t, b_t = cgutils.unpack_tuple(builder, flags, 2)
        bits = [builder.icmp_signed("!=", flag, flag.type(0)) for flag in (a_t, b_t)]

        def kept(value: ir.Value) -> ir.Value:
            return cgutils.alloca_once_value(builder, value)

        def letter(turned: ir.Value) -> ir.Value:
            i8 = ir.IntType(8)
            return kept(builder.select(turned, i8(ord("T")), i8(ord("N"))))

        # Column by column, as Fortran reads the same memory, c^T = b^T a^T.
        one, beta = (
            real(1.0),
            builder.select(builder.icmp_signed("!=", given[6], given[6].type(0)), real(1.0), real(0.0)),
        )
        rows_b, rows_a = builder.select(bits[1], k, n), builder.select(bits[0], m, k)
        arguments = [
            *(letter(bits[1]), letter(bits[0]), kept(n), kept(m), kept(k), kept(one)),
            *(data[1], kept(rows_b), data[0], kept(rows_a), kept(beta), data[2], kept(n)),
        ]
        pointers = [builder.bitcast(x, ir.IntType(8).as_pointer()) for x in arguments]
        kind = ir.FunctionType(ir.VoidType(), [x.type for x in pointers])
        builder.call(builder.inttoptr(where, kind.as_pointer()), pointers)
        return context.get_dummy_value()

    return signature, codegen


if TYPE_CHECKING:

    def gemm(
        address: int,
        a: Floats,
        b: Floats,
        c: Floats,
        sizes: tuple[int, int, int],
        turned: tuple[int, int],
        add: int,
    ) -> None:
        """c = a b, or c += a b with `add`, in compiled code only.

        sizes: m, n, k; turned: whether a and b are given transposed. All three are contiguous, row by row:
        c (m, n), a (m, k) or (k, m), b (k, n) or (n, k).
        """
else:
    gemm = _gemm
