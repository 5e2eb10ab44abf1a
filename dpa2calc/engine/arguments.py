"""What the streaming engine is given of a potential: named tuples of arrays, and the energy head."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dpa2calc.kernels.inference.head import BlockHead, HeadNet
from dpa2calc.kernels.net import Net
from dpa2calc.kernels.streaming.tuples import Model
from dpa2calc.model.config import DeepPotSEConfig, DPA1Config
from dpa2calc.model.descriptors.deeppot_se import DeepPotSE
from dpa2calc.model.fitting import EnergyHead
from dpa2calc.model.layers import MLP
from dpa2calc.model.potential import Potential


def kernel_arguments(potential: Potential, first_type: int) -> tuple[Model, int, int]:
    """Model data in the form of the kernels, number of channels, number of axes."""
    config, d = potential.config, potential.descriptor
    n_types, c, dtype = config.n_types, config.descriptor, potential.dtype
    assert isinstance(c, (DPA1Config, DeepPotSEConfig))
    lines = torch.zeros(n_types, n_types, dtype=torch.int64)
    strip = torch.zeros(0, 0, 0, dtype=dtype)
    smooth = False
    center, other = torch.arange(n_types).unsqueeze(1), torch.arange(n_types).unsqueeze(0)
    if isinstance(d, DeepPotSE):
        environment, tabulated = d.environment, d.tabulated
        lines = torch.tensor([[d.net_index(i, j) for j in range(n_types)] for i in range(n_types)])
        sel, excluded = c.sel, d.excluded_pairs  # type: ignore[union-attr]
    else:
        block = d.repinit
        environment, tabulated, embedding = block.environment, block.embedding.tabulated, block.embedding
        index = embedding.pair_index(other, center, n_types).expand(n_types, n_types)
        sel, excluded, smooth = (c.nsel,), block.excluded_pairs, block.smooth
        if embedding.strip is None:
            lines = index
        else:
            strip = embedding.strip(embedding.pair_inputs(d.type_embedding()))[index]
    assert tabulated is not None
    table = tabulated.table
    model = Model(
        (environment.cutoff, environment.cutoff_smooth, environment.protection),
        environment.mean.double().numpy(),
        environment.std.double().numpy(),
        table.flat(dtype).numpy(),
        table.grid,
        lines.contiguous().numpy() * table.n_nodes,
        strip.detach().to(dtype).contiguous().numpy(),
        smooth,
        _mask(excluded),
        _mask(potential.excluded_pairs),
        _padding(potential, first_type).numpy(),
        table.flat(dtype).numpy().dtype.type(1.0 / c.nsel),
        np.array(sel, dtype=np.float64),
    )
    return model, table.size, c.axis_neuron


def _mask(excluded: Tensor | None) -> np.ndarray:
    return np.zeros((0, 0), dtype=bool) if excluded is None else excluded.numpy()


def _padding(potential: Potential, first_type: int) -> Tensor:
    """What each missing slot adds to the moments, (n_types, n_sections, 4 * size); empty if nothing."""
    d, n_types, dtype = potential.descriptor, potential.config.n_types, potential.dtype
    environment = d.environment if isinstance(d, DeepPotSE) else d.repinit.environment
    if not environment.shifted:
        return torch.zeros(0, 0, 0, dtype=dtype)
    rows = environment.padding_rows(torch.arange(n_types))  # (n_types, 4)
    if isinstance(d, DeepPotSE):
        values = d.padding_values()  # (n_types, n_types, size)
    else:
        embedding = d.repinit.embedding
        tebd = d.type_embedding()
        index = embedding.pair_index(torch.tensor(first_type), torch.arange(n_types), n_types)
        switch = torch.zeros(n_types, dtype=dtype) if d.repinit.smooth else None
        values = embedding(rows[:, 0], index, tebd, switch).unsqueeze(1)  # (n_types, 1, size)
    return (rows.view(n_types, 1, 4, 1) * values.unsqueeze(2)).flatten(2).detach().contiguous()


def why_no_block_head(head: EnergyHead) -> str | None:
    """The reason why a head cannot be evaluated by hand, or None."""
    c = head.config
    if c.numb_fparam or c.numb_aparam:
        return "its head takes frame or atomic parameters"
    if c.atom_ener:
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
    c, d = potential.config.descriptor, potential.descriptor
    assert isinstance(c, (DPA1Config, DeepPotSEConfig))
    size, axis = c.neuron[-1], c.axis_neuron
    order = torch.arange(size * axis).view(size, axis).t().reshape(-1)
    extra = None
    if isinstance(c, DPA1Config) and c.concat_output_tebd:
        assert not isinstance(d, DeepPotSE)
        extra = d.type_embedding().detach()  # (n_types, tebd_dim)
    n_types = potential.config.n_types
    nets = [
        _head_net(net.net, order, extra, chosen.case_embd, n_types)
        for net in chosen.nets
        if isinstance(net, MLP)
    ]
    added = chosen.bias_atom_e.values.clone()
    silent = torch.zeros(n_types, dtype=torch.bool)
    for kind in chosen.config.exclude_types:
        silent[kind], added[kind] = True, 0.0
    added += chosen.out_bias.values
    for kind in potential.config.atom_exclude_types:
        silent[kind], added[kind] = True, 0.0
    return BlockHead(nets, added.numpy(), silent if bool(silent.any()) else None)


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
