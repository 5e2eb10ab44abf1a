"""Whole models in training: gradients of a loss on forces against the formulas and finite differences."""

import dataclasses

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from dpa2calc.kernels import Mode
from dpa2calc.model.config import DPA2Config, ModelConfig, RepformerConfig, RepinitConfig, ThreeBodyConfig
from dpa2calc.model.potential import Potential
from dpa2calc.structures.graph import collate
from dpa2calc.structures.graph_builder import graph_from_atoms

REPFORMER = RepformerConfig(
    cutoff=3.6, cutoff_smooth=2.0, nsel=40, nlayers=2, g1_dim=5, g2_dim=4, axis_neuron=2,
    update_g1_has_attn=False, update_g2_has_attn=False, update_g2_has_g1g1=False,
)  # fmt: skip
SMALL = DPA2Config(
    repinit=RepinitConfig(cutoff=5.0, nsel=90, neuron=(3, 6, 12), axis_neuron=3, tebd_dim=4),
    repformer=REPFORMER,
)


def frames() -> list[Atoms]:
    """A slab with a molecule, a molecule in vacuum and a lone atom."""
    slab = bulk("Cu", cubic=True).repeat((2, 1, 2))
    slab.rattle(0.1, seed=3)
    ethanol = molecule("CH3OH")
    ethanol.symbols[0] = "O"
    return [slab, ethanol, Atoms("H", positions=[[0, 0, 0]])]


def loss_gradient(
    config: ModelConfig, wanted: str = "", mode: Mode = "training", *, freeze: bool = False
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A loss on energies, forces and virials of several frames, and its gradient for the weights `wanted`.

    freeze: the other weights ask for no gradient.
    """
    torch.manual_seed(7)
    potential = Potential(config).use(mode)
    for name, p in potential.named_parameters():
        p.requires_grad_(wanted in name or not freeze)
    graph = collate([graph_from_atoms(a, config) for a in frames()])
    out = potential.compute(graph, create_graph=True)
    rng = torch.Generator().manual_seed(0)
    total = torch.zeros((), dtype=torch.float64)
    for value in (out.energy, out.forces, out.virial):
        label = torch.randn(value.shape, generator=rng, dtype=torch.float64)
        total = total + (value - label).square().sum()
    named = {n: p for n, p in potential.named_parameters() if wanted in n}
    total.backward(inputs=list(named.values()))
    return total.detach(), {n: p.grad for n, p in named.items() if p.grad is not None}


ATTENTION = {"update_g1_has_attn": True, "update_g2_has_attn": True, "update_g2_has_g1g1": True}
VARIANTS = {
    "small": {},
    "averaged": {"update_style": "res_avg", "use_sqrt_nnei": False},
    "without own layer": {"g1_out_mlp": False},
    "relu": {"activation": "softplus"},
    "paper": {**ATTENTION, "update_style": "res_avg", "g1_out_conv": False, "g1_out_mlp": False},
    "attention without gate": {**ATTENTION, "attn2_has_gate": False},
    "fewer slots than neighbours": {**ATTENTION, "nsel": 4},
    "inner convolution": {"g1_out_conv": False},
    "three-body": {},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_training_gives_the_gradients_of_the_formulas(name):
    pytest.importorskip("numba")
    repformer = dataclasses.replace(REPFORMER, **VARIANTS[name])
    three_body = ThreeBodyConfig(cutoff=3.4, cutoff_smooth=2.0, nsel=40) if name == "three-body" else None
    descriptor = dataclasses.replace(SMALL, repformer=repformer, three_body=three_body)
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=descriptor)
    loss, gradient = loss_gradient(config)
    expected_loss, expected = loss_gradient(config, mode="reference")
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
    assert gradient.keys() == expected.keys()
    for key, value in gradient.items():
        torch.testing.assert_close(
            value, expected[key], rtol=1e-9, atol=1e-11 * float(expected[key].abs().max())
        )


def test_gradient_of_a_loss_on_forces_is_that_of_finite_differences(monkeypatch):
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=SMALL)
    _, gradient = loss_gradient(config)
    rng = np.random.default_rng(0)
    shift = {n: torch.from_numpy(rng.standard_normal(g.shape)) for n, g in gradient.items()}
    slope = sum(float((gradient[n] * shift[n]).sum()) for n in shift)
    original, losses = Potential.compute, []

    for step in (1e-5, -1e-5):

        def moved(self, *args, step=step, **options):
            with torch.no_grad():
                for name, p in self.named_parameters():
                    if name in shift:
                        p.add_(shift[name], alpha=step)
            return original(self, *args, **options)

        monkeypatch.setattr(Potential, "compute", moved)
        losses.append(float(loss_gradient(config)[0]))
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("freeze", [False, True], ids=["not asked for", "frozen"])
@pytest.mark.parametrize("name", ["small", "paper"])
def test_frozen_weights_do_not_change_the_other_gradients(name, freeze):
    descriptor = dataclasses.replace(SMALL, repformer=dataclasses.replace(REPFORMER, **VARIANTS[name]))
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=descriptor)
    _, gradient = loss_gradient(config)
    for part in ("proj_g1g2", "embedding", "heads", "linear2"):
        _, some = loss_gradient(config, wanted=part, freeze=freeze)
        assert some and all(torch.equal(value, gradient[name]) for name, value in some.items())
