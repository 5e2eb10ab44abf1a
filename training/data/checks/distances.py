"""How close atoms of a set come, beside the sum of their covalent radii."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii

from dpa2calc.errors import StructureError
from dpa2calc.structures.verlet import neighbor_pairs
from dpa2calc.training.data.dataset import Dataset, Frame, spread_frames

# Two nuclei closer than this share of the sum of their covalent radii overlap; a compressed metal at
# 500 GPa or an O-H bond stretched inwards in hot water stays above it.
_OVERLAP = 0.4
_BOND = 1.5  # times the sum of the radii: bonds, ionic ones too, are shorter, and in Bohr 1.8 and more
_SHORT = 0.65  # bonds of carbon and ice at hundreds of GPa are longer; an Å taken for a Bohr makes it 0.55
_NOBLE = (2, 10, 18, 36, 54, 86)
_SAMPLED = 20
_FEWEST = 3


def overlap(frame: Frame) -> tuple[int, int, float] | None:
    """The closest pair of atoms for its elements and its distance (Å), if it overlaps."""
    return _closest_within(frame, _OVERLAP)


def _closest_within(frame: Frame, share: float) -> tuple[int, int, float] | None:
    """The closest pair, if it is within this share of the sum of its covalent radii."""
    i, j, ratio = _within(frame, share)
    if len(i) == 0:
        return None
    worst = int(np.argmin(ratio))
    radii = covalent_radii[frame.numbers]
    a, b = int(i[worst]), int(j[worst])
    return a, b, float(ratio[worst] * (radii[a] + radii[b]))


def _within(frame: Frame, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs within this share of the sum of their covalent radii: i, j, distance over the sum."""
    radii = covalent_radii[frame.numbers]
    cutoff = 2.0 * share * float(radii.max())
    pairs = neighbor_pairs(frame.positions, frame.cell, pbc=frame.pbc, cutoff=cutoff)
    i, j = pairs.i, pairs.j
    d = np.linalg.norm(frame.positions[j] - frame.positions[i] + pairs.shift @ frame.cell, axis=1)
    ratio = d / (radii[i] + radii[j])
    near = ratio < share
    return i[near], j[near], ratio[near]


def odd_distances(data: Dataset) -> str | None:
    """A remark where no frame of a sample has a bond, or where in all of them most bonds are too short.

    Either comes of positions in a unit other than Å. Single atoms and noble gases are not looked at.
    """
    bonded = [
        i
        for i, frame in enumerate(data)
        if (frame.n_atoms > 1 or frame.pbc.any()) and not np.isin(frame.numbers, _NOBLE).any()
    ]
    usable = data.subset(bonded)
    sample = usable.subset(spread_frames(usable, _SAMPLED))
    if len(sample) < _FEWEST:
        return None
    try:
        if all(_crowded(frame) for frame in sample):
            return (
                f"most atoms are nearer to another than {_SHORT:g} times the sum of their covalent radii; "
                "are positions and cell in Å, or were they converted from Bohr once too often?"
            )
        if any(len(_within(frame, _BOND)[0]) for frame in sample):
            return None
    except StructureError:  # atoms crowded into one place
        return None
    return (
        f"no atoms are nearer than {_BOND:g} times the sum of their covalent radii; are positions and cell "
        "in Å (not Bohr)?"
    )


def _crowded(frame: Frame) -> bool:
    i, j, _ = _within(frame, _SHORT)
    return 2 * len(np.union1d(i, j)) > frame.n_atoms
