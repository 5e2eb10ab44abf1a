"""DPA-1's attention a block of atoms at a time: the same numbers and derivatives, and little memory."""

import dataclasses
import resource

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from dpa2calc import DPA2Calculator
from dpa2calc.model.config import DPA1Config
from dpa2calc.model.config.presets import preset
from dpa2calc.model.descriptors import gated_attention
from dpa2calc.model.potential import Potential
from dpa2calc.structures.graph_builder import graph_from_atoms


def _potential(**options) -> Potential:
    torch.manual_seed(0)
    config = preset("dpa1", ("O", "H"))
    assert isinstance(config.descriptor, DPA1Config)
    small = dataclasses.replace(config.descriptor, neuron=(4, 8), axis_neuron=2, attn=4, **options)
    return Potential(dataclasses.replace(config, descriptor=small))


def _atoms() -> Atoms:
    atoms = bulk("O", "fcc", a=4.0, cubic=True) * (2, 1, 1)
    atoms.symbols[::2] = "H"
    atoms.rattle(0.2, seed=3)
    return atoms


@pytest.mark.parametrize("options", [{}, {"exclude_types": ((0, 1),)}, {"attn_dotr": False}])
def test_blocks_give_the_numbers_of_the_whole(options, monkeypatch):
    potential, atoms = _potential(**options), _atoms()
    graph = graph_from_atoms(atoms, potential.config)

    def numbers() -> list[torch.Tensor]:
        out = potential.compute(graph, create_graph=True)  # as in training: second derivatives
        loss = out.energy.sum() + (out.forces**2).sum()
        weights = [p for p in potential.parameters() if p.requires_grad]
        return [out.energy, out.forces, *torch.autograd.grad(loss, weights, allow_unused=True)]

    whole = numbers()
    monkeypatch.setattr(gated_attention, "_MOST_BYTES", 0)
    monkeypatch.setattr(gated_attention, "_BLOCK_BYTES", 3 * graph.mask.shape[1] ** 2 * 8)
    blocks = numbers()
    assert len(whole) > 10
    for a, b in zip(whole, blocks):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_a_dense_structure_takes_little_memory():
    """32 atoms with 1000 neighbours each: twenty arrays of 8 n k^2 bytes, 5 GB, were kept at a time."""
    rng = np.random.default_rng(0)
    points = np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3)[::2] * 0.75 + 0.1 * rng.random(
        (32, 3)
    )
    atoms = Atoms("O16H16", points, cell=[3.0] * 3, pbc=True)
    calc = DPA2Calculator(_potential(), dtype="float64")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert np.isfinite(calc.get_forces(atoms)).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_200_000  # kB
