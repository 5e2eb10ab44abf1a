"""The energy head for a block of atoms, forward and backward by hand: matrix products and little else."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpa2calc.model.fitting import EnergyHead
from dpa2calc.model.layers import MLP
from dpa2calc.model.potential import Potential


class _Hidden(NamedTuple):
    """One hidden layer; weights and bias are doubled, because tanh(z) = 2 sigmoid(2 z) - 1."""

    doubled: Tensor  # (n_in, n_out)
    back: Tensor  # (n_out, n_in), the plain matrix transposed
    bias: Tensor  # (n_out,) doubled; of the first layer (n_types, n_out)
    idt: Tensor | None
    skip: bool


class _Net(NamedTuple):
    hidden: tuple[_Hidden, ...]
    last: Tensor  # (n, 1)
    last_bias: float


def why_no_block_head(head: EnergyHead) -> str | None:
    """The reason why a head cannot be evaluated by hand, or None."""
    c = head.config
    if c.numb_fparam or c.numb_aparam:
        return "its head takes frame or atomic parameters"
    if c.atom_ener:
        return "its head removes the energy of isolated atoms"
    for net in head.nets:
        assert isinstance(net, MLP)
        if net.name != "tanh" or net.skips[0] or any(skip > 1 for skip in net.skips):
            return "its fitting net has another shape or activation than usual"
    return None


class BlockHead:
    """Energies of a block from its descriptors, which are overwritten by their gradient.

    Descriptors come in the order of the kernels, (axis, channel) instead of (channel, axis), and without
    the type embedding, which is part of the first layer's bias.
    """

    def __init__(self, potential: Potential, head: int) -> None:
        chosen = potential.heads[head]
        assert isinstance(chosen, EnergyHead)
        part, extra = potential.descriptor.tabulated_part(), potential.descriptor.appended()
        size, axis = part.channels, part.axis
        order = torch.arange(size * axis).view(size, axis).t().reshape(-1)
        n_types = potential.config.n_types
        self.nets = [_prepare(net, order, extra, chosen.case_embd, n_types) for net in chosen.nets]  # type: ignore[arg-type]
        added = chosen.bias_atom_e.values.clone()
        silent = torch.zeros(n_types, dtype=torch.bool)
        for kind in chosen.config.exclude_types:
            silent[kind], added[kind] = True, 0.0
        added += chosen.out_bias.values
        for kind in potential.config.atom_exclude_types:
            silent[kind], added[kind] = True, 0.0
        self.added, self.silent = added.numpy(), silent if bool(silent.any()) else None

    @torch.no_grad()
    def __call__(self, descriptors: Tensor, kinds: np.ndarray) -> np.ndarray:
        """(b, width) and the types (b,) of the block's atoms -> energies (b,) in eV, float64."""
        types = torch.from_numpy(kinds)
        net = self.nets[0] if len(self.nets) == 1 else self.nets[int(kinds[0])]
        first = net.hidden[0]
        kept = [_tanh(first.bias.index_select(0, types).addmm_(descriptors, first.doubled))]
        x = kept[0]
        for layer in net.hidden[1:]:
            t = _tanh(torch.addmm(layer.bias, x, layer.doubled))
            kept.append(t)
            new = t if layer.idt is None else t * layer.idt
            x = new + x if layer.skip else new
        energies = (x @ net.last).squeeze(1).double().numpy() + net.last_bias
        grad = net.last.t()  # (1, n), the same for all atoms
        for layer, t in zip(net.hidden[:0:-1], kept[:0:-1]):
            inner = torch.ops.aten.tanh_backward(
                (grad if layer.idt is None else grad * layer.idt).expand_as(t), t
            )
            grad = (
                torch.addmm(grad.expand(len(t), -1), inner, layer.back) if layer.skip else inner @ layer.back
            )
        grad = torch.ops.aten.tanh_backward(grad.expand_as(kept[0]), kept[0])
        if self.silent is not None:
            quiet = self.silent[types]
            grad = grad.masked_fill(quiet.unsqueeze(1), 0.0)
            energies[quiet.numpy()] = 0.0
        torch.mm(grad, first.back, out=descriptors)
        return energies + self.added[kinds]


def _tanh(doubled: Tensor) -> Tensor:
    return doubled.sigmoid_().mul_(2.0).sub_(1.0)


def _prepare(net: MLP, order: Tensor, extra: Tensor | None, case: Tensor | None, n_types: int) -> _Net:
    """Weights in the order of the kernels; what does not depend on positions goes into the bias."""
    hidden = []
    for index in range(len(net.skips)):
        layer = net.layers[index]
        assert layer.bias is not None
        matrix, bias = layer.matrix.detach(), layer.bias.detach()
        if index == 0:
            constant = bias.expand(n_types, -1)
            at = len(order)
            if extra is not None:
                constant = constant + extra @ matrix[at : at + extra.shape[1]]
                at += extra.shape[1]
            if case is not None:
                constant = constant + case @ matrix[at:]
            matrix, bias = matrix[order], constant
        hidden.append(
            _Hidden(
                (2.0 * matrix).contiguous(),
                matrix.t().contiguous(),
                (2.0 * bias).contiguous(),
                layer.idt,
                bool(net.skips[index]),
            )
        )
    last = net.layers[-1]
    assert last.bias is not None
    return _Net(tuple(hidden), last.matrix.detach(), float(last.bias.detach()))
