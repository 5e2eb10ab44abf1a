"""What an atom of the repformer takes from its neighbours, for training; derivatives by hand.

Convolution and symmetrised moments (docs/maths.md 6) from a list of pairs, with compiled loops over
the pairs; no array of gathered neighbours is made. See `second_order` for the two parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpa2calc.kernels.native import Native, constant
from dpa2calc.kernels.training.pair_list import IntArray, ListPairs
from dpa2calc.kernels.training.products import flat, over_atoms, summed
from dpa2calc.kernels.training.second_order import Grad, wanted

_SUMS, _GRADIENTS, _INVARIANTS, _INVARIANT_GRADIENTS = (
    Native("training.loops_numba", name)
    for name in ("sums", "gradients", "invariants", "invariant_gradients")
)


class Shape(NamedTuple):
    """The pairs, how many columns of the moments are axes, and the factor of the invariants."""

    pairs: ListPairs
    axis: int
    factor: float


def surroundings(
    g1: Tensor, g2: Tensor, h2: Tensor, weight: Tensor, project: Tensor | None, shape: Shape
) -> tuple[Tensor, Tensor]:
    """Convolution and invariants of the moments.

    c_i = sum_j (w_ij g2_ij W) * g1_j, element by element;
    for x = g2_ij and x = g1_j: H = sum_j w_ij h2_ij (x) x, and factor * H[:, :axis]^T H.

    Args:
        g1: (n, d1). g2: (P, d2). h2: (P, 3), times the weights. weight: (P,).
        project: W (d2, d1), or None for no convolution: c is zero.

    Returns:
        c (n, d1); invariants of g2, then of g1, (n, axis * (d2 + d1)).
    """
    conv, invariants, *_ = _Surroundings.apply(g1, g2, h2, weight, project, shape)
    return conv, invariants


class _Surroundings(torch.autograd.Function):
    """Returns the mapped pairs u and both moments too."""

    @staticmethod
    def forward(
        ctx: Any, g1: Tensor, g2: Tensor, h2: Tensor, weight: Tensor, project: Grad, shape: Shape
    ) -> tuple[Tensor, ...]:
        u = _mapped(g2 * weight.unsqueeze(1) if project is not None else g2, project)
        conv, m1 = _sums(shape, [(u, h2, g1)])
        _, m2 = _sums(shape, [(None, h2, g2)])
        out = _invariants(shape, [(m2, m2)], [(m1, m1)])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g1, g2, h2, weight, project, u, m1, m2)
        ctx.shape = shape
        return conv, out, u, m1, m2

    @staticmethod
    def backward(ctx: Any, conv: Grad, invariants: Grad, *of_inside: Grad) -> tuple[Any, ...]:
        g1, g2, *_ = saved = ctx.saved_tensors
        conv = torch.zeros_like(g1) if conv is None else conv
        if invariants is None:
            invariants = conv.new_zeros(len(conv), ctx.shape.axis * (g1.shape[1] + g2.shape[1]))
        if not torch.is_grad_enabled() or any(part is not None for part in of_inside):
            return _surroundings_gradients(ctx, conv, invariants, *of_inside)
        first = _SurroundingsGradient.apply(conv, invariants, *saved, ctx.shape)
        of_map = (*wanted(ctx), False)[4]  # without a map one less
        return *first, _recorded_map_gradient(conv, saved, ctx.shape) if of_map else None, None


@torch.autograd.function.once_differentiable
def _surroundings_gradients(ctx: Any, conv: Tensor, invariants: Tensor, *inside: Grad) -> tuple[Any, ...]:
    want = (*wanted(ctx), False)
    _, g2, _, weight, *_ = saved = ctx.saved_tensors
    of_inputs, (*_, of_u, of_mapped) = _first(ctx.shape, saved, conv, invariants, inside, of_h2=want[2])
    if of_mapped is None:
        return *of_inputs, None, None, None
    of_project = (g2 * weight.unsqueeze(1)).t() @ of_u if want[4] else None
    of_weight = (of_mapped * g2).sum(dim=1) if want[3] else None
    return *of_inputs, of_weight, of_project, None


def _first(
    shape: Shape, saved: Sequence[Any], conv: Tensor, invariants: Tensor, inside: Sequence[Grad], of_h2: bool
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Gradients of g1, g2, h2, and of what is inside: both moments, u, and what is mapped to u.

    inside: gradients of u and of both moments besides, or None.
    """
    g1, g2, h2, weight, project, u, m1, m2 = saved
    to_u, *to_moments = inside
    found = reversed(_invariant_gradients(shape, invariants, m2, m1))
    of_m1, of_m2 = (a if b is None else a.add_(b) for a, b in zip(found, to_moments))
    to_h2 = torch.zeros_like(h2) if of_h2 else None
    of_u, of_g1 = _gradients(shape, (u, h2, g1), conv, of_m1, to_h2)
    _, of_g2 = _gradients(shape, (None, h2, g2), None, of_m2, to_h2)
    of_mapped = None
    if project is not None:
        if to_u is not None:
            of_u.add_(to_u)
        of_mapped = of_u @ project.t()
        of_g2.addcmul_(of_mapped, weight.unsqueeze(1))
    return (of_g1, of_g2, to_h2), (of_m1, of_m2, of_u, of_mapped)


