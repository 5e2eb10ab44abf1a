"""Pairs of atoms by element in any cell, over all periodic images, and the cell's own lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from ase import Atoms

from dpa2calc.errors import ConfigError, ElementError, StructureError
from dpa2calc.structures.distances import pair_vectors

ElementsLike: TypeAlias = str | Sequence[str]
_MOST_BINS = 100_000  # 250 MB for the blocks of a curve


def parse_elements(words: ElementsLike, n: int, what: str) -> tuple[str, ...]:
    """Turn "O-H" or ("O", "H") into a tuple of n element symbols."""
    parts = words.split("-") if isinstance(words, str) else list(words)
    if len(parts) != n or not all(isinstance(part, str) and part for part in parts):
        example = "-".join("OHOH"[:n])
        raise ConfigError(f'{what} = {words!r} does not name {n} elements; write it as "{example}"')
    return tuple(part.strip() for part in parts)


def check_bins(length: float, width: float) -> None:
    """Raise ConfigError where so many bins of this width, both in Å or degrees, would fill the memory."""
    if not length <= _MOST_BINS * width:
        raise ConfigError(
            f"a range of {length:.6g} has over {_MOST_BINS} bins of width {width:.6g}; take a shorter range "
            "(r_max) or a larger bin_width"
        )


def indices_of(atoms: Atoms, element: str, where: str) -> np.ndarray:
    """Indices of the atoms of one element; raises ElementError where there is none."""
    found = np.flatnonzero(np.array(atoms.get_chemical_symbols()) == element)
    if not len(found):
        present = " ".join(sorted(set(atoms.get_chemical_symbols()))) or "no atom at all"
        raise ElementError(f"{where} has no {element} atom; it has {present}")
    return found


def volume_of(atoms: Atoms, where: str) -> float:
    """Volume in Å³ of a cell; raises StructureError unless it is periodic in three directions, not flat."""
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


def _pairs(
    atoms: Atoms, first: np.ndarray, second: np.ndarray, cutoff: float, *, full: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Pairs among two groups of atoms: places in the groups, vectors, and whether the groups are one."""
    alike = np.array_equal(first, second)
    chosen = first if alike else np.concatenate([first, second])
    place = (atoms.positions[chosen], atoms.cell.array, atoms.pbc)
    return *pair_vectors(*place, cutoff, full=full), alike


def pair_histogram(
    atoms: Atoms, first: np.ndarray, second: np.ndarray, *, bin_width: float, n_bins: int
) -> np.ndarray:
    """Numbers (n_bins,) of ordered pairs by distance, images included, an atom with itself excluded.

    `first` and `second` are index arrays that are equal or have no atom in common. Only these atoms enter the
    neighbour search. Bin k holds k * bin_width <= distance < (k + 1) * bin_width.
    """
    i, j, vectors, alike = _pairs(atoms, first, second, bin_width * n_bins, full=False)
    bins = (np.linalg.norm(vectors, axis=1) / bin_width).astype(np.int64)
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
    i, j, vectors, alike = _pairs(atoms, centres, others, cutoff, full=True)
    if not alike:
        keep = (i < len(centres)) & (j >= len(centres))
        i, vectors = i[keep], vectors[keep]
    order = np.argsort(i, kind="stable")
    return i[order], vectors[order]
