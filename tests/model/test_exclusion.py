"""Excluded pairs of types do not see each other, in any part of any model."""

import pytest
import torch
from ase import Atoms

from dpa2calc.model.config import (
    DeepPotSEConfig,
    DescriptorConfig,
    DPA1Config,
    DPA2Config,
    ModelConfig,
    RepformerConfig,
    RepinitConfig,
    ThreeBodyConfig,
)
from dpa2calc.model.potential import Potential
from dpa2calc.structures.graph_builder import graph_from_atoms

PAIRS = ((0, 1),)
SMALL = {"neuron": (4, 8), "axis_neuron": 2}
MODELS: dict[str, DescriptorConfig] = {
    "dpa1": DPA1Config(
        nsel=20, tebd_dim=3, attn=4, smooth_type_embedding=True, exclude_types=PAIRS, **SMALL  # type: ignore
    ),
    "dpa1, not smooth": DPA1Config(
        nsel=20, tebd_dim=3, attn=4, smooth_type_embedding=False, exclude_types=PAIRS, **SMALL  # type: ignore
    ),
    "dpa2": DPA2Config(
        repinit=RepinitConfig(nsel=20, tebd_dim=3, **SMALL),  # type: ignore[arg-type]
        three_body=ThreeBodyConfig(nsel=15, cutoff=5.0),
        repformer=RepformerConfig(nsel=10, nlayers=3, g1_dim=6, g2_dim=4, update_h2=True),
        exclude_types=PAIRS,
    ),
    "dpa2, not smooth": DPA2Config(
        repinit=RepinitConfig(nsel=20, tebd_dim=3, **SMALL),  # type: ignore[arg-type]
        repformer=RepformerConfig(nsel=10, nlayers=3, g1_dim=6, g2_dim=4),
        exclude_types=PAIRS,
        smooth=False,
    ),
    "deeppot-se": DeepPotSEConfig(sel=(10, 10), exclude_types=PAIRS, set_davg_zero=True, **SMALL),  # type: ignore
}  # fmt: skip


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("rule", ["nearest", "all"])
def test_two_species_that_ignore_each_other(name: str, rule: str) -> None:
    """Mixed together, each species has the energies and forces it has alone."""
    torch.manual_seed(1)
    potential = Potential(
        ModelConfig(type_map=("O", "H"), descriptor=MODELS[name], neighbor_rule=rule)  # type: ignore[arg-type]
    )
    oxygens = Atoms("O3", [[0, 0, 0], [1.6, 0.3, 0.1], [0.2, 1.9, 0.8]])
    hydrogens = Atoms("H3", [[0.8, 0.9, 0.1], [1.7, 1.4, 0.9], [0.4, 0.2, 1.3]])
    together = potential.compute(graph_from_atoms(oxygens + hydrogens, potential.config))
    alone = [potential.compute(graph_from_atoms(part, potential.config)) for part in (oxygens, hydrogens)]
    for quantity in ("atomic_energies", "forces"):
        expected = torch.cat([getattr(out, quantity) for out in alone])
        torch.testing.assert_close(getattr(together, quantity), expected, rtol=0, atol=1e-12)
    assert float(together.forces.abs().max()) > 1e-4
