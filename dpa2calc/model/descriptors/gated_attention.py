"""Gated self-attention of DPA-1 over the neighbours of an atom (docs/maths.md 8)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dpa2calc.kernels.attention import SHIFT, padded_softmax
from dpa2calc.model.config import DPA1Config
from dpa2calc.model.layers import Dense, LayerNorm
from dpa2calc.model.neighborhood import Shell

# Scores (n, k, k) over so many bytes are made a block of atoms at a time, and again for the gradient.
_MOST_BYTES, _BLOCK_BYTES = 128_000_000, 32_000_000


class NeighborAttention(nn.Module):
    """One attention layer: G <- LayerNorm(G + attention(G))."""

    def __init__(self, config: DPA1Config):
        super().__init__()
        width = config.neuron[-1]
        self.config = config
        self.in_proj = Dense(width, 3 * config.attn)
        self.out_proj = Dense(config.attn, width)
        self.norm = LayerNorm(width, eps=config.ln_eps, trainable=config.trainable_ln)

    def forward(self, g: Tensor, shell: Shell, w: Tensor, n_padding: Tensor) -> Tensor:
        """(n, k, m) -> (n, k, m); w (n, k) is the switch, n_padding (n,) the padding slots of deepmd-kit."""
        n, k = shell.mask.shape
        bytes_of_atom = k * k * g.element_size()
        if n * bytes_of_atom <= _MOST_BYTES:
            return self._attend(g, shell, w, n_padding)
        step, out = max(1, _BLOCK_BYTES // bytes_of_atom), []
        for rows in (slice(first, first + step) for first in range(0, n, step)):
            block = (g[rows], shell.rows(rows), w[rows], n_padding[rows])
            out.append(checkpoint(self._attend, *block, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(out)

    def _attend(self, g: Tensor, shell: Shell, w: Tensor, n_padding: Tensor) -> Tensor:
        c = self.config
        q, k, v = self.in_proj(g).split(c.attn, dim=-1)
        if c.normalize:
            q, k, v = (F.normalize(x, dim=-1) for x in (q, k, v))
        scale = c.temperature if c.temperature is not None else 1.0 / math.sqrt(c.attn * c.scaling_factor)
        scores = torch.bmm(q * scale, k.transpose(1, 2))  # (n, k, k)
        real = shell.counted  # excluded neighbours are padding to the attention too
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
