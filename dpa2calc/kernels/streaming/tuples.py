"""What the compiled passes of compressed models are given; Numba takes named tuples as they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dpa2calc.kernels.native import Ready


class Model(NamedTuple):
    """A compressed model.

    Attributes:
        shape: cutoff, cutoff_smooth, protection of the environment; mean, std: (n_types, 4) of it.
        table, grid: the nodes in a row, and their places (see `EmbeddingTable`).
        lines: (n_types, n_types), where the table of a pair of types begins, in nodes.
        strip: (n_types, n_types, size), or empty; smooth: it is multiplied by the switch.
        excluded: (n_types, n_types) pairs of types that add nothing but keep their slot, or empty.
        hidden: the same for pairs that are no neighbours at all.
        padding: (n_types, n_sections, 4 * size), what an empty slot adds to the moments, or empty.
        normal: 1 / nsel in the model's precision. sel: (n_sections,) slots.
    """

    shape: tuple[float, float, float]
    mean: np.ndarray
    std: np.ndarray
    table: np.ndarray
    grid: tuple[float, float, float, float]
    lines: np.ndarray
    strip: np.ndarray
    smooth: bool
    excluded: np.ndarray
    hidden: np.ndarray
    padding: np.ndarray
    normal: np.floating
    sel: np.ndarray


class System(NamedTuple):
    """Atoms in the order of the rows: positions (n, 3) and types (n,); the list of their pairs.

    pairs: start (n + 1,), neighbors and codes (n_pairs,); offsets: (n_codes, 3) in Å; longest: most
    neighbours of a row.
    """

    x: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]
    offsets: np.ndarray
    kinds: np.ndarray
    longest: int
    model: Model | Ready
