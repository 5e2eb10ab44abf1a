"""Whether the forces of a set are the slopes of its energies, from frames a small way apart.

Units that were mixed up, gradients in place of forces and energies an atom show here, whatever the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ase.units import Bohr, Hartree, kcal, mol
from scipy.spatial.distance import cdist

from dpa2calc.training.data.dataset import Dataset, Frame

_FARTHEST = 0.15  # Å, of any atom between the frames of a pair: the trapezoid rule fails beyond
_LEAST_PAIRS = 6
_MOST_FRAMES = 200  # of the same atoms
_GROUPS = 3  # the largest are looked at
_SURE = 0.9  # correlation of energy differences with the work of the forces
_ALLOWED = 0.2  # from a factor of one: an electronic temperature, a loose convergence
_NEAR = 0.06  # share by which a factor may differ from that of a known mistake
_ATOMIC = Hartree / Bohr
_MISTAKES = {
    -1.0: "gradients of the energy in place of forces",
    1.0 / Bohr: "forces for each Bohr in place of Å, as in Hartree/Bohr beside Hartree",
    Bohr: "positions in Bohr, not converted",
    _ATOMIC: "forces in Hartree/Bohr, not converted",
    0.5 * _ATOMIC: "forces in Rydberg/Bohr, not converted",
    1.0 / Hartree: "energies in Hartree, not converted",
    2.0 / Hartree: "energies in Rydberg, not converted",
    mol / kcal: "energies in kcal/mol, not converted",
    kcal / mol: "forces in kcal/mol/Å, not converted",
}


def force_misfit(data: Dataset) -> str | None:
    """What is odd about the forces beside the energies, in words, or None.

    Two frames of the same atoms in the same cell, a small way apart, differ in energy by the work of the
    forces on that way (trapezoid rule). Where the two go together by another factor than one, a unit or a
    sign is wrong. Sets without such pairs are not judged, nor those where the two hardly go together.
    """
    groups: dict[tuple[bytes, bytes], list[Frame]] = {}
    for frame in data:
        if frame.energy is not None and frame.forces is not None:
            groups.setdefault((frame.numbers.tobytes(), frame.pbc.tobytes()), []).append(frame)
    for frames in sorted(groups.values(), key=len, reverse=True)[:_GROUPS]:
        energies, works = _pairs(frames[:_MOST_FRAMES])
        squares = float(works @ works), float(energies @ energies)
        if len(works) < _LEAST_PAIRS or min(squares) == 0.0:
            continue
        factor = float(works @ energies) / squares[0]
        sure = abs(factor) * math.sqrt(squares[0] / squares[1])
        if sure > _SURE and abs(factor - 1.0) > _ALLOWED:
            return _describe(factor, len(works), frames[0].n_atoms)
    return None


def _pairs(same: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """Energy differences and works of the forces, eV, of each frame and the nearest in its cell.

    Args:
        same: frames of the same atoms in the same order.
    """
    flat = np.array([np.concatenate([f.positions.ravel(), 1e3 * f.cell.ravel()]) for f in same])
    apart = cdist(flat, flat)
    np.fill_diagonal(apart, np.inf)
    found = {tuple(sorted((i, int(j)))) for i, j in enumerate(np.argmin(apart, axis=1)) if len(same) > 1}
    rows = []
    for i, j in sorted(found):
        a, b = same[i], same[j]
        move = b.positions - a.positions
        if 0.0 < np.abs(move).max() < _FARTHEST and np.allclose(a.cell, b.cell, atol=1e-4):
            assert a.energy is not None and b.energy is not None
            assert a.forces is not None and b.forces is not None
            rows.append((b.energy - a.energy, 0.5 * float(np.sum((a.forces + b.forces) * move))))
    energies, works = np.array(rows).reshape(-1, 2).T
    return energies, -works


def _describe(factor: float, n_pairs: int, n_atoms: int) -> str:
    known = {1.0 / n_atoms: "energies an atom in place of those of the whole frame", **_MISTAKES}
    nearest = min(known, key=lambda value: abs(math.log(factor / value)) if factor * value > 0 else math.inf)
    named = factor * nearest > 0 and abs(math.log(factor / nearest)) < _NEAR
    return (
        f"between {n_pairs} pairs of near frames the energy falls by {factor:.3g} times the work of the "
        f"forces: {known[nearest] if named else 'is a unit wrong'}?"
    )
