"""Embedding net of one scalar and the types of two atoms, in concat and strip mode (MATHS 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dpa2calc.kernels.inference.embedding import AngleSums, EmbeddedMoments, net_of
from dpa2calc.kernels.tables.moments import TabulatedEmbedding
from dpa2calc.kernels.training.dense_tanh import tanh_embedding
from dpa2calc.model.config import TebdMode
from dpa2calc.model.layers import MLP


def training_layers(net: MLP) -> list[tuple[Tensor, Tensor, int]] | None:
    """Matrix, bias and skip of the layers after the first, or None where `tanh_embedding` does not apply."""
    layers = list(net.layers)
    if net.name != "tanh" or net.skips[0] or not layers[0].matrix.requires_grad:
        return None
    out = []
    for layer, skip in zip(layers[1:], net.skips[1:]):
        if layer.bias is None or layer.idt is not None:
            return None
        out.append((layer.matrix, layer.bias, skip))
    return None if layers[0].idt is not None else out


class PairEmbedding(nn.Module):
    """G(s, a, b) for a scalar s and the types a (first) and b (second) of a pair.

    concat: Net([s, T_a, T_b]); strip: S(s) (1 + Net_strip([T_a, T_b]) [* switch]).
    With `one_side` only T_a enters.
    """

    def __init__(
        self,
        neuron: Sequence[int],
        tebd_dim: int,
        mode: TebdMode,
        *,
        one_side: bool,
        activation: str,
        resnet_dt: bool,
    ):
        super().__init__()
        self.mode, self.one_side = mode, one_side
        n_types_in = tebd_dim if one_side else 2 * tebd_dim
        concat = mode == "concat"
        self.net = MLP(1 + n_types_in if concat else 1, neuron, activation, resnet_dt=resnet_dt)
        self.strip = None if concat else MLP(n_types_in, neuron, activation, resnet_dt=resnet_dt)
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

    def first_layer_table(self, inputs: Tensor) -> Tensor:
        """Type part of the first layer, which takes few distinct values: (pairs, m1)."""
        first = self.net.layers[0]
        if self.strip is not None:
            assert first.bias is not None
            return first.bias.unsqueeze(0).expand(inputs.shape[0], -1)
        table = inputs @ first.matrix[1:]
        return table if first.bias is None else table + first.bias

    def moments(
        self, rows: Tensor, index: Tensor, tebd: Tensor, strip_switch: Tensor | None
    ) -> Tensor | None:
        """sum_j rows_j (x) G_j, (n, 4, m), by the inference kernel; None where it does not apply."""
        if self.tabulated is not None and not self.net.layers[0].matrix.requires_grad:
            strip = self.strip(self.pair_inputs(tebd)) if self.strip is not None else None
            return self.tabulated.moments(rows, index, strip, strip_switch)
        net = net_of(self.net)
        if net is None or (self.strip is not None and self.strip.layers[0].matrix.requires_grad):
            return None
        inputs = self.pair_inputs(tebd)
        strip = self.strip(inputs) if self.strip is not None else None
        factor = strip_switch if strip is not None else None
        return EmbeddedMoments.apply(rows, index, self.first_layer_table(inputs), strip, factor, net)

    def angle_sums(self, directions: Tensor, types: Tensor, tebd: Tensor) -> Tensor | None:
        """sum_jk c_jk G(c_jk; t_j, t_k), (n, m), by the inference kernel; None where it does not apply.

        directions (n, k, 3), types (n, k). The first layer is a sum of a part of j and a part of k.
        """
        net = net_of(self.net)
        if net is None or self.strip is not None:
            return None
        parts = (part[types].transpose(1, 2).contiguous() for part in self._first_layer_parts(tebd))
        return AngleSums.apply(directions, *parts, net)

    def _first_layer_parts(self, tebd: Tensor) -> tuple[Tensor, Tensor]:
        """What each of the two types adds to the first layer, (n_types, m1); concat mode, both types."""
        first, width = self.net.layers[0], tebd.shape[1]
        of_first, of_second = tebd @ first.matrix[1 : 1 + width], tebd @ first.matrix[1 + width :]
        return of_first if first.bias is None else of_first + first.bias, of_second

    @property
    def takes_columns(self) -> bool:
        """Whether `of_angles` has this net."""
        return self.strip is None and not self.net.skips[0]

    def of_angles(self, angles: Tensor, index: Tensor, tebd: Tensor) -> Tensor:
        """G(c; a, b) as (m, L) for angles c (L,) and pairs of types (L,) as `pair_index` has them.

        The same numbers as `forward`, differentiable any number of times; see `takes_columns`.
        """
        table = self.first_layer_table(self.pair_inputs(tebd)).t()  # (m1, pairs)
        scale = self.net.layers[0].matrix[0].unsqueeze(1)
        of_types = table.gather(
            1, index.expand(len(table), -1)
        )  # has a quick gradient, unlike table[:, index]
        return self.net.forward_columns(torch.addcmul(of_types, scale, angles))

    def forward(self, s: Tensor, index: Tensor, tebd: Tensor, strip_switch: Tensor | None) -> Tensor:
        """(...) scalars and pair indices -> (..., width); `strip_switch` multiplies the strip part."""
        inputs = self.pair_inputs(tebd)
        if self.strip is not None:
            types_part = self.strip(inputs)[index]
            if strip_switch is not None:
                types_part = types_part * strip_switch.unsqueeze(-1)
            return self.net(s.unsqueeze(-1)) * (1.0 + types_part)
        table = self.first_layer_table(inputs)
        later = training_layers(self.net)
        if later is not None and s.is_cpu:
            slope = self.net.layers[0].matrix[0]
            flat = tanh_embedding(s.reshape(-1), index.expand(s.shape).reshape(-1), table, slope, later)
            return flat.view(*s.shape, flat.shape[-1])
        z = torch.addcmul(table[index], s.unsqueeze(-1), self.net.layers[0].matrix[0])
        x = torch.cat([s.unsqueeze(-1), inputs[index]], dim=-1) if self.net.skips[0] else None
        return self.net(self.net.finish(0, z, x), first=1)
