"""Pairs of atoms by element in any cell, over all periodic images, and the cell's own lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce

from dpa2calc.errors import ConfigError, ElementError, StructureError

ElementsLike: TypeAlias = str | Sequence[str]


def parse_elements(words: ElementsLike, n: int, what: str) -> tuple[str, ...]:
    """Turn "O-H" or ("O", "H") into a tuple of n element symbols."""
    parts = words.split("-") if isinstance(words, str) else list(words)
    if len(parts) != n or not all(isinstance(part, str) and part for part in parts):
        example = "-".join("OHOH"[:n])
        raise ConfigError(f'{what} = {words!r} does not name {n} elements; write it as "{example}"')
    return tuple(part.strip() for part in parts)


def indices_of(atoms: Atoms, element: str, where: str) -> np.ndarray:
    """Indices of the atoms of one element.

    Raises:
        ElementError: there is none.
    """
    found = np.flatnonzero(np.array(atoms.get_chemical_symbols()) == element)
    if not len(found):
        present = " ".join(sorted(set(atoms.get_chemical_symbols()))) or "no atom at all"
        raise ElementError(f"{where} has no {element} atom; it has {present}")
    return found


def volume_of(atoms: Atoms, where: str) -> float:
    """Volume in Å³ of a cell that is periodic in three directions.

    Raises:
        StructureError: it is not periodic, or flat.
    """
    if not atoms.pbc.all():
        pbc = "".join("T" if p else "F" for p in atoms.pbc)
        raise StructureError(
            f"{where} has pbc {pbc}: a density, and so g(r), exists only with periodic boundaries in all "
            "three directions; set atoms.pbc = True with a cell that the atoms really fill"
        )
    volume = abs(float(np.linalg.det(atoms.cell.array)))
    if volume < 1e-6:
        raise StructureError(f"{where} has a cell of volume {volume:g} Å³; give it a real cell")
    return volume


def cell_heights(atoms: Atoms) -> np.ndarray:
    """Distances (3,) in Å between opposite faces of the cell."""
    return 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)


def shortest_translation(atoms: Atoms) -> float:
    """Length in Å of the shortest lattice vector: the distance of an atom to its nearest own image."""
    reduced, _ = minkowski_reduce(atoms.cell.array)
    return float(np.linalg.norm(reduced, axis=1).min())


def pair_histogram(
    atoms: Atoms, first: np.ndarray, second: np.ndarray, *, bin_width: float, n_bins: int
) -> np.ndarray:
    """Numbers (n_bins,) of ordered pairs by distance, images included, an atom with itself excluded.

    `first` and `second` are index arrays that are equal or have no atom in common. Only these atoms enter the
    neighbour search. Bin k holds k * bin_width <= distance < (k + 1) * bin_width.
    """
    alike = np.array_equal(first, second)
    chosen = first if alike else np.concatenate([first, second])
    from vesin import NeighborList  # imports torch where it is installed: when needed, not before

    search = NeighborList(cutoff=bin_width * n_bins, full_list=False)
    i, j, d = search.compute(atoms.positions[chosen], atoms.cell.array, atoms.pbc, "ijd")
    bins = (d / bin_width).astype(np.int64)
    keep = bins < n_bins
    if not alike:
        keep &= (i < len(first)) != (j < len(first))
    counts = np.bincount(bins[keep], minlength=n_bins).astype(float)
    return 2.0 * counts if alike else counts  # the half list has each like pair once


def neighbour_vectors(
    atoms: Atoms, centres: np.ndarray, others: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors from each centre to every neighbour among `others` within the cutoff, images included.

    `centres` and `others` are index arrays that are equal or have no atom in common.

    Returns:
        owner (n_pairs,): which centre, as an index into `centres`, ascending;
        vectors (n_pairs, 3) in Å.
    """
    alike = np.array_equal(centres, others)
    chosen = centres if alike else np.concatenate([centres, others])
    from vesin import NeighborList  # imports torch where it is installed: when needed, not before

    search = NeighborList(cutoff=cutoff, full_list=True)
    i, j, vectors = search.compute(atoms.positions[chosen], atoms.cell.array, atoms.pbc, "ijD")
    if not alike:
        keep = (i < len(centres)) & (j >= len(centres))
        i, vectors = i[keep], vectors[keep]
    order = np.argsort(i, kind="stable")
    return i[order].astype(np.int64), vectors[order]
