"""The energy head for a block of atoms, forward and backward by hand: matrix products and little else."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpa2calc.kernels.net import Layer, backward, forward


class HeadNet(NamedTuple):
    """A fitting net: hidden layers, what each type adds to the first one, and the linear end.

    first: (n_types, m1), the first layer's bias included. end: (m, 1).
    """

    layers: tuple[Layer, ...]
    first: Tensor
    end: Tensor
    end_bias: float


class BlockHead:
    """Energies of a block from its descriptors, which are overwritten by their gradient.

    Args:
        nets: one, or one for each type.
        added: (n_types,) eV, added to the energy of an atom.
        silent: (n_types,) bool, types whose net does not count; or None.
    """

    def __init__(self, nets: list[HeadNet], added: np.ndarray, silent: Tensor | None) -> None:
        self.nets, self.added, self.silent = nets, added, silent

    @torch.no_grad()
    def __call__(self, descriptors: Tensor, kinds: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Descriptors (b, width) and types (b,) of the block's atoms -> energies (b,), features (b, m).

        Energies are in eV and float64; features are the last hidden layer.
        """
        types = torch.from_numpy(kinds)
        net = self.nets[0] if len(self.nets) == 1 else self.nets[int(kinds[0])]
        matrix = net.layers[0].matrix
        doubled = net.first.index_select(0, types).addmm_(descriptors, matrix, beta=2, alpha=2)
        values, x = forward(net.layers, doubled)
        energies = (x @ net.end).squeeze(1).double().numpy() + net.end_bias
        grad = backward(net.layers, values, net.end.t().expand(len(x), -1))
        if self.silent is not None:
            quiet = self.silent[types]
            grad = grad.masked_fill(quiet.unsqueeze(1), 0.0)
            energies[quiet.numpy()] = 0.0
            x = x.masked_fill(quiet.unsqueeze(1), 0.0)
        torch.mm(grad, matrix.t(), out=descriptors)
        return energies + self.added[kinds], x
