"""The repformer's work on neighbouring atoms for inference, in blocks of atoms that stay in the cache.

For every atom the neighbours' g1 are gathered once a block, and serve the convolution, the
symmetrisation moments, the product g1_i g1_j, and the local attention. No array with a row of g1's
width for every pair leaves a block: fresh memory costs more than the arithmetic. Only inputs are kept
for the backward pass; it gathers again and adds all gradients of the gathered rows in place before they
go back to the atoms. Same numbers as the plain formulas in `repformer.py` up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpa2calc.kernels.attention import SHIFT, padded_weights, through_softmax
from dpa2calc.kernels.blocks import add_to_atoms, kept_for_backward, of_atoms, to_atoms, total
from dpa2calc.kernels.native import Native
from dpa2calc.kernels.pairs import PairBlock
from dpa2calc.kernels.reference import NeighborMaps

from .compiled import has_loops, run
from .pair_blocks import BlockPairs

_SUMS, _GRADIENTS = (Native("inference.neighbor_loops", name) for name in ("sums", "gradients"))


class Attention(NamedTuple):
    """What the backward pass needs of the local attention of one block."""

    scores: Tensor  # (b, heads, k) before the switch
    weights: Tensor  # (b, heads, k) after the softmax
    mixed: Tensor  # (b, heads, d1)


def _attend(query: Tensor, gathered: Tensor, switch: Tensor, n_more: int) -> Attention:
    scores = torch.bmm(query, gathered.transpose(1, 2))  # (b, heads, k)
    sw = switch.unsqueeze(1)
    weights = padded_weights((scores + SHIFT) * sw - SHIFT, n_more)
    return Attention(scores, weights, torch.bmm(weights * sw, gathered))


class NeighborMix(torch.autograd.Function):
    """Convolution, moments, products and attention over the neighbours of every atom.

    Where there are both a convolution and directions, also the moments of the pairs.

    Inputs:
        g1 (n, d1); weight (P,), which is the switch;
        g2 (P, d2): pairs of the convolution, whose map is `maps.pairs_to_atoms`, or None;
        directions (P, 3): weights of the moments, or None;
        query (n, heads, d1): folded local queries, or None; `maps.product`: map of g1_i * g1_j, or None.

    Returns:
        sum_j weight_j (g2_j @ W) * g1_j (n, d1); sum_j directions_j g1_j (n, 3, d1);
        sum_j directions_j g2_j (n, 3, d2);
        (g1_i * g1_j) @ maps.product (P, d2); attention-weighted g1_j (n, heads, d1).
        Empty tensors stand for parts that were not asked for.
    """

    @staticmethod
    def forward(
        ctx: Any, g1: Tensor, weight: Tensor, g2: Tensor | None, directions: Tensor | None,
        query: Tensor | None, maps: NeighborMaps, pairs: BlockPairs,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        (n, d1), conv, project = g1.shape, maps.pairs_to_atoms, maps.product
        d2 = g2.shape[1] if g2 is not None else 0
        axes = 3 if directions is not None else 0
        convolved = g1.new_empty(n if conv is not None else 0, d1)
        moments = g1.new_empty(n, axes, d1)
        of_pairs = g1.new_empty(n, axes if d2 else 0, d2)
        products = g1.new_empty(len(weight), project.shape[1] if project is not None else 0)
        mixed = torch.empty_like(query) if query is not None else g1.new_empty(n, 0, d1)
        made = convolved, moments, of_pairs, products, mixed
        ctx.made = []
        keep = query is not None and kept_for_backward(g1, query.shape[1] * len(weight))

        def work(_: int, block: PairBlock, part: int) -> None:
            atoms = block.atoms
            gathered = block.of_rows(g1.index_select(0, pairs.neighbors[block.pairs]))
            factors = _factors(block, weight, g2, directions)
            if factors is not None:
                sums = torch.bmm(factors.transpose(1, 2), gathered)
                if conv is not None:
                    to_atoms(convolved, atoms, torch.sum(sums[:, : len(conv)].mul_(conv), dim=1))
                if directions is not None:
                    to_atoms(moments, atoms, sums[:, -3:])
                if g2 is not None and directions is not None:
                    own = torch.bmm(block.of(directions).transpose(1, 2), block.of(g2))
                    to_atoms(of_pairs, atoms, own)
            if query is not None:
                asked = of_atoms(query, atoms), block.of(weight), pairs.nsel - block.width
                attention = _attend(asked[0], gathered, *asked[1:])
                to_atoms(mixed, atoms, attention.mixed)
                if keep:
                    ctx.made.append(attention)
            if project is not None:
                scaled = gathered.mul_(of_atoms(g1, atoms).unsqueeze(1))
                torch.mm(scaled.view(-1, d1), project, out=products[block.pairs])

        if has_loops(g1):
            given = _for_loops(pairs, g1, weight, g2, conv, directions, project, query)
            run(_SUMS, pairs.cut.parts, g1, pairs.arrays, given, made)
        else:
            pairs.cut.each(work)
        ctx.save_for_backward(g1, weight, g2, directions, query)
        ctx.maps, ctx.pairs = maps, pairs
        return made

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g1, weight, g2, directions, query = ctx.saved_tensors
        pairs, conv, project = ctx.pairs, ctx.maps.pairs_to_atoms, ctx.maps.product
        grad_products, grad_mixed = grads[3:]
        sums_of_g1 = g1.new_zeros(pairs.cut.parts, *g1.shape)  # several atoms have the same neighbour
        grad_weight = torch.zeros_like(weight)
        grad_g2, grad_directions, grad_query = (
            torch.empty_like(like) if like is not None else None for like in (g2, directions, query)
        )
        project_t = project.t().contiguous() if project is not None else None

        def work(number: int, block: PairBlock, part: int) -> None:
            grad_g1, atoms, index = sums_of_g1[part], block.atoms, pairs.neighbors[block.pairs]
            grad: Tensor  # of the gathered rows
            gathered = block.of_rows(g1.index_select(0, index))
            if project_t is None:
                grad = torch.zeros_like(gathered)
            else:
                grad = block.of_rows(grad_products[block.pairs] @ project_t)
                add_to_atoms(grad_g1, atoms, torch.mul(grad, gathered).sum(dim=1))
                grad.mul_(of_atoms(g1, atoms).unsqueeze(1))
            inputs, to = (weight, g2, conv, directions), (grad_weight, grad_g2, grad_directions)
            _sums_backward(block, inputs, gathered, grads[:3], to, grad)
            if grad_query is not None:
                given = of_atoms(query, atoms), gathered, block.of(weight)
                kept = ctx.made[number] if ctx.made else _attend(*given, pairs.nsel - block.width)
                of_query, of_switch = _attend_backward(kept, *given, of_atoms(grad_mixed, atoms), grad)
                to_atoms(grad_query, atoms, of_query)
                block.of(grad_weight).add_(of_switch)
            grad_g1.index_add_(0, index, grad.flatten(0, 1))

        if has_loops(g1):
            shapes = ((len(weight), 0), (len(weight), 0), (0, 0, 0))
            optional = zip((grad_g2, grad_directions, grad_query), shapes)
            to = (grad_weight, *(g1.new_empty(shape) if x is None else x for x, shape in optional))
            inputs = _for_loops(pairs, g1, weight, g2, conv, directions, project, query)
            given = pairs.arrays, inputs, tuple(x.contiguous() for x in grads), to
            run(_GRADIENTS, pairs.cut.parts, g1, *given, own=lambda part: (sums_of_g1[part],))
        else:
            pairs.cut.each(work)
        ctx.made = []
        return total(sums_of_g1), grad_weight, grad_g2, grad_directions, grad_query, None, None


def _for_loops(pairs: BlockPairs, g1: Tensor, weight: Tensor, *optional: Tensor | None) -> tuple[Tensor, ...]:
    """What the compiled loops read: g1, neighbours, weight, and what else there is, empty for None."""
    p = len(weight)
    shapes = ((p, 0), (0, 0), (p, 0), (0, 0), (0, 0, 0))
    rest = (g1.new_empty(shape) if x is None else x for x, shape in zip(optional, shapes))
    return tuple(x.detach().contiguous() for x in (g1, pairs.neighbors, weight, *rest))


def _factors(block: PairBlock, weight: Tensor, g2: Tensor | None, directions: Tensor | None) -> Tensor | None:
    """What the neighbours' g1 of a block are multiplied with and summed: weighted g2, then directions."""
    parts = [block.of(g2) * block.of(weight).unsqueeze(-1)] if g2 is not None else []
    parts += [block.of(directions)] if directions is not None else []
    return torch.cat(parts, dim=-1) if len(parts) > 1 else next(iter(parts), None)


