"""Measures of curves of two atoms."""

import numpy as np
import pytest


def test_measures_of_a_bond_and_of_a_rough_curve(script):
    diatomics = script("diatomics")
    r = diatomics.DISTANCES
    spread = np.exp(-2.0 * (r - 1.2))
    energy, force = 5.0 * (1.0 - spread) ** 2, -20.0 * (1.0 - spread) * spread
    bond = diatomics.measures(energy, force)
    assert (bond["force flips"], bond["minima"], bond["inflections"]) == (1, 1, 1)
    assert bond["Spearman, repulsive"] == pytest.approx(-1.0)
    assert bond["Spearman, attractive"] == pytest.approx(1.0)
    waves = 0.5 * np.sin(2.0 * np.pi * r)
    rough = diatomics.measures(energy + waves, force - np.pi * np.cos(2.0 * np.pi * r))
    assert rough["minima"] > 3 and rough["force flips"] > 3 and rough["inflections"] > 3
    assert 0.0 < rough["Spearman, attractive"] < 1.0
    rising = np.stack([r, -np.ones_like(r)], axis=1)  # no repulsive side
    means = diatomics.averages({"A": rising, "B": np.stack([energy, force], axis=1)})
    assert means["elements"] == 2 and means["Spearman, repulsive"] == pytest.approx(-1.0)
    assert means["force flips"] == 0.5
