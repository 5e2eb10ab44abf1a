"""The residual net: what it is, its formula, and forward and backward passes by hand.

    y = phi(x W + b) [* idt] [+ x, or + (x, x) where it is twice as wide],   one layer after the other

(docs/maths.md 2). `dense` and `finish` are the formula in plain operations, which autograd differentiates
any number of times; `forward` and `backward` are the same for tanh without autograd, for the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Layer(NamedTuple):
    """One layer: matrix (n_in, n_out), bias and idt (n_out,) or None, copies of the input that are added."""

    matrix: Tensor
    bias: Tensor | None = None
    idt: Tensor | None = None
    skip: int = 0

    def each(self, change: Callable[[Tensor], Tensor]) -> Layer:
        """The same with changed numbers."""
        bias, idt = (None if x is None else change(x) for x in (self.bias, self.idt))
        return Layer(change(self.matrix), bias, idt, self.skip)


class Net(NamedTuple):
    """Residual layers, the name of their activation, and a linear end or None."""

    layers: tuple[Layer, ...]
    activation: str
    end: Layer | None = None

    def why_not_by_hand(self) -> str | None:
        """The reason why `forward` and `backward` do not have the layers after the first, or None."""
        if self.activation != "tanh":
            return f"the activation is {self.activation}, not tanh"
        if any(layer.bias is None for layer in self.layers):
            return "a layer has no bias"
        return "the first layer adds its input" if self.layers[0].skip else None


class ScalarNet(NamedTuple):
    """A net of one scalar s and the kind of a pair, which enters the first layer alone, beside s.

    First layer: phi(s * slope + table[kind]). With `strip` the net's value is multiplied by
    1 + strip[kind] * factor.

    Attributes:
        net: the layers as they are. slope: (m1,). table: (kinds, m1), the bias included.
        inputs: (kinds, t), what stands behind s in the input of the first layer; t may be 0.
        parts: two tables (n, m1) whose sums are `table`, where kind = n * first + second; or None.
        strip: (kinds, m) or None.
    """

    net: Net
    slope: Tensor
    table: Tensor
    inputs: Tensor
    parts: tuple[Tensor, Tensor] | None = None
    strip: Tensor | None = None

    @property
    def width(self) -> int:
        """Number of channels m of the result."""
        return self.net.layers[-1].matrix.shape[1]

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Slope, table, and matrix and bias of each later layer."""
        later = ((layer.matrix, layer.bias) for layer in self.net.layers[1:])
        return self.slope, self.table, *(w for layer in later for w in layer if w is not None)

    @property
    def skips(self) -> tuple[int, ...]:
        """Copies of its input that each later layer adds."""
        return tuple(layer.skip for layer in self.net.layers[1:])


def skip_width(n_in: int, n_out: int) -> int:
    """How many copies of the input a residual layer adds: 1 (same width), 2 (double width) or 0."""
    return {n_in: 1, 2 * n_in: 2}.get(n_out, 0)


# --- activations ----------------------------------------------------------------------------------


def tanh_(doubled: Tensor) -> Tensor:
    """tanh(x) in the memory of `doubled` = 2x, without autograd."""
    return doubled.sigmoid_().mul_(2.0).sub_(1.0) if doubled.is_cpu else doubled.mul_(0.5).tanh_()


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
        return through(grad, t)


def silut(threshold: float) -> Callable[[Tensor], Tensor]:
    """SiLU that turns into a tanh with the same value and slope above `threshold`."""
    t = torch.tensor(threshold, dtype=torch.float64)
    value = float(F.silu(t))
    gate = float(torch.sigmoid(t))
    slope = gate + threshold * gate * (1 - gate)

    def apply(x: Tensor) -> Tensor:
        return torch.where(x < threshold, F.silu(x), torch.tanh(slope * (x - threshold)) + value)

    return apply


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


# --- the formula ----------------------------------------------------------------------------------


