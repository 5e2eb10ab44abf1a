"""What a potential predicts for the frames of a data set, computed in batches, and its errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from dpa2calc.ambient import own_modes
from dpa2calc.engine.batches import in_batches, in_order
from dpa2calc.labels.errors import Differences, Errors, ErrorSums, Prediction
from dpa2calc.model.potential import Potential
from dpa2calc.progress import progress_bar
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.runs.processes import ALONE, Processes

from .loader import Batch, GraphStore, make_batch
from .loss import symmetric
from .optimizers.optimizer import placed

Result = TypeVar("Result")
Device = torch.device | str | None


def over_frames(
    work: Callable[[Batch], Iterable[Result]],
    potential: Potential,
    store: GraphStore,
    places: Sequence[int],
    *,
    head: int = 0,
    batch_atoms: int = 1024,
) -> Iterator[tuple[int, Result]]:
    """`work` makes a result for each frame of a batch, which lies on the potential's device.

    Args:
        places: which frames; see `in_batches`.
    """
    device = next(potential.parameters()).device

    def of(chosen: list[int]) -> Iterable[Result]:
        return work(make_batch(store, [places[i] for i in chosen], head=head).to(device))

    return in_batches(of, [store.dataset[i].n_atoms for i in places], batch_atoms)


def _predictions(
    potential: Potential, store: GraphStore, places: Sequence[int], *, head: int, batch_atoms: int
) -> Iterator[tuple[int, Prediction]]:
    label = potential.config.heads[head].label

    def work(batch: Batch) -> Iterator[Prediction]:
        ends = np.cumsum(batch.n_atoms.cpu().numpy().astype(int))[:-1]
        if label:
            values = potential.atomic_values(batch.graph, head).detach().cpu().numpy()
            return (Prediction(None, None, None, {label: own}) for own in np.split(values, ends))
        output = potential.compute(batch.graph, head)
        energy, forces, virial = (
            x.detach().cpu().numpy() for x in (output.energy, output.forces, symmetric(output.virial))
        )
        return map(Prediction, energy.tolist(), np.split(forces, ends), virial)

    return over_frames(work, potential, store, places, head=head, batch_atoms=batch_atoms)


@own_modes()
def predict_potential(
    potential: Potential,
    data: Dataset | GraphStore,
    *,
    head: int = 0,
    batch_atoms: int = 1024,
    device: Device = None,
    progress: bool = False,
) -> list[Prediction]:
    """Predictions of one head for every frame, in batches.

    device: where to compute; a potential that is elsewhere is copied. None: where it is.
    """
    store = data if isinstance(data, GraphStore) else GraphStore(data, potential.config)
    potential = placed(potential, device)
    bar = progress_bar(total=len(data), unit="frame", shown=progress)
    with bar, potential.using("inference"):
        made = _predictions(potential, store, range(len(data)), head=head, batch_atoms=batch_atoms)
        return in_order(made, bar.update)


@own_modes()
def potential_errors(
    potential: Potential,
    data: Dataset | GraphStore,
    *,
    head: int = 0,
    batch_atoms: int = 1024,
    device: Device = None,
    processes: Processes = ALONE,
) -> Errors:
    """Errors of one head on all frames; several processes share the frames. See `predict_potential`."""
    store = data if isinstance(data, GraphStore) else GraphStore(data, potential.config)
    potential = placed(potential, device)
    own = range(processes.rank, len(store), processes.size)
    sums = ErrorSums()
    with potential.using("inference"):
        for i, made in _predictions(potential, store, own, head=head, batch_atoms=batch_atoms):
            frame = store.dataset[own[i]]
            sums.add(Differences.of(frame, made, frame.n_atoms))
    return ErrorSums(processes.sum(torch.from_numpy(sums.values)).numpy()).errors()


def predict_energies(
    potential: Potential,
    store: GraphStore,
    places: Sequence[int],
    *,
    head: int = 0,
    batch_atoms: int = 1024,
) -> np.ndarray:
    """Energies (len(places),) of some frames, eV, by the kernels that are in use."""

    def work(batch: Batch) -> list[float]:
        graph = batch.graph
        atomic = potential.atomic_energies(graph, graph.vectors.to(potential.dtype), head)
        energies = atomic.new_zeros(graph.n_structures).index_add(0, graph.structure, atomic)
        return list(energies.tolist())

    with torch.no_grad():
        made = over_frames(work, potential, store, places, head=head, batch_atoms=batch_atoms)
        return np.array(in_order(made))
