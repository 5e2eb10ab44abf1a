"""The stand-in for a device itself: what it refuses and what it counts."""

from collections.abc import Iterator

import pytest
import torch
from other_device import DEVICE, Elsewhere, OtherDevice


@pytest.fixture(autouse=True)
def other_device() -> Iterator[OtherDevice]:
    with OtherDevice() as device:
        yield device


def test_the_stand_in_refuses_tensors_of_the_cpu():
    there = torch.ones(3, device=DEVICE)
    assert isinstance(there, Elsewhere)
    with pytest.raises(RuntimeError, match="tensors of the CPU"):
        there + torch.ones(3)
    assert (there + torch.ones(3).to(DEVICE)).sum().item() == 6.0


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda x: x.sin() + 2.0 * x.sum(), []),
        (lambda x: torch.where(x > 1.0, x, 0.0), []),
        (lambda x: x.index_select(0, torch.zeros(2, dtype=torch.int64, device=DEVICE)), []),
        (lambda x: x.to(torch.float32), []),
        (lambda x: x.clone().copy_(x), []),
        (lambda x: x.cpu(), ["copy"]),
        (lambda x: x.clone().copy_(torch.ones(3)), ["copy"]),
        (lambda x: float(x.max()), ["_local_scalar_dense"]),
        (lambda x: x[x > 1.0], ["index"]),
        (lambda x: (x > 1.0).nonzero(), ["nonzero"]),
        (lambda x: torch.bincount(x.long()), ["bincount"]),
    ],
)
def test_the_stand_in_counts_what_a_gpu_waits_for(work, expected, other_device):
    there = torch.tensor([0.0, 1.0, 2.0]).to(DEVICE)
    other_device.trips.clear()
    work(there)
    assert other_device.trips == expected


def test_trips_of_a_backward_pass_count(other_device):
    class Asks(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2.0 * x

        @staticmethod
        def backward(ctx, grad):
            assert float(grad.sum()) == 3.0
            return 2.0 * grad

    there = torch.ones(3, device=DEVICE).requires_grad_()
    total = Asks.apply(there).sum()
    other_device.trips.clear()
    torch.autograd.grad(total, there)
    assert other_device.trips == ["_local_scalar_dense"]
