"""Gated self-attention of DPA-1 over the neighbours of an atom (MATHS 8), and the padded softmax."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dpa2calc.model.config import DPA1Config
from dpa2calc.model.layers import Dense, LayerNorm
from dpa2calc.model.neighborhood import Shell

# Scores (n, k, k) over so many bytes are made a block of atoms at a time, and again for the gradient.
_MOST_BYTES, _BLOCK_BYTES = 128_000_000, 32_000_000
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
    if isinstance(n_more, Tensor) and bool((n_more >= 0).all()):
        return torch.exp(scores - torch.logaddexp(log_sum, n_more.log() - SHIFT))
    # With scores below -20 everywhere and more neighbours than nsel the sum could vanish: it is kept
    # above one padding column.
    column = torch.exp(-SHIFT - log_sum)
    correction = torch.maximum(1.0 + n_more * column, column)
    return torch.exp(scores - log_sum) / correction


class NeighborAttention(nn.Module):
    """One attention layer: G <- LayerNorm(G + attention(G))."""

    def __init__(self, config: DPA1Config):
        super().__init__()
        width = config.neuron[-1]
        self.config = config
        self.in_proj = Dense(width, 3 * config.attn)
        self.out_proj = Dense(config.attn, width)
        self.norm = LayerNorm(width, eps=config.ln_eps, trainable=config.trainable_ln)

    def forward(
        self, g: Tensor, shell: Shell, w: Tensor, n_padding: Tensor, excluded: Tensor | None
    ) -> Tensor:
        """(n, k, m) -> (n, k, m); w (n, k) is the switch, n_padding (n,) the padding slots of deepmd-kit."""
        n, k = shell.mask.shape
        bytes_of_atom = k * k * g.element_size()
        if n * bytes_of_atom <= _MOST_BYTES:
            return self._attend(g, shell, w, n_padding, excluded)
        step, out = max(1, _BLOCK_BYTES // bytes_of_atom), []
        for rows in (slice(first, first + step) for first in range(0, n, step)):
            left_out = None if excluded is None else excluded[rows]
            block = (g[rows], shell.rows(rows), w[rows], n_padding[rows], left_out)
            out.append(checkpoint(self._attend, *block, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(out)

    def _attend(
        self, g: Tensor, shell: Shell, w: Tensor, n_padding: Tensor, excluded: Tensor | None
    ) -> Tensor:
        c = self.config
        q, k, v = self.in_proj(g).split(c.attn, dim=-1)
        if c.normalize:
            q, k, v = (F.normalize(x, dim=-1) for x in (q, k, v))
        scale = c.temperature if c.temperature is not None else 1.0 / math.sqrt(c.attn * c.scaling_factor)
        scores = torch.bmm(q * scale, k.transpose(1, 2))  # (n, k, k)
        # Excluded neighbours are padding to the attention too.
        real = shell.mask if excluded is None else shell.mask & ~excluded
        if c.smooth_type_embedding:
            ww = w.unsqueeze(2) * w.unsqueeze(1)
            scores = (scores + SHIFT) * ww - SHIFT
            # Columns of `scores` that are padding already hold -20, so only the rest is added.
            n_more = (n_padding - (~shell.mask).sum(dim=1)).to(g.dtype).view(-1, 1, 1)
            weights = padded_softmax(scores, n_more) * ww
        else:
            # A finite number: an atom without neighbours must not become NaN.
            scores = scores.masked_fill(~real.unsqueeze(1), -1e30)
            weights = torch.softmax(scores, dim=-1)
            weights = torch.where(real.unsqueeze(2) & real.unsqueeze(1), weights, 0.0)
        if c.attn_dotr:
            # Directions from the vectors themselves: the same as from the rows of the matrix.
            unit = shell.vectors / shell.distances.unsqueeze(-1)
            unit = unit * real.unsqueeze(-1)
            weights = weights * torch.bmm(unit, unit.transpose(1, 2))
        return self.norm(g + self.out_proj(torch.bmm(weights, v)))

    def padding_row(self, g: Tensor) -> Tensor:
        """A padding slot: its attention output is zero before the last map. (n, m) -> (n, m)"""
        return self.norm(g + torch.as_tensor(self.out_proj.bias))
