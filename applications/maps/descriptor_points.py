"""Collecting descriptors of many frames: from a calculator or from arrays, thinned at random as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from dpa2calc.applications.shared.trajectory import Frames, with_progress
from dpa2calc.errors import ConfigError, DataError
from dpa2calc.structures.distances import pair_vectors

_STRETCH = 1.2  # two atoms are bonded within this multiple of the sum of their covalent radii


class Point(NamedTuple):
    """A vector (d,) with its labels, and the indices of its frame in the group and of its atom (or -1)."""

    vector: np.ndarray
    group: str
    element: str
    environment: str
    frame: int
    atom: int


class ArrayRows:
    """Descriptors that the caller already has: (n_atoms of all frames, d), or one (n_atoms, d) a frame."""

    def __init__(self, descriptors: np.ndarray | Sequence[np.ndarray]) -> None:
        whole = isinstance(descriptors, np.ndarray) and descriptors.ndim == 2
        self.frames = None if whole else list(descriptors)
        self.rows = np.asarray(descriptors) if whole else np.empty((0, 0))
        self.used = 0

    def __call__(self, atoms: Atoms) -> np.ndarray:
        """The next frame's rows (n_atoms, d)."""
        if self.frames is not None:
            if self.used >= len(self.frames):
                raise DataError(f"descriptors hold {len(self.frames)} frames, but the structures have more")
            rows = np.asarray(self.frames[self.used])
            self.used += 1
            return rows
        rows = self.rows[self.used : self.used + len(atoms)]
        self.used += len(atoms)
        return rows

    def check_used_up(self) -> None:
        """Raise where rows are left over."""
        total = len(self.rows) if self.frames is None else len(self.frames)
        if self.used != total:
            raise DataError(
                f"descriptors have {total} {'rows' if self.frames is None else 'frames'}, but the structures "
                f"need {self.used}; pass descriptors of these structures, in their order"
            )


def descriptor_function(calculator: object, group: str) -> Callable[[Atoms], np.ndarray]:
    """`get_descriptors` of the calculator, or of the group's own one."""
    if isinstance(calculator, Mapping):
        if group not in calculator:
            there = ", ".join(map(str, calculator))
            raise ConfigError(f"no calculator for group {group!r}; there are {there}")
        calculator = calculator[group]
    function: Callable[[Atoms], np.ndarray] | None = getattr(calculator, "get_descriptors", None)
    if not callable(function):
        raise ConfigError(
            f"{type(calculator).__name__} has no get_descriptors(atoms); use DPA2Calculator, or hand in "
            "descriptors"
        )
    return function


def collect_points(
    group: str, frames: Frames, rows_of: Callable[[Atoms], np.ndarray], *, level: str,
    elements: Sequence[str] | None, at_most: int, rng: np.random.Generator, progress: bool,
) -> tuple[list[Point], int]:  # fmt: skip
    """A uniformly random choice of at_most points of one group, in their order, and the number of all."""
    kept: list[tuple[float, Point]] = []
    total, width = 0, None
    for number, atoms in enumerate(with_progress(frames, f"descriptors of {group}", progress)):
        rows = np.asarray(rows_of(atoms.copy()), dtype=float)
        _check_rows(rows, atoms, width, f"group {group}, {frames.name}, frame {number}")
        width = rows.shape[1]
        new = [
            Point(vector, group, element, environment, number, atom)
            for vector, element, environment, atom in _points(atoms, rows, level, elements)
        ]
        total += len(new)
        # the points with the smallest random keys are a uniform sample, whatever the number to come
        kept += zip(rng.random(len(new)).tolist(), new)
        if len(kept) > 4 * at_most:
            kept = sorted(kept, key=lambda pair: pair[0])[:at_most]
    chosen = [point for _, point in sorted(kept, key=lambda pair: pair[0])[:at_most]]
    return sorted(chosen, key=lambda point: (point.frame, point.atom)), total


def _points(
    atoms: Atoms, rows: np.ndarray, level: str, elements: Sequence[str] | None
) -> list[tuple[np.ndarray, str, str, int]]:
    """Vector, element, environment and atom of each point of a frame."""
    symbols = atoms.get_chemical_symbols()
    chosen = [i for i, symbol in enumerate(symbols) if elements is None or symbol in elements]
    if level == "atom":
        names = environment_labels(atoms)
        return [(rows[i], symbols[i], names[i], i) for i in chosen]
    if not chosen:
        return []
    formula = atoms.get_chemical_formula(empirical=True)
    return [(rows[chosen].mean(axis=0), "-".join(sorted(set(symbols))), formula, -1)]


def _check_rows(rows: np.ndarray, atoms: Atoms, width: int | None, where: str) -> None:
    if rows.ndim != 2 or len(rows) != len(atoms):
        raise DataError(
            f"{where}: descriptors of shape {rows.shape} for {len(atoms)} atoms; give (n_atoms, d)"
        )
    if width is not None and rows.shape[1] != width:
        raise DataError(f"{where}: {rows.shape[1]} numbers per atom, but {width} in the frames before")
    if not np.isfinite(rows).all():
        raise DataError(f"{where}: a descriptor is NaN or infinite")


def environment_labels(atoms: Atoms) -> list[str]:
    """Name each atom by its element and its bonded neighbours, periodic images included.

    Two atoms are bonded within 1.2 times the sum of their covalent radii: water's oxygen is "O:H2", its
    hydrogen "H:O1", an atom of fcc copper "Cu:Cu12", an isolated atom "He:-".
    """
    radii = covalent_radii[atoms.numbers]
    symbols = atoms.get_chemical_symbols()
    longest = 2.0 * _STRETCH * float(radii.max(initial=0.1))
    i, j, vectors = pair_vectors(atoms.positions, atoms.cell.array, atoms.pbc, longest, full=True)
    bonded = np.linalg.norm(vectors, axis=1) < _STRETCH * (radii[i] + radii[j])
    neighbours: list[Counter[str]] = [Counter() for _ in symbols]
    for first, second in zip(i[bonded], j[bonded]):
        neighbours[first][symbols[second]] += 1
    names = (" ".join(f"{element}{n}" for element, n in sorted(counts.items())) for counts in neighbours)
    return [f"{symbol}:{name or '-'}" for symbol, name in zip(symbols, names)]
