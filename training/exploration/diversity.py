"""Frames far from each other, by a model's descriptors."""

from __future__ import annotations

import numpy as np
import torch

from dpa2calc.engine.batches import in_order
from dpa2calc.model.potential import Potential
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.fit.loader import Batch, GraphStore
from dpa2calc.training.fit.predict import over_frames


def farthest_points(
    features: np.ndarray, n: int, *, first: int, known: np.ndarray | None = None
) -> list[int]:
    """Farthest-point sampling: `n` rows of (m, d), each the farthest from all before it.

    Args:
        known: (k, d), rows that are there already.
    """
    chosen = [first]
    distance = np.linalg.norm(features - features[first], axis=1)
    for row in () if known is None else known:
        distance = np.minimum(distance, np.linalg.norm(features - row, axis=1))
    distance[first] = -1.0
    while len(chosen) < n:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(features - features[chosen[-1]], axis=1))
        distance[chosen] = -1.0
    return chosen


def mean_descriptors(data: Dataset, potential: Potential) -> np.ndarray:
    """Mean descriptor of the atoms of each type, side by side, scaled to unit deviation: (n_frames, d)."""
    n_types = potential.config.n_types

    def work(batch: Batch) -> list[np.ndarray]:
        values, types = potential.descriptors(batch.graph).double(), batch.graph.types  # (n_atoms, width)
        counts = torch.bincount(types, minlength=n_types).clamp_min(1)
        sums = values.new_zeros(n_types, values.shape[1]).index_add(0, types, values)
        return [(sums / counts[:, None]).ravel().cpu().numpy()]  # of one frame: (n_types, width) -> flat

    store = GraphStore(data, potential.config)
    with potential.using("inference"), torch.no_grad():
        rows = in_order(over_frames(work, potential, store, range(len(data)), batch_atoms=1))
    features = np.stack(rows)
    deviation = features.std(axis=0)
    return features / np.where(deviation > 1e-12, deviation, 1.0)
