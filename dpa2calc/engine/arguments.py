"""What the streaming engine is given of a potential: named tuples of arrays, and the energy head."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dpa2calc.kernels.inference.head import BlockHead, HeadNet
from dpa2calc.kernels.net import Net
from dpa2calc.kernels.streaming.tuples import Model
from dpa2calc.kernels.tables.moments import TabulatedEmbedding
from dpa2calc.model.descriptors import TabulatedPart
from dpa2calc.model.fitting import EnergyHead
from dpa2calc.model.layers import MLP
from dpa2calc.model.potential import Potential


def kernel_arguments(potential: Potential, first_type: int) -> tuple[Model, int, int, int]:
    """Model data in the form of the kernels; channels of the table, channels that count, axes."""
    c, part, dtype = potential.config.descriptor, potential.descriptor.tabulated_part(), potential.dtype
    environment, tabulated, factors = part.environment, part.owner.tabulated, part.factors
    strip = torch.zeros(0, 0, 0) if factors is None else factors
    assert isinstance(tabulated, TabulatedEmbedding)
    table = tabulated.table
    width = table.width(dtype)
    more = width - table.size
    model = Model(
        (environment.cutoff, environment.cutoff_smooth, environment.protection),
        environment.mean.double().numpy(),
        environment.std.double().numpy(),
        table.flat(dtype).numpy(),
        table.grid,
        part.lines.contiguous().numpy() * table.n_nodes,
        F.pad(strip.detach().to(dtype), (0, more)).contiguous().numpy(),
        part.smooth,
        _mask(environment.excluded_pairs),
        _mask(potential.excluded_pairs),
        F.pad(_padding(part, first_type), (0, more)).flatten(2).contiguous().numpy(),
        table.flat(dtype).numpy().dtype.type(1.0 / c.nsel),
        np.array(c.type_sel or (c.nsel,), dtype=np.float64),
    )
    return model, width, table.size, part.axis


def _mask(excluded: Tensor | None) -> np.ndarray:
    return np.zeros((0, 0), dtype=bool) if excluded is None else excluded.numpy()


def _padding(part: TabulatedPart, first_type: int) -> Tensor:
    """What each missing slot adds to the moments, (n_types, n_sections, 4, size); empty if nothing."""
    environment = part.environment
    if not environment.shifted:
        return torch.zeros(0, 0, 4, 0, dtype=environment.mean.dtype)
    rows = environment.padding_rows(torch.arange(len(part.lines)))  # (n_types, 4)
    values = part.padding(first_type)
    return (rows[:, None, :, None] * values.unsqueeze(2)).detach()


def why_no_block_head(head: EnergyHead) -> str | None:
    """The reason why a head cannot be evaluated by hand, or None."""
    c = head.config
    if c.numb_fparam or c.numb_aparam:
        return "its head takes frame or atomic parameters"
    if c.removes_vacuum:
        return "its head removes the energy of isolated atoms"
    nets = [net.net for net in head.nets if isinstance(net, MLP)]
    if any(net.why_not_by_hand() or any(layer.skip > 1 for layer in net.layers) for net in nets):
        return "its fitting net has another shape or activation than usual"
    return None


def block_head(potential: Potential, head: int) -> BlockHead:
    """A head in the form of the kernels.

    Descriptors come in the order of the kernels, (axis, channel) instead of (channel, axis), and without
    the type embedding, which is part of the first layer's bias.
    """
    chosen = potential.heads[head]
    assert isinstance(chosen, EnergyHead)
    part, extra = potential.descriptor.tabulated_part(), potential.descriptor.appended()
    order = torch.arange(part.channels * part.axis).view(part.channels, part.axis).t().reshape(-1)
    n_types = potential.config.n_types
    nets = [
        _head_net(net.net, order, extra, chosen.case_embd, n_types)
        for net in chosen.nets
        if isinstance(net, MLP)
    ]
    added = chosen.bias_atom_e.values.clone()
    silent = np.zeros(n_types, dtype=bool)
    for kind in chosen.config.exclude_types:
        silent[kind], added[kind] = True, 0.0
    added += chosen.out_bias.values
    for kind in potential.config.atom_exclude_types:
        silent[kind], added[kind] = True, 0.0
    return BlockHead(nets, added.numpy(), silent)


def _head_net(net: Net, order: Tensor, extra: Tensor | None, case: Tensor | None, n_types: int) -> HeadNet:
    """Weights in the order of the kernels; what does not depend on positions goes into the first bias."""
    layers = [layer.each(Tensor.detach) for layer in net.layers]
    matrix, bias = layers[0].matrix, layers[0].bias
    assert bias is not None and net.end is not None and net.end.bias is not None
    constant, at = bias.expand(n_types, -1), len(order)
    if extra is not None:
        constant = constant + extra @ matrix[at : at + extra.shape[1]]
        at += extra.shape[1]
    if case is not None:
        constant = constant + case @ matrix[at:]
    layers[0] = layers[0]._replace(matrix=matrix[order].contiguous())
    return HeadNet(
        tuple(layers), constant.contiguous(), net.end.matrix.detach(), float(net.end.bias.detach())
    )
