"""Pairs of atoms within a distance, as analyses of structures and trajectories need them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def pairs_within(
    cutoff: float,
    positions: npt.NDArray[np.float64],
    cell: npt.NDArray[np.float64],
    pbc: npt.NDArray[np.bool_],
    quantities: str = "ijd",
    *,
    twice: bool = False,
) -> tuple[npt.NDArray[Any], ...]:
    """Pairs of atoms no more than `cutoff` (Å) apart, over all periodic images, an atom with itself excluded.

    Unlike `search.find_pairs` it neither sorts the pairs nor looks at the structure first.

    Args:
        positions: (n_atoms, 3) Å. cell: (3, 3) Å. pbc: (3,).
        quantities: what is returned, in this order: "i", "j" indices (n_pairs,), "d" distance (n_pairs,) Å,
            "D" vector from i to j (n_pairs, 3) Å, "S" cell shift of j (n_pairs, 3).
        twice: each pair also as (j, i).
    """
    from vesin import NeighborList  # imports torch where it is installed: when needed, not before

    search = NeighborList(cutoff=cutoff, full_list=twice)
    found = search.compute(points=positions, box=cell, periodic=pbc, quantities=quantities)
    return tuple(v.astype(np.int64) if name in "ij" else v for name, v in zip(quantities, found))
