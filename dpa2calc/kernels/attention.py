"""The softmax with columns that are not there, as a formula and in place for the kernels.

A smooth attention shifts its scores so that they decay to -20 at the cutoff; every missing slot of the
padded neighbour list then adds exp(-20) to the sum (docs/maths.md 6 and 8).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT = 20.0  # attention scores decay to -20 at the cutoff; a padding column contributes exp(-20)


def padded_softmax(scores: Tensor, n_more: Tensor | int) -> Tensor:
    """Softmax over the last axis as if `n_more` further columns held the score -20.

    `n_more` may be negative (more neighbours than nsel under the rule "all"): then the sum is
    sum_j (exp(a_j) - exp(-20)) + nsel exp(-20), which stays smooth when a neighbour crosses the cutoff.

    Args:
        scores: (..., k); padding columns inside k must already hold -20.
        n_more: a number, or a tensor that broadcasts against (..., 1).
    """
    log_sum = torch.logsumexp(scores, dim=-1, keepdim=True)
    if isinstance(n_more, int) and n_more >= 0:
        if n_more:
            # In logarithms: scores far below -20 must give 0, not 1 / inf with a NaN gradient.
            log_sum = torch.logaddexp(log_sum, log_sum.new_full((), math.log(n_more) - SHIFT))
        return torch.exp(scores - log_sum)
    # With scores below -20 everywhere and more neighbours than nsel the sum could vanish: it is kept
    # above one padding column.
    if isinstance(n_more, int):
        column = torch.exp(-SHIFT - log_sum)
        return torch.exp(scores - log_sum) / torch.maximum(1.0 + n_more * column, column)
    # Row by row one or the other, without looking at the values: a GPU would have to be waited for.
    log_sum = torch.logaddexp(log_sum, n_more.clamp(min=0.0).log() - SHIFT)
    too_many = n_more < 0.0
    column = torch.exp(-SHIFT - torch.where(too_many, log_sum, 0.0))
    correction = torch.where(too_many, torch.maximum(1.0 + n_more * column, column), 1.0)
    return torch.exp(scores - log_sum) / correction


def padded_weights(scores: Tensor, n_more: int) -> Tensor:
    """The same without autograd, in one or two passes."""
    if not scores.is_cpu and n_more > 0:  # few operations, of which none has to be waited for
        padded = F.pad(scores, (0, 1), value=math.log(n_more) - SHIFT)
        return torch.softmax(padded, dim=-1)[..., :-1].contiguous()
    weights = torch.softmax(scores, dim=-1)
    if n_more:
        # exp(-20) / sum from a column whose score and weight are known, so that the exponentials need no
        # second pass. The nearest neighbour's column serves, unless its weight could have underflowed.
        score, weight = scores[..., :1], weights[..., :1]
        if not scores.is_cpu or float(score.min()) < -4 * SHIFT:
            score, weight = scores.amax(dim=-1, keepdim=True), weights.amax(dim=-1, keepdim=True)
        column = weight * torch.exp(-SHIFT - score)
        weights.div_(torch.maximum(1.0 + n_more * column, column))
    return weights


def through_softmax(grad: Tensor, weights: Tensor) -> Tensor:
    """Gradient of the scores from that of the weights, of either function."""
    return torch._softmax_backward_data(grad, weights, -1, weights.dtype)
