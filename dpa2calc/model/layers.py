"""Dense layers and small networks with deepmd-kit's skip rule (MATHS 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpa2calc.kernels.training.dense_tanh import tanh_, tanh_dense


def silut(threshold: float) -> Callable[[Tensor], Tensor]:
    """SiLU that turns into a tanh with the same value and slope above `threshold`."""
    t = torch.tensor(threshold, dtype=torch.float64)
    value = float(F.silu(t))
    gate = float(torch.sigmoid(t))
    slope = gate + threshold * gate * (1 - gate)

    def apply(x: Tensor) -> Tensor:
        return torch.where(x < threshold, F.silu(x), torch.tanh(slope * (x - threshold)) + value)

    return apply


class Tanh(torch.autograd.Function):
    """tanh(x) = 2 sigmoid(2x) - 1: four times faster on CPU than torch.tanh, and as good to 2e-7 (float32)
    or 3e-16 (float64) absolutely. Differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        t = tanh_(2.0 * x) if x.is_cpu else torch.tanh(x)
        ctx.save_for_backward(t)
        return t

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (t,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(grad, t)


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation function of a configuration name; GELU is the tanh approximation."""
    name, _, argument = name.lower().partition(":")
    if name == "silut":
        return silut(float(argument or 3.0))
    return _ACTIVATIONS[name]


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": Tanh.apply,
    "relu": F.relu,
    "relu6": F.relu6,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_tf": lambda x: F.gelu(x, approximate="tanh"),
    "linear": lambda x: x,
    "none": lambda x: x,
}


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

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_in) -> (..., n_out)"""
        if self.bias is None:
            return x @ self.matrix
        if x.dim() == 2:
            return torch.addmm(self.bias, x, self.matrix)
        return F.linear(x, self.matrix.t(), self.bias)


def activated(layer: Dense, x: Tensor, name: str) -> Tensor:
    """Activation `name` of a layer's output, (..., n_in) -> (..., n_out)."""
    if name == "tanh" and layer.bias is not None and layer.matrix.requires_grad and x.is_cpu:
        return tanh_dense(x.flatten(0, -2), layer.matrix, layer.bias).view(
            *x.shape[:-1], layer.matrix.shape[1]
        )
    return activation(name)(layer(x))


def skip_width(n_in: int, n_out: int) -> int:
    """How many copies of the input a residual layer adds: 1 (same width), 2 (double width) or 0."""
    return {n_in: 1, 2 * n_in: 2}.get(n_out, 0)


class Layers(nn.ModuleList):
    """A list of dense layers, typed as such."""

    def __getitem__(self, index: int) -> Dense:  # type: ignore[override]
        return super().__getitem__(index)  # type: ignore[return-value]


class MLP(nn.Module):
    """Stack of residual layers z = act(xW + b) [* idt] [+ x or + (x, x)], optionally a linear end."""

    def __init__(
        self,
        n_in: int,
        widths: Sequence[int],
        activation_name: str,
        *,
        resnet_dt: bool = False,
        n_out: int | None = None,
        bias: bool = True,
        bias_std: float = 1.0,
    ):
        super().__init__()
        sizes = [n_in, *widths]
        self.skips = [skip_width(a, b) for a, b in zip(sizes, sizes[1:])]
        self.layers = Layers(
            Dense(a, b, bias=bias, idt=resnet_dt and skip > 0, bias_std=bias_std)
            for a, b, skip in zip(sizes, sizes[1:], self.skips)
        )
        if n_out is not None:
            self.layers.append(Dense(sizes[-1], n_out))
        self.name = activation_name
        self.act = activation(activation_name)

    def _layer(self, index: int, x: Tensor) -> Tensor:
        return self._joined(index, activated(self.layers[index], x, self.name), x)

    def finish(self, layer: int, pre_activation: Tensor, x: Tensor | None) -> Tensor:
        """Activation, idt and skip of one layer, given xW + b and the layer's input x."""
        return self._joined(layer, self.act(pre_activation), x)

    def _joined(self, layer: int, z: Tensor, x: Tensor | None) -> Tensor:
        idt = self.layers[layer].idt
        if idt is not None:
            z = z * idt
        skip = self.skips[layer]
        if skip == 0:
            return z
        assert x is not None
        return z + x if skip == 1 else z + torch.cat([x, x], dim=-1)

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Apply the layers from `first` on: (..., n) -> (..., n_out)."""
        for index in range(first, len(self.skips)):
            x = self._layer(index, x)
        if len(self.layers) > len(self.skips):
            x = self.layers[-1](x)
        return x

    def forward_columns(self, z: Tensor) -> Tensor:
        """The net of many scalars, feature by feature: first pre-activations (m1, N) -> (m, N).

        Rows of two to eight features are slow to multiply and to walk; long rows of one feature are not.
        The first layer must have no skip.
        """
        x = self.act(z) if self.layers[0].idt is None else self.act(z) * self.layers[0].idt.unsqueeze(1)
        for index in range(1, len(self.skips)):
            layer, skip = self.layers[index], self.skips[index]
            y = layer.matrix.t() @ x
            y = self.act(y if layer.bias is None else y + layer.bias.unsqueeze(1))
            if layer.idt is not None:
                y = y * layer.idt.unsqueeze(1)
            x = y if skip == 0 else y + x if skip == 1 else y + torch.cat([x, x])
        return x


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis with the biased variance."""

    def __init__(self, width: int, *, eps: float, trainable: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=torch.float32), requires_grad=trainable)
        self.bias = nn.Parameter(torch.zeros(width, dtype=torch.float32), requires_grad=trainable)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)"""
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
