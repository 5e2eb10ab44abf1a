"""The energies' bias by element, fitted once more to what the trained weights leave.

Stochastic gradients leave every head with an offset of the last steps' noise, and elements that few frames
hold far from their level: both are linear in the composition, so that least squares removes them at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from dpa2calc.model.potential import Potential
from dpa2calc.training.fit.distributed import ALONE, Processes
from dpa2calc.training.fit.loader import groups_by_atoms, make_batch
from dpa2calc.training.fit.sampler import Task
from dpa2calc.training.statistics import set_energy_bias, spread_frames

logger = logging.getLogger(__name__)
RIDGES = (1e-6, 1e-4, 1e-2, 0.1, 1.0, 10.0)  # in units of one frame that is all one element
FOLDS = 5


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
    if len(errors) < 2 * FOLDS:
        return _fit(fractions, errors, RIDGES[-2])
    folds = np.random.default_rng(0).permutation(len(errors)) % FOLDS
    # A handful of wrong labels must not decide: beyond this an error is as bad as any.
    most = 30 * _scale(errors - fractions @ _fit(fractions, errors, RIDGES[0]))
    left = [_left_out(fractions, errors, folds, ridge, most) for ridge in RIDGES]
    if min(left) > _penalty(errors, most):
        return np.zeros(fractions.shape[1])
    return _fit(fractions, errors, RIDGES[int(np.argmin(left))])


def _scale(errors: np.ndarray) -> float:
    """The standard deviation, from the median."""
    return max(1.4826 * float(np.median(np.abs(errors))), 1e-8)


def _penalty(errors: np.ndarray, most: float) -> float:
    return float(np.square(np.minimum(np.abs(errors), most)).sum())


def _left_out(
    fractions: np.ndarray, errors: np.ndarray, folds: np.ndarray, ridge: float, most: float
) -> float:
    """Penalty of what fits to the other folds leave of each."""
    total = 0.0
    for fold in range(FOLDS):
        out = folds == fold
        bias = _fit(fractions[~out], errors[~out], ridge)
        total += _penalty(errors[out] - fractions[out] @ bias, most)
    return total


def _fit(fractions: np.ndarray, errors: np.ndarray, ridge: float, *, rounds: int = 20) -> np.ndarray:
    weights, bias = np.ones(len(errors)), np.zeros(fractions.shape[1])
    for _ in range(rounds):
        left = errors - fractions @ bias
        weights = np.minimum(1.0, 3.0 * _scale(left) / np.maximum(np.abs(left), 1e-12))
        weighted = fractions * weights[:, None]
        bias = np.linalg.solve(weighted.T @ fractions + ridge * np.eye(len(bias)), weighted.T @ errors)
    return bias


def refit_energy_biases(
    potential: Potential,
    tasks: Sequence[Task],
    *,
    frames: int,
    seed: int,
    device: str,
    processes: Processes = ALONE,
) -> None:
    """Move every head's energy bias to what at most `frames` training frames of each of its sets say.

    Several processes share the frames and make the same fit.
    """
    for head in sorted({task.head for task in tasks}):
        fractions, errors = [], []
        for task in (t for t in tasks if t.head == head):
            part = _errors(potential, task, frames=frames, seed=seed, device=device, processes=processes)
            fractions.append(part[0])
            errors.append(part[1])
        error = np.concatenate(errors)
        if not len(error):
            continue
        bias = robust_bias(np.concatenate(fractions), error)
        old = potential.get_submodule(f"heads.{head}.out_bias").get_buffer("values").cpu().numpy()
        set_energy_bias(potential, head, old + bias)
        name = potential.config.heads[head].name
        logger.info("%s: energies of the elements moved by up to %.1f meV", name, 1e3 * np.abs(bias).max())


def _errors(
    potential: Potential, task: Task, *, frames: int, seed: int, device: str, processes: Processes
) -> tuple[np.ndarray, np.ndarray]:
    """Compositions (n, n_types) as fractions, and label less prediction (n,) in eV/atom."""
    data = task.store.dataset
    labelled = [i for i in spread_frames(data, frames, seed=seed) if data[i].energy is not None]
    counts = data.compositions(potential.config.type_map)[labelled].astype(np.float64)
    sizes = counts.sum(axis=1)
    predicted = np.zeros(len(labelled))
    own = np.arange(len(labelled))[processes.rank :: processes.size]
    with potential.using("inference"):
        for group in (own[g] for g in groups_by_atoms(sizes[own].astype(int).tolist(), 1024)):
            graph = make_batch(task.store, [labelled[i] for i in group], head=task.head).to(device).graph
            with torch.no_grad():
                atomic = potential.atomic_energies(graph, graph.vectors.to(potential.dtype), task.head)
            energies = atomic.new_zeros(graph.n_structures).index_add(0, graph.structure, atomic)
            predicted[group] = energies.cpu().numpy()
    predicted = processes.sum(torch.from_numpy(predicted)).numpy()
    labels = np.array([data[i].energy for i in labelled], dtype=np.float64)
    return counts / sizes[:, None], (labels - predicted) / sizes
