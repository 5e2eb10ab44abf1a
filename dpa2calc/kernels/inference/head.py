"""The energy head for a block of atoms, forward and backward by hand: matrix products and little else."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpa2calc.kernels.native import Native, Ready
from dpa2calc.kernels.net import Layer, backward, forward

from .compiled import has_loops, tools_of

if TYPE_CHECKING:
    from dpa2calc.kernels.blas import Floats

_ENERGIES = Native("inference.head_loops", "energies")


class HeadNet(NamedTuple):
    """A fitting net: hidden layers, what each type adds to the first one, and the linear end.

    first: (n_types, m1), the first layer's bias included. end: (m, 1).
    """

    layers: tuple[Layer, ...]
    first: Tensor
    end: Tensor
    end_bias: float


class LoopNet(NamedTuple):
    """The same as compiled loops take it.

    input: (width, m1), the matrix of the first layer. scales: of all layers, ones where a layer has none.
    matrices, biases, skips: of the layers after the first. silent, added: (n_types,), see `BlockHead`.
    """

    first: Floats
    input: Floats
    matrices: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    scales: tuple[Floats, ...]
    skips: tuple[int, ...]
    end: Floats
    end_bias: float
    silent: np.ndarray
    added: np.ndarray

    @staticmethod
    def of(net: HeadNet, silent: np.ndarray, added: np.ndarray) -> LoopNet:
        """From a net and what `BlockHead` holds by the same names."""
        later = net.layers[1:]
        ones = [torch.ones_like(layer.matrix[0]) if layer.idt is None else layer.idt for layer in net.layers]
        return LoopNet(
            _array(net.first),
            _array(net.layers[0].matrix),
            tuple(_array(layer.matrix) for layer in later),
            tuple(_array(layer.bias) for layer in later if layer.bias is not None),
            tuple(map(_array, ones)),
            tuple(layer.skip for layer in later),
            _array(net.end.squeeze(1)),
            net.end_bias,
            silent,
            added,
        )


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().contiguous().numpy()


class BlockHead:
    """Energies of a block from its descriptors, which are overwritten by their gradient.

    One compiled call, so that threads do not wait for each other's Python; by PyTorch's operations where it
    does not export its matrix product, and for nets of one layer.

    Args:
        nets: one, or one for each type.
        added: (n_types,) eV, added to the energy of an atom.
        silent: (n_types,) bool, types whose net does not count.
    """

    def __init__(self, nets: list[HeadNet], added: np.ndarray, silent: np.ndarray) -> None:
        self.nets, self.added, self.silent = nets, added, silent
        self._compiled: list[Ready] = []
        if has_loops(nets[0].first) and all(len(net.layers) > 1 for net in nets):
            self._compiled = [Ready(LoopNet.of(net, silent, added)) for net in nets]

    def __call__(self, descriptors: Tensor, kinds: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Descriptors (b, width) and types (b,) of the block's atoms -> energies (b,), features (b, m).

        Energies are in eV and float64; features are the last hidden layer.
        """
        which = 0 if len(self.nets) == 1 else int(kinds[0])
        if not self._compiled:
            return self.by_operations(descriptors, kinds, self.nets[which])
        features = descriptors.new_empty(len(kinds), len(self.nets[which].end))
        energies, tools = np.empty(len(kinds)), tools_of(descriptors.dtype)
        assert tools is not None
        _ENERGIES(tools, self._compiled[which], kinds, descriptors, features, energies)
        return energies, features

    @torch.no_grad()
    def by_operations(
        self, descriptors: Tensor, kinds: np.ndarray, net: HeadNet
    ) -> tuple[np.ndarray, Tensor]:
        """The same by PyTorch's operations."""
        types, quiet = torch.from_numpy(kinds), torch.from_numpy(self.silent[kinds]).unsqueeze(1)
        matrix = net.layers[0].matrix
        doubled = net.first.index_select(0, types).addmm_(descriptors, matrix, beta=2, alpha=2)
        values, x = forward(net.layers, doubled)
        energies = (x @ net.end).squeeze(1).double().numpy() + net.end_bias
        grad = backward(net.layers, values, net.end.t().expand(len(x), -1))
        torch.mm(grad.masked_fill(quiet, 0.0), matrix.t(), out=descriptors)
        energies[self.silent[kinds]] = 0.0
        return energies + self.added[kinds], x.masked_fill(quiet, 0.0)
