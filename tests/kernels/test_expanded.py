"""Embedding nets expanded about a point: value, gradient and Hessian there, against the formulas."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dpa2calc.kernels import Reference, make_backend
from dpa2calc.kernels.net import Layer, Net, ScalarNet

KINDS = torch.tensor([[0, 1, 2], [2, 0, 1]])


def net(activation: str, *, strip: bool = False, idt: bool = False, wide: bool = False) -> ScalarNet:
    """wide: the first layer adds its input, the scalar and one number of the kind."""
    rng = torch.Generator().manual_seed(4)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    widths = [2, 2, 4] if wide else [2, 3, 6]
    layers = []
    for number, (a, b) in enumerate(zip(widths, widths[1:])):
        skip = {a: 1, 2 * a: 2}.get(b, 0)
        layers.append(Layer(random(a, b), random(b), random(b) if idt and number else None, skip))
    inputs = random(3, 1)
    table = inputs @ layers[0].matrix[1:] + layers[0].bias
    strips = random(3, widths[-1]) if strip else None
    return ScalarNet(Net(tuple(layers), activation), layers[0].matrix[0], table, inputs, strip=strips)


def moments(backend: Reference, of: ScalarNet, rows: Tensor, factor: Tensor) -> Tensor:
    return backend.embedded_moments(of, rows, KINDS, factor if of.strip is not None else None)


def values(backend: Reference, of: ScalarNet, rows: Tensor, factor: Tensor) -> Tensor:
    return backend.embedding(of, rows[..., 0], KINDS, factor if of.strip is not None else None)


@pytest.mark.parametrize("operation", [moments, values])
@pytest.mark.parametrize(
    "of",
    [
        net("tanh"),
        net("tanh", strip=True),
        net("silu", idt=True),
        net("tanh", wide=True),
        net("gelu", strip=True, idt=True),
        net("linear"),
    ],
    ids=["tanh", "strip", "idt", "skip at once", "gelu", "linear"],
)
def test_second_derivatives_of_expanded_nets(operation: Callable[..., Tensor], of: ScalarNet):
    rng = torch.Generator().manual_seed(5)
    point = torch.randn(2, 3, 5, generator=rng, dtype=torch.float64)  # rows of four, and the factor
    found = {}
    for mode in ("reference", "hessian"):
        backend = make_backend(mode)

        def total(x: Tensor, backend: Reference = backend) -> Tensor:
            return operation(backend, of, x[..., :4], x[..., 4]).sin().sum()

        gradient = torch.autograd.functional.jacobian(total, point)
        hessian = torch.autograd.functional.hessian(total, point)
        found[mode] = [part.numpy() for part in (total(point), gradient, hessian)]
    for ours, theirs in zip(found["hessian"], found["reference"]):
        np.testing.assert_allclose(ours, theirs, atol=1e-12 * abs(theirs).max())
