"""The energy head of blocks: its compiled form, its form of operations, and autograd of the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dpa2calc.kernels.inference.head import BlockHead, HeadNet
from dpa2calc.kernels.net import Layer

SHAPES = {
    "residual, scaled": ((7, 7, 7), True),
    "residual, not scaled": ((8, 8), False),
    "growing, then residual": ((5, 9, 9), True),
    "one layer": ((6,), True),
}
N_TYPES, WIDTH = 3, 11


def random_net(widths: tuple[int, ...], scaled: bool, dtype: torch.dtype, seed: int) -> HeadNet:
    made = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=made, dtype=torch.float64).to(dtype)

    sizes = (WIDTH, *widths)
    layers = [
        Layer(
            random(before, size) / before**0.5,
            None if at == 0 else random(size),
            0.5 + 0.1 * random(size) if scaled else None,
            int(at > 0 and before == size),
        )
        for at, (before, size) in enumerate(zip(sizes, widths))
    ]
    return HeadNet(tuple(layers), random(N_TYPES, widths[0]), random(widths[-1], 1), 0.7)


def formula(net: HeadNet, descriptors: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    x = torch.tanh(descriptors @ net.layers[0].matrix + net.first[kinds])
    x = x if net.layers[0].idt is None else x * net.layers[0].idt
    for layer in net.layers[1:]:
        assert layer.bias is not None
        t = torch.tanh(x @ layer.matrix + layer.bias)
        t = t if layer.idt is None else t * layer.idt
        x = x + t if layer.skip else t
    return (x @ net.end).squeeze(1) + net.end_bias, x


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-13), (torch.float32, 3e-6)], ids=["float64", "float32"]
)
def test_both_forms_are_the_formula_and_its_gradient(name: str, dtype: torch.dtype, close: float) -> None:
    pytest.importorskip("numba")
    net = random_net(*SHAPES[name], dtype, seed=3)
    silent, added = np.array([False, True, False]), np.array([-1.0, 2.0, 5.0])
    head, kinds = BlockHead([net], added, silent), np.array([0, 2, 1, 1, 0, 2, 0])
    given = torch.randn(len(kinds), WIDTH, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    exact = given.to(dtype).to(torch.float64, copy=True).requires_grad_()
    counts = torch.from_numpy(~silent[kinds])
    wide = HeadNet(
        tuple(layer.each(Tensor.double) for layer in net.layers), net.first.double(), net.end.double(), 0.7
    )
    energies, features = formula(wide, exact, torch.from_numpy(kinds))
    energies = torch.where(counts, energies, 0.0)
    energies.sum().backward()
    features = features * counts.unsqueeze(1)
    for form in (head, lambda d, k: head.by_operations(d, k, net)):
        own = given.to(dtype, copy=True)
        found, last = form(own, kinds)
        assert found == pytest.approx(energies.detach().numpy() + added[kinds], abs=10 * close)
        torch.testing.assert_close(last.double(), features.detach(), atol=close, rtol=close)
        assert exact.grad is not None
        torch.testing.assert_close(own.double(), exact.grad, atol=3 * close, rtol=close)


def test_each_type_has_its_own_net_in_both_forms() -> None:
    pytest.importorskip("numba")
    nets = [random_net((6, 6), True, torch.float64, seed) for seed in range(N_TYPES)]
    head = BlockHead(nets, np.zeros(N_TYPES), np.zeros(N_TYPES, dtype=bool))
    given = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for kind, net in enumerate(nets):
        kinds = np.full(4, kind)
        own, other = given.clone(), given.clone()
        found, _ = head(own, kinds)
        assert found == pytest.approx(head.by_operations(other, kinds, net)[0], abs=1e-12)
        torch.testing.assert_close(own, other, atol=1e-12, rtol=1e-12)
