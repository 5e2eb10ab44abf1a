"""The kernels for CUDA devices beside other ways to the same numbers: interpreted on a CPU, or on CUDA.

Triton has to know of the interpreter when it is first imported, so a process of its own runs them on a CPU.
On CUDA they run with `-m gpu`.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from other_device import DEVICES

pytest.importorskip("triton")
pytest.importorskip("numba")

from dpa2calc import DPA2Calculator
from dpa2calc.kernels.tables.moments import TabulatedEmbedding
from dpa2calc.kernels.tables.table import EmbeddingTable, build_table
from dpa2calc.kernels.tables.triton_loops import TableArguments
from dpa2calc.model.compression import compress
from dpa2calc.model.config import DeepPotSEConfig, DPA1Config, FittingConfig, HeadConfig, ModelConfig
from dpa2calc.model.potential import Potential

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
PLACES = [
    pytest.param(
        "cpu",
        marks=pytest.mark.skipif(not INTERPRETED, reason="runs in the process of the first test"),
    ),
    *DEVICES[1:],
]


@pytest.mark.skipif(INTERPRETED, reason="this is the process that it starts")
def test_the_interpreter_finds_the_same_numbers():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "11 passed" in done.stdout, done.stdout[-4000:]


@pytest.fixture(params=PLACES)
def place(request):
    """Where the kernels run."""
    return request.param


@pytest.fixture
def on_device(monkeypatch, place):
    """Every sum over neighbours by the device's kernels."""
    calls = []

    def sums(self, rows, *given):
        calls.append(rows.shape)
        return TableArguments.of(rows, *given, self.table)

    monkeypatch.setattr(TabulatedEmbedding, "sums", sums)
    return calls


def waves(size: int, lines: int) -> EmbeddingTable:
    """Tables of sines and cosines, whose derivatives are known."""
    rate = 0.3 + torch.rand(lines, 1, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def jets(s, order):
        x = rate * s.double().view(1, -1, 1)
        return (torch.sin(x), rate * torch.cos(x), -rate * rate * torch.sin(x))[: order + 1]

    return build_table(jets, low=-0.5, physical=3.0, high=9.0, tolerance=1e-9)


def neighbours(n: int, k: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    rows = torch.rand(n, k, 4, dtype=torch.float64, generator=generator) * 2 - 1
    rows[..., 0] = torch.rand(n, k, dtype=torch.float64, generator=generator) * 9.4 - 0.4
    return rows.to(dtype)


@pytest.mark.parametrize("mode", ["concat", "strip", "strip, smooth"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-5)])
def test_equals_the_cpu_kernels(on_device, place, monkeypatch, mode, dtype, tolerance):
    size, kinds = 13, 3
    table = waves(size, 1 if mode != "concat" else kinds)
    rows, generator = neighbours(4, 7, dtype), torch.Generator().manual_seed(4)
    lines = torch.randint(kinds, (4, 7), generator=generator)
    strip = None if mode == "concat" else torch.rand(kinds, size, dtype=dtype, generator=generator)
    factor = torch.rand(4, 7, dtype=dtype, generator=generator) if mode == "strip, smooth" else None
    grad = torch.rand(4, 4, size, dtype=dtype, generator=generator)
    results = []
    for where in (place, "cpu"):
        if results:
            monkeypatch.undo()
        leaves = [x.clone().to(where).requires_grad_() for x in (rows, factor) if x is not None]
        parts = [None if strip is None else strip.to(where), leaves[1] if factor is not None else None]
        out = TabulatedEmbedding(table).moments(leaves[0], lines.to(where), *parts)
        found = [out.detach(), *torch.autograd.grad(out, leaves, grad.to(where))]
        results.append([x.cpu() for x in found])
    assert len(on_device) == 1
    for ours, theirs in zip(*results):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, atol=tolerance * float(theirs.abs().max()), rtol=0)


def test_equals_the_plain_formulas(on_device, place):
    table, rows = waves(5, 2), neighbours(3, 6, torch.float64)
    lines = torch.arange(18).view(3, 6) % 2
    g, _ = table.evaluate(rows[..., 0].reshape(-1))
    g = g[lines.reshape(-1), torch.arange(18)].view(3, 6, 5)
    expected = torch.einsum("nkc,nkm->ncm", rows, g)
    found = TabulatedEmbedding(table).moments(rows.to(place), lines.to(place))
    np.testing.assert_allclose(found.cpu(), expected, atol=1e-13)


def test_gradients_are_those_of_the_moments(on_device, place):
    table, rows = waves(5, 1), neighbours(2, 3, torch.float64).to(place).requires_grad_()
    strip = torch.rand(2, 5, dtype=torch.float64).to(place)
    lines = torch.tensor([[0, 1, 0], [1, 1, 0]]).to(place)
    factor = torch.rand(2, 3, dtype=torch.float64).to(place).requires_grad_()
    embedding = TabulatedEmbedding(table)
    torch.autograd.gradcheck(lambda r, f: embedding.moments(r, lines, strip, f), (rows, factor))


SMALL = dict(cutoff=4.0, neuron=(3, 6, 12), axis_neuron=3)
DESCRIPTORS = {
    "concat, both sides": DPA1Config(attn_layer=0, nsel=60, tebd_dim=4, type_one_side=False, **SMALL),
    "strip, smooth": DPA1Config(attn_layer=0, nsel=60, tebd_dim=4, tebd_input_mode="strip", **SMALL),
    "deeppot-se, both sides": DeepPotSEConfig(sel=(30, 30), type_one_side=False, **SMALL),
}


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_a_model_gives_the_forces_of_its_nets(on_device, place, name):
    torch.manual_seed(3)
    head = HeadConfig(fitting=FittingConfig(neuron=(8, 8)))
    config = ModelConfig(type_map=("O", "Cu"), descriptor=DESCRIPTORS[name], heads=(head,))
    plain = Potential(config).requires_grad_(False)
    nets = DPA2Calculator(plain, dtype="float64", device="cpu", compress=False)
    tables = DPA2Calculator(compress(plain)[0], dtype="float64", device=place)
    atoms = Atoms(
        "OCu3O", [[0, 0, 0], [1.8, 0.1, 0], [0, 2.1, 0.2], [2, 2, 1.5], [3, 0, 2]], cell=[4, 4.3, 4.1]
    )
    atoms.pbc = [True, True, False]
    (expected,), (found,) = nets.evaluate([atoms]), tables.evaluate([atoms])
    assert on_device
    for key in ("energy", "forces", "stress"):
        np.testing.assert_allclose(found[key], expected[key], atol=1e-8, rtol=0)
        assert np.abs(expected[key]).max() > 1e-3
