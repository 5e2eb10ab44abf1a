"""The blocked inference kernels against the plain differentiable formulas, and those against themselves."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from dpa2calc.kernels.inference import embedding as scalar_mix
from dpa2calc.kernels.inference import neighbor_sums as neighbor_mix
from dpa2calc.kernels.inference import pair_attention as pair_mix
from dpa2calc.kernels.inference import residual as residual_step
from dpa2calc.kernels.inference.pair_attention import padded_weights
from dpa2calc.model.config import (
    DeepPotSEConfig,
    DPA1Config,
    DPA2Config,
    ModelConfig,
    RepformerConfig,
    RepinitConfig,
    ThreeBodyConfig,
)
from dpa2calc.model.descriptors.gated_attention import SHIFT, padded_softmax
from dpa2calc.model.layers import Tanh
from dpa2calc.model.potential import Potential
from dpa2calc.structures.graph_builder import graph_from_atoms

REPINIT = RepinitConfig(cutoff=5.0, cutoff_smooth=0.5, nsel=90, neuron=(3, 6, 12), axis_neuron=3, tebd_dim=4)
REPFORMER = RepformerConfig(
    cutoff=3.6,
    cutoff_smooth=2.0,
    nsel=40,
    nlayers=3,
    g1_dim=10,
    g2_dim=6,
    axis_neuron=2,
    attn1_hidden=5,
    attn1_nhead=2,
    attn2_hidden=3,
    attn2_nhead=3,
    attn2_has_gate=True,
)
FULL = DPA2Config(repinit=REPINIT, repformer=REPFORMER, three_body=ThreeBodyConfig(cutoff=3.6, nsel=40))


def repformer(**changes: object) -> DPA2Config:
    return dataclasses.replace(FULL, repformer=dataclasses.replace(REPFORMER, **changes))  # type: ignore[arg-type]


DESCRIPTORS = {
    "all updates": FULL,
    "paper style": repformer(
        update_style="res_avg", g1_out_conv=False, g1_out_mlp=False, use_sqrt_nnei=False
    ),
    "no gate": repformer(attn2_has_gate=False),
    "strip": dataclasses.replace(FULL, repinit=dataclasses.replace(REPINIT, tebd_input_mode="strip")),
    "idt, one side": dataclasses.replace(
        FULL, repinit=dataclasses.replace(REPINIT, resnet_dt=True, type_one_side=True)
    ),
    "few neighbours in the normaliser": repformer(nsel=6),
    "no local attention": repformer(update_g1_has_attn=False, update_g2_has_g1g1=False),
    "the shipped layer": repformer(
        update_g1_has_attn=False, update_g2_has_g1g1=False, update_g2_has_attn=False
    ),
    "moments of pairs alone": repformer(update_g1_has_drrd=False),
    "moments of atoms alone": repformer(update_g1_has_grrg=False),
    "no convolution": repformer(update_g1_has_conv=False),
    "another activation": repformer(activation="gelu"),
    "dpa1": DPA1Config(attn_layer=0, neuron=(3, 6, 12), axis_neuron=3, cutoff=5.0, nsel=90),
    "deeppot-se": DeepPotSEConfig(sel=(40, 40, 40), neuron=(3, 6, 12), axis_neuron=3, cutoff=5.0),
}


def structure() -> Atoms:
    """A cell with very different neighbour counts: a molecule beside a metal slab."""
    slab = bulk("Cu", cubic=True).repeat((2, 2, 2))
    slab.cell[2, 2] += 6.0
    ethanol = molecule("CH3CH2OH")
    ethanol.symbols[:2] = "O"
    ethanol.translate(
        slab.cell.array.sum(axis=0) * [0.5, 0.5, 0] + [0, 0, 9.5] - ethanol.positions.mean(axis=0)
    )
    atoms = slab + ethanol
    atoms.rattle(0.1, seed=3)
    return atoms


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_inference_kernels_give_the_numbers_of_the_plain_formulas(name, monkeypatch):
    # Blocks of a few atoms, so that several are needed, the last one short, and nothing is kept.
    sizes = {pair_mix: 40_000, neighbor_mix: 9_000, residual_step: 5_000, scalar_mix: 40_000}
    for module, size in sizes.items():
        monkeypatch.setattr(module, "_BLOCK_BYTES", size)
    torch.manual_seed(7)
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=DESCRIPTORS[name])
    potential = Potential(config)
    graph = graph_from_atoms(structure(), config)
    plain = potential.compute(graph)
    potential.requires_grad_(False)
    for keep in (0, 10**9):
        monkeypatch.setattr(scalar_mix, "_KEEP_BYTES", keep)
        fast = potential.compute(graph)
        torch.testing.assert_close(fast.atomic_energies, plain.atomic_energies, rtol=0, atol=1e-12)
        torch.testing.assert_close(fast.forces, plain.forces, rtol=0, atol=1e-12)
        torch.testing.assert_close(fast.virial, plain.virial, rtol=0, atol=1e-11)


def test_changed_weights_are_folded_again():
    torch.manual_seed(7)
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=FULL)
    potential = Potential(config).requires_grad_(False)
    graph = graph_from_atoms(structure(), config)
    before = potential.compute(graph).energy
    with torch.no_grad():
        potential.descriptor.repformer.layers[0].attn2.mapqk.matrix.mul_(1.5)
    fast = potential.compute(graph).energy
    plain = potential.requires_grad_(True).compute(graph).energy
    assert abs((fast - before).item()) > 1e-9
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12)


def test_kernels_refuse_a_second_derivative():
    torch.manual_seed(7)
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=FULL)
    potential = Potential(config).requires_grad_(False)
    out = potential.compute(graph_from_atoms(structure(), config), create_graph=True)
    with pytest.raises(RuntimeError):
        out.forces.square().sum().backward()


@pytest.mark.parametrize("n_more", [-3, 0, 1, 17])
def test_padded_softmax_counts_columns_that_are_not_there(n_more):
    torch.manual_seed(0)
    scores = 10 * torch.randn(4, 2, 9, dtype=torch.float64) - 10
    if n_more >= 0:
        scores[0] -= 40  # far below the padding; with fewer columns than none the sum would vanish
    denominator = scores.exp().sum(-1, keepdim=True) + n_more * torch.exp(
        torch.tensor(-SHIFT, dtype=torch.float64)
    )
    expected = scores.exp() / denominator
    torch.testing.assert_close(padded_softmax(scores, n_more), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(padded_weights(scores.clone(), n_more), expected, rtol=1e-12, atol=0)


def test_padded_softmax_survives_a_first_column_that_underflows():
    scores = torch.full((1, 3), -20.0, dtype=torch.float64)
    scores[0, 0] = -900.0
    expected = 1.0 / (2.0 + 5.0)
    assert padded_weights(scores, 5)[0, 1].item() == pytest.approx(expected, rel=1e-12)


def test_tanh_is_exact_and_differentiable_twice():
    x = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    assert float((Tanh.apply(x) - torch.tanh(x)).abs().max()) < 5e-16
    single = x.float()
    assert float((Tanh.apply(single).double() - torch.tanh(single.double())).abs().max()) < 3e-7
    point = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Tanh.apply, point)
    assert torch.autograd.gradgradcheck(Tanh.apply, point)


def test_padded_softmax_stays_positive_with_more_neighbours_than_the_normaliser():
    scores = torch.tensor([[-60.0, -70.0, -50.0]], dtype=torch.float64, requires_grad=True)
    for weights in (padded_softmax(scores, -2), padded_weights(scores.detach().clone(), -2)):
        assert bool((weights >= 0).all()) and float(weights.detach().sum()) < 1e-10
    (gradient,) = torch.autograd.grad(padded_softmax(scores, -2).sum(), scores)
    assert bool(torch.isfinite(gradient).all())
