"""Every tensor of a calculation is on the device asked for: a stand-in that refuses to mix with the CPU."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from other_device import DEVICE, Elsewhere, OtherDevice

from dpa2calc import calculator as calculator_module
from dpa2calc.calculator import DPA2Calculator


@pytest.fixture(autouse=True)
def other_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(calculator_module, "check_device", lambda device, dtype: torch.device(device))
    with OtherDevice():
        yield


def test_the_stand_in_refuses_tensors_of_the_cpu():
    there = torch.ones(3, device=DEVICE)
    assert isinstance(there, Elsewhere)
    with pytest.raises(RuntimeError, match="tensors of the CPU"):
        there + torch.ones(3)
    assert (there + torch.ones(3).to(DEVICE)).sum().item() == 6.0


def test_numbers_are_those_of_the_cpu(potential, structure_of):
    cpu = DPA2Calculator(potential, dtype="float64", device="cpu")
    other = DPA2Calculator(potential, dtype="float64", device="meta")
    assert all(isinstance(p.data, Elsewhere) for p in other._members[0].potential.parameters())
    for name in ("bulk", "slab", "molecule", "compressed", "single-atom"):
        atoms = structure_of(name)
        (a,), (b,) = cpu.evaluate([atoms], stresses=True), other.evaluate([atoms], stresses=True)
        assert a.keys() == b.keys()
        for key, value in a.items():
            np.testing.assert_allclose(b[key], value, atol=1e-9, rtol=0, err_msg=key)
        np.testing.assert_allclose(other.get_descriptors(atoms), cpu.get_descriptors(atoms), atol=1e-9)