class _SurroundingsGradient(torch.autograd.Function):
    """Gradients of g1, g2, h2 and the weights of the pairs."""

    @staticmethod
    def forward(ctx: Any, conv: Tensor, invariants: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        *saved, shape = rest
        found, inside = _first(shape, saved, conv, invariants, (None,) * 3, of_h2=True)
        g2, weight, of_mapped = saved[1], saved[3], inside[3]
        of_weight = torch.zeros_like(weight) if of_mapped is None else (of_mapped * g2).sum(dim=1)
        ctx.set_materialize_grads(True)
        ctx.save_for_backward(conv, invariants, *saved, *inside)
        ctx.shape = shape
        return *found, of_weight

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, t1: Tensor, t2: Tensor, th: Tensor, tw: Tensor) -> tuple[Any, ...]:
        shape = ctx.shape
        conv, invariants, g1, g2, h2, weight, project, u, m1, m2, of_m1, of_m2, of_u, of_mapped = (
            ctx.saved_tensors
        )
        # Tangents of what the sums are made of, and of the sums.
        tangent = t2
        if project is not None:
            tangent = (t2 * weight.unsqueeze(1)).addcmul_(g2, tw.unsqueeze(1))
        tu = _mapped(tangent, project)
        t_conv, t_m1 = _sums(shape, [(tu, th, g1), (u, h2, t1)])
        _, t_m2 = _sums(shape, [(None, th, g2), (None, h2, t2)])
        t_invariants = _invariants(shape, [(m2, t_m2), (t_m2, m2)], [(m1, t_m1), (t_m1, m1)])
        if not any(wanted(ctx)[2:]):  # all weights below are frozen
            return t_conv, t_invariants, *[None] * 9
        # What they add to the gradients: every term is linear in each factor.
        to_m2, to_m1 = _invariant_gradients(shape, invariants, t_m2, t_m1)
        to_h2 = torch.zeros_like(h2)
        to_u, to_g1 = _gradients(shape, (tu, th, t1), conv, of_m1, to_h2)
        _, to_g2 = _gradients(shape, (None, th, t2), None, of_m2, to_h2)
        to_weight = to_project = None
        if of_mapped is not None:
            to_g2.addcmul_(of_mapped, tw.unsqueeze(1))
            to_weight = (t2 * of_mapped).sum(dim=1)
            to_project = tangent.t() @ of_u
        return t_conv, t_invariants, to_g1, to_g2, to_h2, to_weight, to_project, to_u, to_m1, to_m2, None


def _mapped(pairs: Tensor, project: Grad) -> Tensor:
    """Nothing without a map: the kernels then leave the convolution out."""
    return pairs @ project if project is not None else pairs.new_empty(0)


def _recorded_map_gradient(conv: Tensor, saved: Sequence[Tensor], shape: Shape) -> Tensor:
    """Gradient of the map by plain operations, which can be differentiated."""
    (g1, g2, _, weight), pairs = saved[:4], shape.pairs
    of_u = conv.index_select(0, pairs.centers) * pairs.gather(g1)
    return (g2 * weight.unsqueeze(1)).t() @ of_u


Term = tuple[Grad, Tensor, Tensor]


def _sums(shape: Shape, terms: list[Term]) -> tuple[Tensor, Tensor]:
    """Sum over `terms` (u, a, x) of y_i = sum_j u_ij * x_j and m_i = sum_j a_ij (x) x_j.

    Without u the rows of x are the pairs themselves.
    """
    pairs, (u, _, x) = shape.pairs, terms[0]
    n, size = len(pairs.first), x.shape[1]
    y, m = x.new_zeros(n if u is not None else 0, size), x.new_zeros(n, 3, size)
    for term in terms:
        over_atoms(_SUMS, n, _lists(pairs, term[0]), *flat(*term, y, m), constant(size))
    return y, m


def _lists(pairs: ListPairs, u: Grad) -> tuple[IntArray, IntArray, IntArray]:
    return pairs.first, pairs.counts, pairs.own if u is None else pairs.others


def _gradients(shape: Shape, term: Term, of_y: Grad, of_m: Tensor, of_a: Grad) -> tuple[Tensor, Tensor]:
    """Gradients of u and x of one term; that of a is added to `of_a` where that is given."""
    u, _, x = term
    of_u = x.new_empty(0) if u is None else torch.empty_like(u)
    lists, arrays = _lists(shape.pairs, u), flat(*term, of_y, of_m, of_u, of_a)
    return of_u, summed(_GRADIENTS, len(shape.pairs.first), x, lists, *arrays)


def _invariants(shape: Shape, *terms: list[tuple[Tensor, Tensor]]) -> Tensor:
    """factor * m[:, :axis]^T p, summed over the pairs (m, p) of each list; the lists one after another."""
    n, widths = len(shape.pairs.first), [shape.axis * pairs[0][0].shape[2] for pairs in terms]
    out = terms[0][0][0].new_zeros(n, sum(widths))
    offset = 0
    for pairs, width in zip(terms, widths):
        places = sum(widths), offset, shape.axis, constant(width // shape.axis)
        for m, p in pairs:
            over_atoms(_INVARIANTS, n, *flat(m, p), shape.factor, *flat(out), *places, least=64)
        offset += width
    return out


def _invariant_gradients(shape: Shape, grad: Tensor, *moments: Tensor) -> list[Tensor]:
    """Gradients of the moments m from that of the rows of _invariants([(m, m)], ...); linear in m."""
    offset, out = 0, []
    for m in moments:
        size = m.shape[2]
        out.append(torch.zeros_like(m))
        places = grad.shape[1], offset, shape.axis, constant(size)
        grads, to = flat(grad, m), flat(out[-1])
        over_atoms(_INVARIANT_GRADIENTS, len(m), *grads, shape.factor, *to, *places, least=64)
        offset += shape.axis * size
    return out
