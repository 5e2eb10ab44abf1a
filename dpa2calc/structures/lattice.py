"""When a cell has a volume, and which."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from ase import Atoms

# Vectors that span less than this part of the product of their lengths depend on each other.
DEPENDENT = 1e-8
# A cell that reaches less far across its periodic directions has no thickness (Å).
THINNEST = 0.1


def measure(vectors: npt.NDArray[np.float64]) -> float:
    """Length, area or volume spanned by 1, 2 or 3 rows; 1 for none."""
    return float(np.prod(np.linalg.svd(vectors, compute_uv=False))) if len(vectors) else 1.0


def depend(vectors: npt.NDArray[np.float64]) -> bool:
    """Whether the rows (n, 3) lie in a space of fewer dimensions, or one has no length."""
    return _depend(np.ascontiguousarray(vectors, dtype=np.float64).tobytes())


@functools.lru_cache(maxsize=64)  # a run asks for the same cell at every step
def _depend(content: bytes) -> bool:
    vectors = np.frombuffer(content).reshape(-1, 3)
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    if (largest < DEPENDENT).any():
        return True
    directions = vectors / largest[:, None]  # first, so that squares of 1e300 Å do not overflow
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    return measure(directions) < DEPENDENT


def cell_volume(atoms: Atoms) -> float | None:
    """Volume of the cell in Å^3, or None where it has none.

    The vectors of periodic directions must not depend on each other. Those of the other directions are
    whatever the user left there, or nothing: they count only if the cell is at least 0.1 Å thick across
    the periodic directions, because a stress (eV/Å^3) grows beyond any number in a thinner one.
    """
    return _volume(atoms.cell.array.tobytes(), atoms.pbc.tobytes())


@functools.lru_cache(maxsize=64)
def _volume(of_cell: bytes, of_pbc: bytes) -> float | None:
    cell, pbc = np.frombuffer(of_cell).reshape(3, 3), np.frombuffer(of_pbc, dtype=bool)
    if not np.isfinite(cell).all() or depend(cell[pbc]):
        return None
    if not pbc.all():
        across = np.linalg.svd(cell[pbc])[2][int(pbc.sum()) :] if pbc.any() else np.eye(3)
        thickness = np.linalg.svd(cell[~pbc] @ across.T, compute_uv=False)
        if thickness.min() < THINNEST:
            return None
    with np.errstate(over="ignore"):
        volume = float(abs(np.linalg.det(cell)))
    return volume if np.isfinite(volume) else None


def is_crystal(atoms: Atoms) -> bool:
    """Periodic in three directions, with a volume."""
    return bool(atoms.pbc.all()) and cell_volume(atoms) is not None


def volume_or_nan(atoms: Atoms) -> float:
    """Volume of the cell in Å^3, NaN where it has none."""
    volume = cell_volume(atoms)
    return float("nan") if volume is None else volume
