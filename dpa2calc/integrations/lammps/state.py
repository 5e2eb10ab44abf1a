"""What LAMMPS knows at a step, read from its memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dpa2calc.structures.search import face_distances


class Box(NamedTuple):
    """low (3,): corner in Å; cell (3, 3): vectors in Å; pbc (3,) bool."""

    low: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray

    @property
    def heights(self) -> np.ndarray:
        """Distances between opposite faces, (3,) in Å."""
        return face_distances(self.cell)


def read_box(lmp: Any) -> Box:
    """The simulation box; a plane (`dimension 2`) has no images above it, whatever LAMMPS calls that side."""
    low, high, xy, yz, xz, pbc, _ = lmp.extract_box()
    lx, ly, lz = np.subtract(high, low)
    cell = np.array([[lx, 0.0, 0.0], [xy, ly, 0.0], [xz, yz, lz]])
    periodic = np.array(pbc, dtype=bool)
    periodic[lmp.extract_setting("dimension") :] = False
    return Box(np.array(low), cell, periodic)


def own_atoms(lmp: Any) -> int:
    """Number of atoms of this process."""
    return int(lmp.extract_setting("nlocal"))


def own_and_ghosts(lmp: Any) -> int:
    """Number of atoms of this process and ghosts around them."""
    return int(lmp.extract_setting("nlocal") + lmp.extract_setting("nghost"))


def per_atom(lmp: Any, name: str, n: int) -> np.ndarray:
    """The first n rows of "x" (n, 3), "id", "type" or "image" (n,): LAMMPS's own memory."""
    if n == 0:
        return np.zeros((0, 3)) if name == "x" else np.zeros(0, dtype=np.int64)
    found: np.ndarray = lmp.numpy.extract_atom(name, nelem=n)
    return found


def image_cells(lmp: Any, n: int) -> np.ndarray:
    """Boxes that each own atom has left behind, (n, 3): unwrapped = x + images @ cell."""
    packed = per_atom(lmp, "image", n)
    bits = 21 if packed.dtype == np.int64 else 10
    mask, zero = (1 << bits) - 1, 1 << (bits - 1)
    return np.stack([packed & mask, packed >> bits & mask, packed >> 2 * bits], axis=1) - zero
