"""Environment statistics and energy biases against plain sums."""

import dataclasses

import numpy as np
import pytest
import torch
from ase import Atoms

from dpa2calc.model.potential import Potential
from dpa2calc.structures.graph_builder import graph_from_atoms
from dpa2calc.training.fit.setup import set_environment_statistics


def _by_hand(frames, block, kind, number):
    """Mean and deviations over all slots of all atoms of one element, by loops over minimum images."""
    rows, n_slots = [], 0
    for atoms in frames:
        cell = atoms.cell.array
        images = (
            np.array([(a, b, c) for a in range(-3, 4) for b in range(-3, 4) for c in range(-3, 4)]) @ cell
        )
        for i in np.flatnonzero(atoms.numbers == number):
            n_slots += block.nsel
            for j in range(len(atoms)):
                for d in atoms.positions[j] - atoms.positions[i] + images:
                    r = np.linalg.norm(d)
                    if 1e-9 < r < block.cutoff:
                        u = np.clip((r - block.cutoff_smooth) / (block.cutoff - block.cutoff_smooth), 0, 1)
                        w = 1 + u**3 * (-6 * u**2 + 15 * u - 10)
                        rows.append([w / r, *(w * d / r**2)])
    rows = np.array(rows)
    mean = rows[:, 0].sum() / n_slots
    radial = np.sqrt((rows[:, 0] ** 2).sum() / n_slots - mean**2)
    angular = np.sqrt((rows[:, 1:] ** 2).sum() / (3 * n_slots) - (rows[:, 1:].sum() / (3 * n_slots)) ** 2)
    return mean, radial, angular


@pytest.mark.parametrize("davg_zero", [True, False])
def test_statistics_count_padding_as_zeros(tiny_model, lj_frames, davg_zero):
    config = tiny_model()
    d = config.descriptor
    repinit = dataclasses.replace(d.repinit, set_davg_zero=davg_zero, tebd_input_mode="strip")
    config = dataclasses.replace(config, descriptor=dataclasses.replace(d, repinit=repinit))
    frames = lj_frames(3)
    potential = Potential(config)
    set_environment_statistics(potential, [graph_from_atoms(a, config) for a in frames])
    for block, environment in (
        (repinit, potential.descriptor.repinit.environment),
        (d.repformer, potential.descriptor.repformer.environment),
    ):
        mean, radial, angular = _by_hand(frames, block, 0, 18)
        expected = 0.0 if davg_zero or block is d.repformer else mean
        np.testing.assert_allclose(environment.mean[0], [expected, 0, 0, 0], atol=1e-12)
        np.testing.assert_allclose(environment.std[0], [radial, angular, angular, angular], rtol=1e-10)
        # The type without data.
        np.testing.assert_allclose(environment.std[1], 0.1)
        np.testing.assert_allclose(environment.mean[1], 0.0)


def test_weights_of_graphs_are_those_of_repeated_graphs(tiny_model, lj_frames):
    config = tiny_model()
    a, b = (graph_from_atoms(x, config) for x in lj_frames(2))
    one, two = Potential(config), Potential(config)
    set_environment_statistics(one, [(a, 3.0), (b, 1.0)])
    set_environment_statistics(two, [a, a, a, b])
    torch.testing.assert_close(one.descriptor.repinit.environment.std, two.descriptor.repinit.environment.std)


def test_isolated_atoms_have_the_floor(tiny_model):
    config = tiny_model()
    potential = Potential(config)
    set_environment_statistics(potential, [graph_from_atoms(Atoms("Ar"), config)])
    np.testing.assert_allclose(potential.descriptor.repinit.environment.std[0], 1e-2)
