"""Frames held out that are (almost) a training frame: they measure memory, not the model."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np

from dpa2calc.training.data.dataset import Dataset, Frame


def content(frame: Frame) -> bytes:
    """Short bytes that are equal for equal atoms, positions and cells, to 1e-5 Å."""
    found = hashlib.blake2b(b"".join(_kind(frame)), digest_size=16)
    for values in (frame.positions, frame.cell):
        found.update((np.round(values, 5) + 0.0).tobytes())
    return found.digest()


def near_copies(train: Dataset, test: Dataset, *, within: float = 0.01) -> dict[int, int]:
    """Test frames with a training frame of the same atoms, in the same order, nearby.

    Rigid shifts do not count; rotated and reordered copies are not found.

    Args:
        within: Å; no atom is further from its copy, and no cell vector differs by more.

    Returns:
        place in `test` -> place in `train` of the nearest copy.
    """
    same: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
    for place, frame in enumerate(train):
        same[_kind(frame)].append(place)
    found = {}
    for place, frame in enumerate(test):
        candidates = same[_kind(frame)]
        if candidates:
            distances = _distances(frame, [train[i] for i in candidates])
            if distances.min() < within:
                found[place] = candidates[int(distances.argmin())]
    return found


def _kind(frame: Frame) -> tuple[bytes, bytes]:
    return np.asarray(frame.numbers, dtype=np.int64).tobytes(), np.asarray(frame.pbc, dtype=bool).tobytes()


def _distances(frame: Frame, others: list[Frame]) -> np.ndarray:
    """Largest displacement of an atom or a cell vector (Å) between a frame and each of the others, (n,)."""
    cells = np.stack([other.cell for other in others])
    cell = np.linalg.norm(cells - frame.cell, axis=-1).max(axis=-1)
    d = np.stack([other.positions for other in others]) - frame.positions
    if frame.pbc.any() and frame.volume > 0:
        turns = np.round(d @ np.linalg.inv(frame.cell)) * frame.pbc
        d -= turns @ frame.cell
    d -= d[:, :1]  # atom 0 on atom 0; a shift by half a cell has been folded above
    if frame.pbc.any() and frame.volume > 0:
        d -= (np.round(d @ np.linalg.inv(frame.cell)) * frame.pbc) @ frame.cell
    d -= d.mean(axis=1, keepdims=True)
    return np.maximum(cell, np.linalg.norm(d, axis=-1).max(axis=-1))