def linear(layer: Layer, x: Tensor) -> Tensor:
    """x W + b: (..., n_in) -> (..., n_out)."""
    if layer.bias is None:
        return x @ layer.matrix
    if x.dim() == 2:
        return torch.addmm(layer.bias, x, layer.matrix)
    return F.linear(x, layer.matrix.t(), layer.bias)


def dense(layer: Layer, x: Tensor, name: str) -> Tensor:
    """phi(x W + b): (..., n_in) -> (..., n_out)."""
    return activation(name)(linear(layer, x))


def finish(layer: Layer, activated: Tensor, x: Tensor) -> Tensor:
    """The scale `idt` and the copies of the input that a layer puts to its activated output."""
    if layer.idt is not None:
        activated = activated * layer.idt
    if layer.skip == 0:
        return activated
    return activated + (x if layer.skip == 1 else torch.cat([x, x], dim=-1))


# --- by hand, for tanh ----------------------------------------------------------------------------
# The features are axis 1: rows (r, width), or (b, width, pairs), which has one long side where a net of two
# to eight features sees many scalars.


def tanh_of(x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """tanh(x @ matrix + bias) of rows."""
    if not x.is_cpu:
        return torch.addmm(bias, x, matrix).tanh_()
    return tanh_(torch.addmm(bias, x, matrix, beta=2, alpha=2))


def through(grad: Tensor, t: Tensor) -> Tensor:
    """grad * (1 - t^2)"""
    return torch.ops.aten.tanh_backward(grad, t)


def add_copies(x: Tensor, before: Tensor, copies: int) -> Tensor:
    """Add copies of a layer's input to its output, in place."""
    if copies == 1:
        x.add_(before)
    elif copies:
        x.unflatten(1, (copies, before.shape[1])).add_(before.unsqueeze(1))
    return x


def sum_copies(grad: Tensor, copies: int, into: Tensor) -> Tensor:
    """Add the gradient of every copy to `into`, in place."""
    for part in grad.split(into.shape[1], dim=1) if copies else ():
        into.add_(part)
    return into


def _tanh_layer(layer: Layer, x: Tensor) -> Tensor:
    assert layer.bias is not None
    if x.dim() == 2:
        return tanh_of(x, layer.matrix, layer.bias)
    z = torch.bmm(layer.matrix.t().expand(len(x), -1, -1), x)
    return tanh_(z.add_(layer.bias.unsqueeze(1)).mul_(2.0))


def _scaled(values: Tensor, idt: Tensor | None) -> Tensor:
    if idt is None:
        return values
    return values * (idt if values.dim() == 2 else idt.unsqueeze(1))


def forward(layers: Sequence[Layer], doubled: Tensor) -> tuple[list[Tensor], Tensor]:
    """Values of tanh of all layers, and the result, from twice the first layer's x W + b, overwritten."""
    t = tanh_(doubled)
    values, x = [t], _scaled(t, layers[0].idt)
    for layer in layers[1:]:
        t = _tanh_layer(layer, x)
        values.append(t)
        new = _scaled(t, layer.idt)
        x = add_copies(new.clone() if layer.skip and layer.idt is None else new, x, layer.skip)
    return values, x


def backward(layers: Sequence[Layer], values: Sequence[Tensor], grad: Tensor) -> Tensor:
    """Gradient of the first layer's x W + b from that of the result."""
    for layer, t in zip(layers[:0:-1], values[:0:-1]):
        inner = through(_scaled(grad, layer.idt), t)
        if inner.dim() > 2:
            grad = sum_copies(grad, layer.skip, torch.bmm(layer.matrix.expand(len(inner), -1, -1), inner))
        elif layer.skip == 1:
            grad = torch.addmm(grad, inner, layer.matrix.t())
        else:
            grad = sum_copies(grad, layer.skip, inner @ layer.matrix.t())
    return through(_scaled(grad, layers[0].idt), values[0])
