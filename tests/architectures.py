"""Tiny models of every architecture, shared by tests of the calculator, of training and of devices.

Every architecture in ARCHITECTURES inherits the whole contract: finite differences, symmetries, smoothness,
skin, batches, devices. A new one is added by one line.
"""

import dataclasses
from typing import Any

import torch
from radial_descriptor import RadialConfig

from dpa2calc.model.config import (
    DeepPotSEConfig,
    DescriptorConfig,
    DPA1Config,
    DPA2Config,
    FittingConfig,
    HeadConfig,
    ModelConfig,
    NeighborRule,
    RepformerConfig,
    RepinitConfig,
    ThreeBodyConfig,
)
from dpa2calc.model.potential import Potential

TYPE_MAP = ("O", "H", "Cu")

NETS: dict[str, Any] = {"neuron": (3, 6, 12), "axis_neuron": 3}
REPINIT = RepinitConfig(cutoff=4.2, cutoff_smooth=1.5, nsel=30, tebd_dim=4, **NETS)
REPFORMER = RepformerConfig(
    cutoff=3.0,
    cutoff_smooth=2.2,
    nsel=12,
    nlayers=3,
    g1_dim=8,
    g2_dim=4,
    axis_neuron=2,
    attn1_hidden=4,
    attn1_nhead=2,
    attn2_hidden=4,
    attn2_nhead=2,
    attn2_has_gate=True,
)
THREE_BODY = ThreeBodyConfig(cutoff=3.4, cutoff_smooth=2.4, nsel=20, neuron=(2, 4, 4))


def small_dpa2(
    *, three_body: ThreeBodyConfig | None = THREE_BODY, repinit: dict | None = None, **repformer
) -> DPA2Config:
    """A small DPA-2 with other options of its parts."""
    return DPA2Config(
        repinit=dataclasses.replace(REPINIT, **(repinit or {})),
        three_body=three_body,
        repformer=dataclasses.replace(REPFORMER, **repformer),
    )


DPA1 = DPA1Config(cutoff=4.2, cutoff_smooth=1.5, nsel=30, tebd_dim=4, attn=6, **NETS)
DEEPPOT_SE = DeepPotSEConfig(cutoff=4.2, cutoff_smooth=1.5, sel=(10, 15, 10), **NETS)
ARCHITECTURES: dict[str, tuple[DescriptorConfig, NeighborRule]] = {
    "dpa2-all-updates": (small_dpa2(update_h2=True), "all"),
    "dpa2-paper": (
        small_dpa2(
            three_body=None,
            g1_out_conv=False,
            g1_out_mlp=False,
            update_style="res_avg",
            use_sqrt_nnei=False,
            repinit={"type_one_side": True},
        ),
        "all",
    ),
    "dpa2-small": (
        small_dpa2(
            repinit={"tebd_input_mode": "strip"},
            update_g1_has_attn=False,
            update_g2_has_g1g1=False,
            update_g2_has_attn=False,
        ),
        "all",
    ),
    "dpa2-nearest": (small_dpa2(three_body=None, repinit={"nsel": 90}, nsel=40, direct_dist=True), "nearest"),
    "dpa1-attention": (DPA1, "all"),
    "dpa1-l0": (dataclasses.replace(DPA1, attn_layer=0, tebd_input_mode="strip", type_one_side=False), "all"),
    "deeppot-se": (DEEPPOT_SE, "all"),
    "from-another-package": (RadialConfig(cutoff=4.2, n_radial=6), "all"),
}


def small_model(
    descriptor: DescriptorConfig,
    rule: NeighborRule = "nearest",
    *,
    type_map: tuple[str, ...] = TYPE_MAP,
    heads: tuple[HeadConfig, ...] = (HeadConfig(fitting=FittingConfig(neuron=(10, 10))),),
) -> Potential:
    """A potential as it is made, with a small fitting net."""
    config = ModelConfig(type_map=type_map, descriptor=descriptor, heads=heads, neighbor_rule=rule)
    return Potential(config)


def make_potential(name: str, *, seed: int = 0, heads: tuple[HeadConfig, ...] | None = None) -> Potential:
    """A float64 potential with random weights, element biases and statistics, the same at every call."""
    descriptor, rule = ARCHITECTURES[name]
    usual = HeadConfig(name="PBE", elements=TYPE_MAP, fitting=FittingConfig(neuron=(10, 10)))
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    potential = small_model(descriptor, rule, heads=heads or (usual,))
    for head in potential.heads:
        head.bias_atom_e.values.copy_(torch.randn(3, dtype=torch.float64) * 3 - 5)
    for part in potential.modules():
        if hasattr(part, "std") and hasattr(part, "mean"):
            # One number for x, y and z: anything else would break the rotational symmetry.
            part.std.copy_((0.2 + 0.1 * torch.rand(3, 2, dtype=torch.float64))[:, [0, 1, 1, 1]])
            if name == "deeppot-se":  # its padding counts: statistics are not set to zero there
                part.mean[:, 0] = 0.1 * torch.rand(3, dtype=torch.float64)
    torch.random.set_rng_state(state)
    return potential
