"""The fast neighbour search against the plain one where its grid could overflow: few atoms in huge boxes."""

import numpy as np
import pytest

pytest.importorskip("numba")

from dpa2calc.errors import StructureError
from dpa2calc.kernels.streaming.compact import _grid, compact_pairs
from dpa2calc.kernels.threads import Workers
from dpa2calc.structures.search import check_geometry, find_pairs, make_box


def pairs_of(positions: np.ndarray, cell: np.ndarray, pbc: object) -> tuple[set, set]:
    geometry = check_geometry(positions, cell, pbc)
    i, j, _ = find_pairs(geometry, 4.0)
    plain = set(zip(i.tolist(), j.tolist()))
    found = compact_pairs(geometry, 4.0, Workers())
    rows = np.repeat(np.arange(len(positions)), np.diff(found.start))
    fast = set(zip(found.order[rows].tolist(), found.order[found.neighbors].tolist()))
    return plain, fast


# products of cells that pass 2^63, that are 0 modulo 2^64, that are small after an overflow
LENGTHS = [1e3, 1e6, 7.1e6, 2**23 * 2.0, 2**24 * 2.0, 14680065.0, 29360129.0, 5e7, 9.9e7]


@pytest.mark.parametrize("pbc", [True, False, [True, False, True]])
@pytest.mark.parametrize("length", LENGTHS)
def test_huge_boxes(length: float, pbc: object) -> None:
    water = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    positions = np.concatenate([water, water + 0.9 * length])
    plain, fast = pairs_of(positions, np.diag([length] * 3), pbc)
    assert fast == plain and len(fast) == 12


@pytest.mark.parametrize("lengths", [(9e7, 9e7, 5.0), (9e7, 5.0, 5.0), (3e3, 9e7, 9e7)])
def test_long_and_flat_boxes(lengths: tuple[float, float, float]) -> None:
    positions = np.array([[0, 0, 0], [1, 0, 0], [0, 2.5, 0.1]])
    plain, fast = pairs_of(positions, np.diag(lengths), True)
    assert fast == plain and len(fast) >= 4


@pytest.mark.parametrize("length", LENGTHS)
def test_the_grid_stays_small(length: float) -> None:
    geometry = check_geometry(np.zeros((1, 3)), np.diag([length] * 3), True)
    grid = _grid(make_box(geometry, 4.0), 4.0)
    assert 0 < grid.shape.prod() <= 64 and len(grid.cell_start) == grid.shape.prod() + 1


def test_too_many_images_is_an_error() -> None:
    geometry = check_geometry(np.zeros((1, 3)), np.diag([0.11, 300.0, 300.0]), True)
    with pytest.raises(StructureError):
        compact_pairs(geometry, 9000.0, Workers())
