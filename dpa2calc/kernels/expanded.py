"""Operations for Hessians: embedding nets are expanded about the positions that are given.

The many rows of a Hessian are derivatives at one point. What a net says of a pair is there a parabola of the
pair's scalar, whose three coefficients are worked out once; every row then costs sums over pairs, and no net.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .jets import scalar_jets
from .net import ScalarNet
from .reference import Mode
from .training import Training

_BLOCK = 1 << 14  # pairs whose net is evaluated together


class Expanded(Training):
    """Exact up to second derivatives by positions, and wrong beyond; weights of embeddings are constants."""

    mode: ClassVar[Mode] = "hessian"

    def why_not(self, operation: str, subject: Any) -> str | None:
        return None if operation == "embedded_moments" else super().why_not(operation, subject)

    def embedding(self, net: ScalarNet, s: Tensor, kinds: Tensor, factor: Tensor | None) -> Tensor:
        (_, *weights), (total, *coefficients) = _expansion(net, s, kinds, factor)
        for weight, coefficient in zip(weights, coefficients):
            total = torch.addcmul(total, weight.unsqueeze(-1), coefficient)
        return total

    def embedded_moments(
        self, net: ScalarNet, rows: Tensor, kinds: Tensor, factor: Tensor | None, table: Any = None
    ) -> Tensor:
        weights, coefficients = _expansion(net, rows[..., 0], kinds, factor)
        weighted = [rows * weight.unsqueeze(-1) for weight in weights]
        return torch.bmm(torch.cat(weighted, dim=1).transpose(1, 2), torch.cat(coefficients, dim=1))


def _expansion(
    net: ScalarNet, s: Tensor, kinds: Tensor, factor: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    """G(s, kind) as a sum of weights (...), which depend on positions, times constants (..., m)."""
    kinds = kinds.expand(s.shape)
    blocks = zip(s.detach().reshape(-1).split(_BLOCK), kinds.reshape(-1).split(_BLOCK))
    jets = zip(*(scalar_jets(net.net, x, net.inputs[kind]) for x, kind in blocks))
    coefficients = [torch.cat(parts).view(*s.shape, -1) for parts in jets]
    step = s - s.detach()
    weights = [torch.ones_like(s), step, 0.5 * step * step]
    if net.strip is None:
        return weights, coefficients
    strip = net.strip.detach()[kinds]
    more = weights if factor is None else [factor * weight for weight in weights]
    return weights + more, coefficients + [strip * part for part in coefficients]
