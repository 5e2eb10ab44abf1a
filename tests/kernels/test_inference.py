"""The blocked inference kernels against the plain differentiable formulas, and those against themselves."""

import copy
import dataclasses

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from dpa2calc.errors import ConfigError
from dpa2calc.kernels.inference import embedding as scalar_mix
from dpa2calc.kernels.inference import pair_blocks
from dpa2calc.kernels.inference import residual as residual_step
from dpa2calc.model.config import (
    DeepPotSEConfig,
    DPA1Config,
    DPA2Config,
    ModelConfig,
    RepformerConfig,
    RepinitConfig,
    ThreeBodyConfig,
)
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
    sizes = {pair_blocks: 9_000, residual_step: 5_000, scalar_mix: 40_000}
    for module, size in sizes.items():
        monkeypatch.setattr(module, "_BLOCK_BYTES", size)
    torch.manual_seed(7)
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=DESCRIPTORS[name])
    potential = Potential(config)
    graph = graph_from_atoms(structure(), config)
    plain = potential.compute(graph)
    potential.use("inference")
    for keep in (0, 10**9):
        monkeypatch.setattr(scalar_mix, "_KEEP_BYTES", keep)
        fast = potential.compute(graph)
        torch.testing.assert_close(fast.atomic_energies, plain.atomic_energies, rtol=0, atol=1e-12)
        torch.testing.assert_close(fast.forces, plain.forces, rtol=0, atol=1e-12)
        torch.testing.assert_close(fast.virial, plain.virial, rtol=0, atol=1e-11)


def test_changed_weights_are_folded_again():
    torch.manual_seed(7)
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=FULL)
    potential = Potential(config).use("inference")
    graph = graph_from_atoms(structure(), config)
    before = potential.compute(graph).energy
    changed = potential.state_dict()
    changed["descriptor.repformer.layers.0.attn2.mapqk.matrix"] = (
        1.5 * changed["descriptor.repformer.layers.0.attn2.mapqk.matrix"]
    )
    potential.load_state_dict(changed)
    loaded = potential.compute(graph).energy
    assert abs((loaded - before).item()) > 1e-9
    with torch.no_grad():
        potential.descriptor.repformer.layers[0].attn2.mapqk.matrix.div_(1.5)
    written = potential.use("inference").compute(graph).energy
    torch.testing.assert_close(written, before, rtol=0, atol=1e-12)
    with potential.using("reference"):
        torch.testing.assert_close(potential.compute(graph).energy, before, rtol=0, atol=1e-12)
    assert potential.mode == "inference"


def test_weights_are_constants_in_inference_and_ask_for_gradients_again_afterwards():
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=FULL)
    potential = Potential(config)
    frozen = potential.descriptor.repformer.layers[0].linear1.bias.requires_grad_(False)
    with potential.using("inference"):
        assert not any(p.requires_grad for p in potential.parameters())
        copied = copy.deepcopy(potential)
    assert potential.mode == "reference" and not frozen.requires_grad
    assert all(p.requires_grad for p in potential.parameters() if p is not frozen)
    assert all(p.requires_grad for p in copied.use("training").parameters() if p.shape != frozen.shape)


def test_inference_refuses_what_has_no_second_derivative():
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=FULL)
    potential = Potential(config).use("inference")
    with pytest.raises(ConfigError, match=r"potential.use\('training'\)"):
        potential.compute(graph_from_atoms(structure(), config), create_graph=True)
    with pytest.raises(ConfigError, match="allowed: 'reference'"):
        potential.use("fast")


def test_what_is_left_to_the_formulas_is_said():
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=FULL)
    potential = Potential(config)
    assert potential.plain_operations() == {} == potential.use("inference").plain_operations()
    other = dataclasses.replace(FULL, smooth=False, repinit=dataclasses.replace(REPINIT, activation="gelu"))
    plain = Potential(dataclasses.replace(config, descriptor=other)).use("inference").plain_operations()
    assert plain["neighbor_sums"] == plain["pair_attention"] == "the model is not smooth"
    assert plain["embedded_moments"] == "the activation is gelu, not tanh"
