"""The repformer's work on neighbouring atoms for inference, in blocks of atoms that stay in the cache.

For every atom the neighbours' g1 are gathered once a block, and serve the convolution and
symmetrisation moments, the product g1_i g1_j, and the local attention. Only inputs are kept for the
backward pass; it gathers again and adds all gradients of the gathered rows in place before they go
back to the atoms. Same numbers as the plain formulas in `repformer.py` up to rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpa2calc.model.neighbor_attention import SHIFT
from dpa2calc.model.pair_mix import padded_weights

_BLOCK_BYTES = 400_000  # a thread; one (block, k, d1) array of gathered rows


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
    """Moments, products and attention over the neighbours of every atom.

    Inputs:
        g1 (n, d1); neighbors (n, k); left (n, r, k): rows to contract with the neighbours, or None;
        project (d1, d2): map of g1_i * g1_j, or None; query (n, heads, d1): folded local queries, or None;
        switch (n, k).

    Returns:
        left @ g1_j (n, r, d1); (g1_i * g1_j) @ project (n, k, d2); attention-weighted g1_j (n, heads, d1).
        Empty tensors stand for parts that were not asked for.
    """

    @staticmethod
    def forward(
        ctx: Any,
        g1: Tensor,
        neighbors: Tensor,
        left: Tensor | None,
        project: Tensor | None,
        query: Tensor | None,
        switch: Tensor,
        n_more: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, k = neighbors.shape
        d1 = g1.shape[1]
        none = g1.new_empty(0)
        moments = g1.new_empty(n, left.shape[1], d1) if left is not None else none
        products = g1.new_empty(n, k, project.shape[1]) if project is not None else none
        mixed = torch.empty_like(query) if query is not None else none
        step = max(1, torch.get_num_threads() * _BLOCK_BYTES // (k * d1 * g1.element_size()))
        for start in range(0, n, step):
            rows = slice(start, min(n, start + step))
            gathered = g1.index_select(0, neighbors[rows].reshape(-1)).view(-1, k, d1)
            if left is not None:
                torch.bmm(left[rows], gathered, out=moments[rows])
            if query is not None:
                mixed[rows] = _attend(query[rows], gathered, switch[rows], n_more).mixed
            if project is not None:
                scaled = gathered.mul_(g1[rows].unsqueeze(1))
                torch.mm(scaled.view(-1, d1), project, out=products[rows].view(-1, project.shape[1]))
        ctx.save_for_backward(g1, neighbors, left, project, query, switch)
        ctx.n_more, ctx.step = n_more, step
        return moments, products, mixed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad_moments: Tensor, grad_products: Tensor, grad_mixed: Tensor
    ) -> tuple[Tensor | None, ...]:
        g1, neighbors, left, project, query, switch = ctx.saved_tensors
        n, k = neighbors.shape
        d1 = g1.shape[1]
        grad_g1 = torch.zeros_like(g1)
        grad_left = torch.empty_like(left) if left is not None else None
        grad_query = torch.empty_like(query) if query is not None else None
        grad_switch = torch.empty_like(switch) if query is not None else None
        project_t = project.t().contiguous() if project is not None else None
        for start in range(0, n, ctx.step):
            rows = slice(start, min(n, start + ctx.step))
            grad: Tensor  # of the gathered rows
            index = neighbors[rows].reshape(-1)
            gathered = g1.index_select(0, index).view(-1, k, d1)
            if project_t is None:
                grad = torch.zeros_like(gathered)
            else:
                grad = (grad_products[rows].reshape(-1, project_t.shape[0]) @ project_t).view(-1, k, d1)
                grad_g1[rows] += torch.mul(grad, gathered).sum(dim=1)
                grad.mul_(g1[rows].unsqueeze(1))
            if grad_left is not None:
                torch.bmm(grad_moments[rows], gathered.transpose(1, 2), out=grad_left[rows])
                grad.baddbmm_(left[rows].transpose(1, 2), grad_moments[rows])
            if grad_query is not None and grad_switch is not None:
                grad_query[rows], grad_switch[rows] = _attend_backward(
                    query[rows], gathered, switch[rows], ctx.n_more, grad_mixed[rows], grad
                )
            grad_g1.index_add_(0, index, grad.view(-1, d1))
        return grad_g1, None, grad_left, None, grad_query, grad_switch, None


def _attend_backward(
    query: Tensor, gathered: Tensor, switch: Tensor, n_more: int, grad_mixed: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of query and switch; that of the gathered rows is added to `grad`."""
    kept = _attend(query, gathered, switch, n_more)
    sw = switch.unsqueeze(1)
    grad.baddbmm_((kept.weights * sw).transpose(1, 2), grad_mixed)
    grad_switched = torch.bmm(grad_mixed, gathered.transpose(1, 2))  # of weights * switch, (b, heads, k)
    grad_switch = (grad_switched * kept.weights).sum(dim=1)
    grad_gated = torch._softmax_backward_data(grad_switched * sw, kept.weights, -1, query.dtype)
    grad_switch += (grad_gated * (kept.scores + SHIFT)).sum(dim=1)
    grad_scores = grad_gated * sw
    grad.baddbmm_(grad_scores.transpose(1, 2), query)
    return torch.bmm(grad_scores, gathered), grad_switch
