"""What the perovskite examples add: domains to relax, where an order parameter is half lost, verdicts."""

from types import SimpleNamespace

import numpy as np
import pytest

from dpa2calc.applications import find_cages


@pytest.mark.parametrize("direction", ["[001]", "[110]", "[111]"])
@pytest.mark.parametrize("ordering", ["random", "rocksalt"])
def test_domains_are_neutral_and_point_where_they_are_said_to(script, direction, ordering):
    phases = script("perovskite_phases")
    system, repeats = phases.SYSTEMS["pin29"], (4, 4, 4)
    unit = np.array(phases.DIRECTIONS[direction]) / np.linalg.norm(phases.DIRECTIONS[direction])
    atoms = phases.cell_of(system, ordering, 1, repeats, phases.SHIFT * unit)
    counts = atoms.symbols.formula.count()
    charges = {"Pb": 2, "In": 3, "Nb": 5, "Mg": 2, "Ti": 4, "O": -2}
    assert sum(charges[symbol] * n for symbol, n in counts.items()) == 0
    assert counts["Pb"] == 64 and counts["O"] == 192
    assert counts["Ti"] / 64 == pytest.approx(0.26, abs=0.03)
    cages = find_cages(phases.cell_of(system, ordering, 1, repeats, 0.0), "Pb", "O", 12)
    mean = cages.displacements(atoms).mean(axis=0)
    np.testing.assert_allclose(np.cross(mean, unit), 0.0, atol=1e-9)
    assert mean @ unit > 0.1


T = np.arange(100.0, 700.0, 25.0)


def _fall(middle):
    return 0.2 / (1.0 + np.exp((T - middle) / 20.0))


def _scan(*branches):
    """What `half_way` takes, from (temperatures, values) of each branch."""
    target = np.concatenate([t for t, _ in branches])
    values = np.concatenate([v for _, v in branches])
    number = np.concatenate([np.full(len(t), k) for k, (t, _) in enumerate(branches)])
    order = np.stack([values, np.full(len(values), 1e-4)], axis=1)
    return SimpleNamespace(
        steps=tuple(range(len(branches))), target=target, order=order, on=lambda k: number == k
    )


def test_half_way_of_a_smooth_fall_and_of_two_branches(script):
    half_way = script("perovskite_transition").half_way
    value, error = half_way(_scan((T, _fall(412.0))))
    assert value == pytest.approx(412.0, abs=2.0) and error < 2.0
    # With hysteresis: the mean, and half the gap in the error. The cooling branch comes hot end first.
    value, error = half_way(_scan((T, _fall(430.0)), (T[::-1], _fall(370.0)[::-1])))
    assert value == pytest.approx(400.0, abs=2.0) and error == pytest.approx(30.0, abs=2.0)
    value, _ = half_way(_scan((T, np.full(len(T), 0.2) + 1e-9 * T)))
    assert np.isnan(value)


def test_verdicts_of_the_student(script):
    verdicts = script("perovskite_student").verdicts
    depths = {"tetragonal": -60.0, "orthorhombic": -50.0, "rhombohedral": -48.0, "c/a": 1.05}
    near = depths | {"rhombohedral": -52.0}
    wrong = depths | {"rhombohedral": -61.0}
    assert [v.passed for v in verdicts({"teacher": depths, "student": near})] == [True, True, True]
    assert [v.passed for v in verdicts({"teacher": depths, "student": wrong})] == [True, False, False]