def _sums_gradient(
    atoms: Tensor | slice,
    grad_convolved: Tensor,
    conv: Tensor | None,
    grad_moments: Tensor,
    directions: Tensor | None,
) -> Tensor:
    """Gradient of the sums over neighbours of one block, from those of the convolution and the moments."""
    parts = [of_atoms(grad_convolved, atoms).unsqueeze(1) * conv] if conv is not None else []
    parts += [of_atoms(grad_moments, atoms)] if directions is not None else []
    return torch.cat(parts, dim=1)


def _sums_backward(
    block: PairBlock,
    inputs: tuple[Tensor, Tensor | None, Tensor | None, Tensor | None],
    gathered: Tensor,
    grads: Sequence[Tensor],
    to: tuple[Tensor, Tensor | None, Tensor | None],
    grad: Tensor,
) -> None:
    """Gradients of a block's weight, g2 and directions, `to`; that of the gathered rows is added to `grad`.

    inputs: weight, g2, conv, directions. grads: of the convolution, the moments and those of the pairs.
    """
    weight, g2, conv, directions = inputs
    grad_weight, grad_g2, grad_directions = to
    factors = _factors(block, weight, g2, directions)
    if factors is None:
        return
    sums = _sums_gradient(block.atoms, grads[0], conv, grads[1], directions)
    of_factors = torch.bmm(gathered, sums.transpose(1, 2))
    grad.baddbmm_(factors, sums)
    if g2 is not None and grad_g2 is not None:
        of_g2 = of_factors[..., : g2.shape[1]]
        torch.sum(of_g2 * block.of(g2), dim=-1, out=block.of(grad_weight))
        torch.mul(of_g2, block.of(weight).unsqueeze(-1), out=block.of(grad_g2))
    if grad_directions is not None:
        block.of(grad_directions).copy_(of_factors[..., -3:])
    if g2 is not None and grad_g2 is not None and directions is not None and grad_directions is not None:
        own = of_atoms(grads[2], block.atoms)
        block.of(grad_g2).baddbmm_(block.of(directions), own)
        block.of(grad_directions).baddbmm_(block.of(g2), own.transpose(1, 2))


def _attend_backward(
    kept: Attention, query: Tensor, gathered: Tensor, switch: Tensor, grad_mixed: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of query and switch; that of the gathered rows is added to `grad`."""
    sw = switch.unsqueeze(1)
    grad.baddbmm_((kept.weights * sw).transpose(1, 2), grad_mixed)
    grad_switched = torch.bmm(grad_mixed, gathered.transpose(1, 2))  # of weights * switch, (b, heads, k)
    grad_switch = (grad_switched * kept.weights).sum(dim=1)
    grad_gated = through_softmax(grad_switched * sw, kept.weights)
    grad_switch += (grad_gated * (kept.scores + SHIFT)).sum(dim=1)
    grad_scores = grad_gated * sw
    grad.baddbmm_(grad_scores.transpose(1, 2), query)
    return torch.bmm(grad_scores, gathered), grad_switch
