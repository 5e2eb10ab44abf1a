"""The energy of each element, fitted to the compositions of frames: by least squares, or robustly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpa2calc.errors import DataError
from dpa2calc.labels.errors import Prediction

from .dataset import Dataset

RIDGES = (1e-6, 1e-4, 1e-2, 0.1, 1.0, 10.0)  # in units of one frame that is all one element
FOLDS = 5


def energy_bias(
    dataset: Dataset, type_map: Sequence[str], predictions: Sequence[Prediction] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares energy of each element, and what it leaves.

    Solves sum_t n_ft b_t = E_f for the frames with an energy; where compositions do not tell elements
    apart the solution of least norm is taken, and elements that do not occur get 0.

    Args:
        predictions: of the frames; label - prediction is fitted instead of the labels.

    Returns:
        bias (n_types,) in eV, and the remaining error of each frame that is fitted, in eV/atom.

    Raises:
        DataError: no frame has an energy, or none has a prediction too.
    """
    made = [0.0] * len(dataset) if predictions is None else [p.energy for p in predictions]
    pairs = enumerate(zip(dataset, made))
    energies = {i: f.energy - e for i, (f, e) in pairs if f.energy is not None and e is not None}
    if not energies:
        raise DataError(f"{dataset.name}: no frame has an energy, so no energy bias can be fitted")
    counts, values = dataset.compositions(type_map)[list(energies)], np.array(list(energies.values()))
    bias = least_squares(counts, values)
    return bias, (values - counts @ bias) / counts.sum(axis=1)


def energy_spread(dataset: Dataset) -> float | None:
    """Standard deviation of the energies (meV/atom) about the best energy of each element.

    What a model has to explain: energies of structures of other compositions differ by what the elements
    do. None where the frames with an energy are not more than the energies of elements that are fitted.
    """
    known = dataset.with_energies()
    if not len(known):
        return None
    left = energy_bias(known, known.elements)[1]
    free = len(known) - int(np.linalg.matrix_rank(known.compositions(known.elements)))
    return 1e3 * float(np.sqrt((left**2).sum() / free)) if free > 0 else None


def least_squares(counts: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Energies (n_types,) of least norm with the least |counts @ result - energies|; 0 where none occurs."""
    present = counts.any(axis=0)
    bias = np.zeros(counts.shape[1])
    bias[present] = np.linalg.lstsq(counts[:, present], energies, rcond=1e-10)[0]
    return bias


def robust_bias(fractions: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Energy of each element from errors per atom; large errors count linearly (Huber, 3 deviations).

    How far the elements may move is chosen by cross-validation: two elements that nearly always come in the
    same ratio must not be torn apart by a few other frames.

    Args:
        fractions: (n_frames, n_types), of each element among a frame's atoms.
        errors: (n_frames,) label less prediction, eV/atom.

    Returns:
        (n_types,) in eV; elements that do not occur stay at 0.
    """
    if len(errors) < 2 * FOLDS:  # too few to choose: what all have in common, and not much of the rest
        common = np.where(fractions.any(axis=0), np.median(errors), 0.0)
        return common + _fit(fractions, errors - fractions @ common, RIDGES[-2])
    folds = np.random.default_rng(0).permutation(len(errors)) % FOLDS
    # A handful of wrong labels must not decide: beyond this an error is as bad as any.
    most = 30 * _scale(errors - fractions @ _fit(fractions, errors, RIDGES[0]))

    def penalty(left: np.ndarray) -> float:
        return float(np.square(np.minimum(np.abs(left), most)).sum())

    def left_out(ridge: float, out: np.ndarray) -> float:
        """Of what a fit to the other folds leaves of this one."""
        return penalty(errors[out] - fractions[out] @ _fit(fractions[~out], errors[~out], ridge))

    left = [sum(left_out(ridge, folds == fold) for fold in range(FOLDS)) for ridge in RIDGES]
    if min(left) > penalty(errors):
        return np.zeros(fractions.shape[1])
    return _fit(fractions, errors, RIDGES[int(np.argmin(left))])


def _scale(errors: np.ndarray) -> float:
    """The standard deviation, from the median."""
    return max(1.4826 * float(np.median(np.abs(errors))), 1e-8)


def _fit(fractions: np.ndarray, errors: np.ndarray, ridge: float, *, rounds: int = 20) -> np.ndarray:
    weights, bias = np.ones(len(errors)), np.zeros(fractions.shape[1])
    for _ in range(rounds):
        left = errors - fractions @ bias
        weights = np.minimum(1.0, 3.0 * _scale(left) / np.maximum(np.abs(left), 1e-12))
        weighted = fractions * weights[:, None]
        bias = np.linalg.solve(weighted.T @ fractions + ridge * np.eye(len(bias)), weighted.T @ errors)
    return bias
