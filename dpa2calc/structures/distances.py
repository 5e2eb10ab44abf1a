"""Pairs for analyses: each one once or twice, in any order, within the limits of `search`."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from dpa2calc.errors import StructureError

from .search import (
    BoolArray,
    FloatArray,
    IntArray,
    check_geometry,
    check_length,
    face_distances,
    find_pairs,
    make_box,
    suits_vesin,
)

_MOST_PAIRS = 200_000_000  # of about 100 bytes


def pair_vectors(
    positions: npt.ArrayLike, cell: npt.ArrayLike, pbc: npt.ArrayLike, cutoff: float, *, full: bool
) -> tuple[IntArray, IntArray, FloatArray]:
    """All pairs within a cutoff (Å), images included.

    Args:
        full: each pair twice, as (i, j) and (j, i), or once.

    Returns:
        i, j (n_pairs,) and the vectors from i to j, (n_pairs, 3) in Å.

    Raises:
        ConfigError: the cutoff is no length.
        StructureError: as `search.make_box`, or so many pairs that they would fill the memory.
    """
    geometry, radius = check_geometry(positions, cell, pbc), check_length("cutoff", cutoff)
    box = make_box(geometry, radius)
    n = len(box.positions)
    images = np.prod(2 * radius / face_distances(box.vectors)[box.pbc] + 1)
    others = n * min(images, 4 / 3 * math.pi * radius**3 / abs(np.linalg.det(box.vectors)))
    expected = n * others / (2 - full)
    if expected > _MOST_PAIRS:
        raise StructureError(
            f"{n} atoms have about {expected:.2g} pairs within {radius:g} Å; at most {_MOST_PAIRS:.0e} are "
            "held in memory; take a shorter range"
        )
    if suits_vesin(box, radius):
        import vesin  # imports torch where it is installed: when needed, not before

        finder = vesin.NeighborList(cutoff=radius, full_list=full)
        i, j, vectors = finder.compute(box.positions, box.vectors, True, "ijD")
        return i.astype(np.int64), j.astype(np.int64), vectors
    i, j, shift = find_pairs(geometry, radius)
    if not full:
        ahead = np.where(shift[:, 0] != 0, shift[:, 0], np.where(shift[:, 1] != 0, shift[:, 1], shift[:, 2]))
        once = (i < j) | ((i == j) & (ahead > 0))
        i, j, shift = i[once], j[once], shift[once]
    return i, j, geometry.positions[j] - geometry.positions[i] + shift @ geometry.cell


def near_others(
    positions: npt.ArrayLike, cell: npt.ArrayLike, pbc: npt.ArrayLike, cutoff: float, atoms: IntArray
) -> BoolArray:
    """Whether some atoms (m,) have another atom or an image within a cutoff (Å), (m,); without all pairs.

    Raises:
        ConfigError, StructureError: as `pair_vectors`.
    """
    from scipy.spatial import cKDTree  # here, because importing it takes long

    box = make_box(check_geometry(positions, cell, pbc), check_length("cutoff", cutoff))
    reach = np.where(box.pbc, np.ceil(cutoff / face_distances(box.vectors)), 0).astype(int)
    shifts: IntArray = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))  # (k, 3)
    points = box.positions[atoms][:, None] + shifts @ box.vectors  # (m, k, 3)
    distances, found = cKDTree(box.positions).query(points, k=2, distance_upper_bound=cutoff)  # (m, k, 2)
    itself = np.equal(found, atoms[:, None, None]) & (np.abs(shifts).max(axis=1) == 0)[:, None]
    return np.any(np.isfinite(distances) & ~itself, axis=(1, 2))
