"""A net of one scalar with its first two derivatives by that scalar."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .net import Net, activation, finish


def scalar_jets(net: Net, s: Tensor, inputs: Tensor, *, order: int = 2) -> tuple[Tensor, ...]:
    """Value, slope and curvature of net([s, inputs]) with respect to s, (..., m) each, without autograd.

    Args:
        s: (...). inputs: (..., t), what follows the scalar; t may be 0.
        order: of the last derivative, 1 or 2.
    """
    act = activation(net.activation)
    x = torch.cat([s.detach().unsqueeze(-1), inputs.detach()], dim=-1)
    parts = [x, *(torch.zeros_like(x) for _ in range(order))]
    parts[1][..., 0] = 1.0
    with torch.no_grad():
        for layer in net.layers:
            z0, z1, *z2 = (part @ layer.matrix for part in parts)
            a0, a1, *a2 = _activation_jets(act, z0 if layer.bias is None else z0 + layer.bias, order)
            new = (a0, a1 * z1, *(a * z1 * z1 + a1 * z for a, z in zip(a2, z2)))
            parts = [finish(layer, part, old) for part, old in zip(new, parts)]
    return tuple(parts)


def _activation_jets(act: Callable[[Tensor], Tensor], z: Tensor, order: int) -> tuple[Tensor, ...]:
    """An elementwise function with its first one or two derivatives."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = act(z)
        (first,) = torch.autograd.grad(value.sum(), z, create_graph=order == 2)
        if order == 1:
            return value.detach(), first
        if not first.requires_grad:  # a linear function
            return value.detach(), first.detach(), torch.zeros_like(z)
        (second,) = torch.autograd.grad(first.sum(), z, allow_unused=True, materialize_grads=True)
    return value.detach(), first.detach(), second
