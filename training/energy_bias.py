"""The energy of each element in a head: fitted to labels before training, to what a model leaves after it.

Least squares trusts the labels, whose level may be any (another code, isolated atoms). The last fit of a run
trusts the model: stochastic gradients leave every head with an offset of the last steps' noise, and elements
that few frames hold far from their level; both are linear in the composition.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dpa2calc.labels.errors import Prediction
from dpa2calc.model.heads import Head
from dpa2calc.model.potential import Potential
from dpa2calc.training.data.dataset import Dataset, Frame, spanning_frames
from dpa2calc.training.data.element_energies import energy_bias, least_squares, robust_bias
from dpa2calc.training.data.sets import TrainingData
from dpa2calc.training.fit.loader import GraphStore
from dpa2calc.training.fit.predict import predict_energies, predict_potential
from dpa2calc.training.fit.sampler import Task
from dpa2calc.training.runs.processes import ALONE, Processes

logger = logging.getLogger(__name__)


def bias_of(potential: Potential, head: int) -> Tensor:
    """The energies (n_types,) of a head, eV, float64; what is written into them stays there."""
    return potential.get_submodule(f"heads.{head}.out_bias").get_buffer("values")


def _move(potential: Potential, head: int, change: np.ndarray) -> None:
    values = bias_of(potential, head)
    values += torch.from_numpy(change).to(values)


# --- before the first step ----------------------------------------------------------------------


def fit_energy_biases(potential: Potential, data: TrainingData) -> None:
    """Fit the energy bias of every head to all its sets; heads without energies keep theirs.

    Heads with a label of their own take from it what they want.
    """
    for head in set(data.heads.values()):
        if label := potential.config.heads[head].label:
            _fit_to_own_label(potential, head, [f for f in data.frames(head) if label in f.properties], label)
            continue
        joint = Dataset(tuple(data.frames(head)), potential.config.heads[head].name)
        if any(frame.energy is not None for frame in joint):
            bias, _ = energy_bias(joint, potential.config.type_map)
            bias_of(potential, head).copy_(torch.from_numpy(bias))


def _fit_to_own_label(potential: Potential, head: int, frames: list[Frame], label: str) -> None:
    module, table = potential.heads[head], potential.config.graph_spec.type_of_number
    assert isinstance(module, Head)
    numbers = np.concatenate([frame.numbers for frame in frames])
    labels = np.concatenate([frame.properties[label] for frame in frames])
    known = ~np.isnan(labels)
    module.fit_to(torch.from_numpy(labels[known]), torch.from_numpy(table[numbers][known]))


def absorb_initial_energies(
    potential: Potential, data: TrainingData, *, frames: int = 20, seed: int = 0
) -> None:
    """Take from every head's energy bias what its untrained network gives on average, element by element.

    Otherwise each head is off by several eV per atom and spends hundreds of steps on a constant.
    Call it after `fit_energy_biases`, on fresh weights only.

    Args:
        frames: of each set, see `spanning_frames`.
    """
    for head in {h for h in data.heads.values() if not potential.config.heads[h].label}:
        rows, energies = [], []
        for item in (item for name, item in data.sets.items() if data.heads[name] == head):
            sample = item.train.subset(spanning_frames(item.train, frames, seed=seed))
            store = GraphStore(sample, potential.config)
            rows.append(sample.compositions(potential.config.type_map))
            with potential.using("inference"):
                made = predict_energies(potential, store, range(len(sample)), head=head, batch_atoms=1)
            energies.append(made)
        counts = np.concatenate(rows)
        network = np.concatenate(energies) - counts @ bias_of(potential, head).cpu().numpy()
        _move(potential, head, -least_squares(counts, network))


# --- on top of what a model predicts ------------------------------------------------------------


def shift_energy_bias(
    potential: Potential, data: Dataset, *, head: int = 0, frames: int = 200, seed: int = 0
) -> None:
    """Move a head's energy of each element to what a sample of the labelled frames says."""
    labelled = data.with_energies()
    sample = labelled.subset(spanning_frames(labelled, frames, seed=seed))
    bias, _ = energy_bias(sample, potential.config.type_map, predict_potential(potential, sample, head=head))
    _move(potential, head, bias)


def refit_predictions(
    data: Dataset, predictions: Sequence[Prediction]
) -> tuple[list[Prediction], dict[str, float]]:
    """Predictions moved by an energy of each element (eV) fitted to the labels, which is also returned."""
    bias, _ = energy_bias(data, data.elements, predictions)
    moved = [
        dataclasses.replace(p, energy=None if p.energy is None else p.energy + float(shift))
        for p, shift in zip(predictions, data.compositions(data.elements) @ bias)
    ]
    return moved, dict(zip(data.elements, bias.tolist()))


# --- after the last step ------------------------------------------------------------------------


def refit_energy_biases(
    potential: Potential,
    tasks: Sequence[Task],
    *,
    frames: int,
    seed: int,
    processes: Processes = ALONE,
) -> None:
    """Move every head's energy bias to what about `frames` training frames of each of its sets say.

    Several processes share the frames; the first one makes the fit, and all get it.
    """
    for head in sorted({t.head for t in tasks if not potential.config.heads[t.head].label}):
        own = [task for task in tasks if task.head == head]
        parts = [_errors(potential, task, frames=frames, seed=seed, processes=processes) for task in own]
        fractions, errors = (np.concatenate(arrays) for arrays in zip(*parts))
        if not len(errors):
            continue
        fitted = robust_bias(fractions, errors) if processes.first else np.zeros(fractions.shape[1])
        change = processes.of_first(torch.from_numpy(fitted)).numpy()
        _move(potential, head, change)
        name = potential.config.heads[head].name
        logger.info("%s: energies of the elements moved by up to %.1f meV", name, 1e3 * np.abs(change).max())


def _errors(
    potential: Potential, task: Task, *, frames: int, seed: int, processes: Processes
) -> tuple[np.ndarray, np.ndarray]:
    """Compositions (n, n_types) as fractions, and label less prediction (n,) in eV/atom."""
    data = task.store.dataset
    places = [i for i, frame in enumerate(data) if frame.energy is not None]
    labelled = [places[i] for i in spanning_frames(data.subset(places), frames, seed=seed)]
    counts = data.compositions(potential.config.type_map)[labelled]
    predicted = np.zeros(len(labelled))
    own = slice(processes.rank, None, processes.size)
    with potential.using("inference"):
        predicted[own] = predict_energies(potential, task.store, labelled[own], head=task.head)
    predicted = processes.sum(torch.from_numpy(predicted)).numpy()
    sizes = counts.sum(axis=1)
    labels = np.array([data[i].energy for i in labelled], dtype=np.float64)
    return counts / sizes[:, None], (labels - predicted) / sizes
