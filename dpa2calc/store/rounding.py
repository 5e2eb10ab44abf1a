"""Weights of fitting nets with fewer digits, so that models with many heads make small files.

Nearly all numbers of such a model are weights of fitting nets. On a grid of 1/256 of their size they are
exact in float16, as which `save_checkpoint` stores them, and wheels pack them to 13 bits a number in place of
30. Forces move by less than a two-hundredth of their error (`benchmarks/rounding.py`); energies by an offset
of each element, which is to be fitted again. Weights of the descriptor are left alone: at 12 bits they would
move forces of water by a fortieth of their error, and they are few.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dpa2calc.model.heads import Head
from dpa2calc.model.layers import Dense
from dpa2calc.model.potential import Potential
from dpa2calc.model.rigidity import Rigidity

BITS = 8  # of a weight, below the root mean square of its matrix
TRIANGLE_STEP = 1 / 32  # of an uncertainty; |A f| of a usual atom is of the order of one


@torch.no_grad()
def round_nets(potential: Potential, *, bits: int = BITS) -> None:
    """Round the weights of all fitting nets, in place, but for their last layers and their biases.

    The grid of a matrix is the power of two at or below its root mean square, over 2^bits. The uncertainties
    of the heads, which were those of other weights, are dropped.
    """
    for head in potential.heads:
        for name, layer in head.named_modules():
            if isinstance(layer, Dense) and name.startswith("nets.") and layer.matrix.shape[1] > 1:
                layer.matrix.copy_(_on_grid(layer.matrix, bits))
    potential.forget_uncertainty()


def round_uncertainties(potential: Potential, *, step: float = TRIANGLE_STEP) -> None:
    """Round the triangles of the uncertainties of all heads; deviations change by a hundredth or two."""
    for head in potential.heads:
        if isinstance(head, Head) and head.rigidity is not None:
            old = head.rigidity
            head.rigidity = Rigidity(torch.round(old.factor / step) * step, old.limits, old.facts)


def _on_grid(weights: Tensor, bits: int) -> Tensor:
    size = float(weights.double().square().mean().sqrt())
    if size == 0.0:
        return weights
    step = 2.0 ** (math.floor(math.log2(size)) - bits)
    return (torch.round(weights.double() / step) * step).to(torch.float16).to(weights)
