"""The comparison of recipes: its measures by hand, and heads that share a net yet stay apart."""

import numpy as np
import pytest

from dpa2calc.training import Dataset, Errors, TrainingSet
from dpa2calc.training.data.dataset import Frame
from dpa2calc.training.evaluate import Evaluation

ERRORS = Errors(n_frames=6, n_atoms=6, energy_rmse=None, energy_mae=None, force_rmse=None, force_mae=None)


def frames(levels: list[float], forces: list[float]) -> Dataset:
    """Single atoms of argon with these energies and force components along x."""
    made = []
    for energy, force in zip(levels, forces):
        made.append(
            Frame(
                numbers=np.array([18], dtype=np.int16),
                positions=np.zeros((1, 3)),
                cell=10.0 * np.eye(3),
                pbc=np.ones(3, dtype=bool),
                energy=energy,
                forces=np.array([[force, 0.0, 0.0]]),
            )
        )
    return Dataset(tuple(made), "argon")


def test_spreads_are_deviations_of_the_labels(script):
    energy, force = script("recipe_choice").spreads(frames([1.0, 3.0], [2.0, -2.0]))
    assert energy == pytest.approx(1000.0)
    assert force == pytest.approx(2000.0 / np.sqrt(3.0))


def test_cold_frames_are_the_third_with_the_smallest_forces(script):
    test = frames([0.0] * 6, [0.1, 3.0, 0.2, 4.0, 5.0, 6.0])
    energies = np.column_stack([np.zeros(6), [0.01, 9.0, 0.03, 9.0, 9.0, 9.0]])
    evaluation = Evaluation(name="argon", errors=ERRORS, energies=energies)
    found = script("recipe_choice").cold_error(evaluation, test)
    assert found == pytest.approx(10.0)  # 10 and 30 meV about their mean


def test_ratios_are_averaged_geometrically(script):
    assert script("recipe_choice").geometric([0.5, 2.0, 8.0]) == pytest.approx(2.0)


def test_heads_of_the_shared_net_differ_by_their_case_alone(script):
    data = frames([1.0, 3.0], [2.0, -2.0])
    sets = {name: TrainingSet(data) for name in ("one", "two")}
    potential = script("recipe_choice").model("shared-net", 1, sets, quick=True)
    first, second = potential.heads
    assert first.nets is second.nets
    assert [head.case_embd.tolist() for head in potential.heads] == [[1.0, 0.0], [0.0, 1.0]]
