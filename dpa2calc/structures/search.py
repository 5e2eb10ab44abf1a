"""The periodic pair search behind `dpa2calc.structures.verlet`: checks, lattice, vesin, and a fallback.

vesin (a C++ cell list) does the work. What it is given is always a fully periodic box:

1. the lattice of the periodic directions, Minkowski-reduced if it is very skewed;
2. orthonormal vectors for the other directions, long enough that no image is ever a neighbour.

So molecules, wires, slabs with c = 0 and bulk go through the same code, and the cell vector of a
direction that is not periodic has no influence at all. Boxes so flat or so long that vesin's
cell list divides by zero (it ends the process, vesin 0.6.2) go to a k-d tree instead.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.structures.lattice import DEPENDENT, depend, measure

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Beyond this coordinate float64 resolves less than 1.5e-8 Å and distances lose their meaning.
MAX_COORDINATE = 1e8
# No two images of one atom may be closer than this (Å).
MIN_PERIOD = 0.1
# Hydrogen at 500 GPa has about 1 atom/Å^3. Beyond this an input has the wrong unit, and its pairs would fill
# the memory.
HIGHEST_DENSITY = 2.0  # atoms/Å^3
# What an atom may have in any case (overlapping atoms have an error of their own), and what none may have.
_FEW_NEIGHBORS, _MOST_NEIGHBORS = 2000, 50_000
_AXES = "abc"


class Geometry(NamedTuple):
    """Checked input: positions (n_atoms, 3) in Å, cell (3, 3) in Å, pbc (3,)."""

    positions: FloatArray
    cell: FloatArray
    pbc: BoolArray


class Box(NamedTuple):
    """A fully periodic box that has the same pairs as the system."""

    positions: FloatArray  # (n_atoms, 3), inside the box
    vectors: FloatArray  # (3, 3), rows
    wraps: IntArray  # (n_atoms, 3), cells subtracted from each atom
    pbc: BoolArray  # (3,), of the system
    to_cell: IntArray  # (3, 3), shift in the cell = shift in the box @ to_cell


def check_geometry(positions: npt.ArrayLike, cell: npt.ArrayLike, pbc: npt.ArrayLike) -> Geometry:
    """Convert to float64 and refuse what has no meaning.

    Args:
        positions: (n_atoms, 3) in Å.
        cell: (3, 3) in Å, one vector a row; (3,) means an orthorhombic cell. The vectors of
            directions that are not periodic may be zero.
        pbc: (3,) booleans, or one for all.

    Raises:
        StructureError: no atoms; NaN or infinity; a coordinate beyond 1e8 Å; a periodic
            direction whose cell vector is zero or depends on the others.
    """
    points = np.ascontiguousarray(positions, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise StructureError(f"positions have shape {points.shape}; they must be (n_atoms, 3) in Å")
    if len(points) == 0:
        raise StructureError("the structure has no atoms; hand in at least one")
    _check_finite(points, "positions", "Look at the previous step: it produced this atom.")
    vectors = np.array(cell, dtype=np.float64)
    if vectors.shape == (3,):
        vectors = np.diag(vectors)
    if vectors.shape != (3, 3):
        raise StructureError(f"the cell has shape {vectors.shape}; it must be (3, 3) in Å, a vector a row")
    _check_finite(vectors, "cell", "Look at the previous step (a barostat or a relaxation may have failed).")
    periodic = np.array(np.broadcast_to(np.asarray(pbc, dtype=bool), (3,)))
    _check_lattice(vectors, periodic)
    return Geometry(points, vectors, periodic)


def _check_finite(rows: FloatArray, name: str, advice: str) -> None:
    bad = ~(np.abs(rows) <= MAX_COORDINATE).all(axis=1)  # NaN compares False
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        kind = "too large to be resolved" if np.isfinite(rows[bad]).all() else "not finite"
        raise StructureError(
            f"{name}[{first}] = {rows[first].tolist()} is {kind} ({int(bad.sum())} of {len(rows)} rows); "
            f"every number must be finite and within {MAX_COORDINATE:.0e} Å. {advice}"
        )


def _check_lattice(cell: FloatArray, pbc: BoolArray) -> None:
    lengths = np.linalg.norm(cell, axis=1)
    advice = "set that vector (atoms.cell = ..., atoms.center(vacuum=...)) or switch its pbc off"
    for axis in np.flatnonzero(pbc):
        if lengths[axis] < DEPENDENT:
            raise StructureError(
                f"pbc is True along cell vector {_AXES[axis]} = {cell[axis].tolist()}, which has no length; "
                f"{advice} (atoms.pbc = {(pbc & (lengths >= DEPENDENT)).tolist()})"
            )
    vectors = cell[pbc]
    if depend(vectors):
        names = ", ".join(f"{_AXES[axis]} = {cell[axis].tolist()}" for axis in np.flatnonzero(pbc))
        raise StructureError(
            f"the periodic cell vectors {names} lie in one {'line' if len(vectors) == 2 else 'plane'}, so "
            f"the cell has no {'area' if len(vectors) == 2 else 'volume'}; {advice}"
        )


def check_length(name: str, length: float, *, zero: bool = False) -> float:
    """Return a cutoff or skin (Å) as a float, or raise ConfigError; `zero`: whether it may be 0."""
    value = float(length)
    if not (0 < value < math.inf or (zero and value == 0)):
        allowed = "number, 0 or more" if zero else "number above 0"
        raise ConfigError(f"{name} = {length!r} Å; it must be a finite {allowed}")
    if value > MAX_COORDINATE:
        raise ConfigError(f"{name} = {length!r} Å; it must be at most {MAX_COORDINATE:g} Å")
    return value


def find_pairs(geometry: Geometry, cutoff: float) -> tuple[IntArray, IntArray, IntArray]:
    """All ordered pairs within the cutoff, sorted by (i, j, shift).

    The vector of a pair is positions[j] - positions[i] + shift @ cell. Each pair is there twice
    (i, j and j, i); an atom is a neighbour of its own images but not of itself.

    Returns:
        i (n_pairs,), j (n_pairs,), shift (n_pairs, 3), all int64.

    Raises:
        StructureError: as `make_box`.
    """
    box = make_box(geometry, cutoff)
    i, j, shift = _search_vesin(box, cutoff) if suits_vesin(box, cutoff) else _search_tree(box, cutoff)
    if box.wraps.any():
        shift += box.wraps.take(i, axis=0)
        shift -= box.wraps.take(j, axis=0)
    if not np.array_equal(box.to_cell, np.eye(3, dtype=np.int64)):
        shift = shift @ box.to_cell
    return _sort_pairs(i, j, shift, len(geometry.positions))


def most_neighbors(cutoff: float) -> float:
    """How many neighbours within the cutoff (Å) an atom may have: 2 atoms/Å^3, from 2000 to 50 000."""
    return min(max(_FEW_NEIGHBORS, HIGHEST_DENSITY * 4 / 3 * math.pi * cutoff**3), _MOST_NEIGHBORS)


def _check_density(geometry: Geometry, cutoff: float) -> None:
    """Refuse lattices in which the images alone of one atom (of all atoms in a crystal) are too many."""
    vectors = geometry.cell[geometry.pbc]
    n_periodic = len(vectors)
    if n_periodic == 0:
        return
    ball = (2 * cutoff, math.pi * cutoff**2, 4 / 3 * math.pi * cutoff**3)[n_periodic - 1]
    size = measure(vectors)
    found = ball / size * (len(geometry.positions) if n_periodic == 3 else 1)
    if found > most_neighbors(cutoff):
        unit, kind = (("Å", "a length"), ("Å^2", "an area"), ("Å^3", "a volume"))[n_periodic - 1]
        raise StructureError(
            f"the cell has {kind} of {size:.4g} {unit} for {len(geometry.positions)} atoms, "
            f"{_too_many(found, cutoff)}; check the cell {geometry.cell.tolist()} and its unit (Å)"
        )


def _too_many(neighbors: float, cutoff: float) -> str:
    return (
        f"about {neighbors:.3g} neighbours within {cutoff:g} Å of each (at most "
        f"{most_neighbors(cutoff):.0f} are allowed)"
    )


def _check_crowding(box: Box, cutoff: float) -> None:
    """Refuse a region, half a cutoff wide or as wide as the box, with more atoms than matter can hold."""
    heights, most = face_distances(box.vectors), most_neighbors(cutoff)
    images = np.prod(2 * cutoff / heights[box.pbc] + 1)
    if len(box.positions) * images <= _FEW_NEIGHBORS:  # even if all atoms lay in one place
        return
    counts = np.maximum(1.0, np.floor(2 * heights / cutoff))
    regions = np.floor(box.positions @ np.linalg.inv(box.vectors) * counts).astype(np.int64)
    # One number for each region; beyond 2^63 numbers are taken twice, which does no harm here.
    names = (regions[:, 0] * int(counts[1]) + regions[:, 1]) * int(counts[2]) + regions[:, 2]
    if counts.prod() > 4 * len(names):
        names = np.unique(names, return_inverse=True)[1]
    atoms = np.bincount(np.maximum(names, 0))  # rounding may put an atom just outside
    crowded = int(atoms.argmax())
    density = atoms[crowded] / abs(np.linalg.det(box.vectors / counts[:, None]))
    found = density * 4 / 3 * math.pi * cutoff**3
    if found > 2 * most:  # twice, because the edges of a region may lie so that it holds more than its share
        sides = " x ".join(f"{side:.3g}" for side in heights / counts)
        raise StructureError(
            f"{atoms[crowded]} atoms, atom {np.argmax(names == crowded)} among them, lie in {sides} Å: "
            f"{density:.3g} atoms/Å^3, {_too_many(found, cutoff)}; check positions (fractional ones must be "
            "multiplied by the cell), cell, and their unit (Å)"
        )


def make_box(geometry: Geometry, cutoff: float) -> Box:
    """The fully periodic box of a structure; refuses cells that must be a mistake.

    Raises:
        StructureError: more neighbours than `most_neighbors` in some place, which would fill the memory,
            or an atom within 0.1 Å of its own image.
    """
    _check_density(geometry, cutoff)
    positions, cell, pbc = geometry
    vectors = cell.copy()
    to_cell = np.eye(3, dtype=np.int64)
    if not pbc.all():
        # The last right singular vectors are orthonormal and perpendicular to all periodic vectors.
        complement = np.linalg.svd(cell[pbc])[2][pbc.sum() :] if pbc.any() else np.eye(3)
        vectors[~pbc] = complement
    if pbc.sum() > 1 and (face_distances(vectors) < 0.5 * np.linalg.norm(vectors, axis=1))[pbc].any():
        from ase.geometry import minkowski_reduce

        reduced, operation = minkowski_reduce(vectors, pbc=pbc)
        vectors, to_cell = np.array(reduced, dtype=np.float64), np.asarray(operation, dtype=np.int64)
    if pbc.any() and (period := np.linalg.norm(vectors[pbc], axis=1).min()) < MIN_PERIOD:
        raise StructureError(
            f"the cell repeats every {period:.3g} Å, so that atoms lie on top of their own images; "
            f"check the cell {cell.tolist()} and its unit (Å)"
        )
    low = np.zeros(3)
    if not pbc.all():
        heights = positions @ vectors[~pbc].T  # (n_atoms, n_free)
        lowest = heights.min(axis=0)
        low = lowest @ vectors[~pbc]
        extent = heights.max(axis=0) - lowest
        vectors[~pbc] *= (extent * (1 + 1e-12) + 1.01 * cutoff)[:, None]
    inside = positions - low
    wraps = np.floor(inside @ np.linalg.inv(vectors)).astype(np.int64)
    wraps[:, ~pbc] = 0
    if wraps.any():
        inside = inside - wraps @ vectors
    box = Box(inside, vectors, wraps, pbc, to_cell)
    _check_crowding(box, cutoff)
    return box


def face_distances(vectors: FloatArray) -> FloatArray:
    """Distances between opposite faces of a cell, (3,)."""
    return 1.0 / np.linalg.norm(np.linalg.inv(vectors), axis=0)


def suits_vesin(box: Box, cutoff: float) -> bool:
    """Whether vesin's cell list survives this box.

    It scales the number of cells down to 1e5 by one factor for all directions, so that a flat
    box gets zero cells in its thin direction and the process dies of an integer division.
    """
    counts = np.maximum(1.0, np.floor(face_distances(box.vectors) / cutoff))
    return bool(counts.min() / np.cbrt(max(1.0, counts.prod() / 5e4)) >= 1.0)


def _search_vesin(box: Box, cutoff: float) -> tuple[IntArray, IntArray, IntArray]:
    import vesin  # imports torch where it is installed: when needed, not before

    finder = vesin.NeighborList(cutoff=cutoff, full_list=True)
    pairs, shift = finder.compute(box.positions, box.vectors, True, "PS", copy=False)
    # Copies are needed: the arrays belong to `finder`.
    return pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64), shift.astype(np.int64)


def _search_tree(box: Box, cutoff: float) -> tuple[IntArray, IntArray, IntArray]:
    """The same pairs from explicit images and a k-d tree: slower, indifferent to the box's form."""
    from scipy.spatial import cKDTree  # here, because few need it and importing it takes long

    reach = cutoff / face_distances(box.vectors)  # in fractions of the box
    fractions = box.positions @ np.linalg.inv(box.vectors)
    counts = np.where(box.pbc, np.ceil(reach), 0).astype(int)
    owners, shifts = [], []
    for shift in itertools.product(*(range(-count, count + 1) for count in counts)):
        moved = fractions + shift
        near = np.flatnonzero(((moved >= -reach - 1e-9) & (moved <= 1 + reach + 1e-9)).all(axis=1))
        owners.append(near)
        shifts.append(np.broadcast_to(np.array(shift, dtype=np.int64), (len(near), 3)))
    owner, image = np.concatenate(owners), np.concatenate(shifts)
    ghosts = box.positions[owner] + image @ box.vectors
    found = cKDTree(box.positions).sparse_distance_matrix(cKDTree(ghosts), cutoff, output_type="ndarray")
    i, ghost = found["i"].astype(np.int64), found["j"].astype(np.int64)
    j, shift_rows = owner[ghost].astype(np.int64), image[ghost]
    other = (i != j) | shift_rows.any(axis=1)
    return i[other], j[other], shift_rows[other]


def _sort_pairs(
    i: IntArray, j: IntArray, shift: IntArray, n_atoms: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Sort by (i, j, shift), so that the list does not depend on how it was found.

    The five integers are packed into one: sorting plain integers is an order of magnitude
    faster than numpy.lexsort. Shifts too large to be packed (atoms far outside) take lexsort.
    """
    if len(i) == 0:
        return i, j, shift
    low = shift.min(axis=0)
    shift_bits = [int(span).bit_length() for span in (shift.max(axis=0) - low)]
    atom_bits = max(1, (n_atoms - 1).bit_length())
    if 2 * atom_bits + sum(shift_bits) > 62:
        order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], j, i))
        return i[order], j[order], shift[order]
    key = (i << atom_bits) | j
    for axis, bits in enumerate(shift_bits):
        key = (key << bits) | (shift[:, axis] - low[axis])
    key.sort()
    for axis in (2, 1, 0):
        bits = shift_bits[axis]
        shift[:, axis] = (key & ((1 << bits) - 1)) + low[axis]
        key >>= bits
    return key >> atom_bits, key & ((1 << atom_bits) - 1), shift
