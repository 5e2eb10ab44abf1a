"""From datasets to batches of graphs: neighbour tables searched once a frame, kept in compact form."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpa2calc.errors import DataError, StructureError
from dpa2calc.model.config import FittingConfig, ModelConfig
from dpa2calc.structures.graph import FAR, Graph, collate
from dpa2calc.structures.graph_builder import graph_from_atoms
from dpa2calc.training.data.dataset import Dataset, Frame
from dpa2calc.training.data.sets import require_parameters


@dataclass(frozen=True)
class _Table:
    """Neighbours of one frame, flat, in the graph's order: 7 bytes per pair instead of 33.

    Shifts need more than a byte where atoms lie over 127 cells apart, as in long trajectories not wrapped.
    """

    counts: np.ndarray  # (n,) int32
    neighbors: np.ndarray  # (pairs,) int32
    shifts: np.ndarray  # (pairs, 3) int8, or int32 where they do not fit, in cell vectors
    types: np.ndarray  # (n,) int16

    @property
    def nbytes(self) -> int:
        return self.counts.nbytes + self.neighbors.nbytes + self.shifts.nbytes + self.types.nbytes


class Budget:
    """Memory that several stores share for their neighbour tables, in bytes."""

    def __init__(self, n_bytes: int):
        self.left = n_bytes

    def take(self, n_bytes: int) -> bool:
        """Whether there was room; if so it is taken."""
        if n_bytes > self.left:
            return False
        self.left -= n_bytes
        return True


class GraphStore:
    """Graphs of a dataset's frames for one model.

    The first access of a frame runs the neighbour search; its result is kept while the budget lasts, so
    that later epochs only gather and subtract. Without a budget nothing is kept.
    """

    def __init__(self, dataset: Dataset, config: ModelConfig, *, budget: Budget | None = None):
        self.dataset, self.budget = dataset, budget or Budget(0)
        self.spec, self.heads = config.graph_spec, config.heads
        self._tables: dict[int, _Table] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def graph(self, index: int) -> Graph:
        """The graph of one frame."""
        frame = self.dataset[index]
        table = self._tables.get(index)
        if table is None:
            try:
                graph = graph_from_atoms(frame.atoms(), self.spec, positions=False)
            except StructureError as error:
                raise DataError(f"{frame.source or f'frame {index}'}: {error}") from error
            table = _compact(graph, frame)
            if self.budget.take(table.nbytes):
                self._tables[index] = table
        return _expand(table, frame)


def _compact(graph: Graph, frame: Frame) -> _Table:
    mask = graph.mask.numpy()
    counts = mask.sum(axis=1).astype(np.int32)
    j = graph.neighbors.numpy()[mask]
    i = np.repeat(np.arange(len(counts)), counts)
    lattice_vectors = graph.vectors.numpy()[mask] - (frame.positions[j] - frame.positions[i])
    # Directions that are not periodic have no shift, whatever vectors were left there.
    shifts = np.rint(lattice_vectors @ np.linalg.pinv(frame.cell * frame.pbc[:, None]))
    small = np.abs(shifts).max(initial=0.0) <= np.iinfo(np.int8).max
    shifts = shifts.astype(np.int8 if small else np.int32)
    return _Table(counts, j.astype(np.int32), shifts, graph.types.numpy().astype(np.int16))


def _expand(table: _Table, frame: Frame) -> Graph:
    n = frame.n_atoms
    width = max(int(table.counts.max(initial=0)), 1)
    mask = np.arange(width) < table.counts[:, None]  # (n, width)
    i = np.repeat(np.arange(n), table.counts)
    j = table.neighbors.astype(np.int64)
    neighbors = np.zeros((n, width), dtype=np.int64)
    vectors = np.zeros((n, width, 3))
    vectors[..., 0] = FAR
    neighbors[mask] = j
    vectors[mask] = frame.positions[j] - frame.positions[i] + table.shifts @ frame.cell
    return Graph(
        types=torch.from_numpy(table.types.astype(np.int64)),
        structure=torch.zeros(n, dtype=torch.int64),
        n_structures=1,
        neighbors=torch.from_numpy(neighbors),
        vectors=torch.from_numpy(vectors),
        mask=torch.from_numpy(mask),
    )


@dataclass(frozen=True)
class Batch:
    """Graphs of one head's frames, joined, with their labels; missing labels are masked.

    energy (m,), has_energy (m,) bool; forces (n, 3), has_forces (n,) bool; virial (m, 3, 3),
    has_virial (m,) bool; values (n,), has_values (n,) bool, of the head's own label where it has one; n_atoms
    (m,). `task` is the number of the training set; `sources` name the
    frames in messages.
    """

    head: int
    task: int
    graph: Graph
    n_atoms: Tensor
    energy: Tensor
    has_energy: Tensor
    forces: Tensor
    has_forces: Tensor
    virial: Tensor
    has_virial: Tensor
    values: Tensor
    has_values: Tensor
    sources: tuple[str, ...]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        if str(device) == "cpu":
            return self
        moved: dict[str, Any] = {
            n: v.to(device) for n, v in vars(self).items() if isinstance(v, (Tensor, Graph))
        }
        return dataclasses.replace(self, **moved)


def make_batch(store: GraphStore, indices: Sequence[int], *, head: int = 0, task: int = 0) -> Batch:
    """Join frames of one store into a batch for one head."""
    frames = [store.dataset[i] for i in indices]
    forces = [f.forces if f.forces is not None else np.zeros((f.n_atoms, 3)) for f in frames]
    has_forces = [np.full(f.n_atoms, f.forces is not None) for f in frames]
    zero, label = np.zeros((3, 3)), store.heads[head].label
    values = [f.properties.get(label, np.full(f.n_atoms, np.nan)) for f in frames]
    return Batch(
        head=head,
        task=task,
        graph=_with_parameters(collate([store.graph(i) for i in indices]), frames, store.heads[head].fitting),
        n_atoms=torch.tensor([f.n_atoms for f in frames], dtype=torch.float64),
        energy=torch.tensor([f.energy if f.energy is not None else 0.0 for f in frames], dtype=torch.float64),
        has_energy=torch.tensor([f.energy is not None for f in frames]),
        forces=torch.from_numpy(np.concatenate(forces)),
        has_forces=torch.from_numpy(np.concatenate(has_forces)),
        virial=torch.from_numpy(np.stack([f.virial if f.virial is not None else zero for f in frames])),
        has_virial=torch.tensor([f.virial is not None for f in frames]),
        values=torch.from_numpy(np.nan_to_num(np.concatenate(values))),
        has_values=torch.from_numpy(~np.isnan(np.concatenate(values))),
        sources=tuple(f.source for f in frames),
    )


def _with_parameters(graph: Graph, frames: Sequence[Frame], fitting: FittingConfig) -> Graph:
    """The graph with the frame and atomic parameters that a head takes."""
    if not (fitting.numb_fparam or fitting.numb_aparam):
        return graph
    for frame in frames:
        require_parameters(frame, fitting)
    fparam = aparam = None
    if fitting.numb_fparam:
        rows = [frame.fparam if frame.fparam is not None else fitting.default_fparam for frame in frames]
        fparam = torch.from_numpy(np.array(rows, dtype=np.float64))
    if fitting.numb_aparam:
        aparam = torch.from_numpy(np.concatenate([f.aparam for f in frames if f.aparam is not None]))
    return dataclasses.replace(graph, fparam=fparam, aparam=aparam)
