"""Frames of one structure with different labels: another charge, another code, a calculation gone wrong."""

from __future__ import annotations

import numpy as np

from dpa2calc.files.identity import READ_ARRAYS, READ_INFO
from dpa2calc.training.data.dataset import Dataset, Frame

from .near_copies import content

_ENERGY = 1e-3  # eV/atom; calculated again with other cutoffs and threads energies agree to less
_FORCE = 0.05  # eV/Å


def contradictions(data: Dataset) -> str | None:
    """How many frames repeat the structure of an earlier one with other labels, in words, or None.

    The same structure has the same elements, places and cell (to 1e-5 Å), and the same fparam and aparam. A
    model can give it one energy only.
    """
    first: dict[bytes, Frame] = {}
    found = []
    for frame in data:
        given = b"".join(np.ravel(v).tobytes() for v in (frame.fparam, frame.aparam) if v is not None)
        other = first.setdefault(content(frame) + given, frame)
        if other is not frame and (gap := _gap(other, frame)):
            found.append((other, frame, gap))
    if not found:
        return None
    one, two, gap = found[0]
    unseen = _unseen(one, two)
    why = f" (which differ in {' and '.join(unseen)}, as no model sees)" if unseen else ""
    number = "1 frame repeats" if len(found) == 1 else f"{len(found)} frames repeat"
    return (
        f"{number} the structure of another one with other labels, such as {one.source or 'one frame'} and "
        f"{two.source or 'a later one'}, {gap} apart{why}: of the two a model learns the mean"
    )


def _gap(one: Frame, two: Frame) -> str:
    """By how much the labels differ, "" where they agree."""
    if one.energy is not None and two.energy is not None:
        energy = abs(one.energy - two.energy) / max(one.n_atoms, 1)
        if energy > _ENERGY:
            return f"{1e3 * energy:.3g} meV/atom"
    if one.forces is not None and two.forces is not None:
        force = float(np.abs(one.forces - two.forces).max(initial=0.0))
        if force > _FORCE:
            return f"{force:.3g} eV/Å"
    return ""


def _unseen(one: Frame, two: Frame) -> list[str]:
    """What the frames carry for other calculators, and differs."""
    kinds = (frame.attached or {"arrays": {}, "info": {}} for frame in (one, two))
    old, new = ({**kind["arrays"], **kind["info"]} for kind in kinds)
    return [
        name
        for name in (*READ_INFO, *READ_ARRAYS)
        if not np.array_equal(np.asarray(old.get(name)), np.asarray(new.get(name)))
    ]
