"""Which components of the elastic tensor a space group leaves independent, against group theory."""

import numpy as np
import pytest

from dpa2calc.applications.crystals import elastic_tensor

spglib = pytest.importorskip("spglib")
PAIRS = [(i, j) for i in range(1, 7) for j in range(i, 7)]


def _standard_cell(number):
    """A conventional cell of the crystal system, as columns, in spglib's standard orientation."""
    a, b, c, alpha, beta, gamma = 5.0, 6.1, 7.3, 1.4, 1.7, 1.8
    if number > 2:
        alpha = gamma = np.pi / 2
    if number > 15:
        beta = np.pi / 2
    if number > 74:
        b = a
    if 142 < number < 195:
        gamma = 2 * np.pi / 3
    if number > 194:
        c = a
    x = np.cos(beta), (np.cos(alpha) - np.cos(beta) * np.cos(gamma)) / np.sin(gamma)
    columns = [[a, b * np.cos(gamma), c * x[0]], [0, b * np.sin(gamma), c * x[1]]]
    return np.array([*columns, [0, 0, c * np.sqrt(1 - x[0] ** 2 - x[1] ** 2)]])


def _symmetric(number, rotations):
    """Tensors (k, 6, 6) that the rotations leave as they are, from each of the 21 components."""
    cell = _standard_cell(number)
    turns = np.array([cell @ w @ np.linalg.inv(cell) for w in rotations])
    units = np.zeros((21, 6, 6))
    for unit, (i, j) in zip(units, PAIRS):
        unit[i - 1, j - 1] = unit[j - 1, i - 1] = 1.0
    return np.array([elastic_tensor.symmetrised(unit, turns) for unit in units])


@pytest.mark.parametrize("number", [1, 10, 47, 75, 89, 147, 149, 150, 151, 153, 157, 159, 162, 163, 164,
                                    166, 167, 168, 177, 195, 225])  # fmt: skip
def test_the_named_constants_determine_the_whole_tensor(number):
    """As many as the symmetry leaves free, and with no other tensor that has the same ones."""
    halls = (spglib.get_spacegroup_type(hall) for hall in range(1, 531))
    kind = next(found for found in halls if found.number == number)
    rotations = spglib.get_symmetry_from_database(kind.hall_number)["rotations"]
    free = _symmetric(number, rotations)
    pairs = elastic_tensor.independent_components(number, kind.pointgroup_international)
    named = np.array([[tensor[i - 1, j - 1] for i, j in pairs] for tensor in free])
    assert np.linalg.matrix_rank(free.reshape(21, 36), tol=1e-6) == len(pairs)
    assert np.linalg.matrix_rank(named, tol=1e-6) == len(pairs)
