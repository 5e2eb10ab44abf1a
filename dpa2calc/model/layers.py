"""Dense layers and small networks with deepmd-kit's skip rule (docs/maths.md 2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpa2calc.kernels import Reference
from dpa2calc.kernels.net import Layer, Net, linear, skip_width


class Operator(nn.Module):
    """A module that leaves its costly operations to a backend; `Potential.use` says which.

    A class attribute holds the plain formulas, with which a module alone works too.
    """

    plain: ClassVar[Reference] = Reference()

    def __init__(self) -> None:
        super().__init__()
        self.backend = self.plain

    def asked(self) -> Iterable[tuple[str, object]]:
        """Operations that the module may ask for, each with the subject of `Reference.why_not`."""
        return ()


def _normal(*shape: int) -> Tensor:
    """Numbers of a first weight, the same whatever the default dtype is."""
    return torch.randn(*shape, dtype=torch.float32)


class Dense(nn.Module):
    """x W + b, with W of shape (n_in, n_out); `idt` scales the activated output in residual nets."""

    matrix: nn.Parameter
    bias: nn.Parameter | None
    idt: nn.Parameter | None

    def __init__(self, n_in: int, n_out: int, *, bias: bool = True, idt: bool = False, bias_std: float = 0.0):
        super().__init__()
        self.matrix = nn.Parameter(_normal(n_in, n_out) / (n_in + n_out) ** 0.5)
        self.bias = nn.Parameter(_normal(n_out) * bias_std) if bias else None
        self.idt = nn.Parameter(0.1 + 0.001 * _normal(n_out)) if idt else None

    def weights(self, skip: int = 0) -> Layer:
        """The layer's numbers, as operations take them."""
        return Layer(self.matrix, self.bias, self.idt, skip)

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_in) -> (..., n_out)"""
        return linear(self.weights(), x)


class Layers(nn.ModuleList):
    """A list of dense layers, typed as such."""

    def __getitem__(self, index: int) -> Dense:  # type: ignore[override]
        return super().__getitem__(index)  # type: ignore[return-value]


class MLP(Operator):
    """Stack of residual layers z = act(xW + b) [* idt] [+ x or + (x, x)], optionally a linear end."""

    def __init__(
        self,
        n_in: int,
        widths: Sequence[int],
        activation_name: str,
        *,
        resnet_dt: bool = False,
        n_out: int | None = None,
    ):
        super().__init__()
        sizes = [n_in, *widths]
        self.skips = [skip_width(a, b) for a, b in zip(sizes, sizes[1:])]
        self.layers = Layers(
            Dense(a, b, idt=resnet_dt and skip > 0, bias_std=1.0)
            for a, b, skip in zip(sizes, sizes[1:], self.skips)
        )
        if n_out is not None:
            self.layers.append(Dense(sizes[-1], n_out))
        self.name = activation_name

    @property
    def net(self) -> Net:
        """The net's numbers, as operations take them."""
        layers = tuple(self.layers[k].weights(skip) for k, skip in enumerate(self.skips))
        end = self.layers[-1].weights() if len(self.layers) > len(self.skips) else None
        return Net(layers, self.name, end)

    def asked(self) -> Iterable[tuple[str, object]]:
        return [("dense", self.net)]

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_in) -> (..., n_out)"""
        return self.backend.residual_net(self.net, x)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis with the biased variance."""

    def __init__(self, width: int, *, eps: float, trainable: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=torch.float32), trainable)
        self.bias = nn.Parameter(torch.zeros(width, dtype=torch.float32), trainable)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)"""
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
