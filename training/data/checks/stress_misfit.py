"""Whether the stresses of a set are the slopes of its energies, from frames that differ by a strain."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
from ase.units import GPa
from scipy.spatial import cKDTree

from dpa2calc.training.data.dataset import Dataset, Frame

# Larger strains make the trapezoid's own error felt (its third order); smaller ones change energies little.
_STRAINS = (0.002, 0.06)
# Atoms of a pair may differ by this much (Å) besides the strain; what forces do on that way is counted.
_SHIFT = 0.02
_MOST_PAIRS = 400  # of the same atoms
_LEAST_PAIRS = 6  # that a group needs to be judged
# Stresses misfit when typical pairs differ by more than this: meV/atom, and share of the energy difference.
_ALLOWED, _ALLOWED_SHARE = 1.0, 0.2
_MOST_FRAMES = 400  # of the same atoms, spread over the group


@dataclass(frozen=True)
class StressMisfit:
    """Frames whose stresses are not the slopes of their energies.

    Attributes:
        groups: names (`Frame.group`) of the groups that were judged together. n_pairs: strained copies of one
            structure that were compared.
        typical: upper quartile of |energy difference - work of the stresses|, meV/atom.
        energies: upper quartile of |energy difference|, meV/atom.
        offset: stress (GPa, isotropic) to take off the labels for the least differences, and what it
            leaves. factor: to multiply the labels with for the least differences, and what it leaves.
    """

    groups: tuple[str, ...]
    n_pairs: int
    typical: float
    energies: float
    offset: tuple[float, float]
    factor: tuple[float, float]

    def __str__(self) -> str:
        if len(self.groups) > 1:
            where = f"{len(self.groups)} groups: "
        else:
            where = f"group {self.groups[0]}: " if self.groups[0] else ""
        said = (
            f"{where}energies of {self.n_pairs} pairs of strained copies differ from the work of their "
            f"stresses by {self.typical:.1f} meV/atom where the energies change by {self.energies:.1f}"
        )
        (offset, after_offset), (factor, after_factor) = self.offset, self.factor
        if min(after_offset, after_factor) > 0.5 * min(self.typical, self.energies):
            return f"{said}; neither an offset nor a factor mends it"
        if after_offset <= after_factor:
            return f"{said}; {after_offset:.1f} without an offset of {offset:+.2f} GPa (Pulay stress?)"
        return f"{said}; {after_factor:.1f} with stresses {factor:.3g} times as large (another unit?)"


def stress_misfits(data: Dataset) -> tuple[StressMisfit, ...]:
    """What stress labels contradict the energies, by groups of frames.

    Two frames of the same atoms at the same fractional coordinates, in cells that differ by a small strain,
    differ in energy by the work of the stress: V sigma : strain, averaged over both (trapezoid rule). Plane
    waves of too low a cutoff add a constant (Pulay) stress; files mix units; both show here, and in nothing
    else that can be read off single frames. Groups with too few pairs of their own are judged together, sets
    without strained copies not at all.
    """
    groups: dict[str, list[Frame]] = {}
    for frame in data:
        if _judged(frame):
            groups.setdefault(frame.group, []).append(frame)
    rows = {name: _pairs(frames) for name, frames in groups.items()}
    alone = [name for name in groups if len(rows[name]) >= _LEAST_PAIRS]
    together = tuple(name for name in groups if name not in alone)
    found = [_judge((name,), rows[name]) for name in alone]
    if len(together) > 1:
        found.append(_judge(together, _pairs([frame for name in together for frame in groups[name]])))
    return tuple(misfit for misfit in found if misfit is not None)


def _judged(frame: Frame) -> bool:
    """Whether it has an energy and a stress in a periodic cell, and no value that is not a number."""
    if frame.energy is None or frame.virial is None or not frame.pbc.all():
        return False
    values = (frame.energy, frame.virial, frame.positions, frame.cell, frame.forces)
    return all(np.isfinite(v).all() for v in values if v is not None) and frame.volume > 0


def _pairs(frames: Sequence[Frame]) -> np.ndarray:
    """What `_compared` finds among frames, at most so much of the same atoms, (pairs, 3)."""
    same: dict[bytes, list[Frame]] = {}
    for frame in frames:
        same.setdefault(frame.numbers.tobytes(), []).append(frame)
    rows = [row for members in same.values() for row in islice(_compared(members), _MOST_PAIRS)]
    return np.array(rows).reshape(-1, 3)


def _compared(same: Sequence[Frame]) -> Iterator[tuple[float, float, float]]:
    """By pair of strained copies, an atom: what forces do not explain of the energy difference (eV), the work
    of the stresses (eV), and the change of volume (Å^3).

    Args:
        same: frames of the same atoms in the same order.
    """
    same = same[:: math.ceil(len(same) / _MOST_FRAMES)]
    places = np.array([f.positions @ np.linalg.inv(f.cell) for f in same])
    places -= places[:, :1]
    for i, j in _alike(places, min(float(np.linalg.norm(f.cell, axis=1).min()) for f in same)):
        a, b = same[i], same[j]
        stretch, rotation = _strain(a.cell, b.cell)
        shift = places[j] - places[i]
        moved = (shift - np.round(shift)) @ a.cell
        if np.abs(moved).max() > _SHIFT or not _STRAINS[0] < np.abs(stretch).max() < _STRAINS[1]:
            continue
        assert a.virial is not None and b.virial is not None and a.energy is not None and b.energy is not None
        energy = b.energy - a.energy
        if a.forces is not None and b.forces is not None:
            energy += 0.5 * float(np.sum((a.forces + b.forces @ rotation.T) * moved))
        work = -0.5 * float(np.sum((a.virial + rotation @ b.virial @ rotation.T) * stretch))
        change = 0.5 * (a.volume + b.volume) * float(np.trace(stretch))
        yield energy / a.n_atoms, work / a.n_atoms, change / a.n_atoms


def _alike(places: np.ndarray, length: float) -> np.ndarray:
    """Pairs of frames, in random order, whose first atoms have about the same fractional coordinates.

    Args:
        places: (frames, atoms, 3), relative to the first atom. length: shortest cell vector, Å.
    """
    angle = 2.0 * np.pi * places[:, 1:9].reshape(len(places), -1)
    if angle.shape[1] == 0:  # cells of one atom are all alike
        return np.random.default_rng(0).permutation(list(combinations(range(len(places)), 2)))
    points = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)  # without a jump at cell faces
    reach = 2.0 * np.pi * _SHIFT / length * math.sqrt(angle.shape[1])
    pairs = cKDTree(points).query_pairs(reach, output_type="ndarray")
    return np.random.default_rng(0).permutation(pairs)


def _strain(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithmic strain (in the axes of `start`) and rotation that take one cell (rows) to another."""
    gradient = np.linalg.solve(start, end)
    left, stretch, right = np.linalg.svd(gradient)  # gradient = left diag(stretch) left^T (left right)
    return (left * np.log(stretch)) @ left.T, left @ right


def _judge(groups: tuple[str, ...], rows: np.ndarray) -> StressMisfit | None:
    """What the pairs of some groups say, or None if stresses and energies agree or pairs are few."""
    if len(rows) < _LEAST_PAIRS:
        return None
    energy, work, change = rows.T

    def typical(difference: np.ndarray) -> float:
        return 1e3 * float(np.quantile(np.abs(difference), 0.75))

    rest, energies = typical(energy - work), typical(energy)
    if rest <= max(_ALLOWED, _ALLOWED_SHARE * energies):
        return None
    offset = _slope(change, work - energy)
    factor = _slope(work, energy)
    return StressMisfit(
        groups=groups,
        n_pairs=len(rows),
        typical=rest,
        energies=energies,
        offset=(offset / GPa, typical(energy - work + offset * change)),
        factor=(factor, typical(energy - factor * work)),
    )


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Least squares of y = slope x; 0 where x does not vary."""
    square = float(x @ x)
    return float(x @ y) / square if square > 1e-20 else 0.0
