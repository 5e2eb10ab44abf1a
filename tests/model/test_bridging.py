"""Bridging to a pair table: near atoms have the table's energy, all others the network's."""

import dataclasses

import numpy as np
import pytest
import torch
from architectures import DPA1, TYPE_MAP
from ase import Atoms
from slopes import slope, unit

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.model.config import BridgingConfig, FittingConfig, HeadConfig, ModelConfig
from dpa2calc.model.potential import Potential

BRIDGING = BridgingConfig(
    cutoff=6.0, nsel=30, switch_min=0.8, switch_max=1.6, n_intervals=100, r_min=0.06, spacing=0.06
)


def potential(**options) -> Potential:
    """A network with a reach of 6 Å, and the table V = 1 + its interval's number for all pairs."""
    torch.manual_seed(0)
    config = ModelConfig(
        type_map=TYPE_MAP,
        descriptor=dataclasses.replace(DPA1, attn_layer=0, cutoff=6.0, cutoff_smooth=5.0),
        heads=(HeadConfig(fitting=FittingConfig(neuron=(8,))),),
        neighbor_rule="nearest",
        **options,
    )
    made = Potential(config)
    if made.bridging is not None:
        made.bridging.coefficients[..., 2] = 1.0
        made.bridging.coefficients[..., 3] = 1.0 + torch.arange(100.0, dtype=torch.float64)
    return made


def energies(model: Potential, distances: np.ndarray) -> np.ndarray:
    """Of two atoms at these distances."""
    pairs = [Atoms("CuO", [[0, 0, 0], [r, 0, 0]]) for r in distances]
    return np.array([r["energy"] for r in DPA2Calculator(model, dtype="float64").evaluate(pairs)])


@pytest.mark.filterwarnings("ignore:atoms .* are only")
def test_far_and_near_atoms():
    """Also those beyond 4.6 Å, where exp(-r / 0.1 Å) is below 1e-20."""
    far, near = np.linspace(1.7, 5.9, 40), np.linspace(0.2, 0.75, 10)
    plain, bridged = potential(), potential(bridging=BRIDGING)
    np.testing.assert_allclose(energies(bridged, far), energies(plain, far), atol=1e-12)
    table = 1.0 + (near - BRIDGING.r_min) / BRIDGING.spacing
    np.testing.assert_allclose(energies(bridged, near), table, atol=1e-9)


@pytest.mark.parametrize("distance", [1.1, 4.8])
def test_forces_are_the_slope(distance):
    atoms = Atoms("CuOH", [[0, 0, 0], [distance, 0, 0], [distance + 1.3, 0.4, 0]])
    calc = DPA2Calculator(potential(bridging=BRIDGING), dtype="float64")
    expected = -slope(calc.get_potential_energy, atoms, move=unit(atoms, 0, 0), step=1e-5)
    assert calc.get_forces(atoms)[0, 0] == pytest.approx(expected, abs=1e-6)


def test_atoms_that_only_see_excluded_ones():
    atoms = Atoms("CuO", [[0, 0, 0], [1.0, 0, 0]])
    model = potential(bridging=BRIDGING, pair_exclude_types=((0, 2),))
    alone = [DPA2Calculator(model, dtype="float64").evaluate([atoms[[k]]])[0]["energy"] for k in (0, 1)]
    result = DPA2Calculator(model, dtype="float64").evaluate([atoms])[0]
    assert result["energy"] == pytest.approx(sum(alone), abs=1e-12) and not result["forces"].any()
