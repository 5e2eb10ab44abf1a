"""Shear stresses in another order than the model's: six components are stored in many ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import permutations

import numpy as np

_PLACES = {"yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}
_OWN_ORDER = (0, 1, 2)
_LEAST_FRAMES = 10
# Another order is named where it leaves less than this of the squared differences.
_SHARE = 0.25


def misordered_shear(groups: Mapping[str, Iterable[tuple[np.ndarray, np.ndarray]]]) -> tuple[str, ...]:
    """A line for each other order that fits labels and predictions of some groups of frames better.

    VASP writes xy yz zx after the diagonal, ASE reads yz xz xy, LAMMPS writes xy xz yz: a set that was
    converted with the wrong one has shear stresses that no model can learn, and a model that learned energies
    and forces shows it.

    Args:
        groups: by name, label and prediction (3, 3) of each frame, in the same unit.
    """
    found: dict[tuple[int, ...], dict[str, int]] = {}
    rows, columns = zip(*_PLACES.values())
    for group, pairs in groups.items():
        values = np.array([(label[rows, columns], made[rows, columns]) for label, made in pairs])
        if len(values) >= _LEAST_FRAMES:
            order = _best_order(values[:, 0], values[:, 1])
            found.setdefault(order, {})[group] = len(values)
    found.pop(_OWN_ORDER, None)
    return tuple(_describe(order, members) for order, members in found.items())


def _best_order(label: np.ndarray, made: np.ndarray) -> tuple[int, ...]:
    """Which of the predictions' (n, 3) components the labels hold; their own ones when in doubt."""
    left = {order: float(((label - made[:, order]) ** 2).sum()) for order in permutations(_OWN_ORDER)}
    best = min(left, key=lambda order: left[order])
    return best if left[best] < _SHARE * left[_OWN_ORDER] else _OWN_ORDER


def _describe(order: tuple[int, ...], members: Mapping[str, int]) -> str:
    names = list(_PLACES)
    what = ", ".join(f"{names[i]} is {names[j]}" for i, j in enumerate(order) if i != j)
    shown = [group for group in members if group][:2]
    more = f" and {len(members) - len(shown)} more" if shown and len(members) > len(shown) else ""
    where = f" (groups {', '.join(shown)}{more})" if shown else ""
    return (
        f"shear stresses of {sum(members.values())} frames look stored in another order: the label called "
        f"{what}{where}"
    )
