"""The three-body sum for training: without padding, and feature by feature."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dpa2calc.kernels.net import Net, ScalarNet, activation
from dpa2calc.kernels.training.pair_list import FlatPairs


def angle_sums(net: ScalarNet, directions: Tensor, types: Tensor, mask: Tensor) -> Tensor:
    """sum_jk c_jk G(c_jk; t_j, t_k), (n, m), as `Reference.angle_sums` has it.

    Differentiable any number of times.
    """
    pairs = FlatPairs.of(mask, torch.zeros_like(types))
    first, second = pairs.squares()
    types = pairs.select(types)
    angles = pairs.overlaps(pairs.select(directions))
    kinds = types[first] * math.isqrt(len(net.table)) + types[second]
    table = net.table.t()  # (m1, kinds)
    # `gather` has a quick gradient, unlike table[:, kinds].
    z = torch.addcmul(table.gather(1, kinds.expand(len(table), -1)), net.slope.unsqueeze(1), angles)
    return pairs.restore_order(pairs.sum_squares(_columns(net.net, z) * angles).t())


def _columns(net: Net, z: Tensor) -> Tensor:
    """The net of many scalars, from the first layer's x W + b, (m1, L) -> (m, L).

    Rows of two to eight features are slow to multiply and to walk; long rows of one feature are not.
    """
    act = activation(net.activation)
    x = act(z) if net.layers[0].idt is None else act(z) * net.layers[0].idt.unsqueeze(1)
    for layer in net.layers[1:]:
        y = layer.matrix.t() @ x
        y = act(y if layer.bias is None else y + layer.bias.unsqueeze(1))
        if layer.idt is not None:
            y = y * layer.idt.unsqueeze(1)
        x = y if layer.skip == 0 else y + x if layer.skip == 1 else y + torch.cat([x, x])
    return x
