"""Embedding net of a scalar and the types of two atoms, in concat and strip mode (docs/maths.md 3, 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dpa2calc.kernels.net import ScalarNet
from dpa2calc.kernels.tables.moments import TabulatedEmbedding
from dpa2calc.model.config import DPA1Config, RepinitConfig
from dpa2calc.model.layers import MLP, Operator


class PairEmbedding(Operator):
    """G(s, a, b) for a scalar s and the types a (first) and b (second) of a pair.

    concat: Net([s, T_a, T_b]); strip: S(s) (1 + Net_strip([T_a, T_b]) [* switch]).
    With `one_side` only T_a enters.
    """

    def __init__(self, neuron: Sequence[int], config: RepinitConfig | DPA1Config, *, one_side: bool):
        super().__init__()
        self.one_side, self.tebd_dim = one_side, config.tebd_dim
        n_types_in = self.tebd_dim if one_side else 2 * self.tebd_dim
        concat, act, resnet_dt = config.tebd_input_mode == "concat", config.activation, config.resnet_dt
        self.net = MLP(1 + n_types_in if concat else 1, neuron, act, resnet_dt=resnet_dt)
        self.strip = None if concat else MLP(n_types_in, neuron, act, resnet_dt=resnet_dt)
        self.tabulated: TabulatedEmbedding | None = None  # set by `compress`

    def pair_inputs(self, tebd: Tensor) -> Tensor:
        """Type part of the input for every pair (a, b) in row a * n_types + b, or for every a."""
        n = tebd.shape[0]
        if self.one_side:
            return tebd  # (n, td)
        first = tebd.unsqueeze(1).expand(n, n, -1)
        second = tebd.unsqueeze(0).expand(n, n, -1)
        return torch.cat([first, second], dim=-1).reshape(n * n, -1)  # (n*n, 2 td)

    def pair_index(self, first: Tensor, second: Tensor, n_types: int) -> Tensor:
        """Row of `pair_inputs` for types `first` (a) and `second` (b), broadcast together."""
        return first + torch.zeros_like(second) if self.one_side else first * n_types + second

    def of_types(self, tebd: Tensor) -> ScalarNet:
        """The net for types with the vectors `tebd` (n_types, td): all that types add is worked out."""
        inputs = self.pair_inputs(tebd)
        if self.strip is not None:
            return scalar_net(self.net, len(inputs), strip=self.strip(inputs))
        first, td = self.net.layers[0], tebd.shape[1]
        bias = 0.0 if first.bias is None else first.bias
        parts = None
        if self.one_side:
            table = tebd @ first.matrix[1:] + bias
        else:
            parts = tebd @ first.matrix[1 : 1 + td] + bias, tebd @ first.matrix[1 + td :]
            table = (parts[0].unsqueeze(1) + parts[1]).flatten(0, 1)  # (n*n, m1)
        return ScalarNet(self.net.net, first.matrix[0], table, inputs, parts)

    def example(self) -> ScalarNet:
        """The net for a single type: what kind of net it is."""
        return self.of_types(self.net.layers[0].matrix.new_zeros(1, self.tebd_dim))

    def forward(self, s: Tensor, index: Tensor, tebd: Tensor, strip_switch: Tensor | None) -> Tensor:
        """(...) scalars and pair indices -> (..., width); `strip_switch` multiplies the strip part."""
        return self.backend.embedding(self.backend.folded(self.of_types, tebd), s, index, strip_switch)

    def moments(self, rows: Tensor, index: Tensor, tebd: Tensor, strip_switch: Tensor | None) -> Tensor:
        """sum_j rows_j (x) G_j: (n, k, 4) -> (n, 4, width)"""
        net = self.backend.folded(self.of_types, tebd)
        return self.backend.embedded_moments(net, rows, index, strip_switch, self.tabulated)


def scalar_net(mlp: MLP, kinds: int = 1, strip: Tensor | None = None) -> ScalarNet:
    """A net of the scalar alone, for so many kinds of pairs."""
    first = mlp.layers[0]
    bias = torch.zeros_like(first.matrix[0]) if first.bias is None else first.bias
    inputs = first.matrix.new_zeros(kinds, 0)
    return ScalarNet(mlp.net, first.matrix[0], bias.expand(kinds, -1), inputs, strip=strip)
