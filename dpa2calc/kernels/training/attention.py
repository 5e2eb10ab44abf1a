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
of what the two lines hold. Atoms are taken in blocks of one number of neighbours, so that there is no
padding and the (heads, c, c) arrays of a block stay in the cache; they are made again in every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpa2calc.kernels.attention import padded_weights, through_softmax
from dpa2calc.kernels.blocks import total
from dpa2calc.kernels.threads import WORKERS
from dpa2calc.kernels.training.pair_list import FlatPairs
from dpa2calc.kernels.training.second_order import Grad, wanted

_BLOCK_BYTES = 300_000  # one array of scores
_BLOCK_ATOMS = 24  # of the local attention, where the gathered keys are the largest array


@dataclass(frozen=True)
class Blocks:
    """How the arrays are cut.

    Of the pair attention: atoms with one number of neighbours; queries, keys and terms are rows of lists.
    Of the local attention, with a table `index` (n, k) of neighbours in `FlatPairs.order`: atoms with nearly
    the same number; keys are rows of atoms, gathered block by block, and the terms are tables (n, k).
    """

    parts: list[Block]
    heads: int
    nsel: int
    index: Tensor | None

    @staticmethod
    def of_pairs(pairs: FlatPairs, heads: int, nsel: int, *, itemsize: int = 4) -> Blocks:
        """For the pair attention."""
        parts: list[Block] = []
        for group in pairs.groups:
            c = group.neighbors
            step = max(1, _BLOCK_BYTES // (itemsize * heads * c * c))
            for start in range(0, group.atoms, step):
                b = min(step, group.atoms - start)
                p, s = group.first_pair + start * c, group.first_square + start * c * c
                parts.append(Block(b, c, c, slice(p, p + b * c), slice(s, s + b * c * c)))
        return Blocks(parts, heads, nsel, None)

    @staticmethod
    def of_atoms(pairs: FlatPairs, heads: int, nsel: int, *, mask: Tensor, neighbors: Tensor) -> Blocks:
        """For the local attention; mask and neighbours (n, k) in the atoms' own order."""
        ordered = mask.index_select(0, pairs.order)
        parts: list[Block] = []
        for start in range(0, len(ordered), _BLOCK_ATOMS):
            rows = slice(start, min(start + _BLOCK_ATOMS, len(ordered)))
            used = ordered[rows].any(dim=0).nonzero()  # excluded pairs leave holes
            width = int(used[-1]) + 1 if used.numel() else 1
            parts.append(Block(rows.stop - start, width, 1, rows, rows))
        return Blocks(parts, heads, nsel, neighbors.index_select(0, pairs.order))


class Block(NamedTuple):
    """Its atoms, keys and queries of one atom and head, and where rows of pairs or atoms and terms are."""

    atoms: int
    keys: int
    queries: int
    rows: slice
    terms: slice


def attend(query: Tensor, keys: Tensor, terms: tuple[Tensor, Tensor, Tensor], blocks: Blocks) -> Tensor:
    """M of the formulas above, (rows, heads * d) like the queries.

    Args:
        query: (P, heads * d), or of the local attention (n, heads * d) in `FlatPairs.order`.
        keys: (P, d), or (n, d) in the atoms' own order.
        terms: gate, shift and scale: (sum of c^2,), or (n, k) in `FlatPairs.order`; in padding 0, -20, 0.
    """
    return _Attention.apply(query, keys, *terms, blocks)


class _View:
    """One block: rows (b, heads * queries, d), keys (b, c, d) and terms (b, 1, queries, c)."""

    def __init__(self, blocks: Blocks, block: Block):
        self.blocks, self.block = blocks, block
        b, c, r, *_ = block
        self.scores = (b, blocks.heads, r, c)

    def heads_first(self, rows: Tensor) -> Tensor:
        b, _, r, *_ = self.block
        h = self.blocks.heads
        mine = rows[self.block.rows]
        return mine.view(b, r, h, -1).transpose(1, 2).reshape(b, h * r, -1)

    def put_heads_last(self, values: Tensor, rows: Tensor) -> None:
        b, _, r, *_ = self.block
        h = self.blocks.heads
        rows[self.block.rows].view(b, r, h, -1).copy_(values.view(b, h, r, -1).transpose(1, 2))

    def _index(self) -> Tensor | None:
        index = self.blocks.index
        return None if index is None else index[self.block.rows, : self.block.keys].reshape(-1)

    def keys(self, keys: Tensor) -> Tensor:
        index = self._index()
        mine = keys[self.block.rows] if index is None else keys.index_select(0, index)
        return mine.view(self.block.atoms, self.block.keys, -1)

    def add_keys(self, values: Tensor, into: Tensor, part: int) -> None:
        index, flat = self._index(), values.flatten(0, 1)
        if index is None:
            into[0, self.block.rows] = flat
        else:
            into[part].index_add_(0, index, flat)

    def term(self, term: Tensor) -> Tensor:
        """(b, 1, queries, c)"""
        b, c, r, *_ = self.block
        mine = term[self.block.terms]
        return mine.view(b, 1, r, c) if self.blocks.index is None else mine[:, None, None, :c]

    def put_term(self, values: Tensor, into: Tensor) -> None:
        """Summed over heads."""
        self.term(into)[:, 0].copy_(values.sum(dim=1))

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """left right^T as scores."""
        return torch.bmm(left, right.transpose(1, 2)).view(self.scores)

    def times(self, scores: Tensor, right: Tensor) -> Tensor:
        """scores @ right: (b, heads * queries, d)"""
        return torch.bmm(scores.flatten(1, 2), right)

    def weights(self, q: Tensor, x: Tensor, gate: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """S and A."""
        scores = self.product(q, x)
        more = self.blocks.nsel - self.block.keys
        return scores, padded_weights(torch.addcmul(shift, scores, gate), more)


def _turned(scores: Tensor) -> Tensor:
    return scores.flatten(1, 2).transpose(1, 2)


def _each(blocks: Blocks, work: Callable[[_View, int], None]) -> None:
    """work(view, part) for all blocks, on all threads; `part` numbers the threads."""
    n = WORKERS.count

    def some(part: int) -> None:
        with torch.no_grad():  # a new thread records
            for block in blocks.parts[part::n]:  # always the same, so that sums are
                work(_View(blocks, block), part)

    WORKERS.run(some, [(part,) for part in range(n)])


def _zero_parts(like: Tensor, blocks: Blocks) -> Tensor:
    """Sums of gathered rows, one for every thread: several pairs have the same neighbour."""
    return like.new_zeros(WORKERS.count if blocks.index is not None else 1, *like.shape)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, blocks: Blocks
    ) -> Tensor:
        out = torch.zeros_like(query)  # atoms without neighbours are in no block

        def work(view: _View, part: int) -> None:
            x = view.keys(keys)
            _, weights = view.weights(view.heads_first(query), x, view.term(gate), view.term(shift))
            view.put_heads_last(view.times(weights.mul_(view.term(scale)), x), out)

        _each(blocks, work)
        ctx.save_for_backward(query, keys, gate, shift, scale)
        ctx.blocks = blocks
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            return *_AttentionGradient.apply(grad, *ctx.saved_tensors, ctx.blocks), None
        of_terms = any(wanted(ctx)[2:5])
        return *_gradients(grad.contiguous(), ctx.saved_tensors, ctx.blocks, of_terms), None


def _gradients(grad: Tensor, inputs: tuple[Tensor, ...], blocks: Blocks, of_terms: bool) -> tuple[Grad, ...]:
    query, keys, gate, shift, scale = inputs
    of_query, of_keys = torch.zeros_like(query), _zero_parts(keys, blocks)
    to_gate, to_shift, to_scale = (torch.zeros_like(gate) if of_terms else None for _ in range(3))

    def work(view: _View, part: int) -> None:
        q, x, g, a_gate = view.heads_first(query), view.keys(keys), view.heads_first(grad), view.term(gate)
        scores, weights = view.weights(q, x, a_gate, view.term(shift))
        of_weights = view.product(g, x)
        if to_scale is not None:
            view.put_term(of_weights * weights, to_scale)
        of_x = torch.bmm(_turned(weights * view.term(scale)), g)
        inner = through_softmax(of_weights.mul_(view.term(scale)), weights)
        if to_shift is not None and to_gate is not None:
            view.put_term(inner, to_shift)
            view.put_term(scores.mul_(inner), to_gate)
        of_scores = inner.mul_(a_gate)
        view.put_heads_last(view.times(of_scores, x), of_query)
        view.add_keys(of_x.baddbmm_(_turned(of_scores), q), of_keys, part)

    _each(blocks, work)
    return of_query, total(of_keys), to_gate, to_shift, to_scale


class _AttentionGradient(torch.autograd.Function):
    """Gradients of queries, keys, gate, shift and scale."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, *rest: Any) -> tuple[Grad, ...]:
        *inputs, blocks = rest
        grad = grad.contiguous()
        ctx.save_for_backward(grad, *inputs)
        ctx.blocks = blocks
        return _gradients(grad, tuple(inputs), blocks, of_terms=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *tangents: Tensor) -> tuple[Any, ...]:
        saved, blocks = ctx.saved_tensors, ctx.blocks
        grad, query, keys, gate, *_ = saved
        to_grad, to_query = torch.zeros_like(grad), torch.zeros_like(query)
        if not any(wanted(ctx)[1:]):  # all weights below are frozen
            changes = [t.contiguous() for t in tangents]
            _each(blocks, lambda view, _: view.put_heads_last(_change(view, saved, changes)[0], to_grad))
            return to_grad, *[None] * 6
        to_keys = _zero_parts(keys, blocks)
        of_terms = any(wanted(ctx)[3:6])
        to_terms = [torch.zeros_like(gate) for _ in range(3)] if of_terms else []
        none: list[Grad] = [None] * 3
        changes = [t.contiguous() for t in tangents]

        def work(view: _View, part: int) -> None:
            dm, of_q, of_x = _second(view, saved, changes, to_terms)
            view.put_heads_last(dm, to_grad)
            view.put_heads_last(of_q, to_query)
            view.add_keys(of_x, to_keys, part)

        _each(blocks, work)
        return to_grad, to_query, total(to_keys), *(to_terms or none), None


class _Changed(NamedTuple):
    """What `_change` and `_second` share of a block, in the letters of the formulas above."""

    q: Tensor
    tq: Tensor
    x: Tensor
    tx: Tensor
    s: Tensor
    a: Tensor
    ds: Tensor
    du: Tensor
    da: Tensor
    sum_du: Tensor
    dw: Tensor


def _change(view: _View, saved: Sequence[Tensor], changes: Sequence[Tensor]) -> tuple[Tensor, _Changed]:
    """dM of a block, and what leads to it."""
    q, tq = (view.heads_first(v) for v in (saved[1], changes[0]))
    x, tx = view.keys(saved[2]), view.keys(changes[1])
    gate, shift, scale = (view.term(v) for v in saved[3:])
    t_gate, t_shift, t_scale = (view.term(v) for v in changes[2:])
    s, a = view.weights(q, x, gate, shift)
    ds = view.product(tq, x)
    ds.view(view.block.atoms, -1, view.block.keys).baddbmm_(q, tx.transpose(1, 2))
    du = (ds * gate).addcmul_(s, t_gate).add_(t_shift)
    da = a * du
    sum_du = da.sum(dim=-1, keepdim=True)
    da.addcmul_(a, sum_du, value=-1)
    dw = (da * scale).addcmul_(a, t_scale)
    dm = view.times(a * scale, tx).baddbmm_(dw.flatten(1, 2), x)
    return dm, _Changed(q, tq, x, tx, s, a, ds, du, da, sum_du, dw)


def _second(
    view: _View, saved: tuple[Tensor, ...], changes: list[Tensor], to_terms: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """dM and the gradients of sum(g * dM) for Q and X of a block; those of the terms go to `to_terms`."""
    dm, (q, tq, x, tx, s, a, ds, du, da, sum_du, dw) = _change(view, saved, changes)
    g = view.heads_first(saved[0])
    gate, _, scale = (view.term(v) for v in saved[3:])
    t_gate, _, t_scale = (view.term(v) for v in changes[2:])
    gw = view.product(g, x)
    ga = gw * scale
    b = ga * a
    sum_ga = b.sum(dim=-1, keepdim=True)
    b.addcmul_(a, sum_ga, value=-1)
    # Gradients of W, A, U and S.
    of_w = view.product(g, tx)
    of_a = (of_w * scale).addcmul_(gw, t_scale)
    of_a.addcmul_(ga - sum_ga, du).addcmul_(ga, sum_du, value=-1)
    of_u = through_softmax(of_a, a)
    if to_terms:
        view.put_term(of_u * s + b * ds, to_terms[0])
        view.put_term(of_u, to_terms[1])
        view.put_term(gw * da + of_w * a, to_terms[2])
    of_s = of_u.mul_(gate).addcmul_(b, t_gate)
    gs = b.mul_(gate)
    of_q = view.times(gs, tx).baddbmm_(of_s.flatten(1, 2), x)
    of_x = torch.bmm(_turned(dw), g).baddbmm_(_turned(gs), tq).baddbmm_(_turned(of_s), q)
    return dm, of_q, of_x
