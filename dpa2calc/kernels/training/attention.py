"""The attentions of the repformer for training, from a list of pairs; derivatives by hand.

For every atom and head, with queries Q and keys X of its c neighbours,

    S = Q X^T,  U = gate * S + shift,  A = softmax(U), padded,  W = scale * A,  M = W X,

where the pair attention asks one query for every neighbour and the local attention one for the atom. The
gradient of M along (g) and a change of the inputs (t), row by row, with r = sum(A * dU) and q = sum(A * gA):

    gW = g X^T,  gA = scale * gW,  B = gU = A * (gA - q),  gS = gate * B,
    dS = tQ X^T + Q tX^T,  dU = gate * dS + tgate * S + tshift,  dA = A * (dU - r),
    dW = scale * dA + tscale * A,  dM = dW X + W tX.

`_Attention` and `_AttentionGradient` are the pair of functions described in `second_order`. The backward
pass of the second is the derivative of sum(g * dM): dM with respect to g, and for the inputs the gradients
of what the two lines hold. Atoms are taken one after the other by compiled loops (attention_loops.py), so
that there is no padding and the (c, heads, c) arrays stay in the cache; they are made again in every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpa2calc.kernels.blocks import total
from dpa2calc.kernels.inference.compiled import run
from dpa2calc.kernels.native import Native
from dpa2calc.kernels.threads import WORKERS
from dpa2calc.kernels.training.pair_list import IntArray, ListPairs
from dpa2calc.kernels.training.second_order import Grad, wanted

_MIXED, _GRADIENTS, _SECOND = (
    Native("training.attention_loops", name) for name in ("mixed", "gradients", "second")
)


class Atoms(NamedTuple):
    """Where the rows of every atom are, as the loops take it, and what is the same for all.

    Of the pair attention: queries and keys are the pairs, terms all two pairs of an atom. Of the local
    attention, with `key_rows`: queries are the atoms, keys the neighbours' rows, and terms the pairs.

    first_query, queries, first_pair, counts, first_term (n,): where the rows of an atom begin, and how many
    it has. key_rows (P,): the row of the keys that a pair looks at; empty: its own.
    """

    first_query: IntArray
    queries: IntArray
    first_pair: IntArray
    counts: IntArray
    first_term: IntArray
    key_rows: IntArray
    heads: int
    nsel: int

    @staticmethod
    def of_pairs(pairs: ListPairs, heads: int, nsel: int) -> Atoms:
        """For the pair attention."""
        own, squares = (pairs.first, pairs.counts), pairs.begins(pairs.counts**2)
        return Atoms(*own, *own, squares, np.empty(0, np.int64), heads, nsel)

    @staticmethod
    def of_atoms(pairs: ListPairs, heads: int, nsel: int) -> Atoms:
        """For the local attention."""
        each = np.arange(len(pairs.counts))
        ones = np.ones_like(each)
        return Atoms(each, ones, pairs.first, pairs.counts, pairs.first, pairs.others, heads, nsel)


def attend(query: Tensor, keys: Tensor, terms: tuple[Tensor, Tensor, Tensor], atoms: Atoms) -> Tensor:
    """M of the formulas above, (rows, heads * d) like the queries.

    Args:
        query: (P, heads * d), or of the local attention (n, heads * d).
        keys: (P, d), or (n, d).
        terms: gate, shift and scale: (sum of c^2,), or (P,).
    """
    return _Attention.apply(query, keys, *terms, atoms)


def _arrays(values: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(x.detach().contiguous() for x in values)


def _parts(like: Tensor, atoms: Atoms) -> Tensor:
    """Zeros to add gradients of keys to, by thread where several pairs have the same neighbour."""
    return like.new_zeros(WORKERS.count if atoms.key_rows.size else 1, *like.shape)


def _own(parts: Tensor) -> Callable[[int], tuple[Tensor]]:
    """What each thread adds to: its part, or all the same one, where every row belongs to one atom."""
    return lambda part: (parts[min(part, len(parts) - 1)],)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, atoms: Atoms
    ) -> Tensor:
        inputs = (query, keys, gate, shift, scale)
        out = torch.zeros_like(query)  # of atoms without neighbours
        run(_MIXED, WORKERS.count, query, atoms, _arrays(inputs), out)
        ctx.save_for_backward(*inputs)
        ctx.atoms = atoms
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            return *_AttentionGradient.apply(grad, *ctx.saved_tensors, ctx.atoms), None
        of_terms = any(wanted(ctx)[2:5])
        return *_gradients(grad, ctx.saved_tensors, ctx.atoms, of_terms), None


def _gradients(grad: Tensor, inputs: tuple[Tensor, ...], atoms: Atoms, of_terms: bool) -> tuple[Grad, ...]:
    query, keys, gate, *_ = inputs
    to_query, to_keys = torch.zeros_like(query), _parts(keys, atoms)
    to_terms = gate.new_zeros(3, gate.numel() if of_terms else 0)
    given = atoms, _arrays(inputs), grad.detach().contiguous(), to_query, to_terms
    run(_GRADIENTS, WORKERS.count, query, *given, own=_own(to_keys))
    return to_query, total(to_keys), *(to_terms if of_terms else (None, None, None))


class _AttentionGradient(torch.autograd.Function):
    """Gradients of queries, keys, gate, shift and scale."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, *rest: Any) -> tuple[Grad, ...]:
        *inputs, atoms = rest
        ctx.save_for_backward(grad, *inputs)
        ctx.atoms = atoms
        return _gradients(grad, tuple(inputs), atoms, of_terms=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, t_query: Tensor, t_keys: Tensor, *t_terms: Tensor) -> tuple[Any, ...]:
        (grad, *inputs), want = ctx.saved_tensors, wanted(ctx)
        query, keys, gate, *_ = inputs
        some, of_terms = any(want[1:]), any(want[3:6])  # with all weights below frozen none
        to_grad = torch.zeros_like(grad, memory_format=torch.contiguous_format)
        to_query = torch.zeros_like(query) if some else query.new_empty(0, query.shape[1])
        to_keys, to_terms = _parts(keys, ctx.atoms), gate.new_zeros(3, gate.numel() if of_terms else 0)
        tangents = _arrays((t_query, t_keys, torch.stack(t_terms)))
        given = _arrays(inputs), grad.detach().contiguous(), tangents, to_grad, to_query, to_terms
        run(_SECOND, WORKERS.count, query, ctx.atoms, *given, own=_own(to_keys))
        if not some:
            return to_grad, *[None] * 6
        return to_grad, to_query, total(to_keys), *(to_terms if of_terms else (None, None, None)), None
