"""A step on a CUDA device, recorded once and replayed: one launch, one wait (CUDA graphs).

A step of a small system is hundreds of operations of a few microseconds each, and the CPU takes longer to
launch them than the GPU to do them. A recording is launched as a whole, but all its shapes are fixed:

    positions, cell  ->  vectors of all candidate pairs  ->  the nearest of each row, as many as fit a fixed
    width by shell  ->  energies, forces, virial  ->  one row of numbers back to the CPU

The widths have some room; the numbers of neighbours come back with the results, and where they do not fit,
a wider step is recorded. Nothing in a step depends on values, so the CPU waits once, for the results.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from dpa2calc.engine.committee import Member
from dpa2calc.model.potential import Output, Potential
from dpa2calc.structures.graph import FAR, Graph
from dpa2calc.structures.graph_spec import GraphSpec, type_indices
from dpa2calc.structures.verlet import DISTANCE_GRID, NeighborList, Pairs
from dpa2calc.validation import COINCIDENT, DistanceCheck, closest_distances

MOST_CANDIDATES = 1_000_000  # of a table of pairs; larger steps take longer than their launches
_ROOM = 1.1  # columns for so many times the neighbours that there are


def why_not_recorded(potential: Potential, head: int) -> str | None:
    """Why a model's steps cannot be recorded, or None."""
    config = potential.config
    fitting = config.heads[head].fitting
    if potential.device.type != "cuda":
        return "it is not on a CUDA device"
    if config.heads[head].label:
        return "its head predicts no energies"
    if not config.descriptor.mixed_types:
        return "it has a net for each element"
    if config.bridging is not None:
        return "it is bridged to a pair table"
    if fitting.numb_fparam or fitting.numb_aparam:
        return "its head takes parameters of frames or atoms"
    return None


@dataclass(frozen=True)
class Inputs:
    """What a recorded step reads, at fixed places on the device.

    positions (n, 3), cell (3, 3) float64, Å; types (n,) int64; neighbors (n, k) int64, shifts (n, k, 3)
    float64 and real (n, k) bool: candidates of every atom in the order of `Pairs`, and padding; limits (n, k)
    float64, Å: distances below which something is said about them.
    """

    positions: Tensor
    cell: Tensor
    types: Tensor
    neighbors: Tensor
    shifts: Tensor
    real: Tensor
    limits: Tensor

    @classmethod
    def blank(cls, types: np.ndarray, width: int, device: torch.device) -> Inputs:
        """For atoms of these types (n,) with so many candidates each; no numbers yet."""

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        n = len(types)
        return cls(
            zeros(n, 3), zeros(3, 3), torch.from_numpy(types).to(device),
            zeros(n, width, dtype=torch.int64), zeros(n, width, 3), zeros(n, width, dtype=torch.bool),
            zeros(n, width),
        )  # fmt: skip

    def load(self, pairs: Pairs, limits: np.ndarray) -> None:
        """Put candidates into the rows, where there must be room; limits (n_types, n_types), Å."""
        n, width = self.neighbors.shape
        counts = np.bincount(pairs.i, minlength=n)
        column = np.arange(len(pairs.i)) - (np.cumsum(counts) - counts)[pairs.i]
        neighbors, shifts = np.zeros((n, width), dtype=np.int64), np.zeros((n, width, 3))
        neighbors[pairs.i, column], shifts[pairs.i, column] = pairs.j, pairs.shift
        self.neighbors.copy_(torch.from_numpy(neighbors))
        self.shifts.copy_(torch.from_numpy(shifts))
        self.real.copy_(torch.from_numpy(np.arange(width) < counts[:, None]))
        types = self.types.cpu().numpy()
        self.limits.copy_(torch.from_numpy(limits[types[:, None], types[neighbors]]))


class Seen(NamedTuple):
    """What has to be known of a step's pairs, as numbers or tensors.

    counts: largest number of neighbours within each cutoff. shortest: distance, Å. relative: the smallest
    distance as a share of the limit of its types.
    """

    counts: Any
    shortest: Any
    relative: Any


def fixed_graph(given: Inputs, spec: GraphSpec, widths: Mapping[float, int]) -> tuple[Graph, Seen]:
    """The graph whose rows have fixed widths, by distance; by plain operations of fixed shapes."""
    far = given.positions.new_zeros(3)
    far[0].fill_(FAR)
    vectors = given.positions[given.neighbors] - given.positions.unsqueeze(1)
    vectors = torch.where(given.real.unsqueeze(-1), vectors + given.shifts @ given.cell, far)
    distances = ((vectors * vectors) @ vectors.new_ones(3)).sqrt()  # (n, candidates)
    # As `select_nearest`: ties within the grid keep the order of the candidates.
    slots = torch.arange(distances.shape[1], device=distances.device)
    bits = max(1, (len(slots) - 1).bit_length())
    grid = (distances.clamp(max=spec.cutoff + 1.0) / DISTANCE_GRID).round_().to(torch.int64)
    keys = torch.topk((grid << bits) | slots, widths[spec.cutoff], dim=1, largest=False).values
    order = keys & ((1 << bits) - 1)
    mask = distances.gather(1, order) < spec.cutoff
    taken = vectors.gather(1, order.unsqueeze(-1).expand(-1, -1, 3))
    graph = Graph(
        types=given.types,
        structure=torch.zeros_like(given.types),
        n_structures=1,
        neighbors=torch.where(mask, given.neighbors.gather(1, order), 0),
        vectors=torch.where(mask.unsqueeze(-1), taken, far),
        mask=mask,
        widths=widths,
    )
    counts = torch.stack([(distances < cutoff).sum(dim=1).amax() for cutoff in spec.shells])
    return graph, Seen(counts, distances.amin(), (distances / given.limits).amin())


class Step:
    """One size of system, recorded: inputs, a CUDA graph of everything between them and the numbers."""

    def __init__(self, potential: Potential, head: int, types: np.ndarray, width: int) -> None:
        self.potential, self.head, self.spec = potential, head, potential.config.graph_spec
        self.inputs = Inputs.blank(types, width, potential.device)
        self.widths: dict[float, int] = {}
        self._graph: torch.cuda.CUDAGraph | None = None
        self._running = False  # whether something was launched and not waited for
        n, pinned = len(types), potential.device.type == "cuda"
        self._sizes = (1, len(self.spec.shells), 1, 1, 9, 1, n, n, 3 * n)
        self._given = torch.zeros(3 * n + 9, dtype=torch.float64, pin_memory=pinned)
        self._numbers = torch.zeros(sum(self._sizes), dtype=torch.float64, pin_memory=pinned)

    def launch(self, positions: np.ndarray, cell: np.ndarray) -> None:
        """Begin a step for positions (n, 3) and a cell (3, 3), and do not wait for it."""
        self.wait()  # where a step before was given up
        self.load(positions, cell)
        self._running = True
        if self._graph is None:
            self._compute()
            return
        with torch.cuda.device(self.potential.device):
            self._graph.replay()

    def wait(self) -> None:
        """Until what was launched is done."""
        if self._running and self.inputs.positions.is_cuda:
            torch.cuda.current_stream(self.potential.device).synchronize()
        self._running = False

    def results(self) -> tuple[Output, Seen]:
        """Of the last launch, on the CPU, with what was seen of the pairs."""
        self.wait()
        energy, *seen, virial, std, atomic, stds, forces = self._numbers.clone().split(self._sizes)
        known = self.potential.rigidity(self.head) is not None
        output = Output(
            energy, atomic, forces.view(-1, 3), virial.view(1, 3, 3),
            energy_std=std if known else None, atomic_std=stds if known else None,
        )  # fmt: skip
        return output, Seen([int(count) for count in seen[0].tolist()], float(seen[1]), float(seen[2]))

    def fits(self, counts: Sequence[int]) -> bool:
        """Whether rows are wide enough for so many neighbours within each cutoff."""
        most = self._most()
        return all(self.widths[cutoff] >= min(count, most) for cutoff, count in zip(self.spec.shells, counts))

    def record(self) -> None:
        """Choose widths for what is in the inputs, with some room, and record; again for other widths."""
        candidates = self.inputs.neighbors.shape[1]
        self._graph, self.widths = None, dict.fromkeys(self.spec.shells, candidates)
        self._upload()
        seen = fixed_graph(self.inputs, self.spec, self.widths)[1]
        for cutoff, count in zip(self.spec.shells, seen.counts.tolist()):
            wanted = 4 * -(-int(_ROOM * count + 1) // 4)
            self.widths[cutoff] = min(wanted, self._most())
        if not self.inputs.positions.is_cuda:
            return
        stream = torch.cuda.Stream(self.potential.device)
        stream.wait_stream(torch.cuda.current_stream(self.potential.device))
        with torch.cuda.stream(stream):
            for _ in range(2):  # libraries and compilers set themselves up
                self._compute()
        torch.cuda.current_stream(self.potential.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._compute()

    def load(self, positions: np.ndarray, cell: np.ndarray) -> None:
        """Put positions (n, 3) and cell (3, 3) where the step takes them from."""
        self._given[:-9] = torch.from_numpy(np.array(positions, dtype=np.float64)).flatten()
        self._given[-9:] = torch.from_numpy(np.array(cell, dtype=np.float64)).flatten()

    def _most(self) -> int:
        """Columns beyond which there is nothing, or no part of the model reads."""
        width, nsel = self.inputs.neighbors.shape[1], self.spec.nsel
        return width if nsel is None else min(width, nsel)

    def _upload(self) -> None:
        n = len(self.inputs.types)
        self.inputs.positions.copy_(self._given[:-9].view(n, 3), non_blocking=True)
        self.inputs.cell.copy_(self._given[-9:].view(3, 3), non_blocking=True)

    def _compute(self) -> None:
        self._upload()
        graph, seen = fixed_graph(self.inputs, self.spec, self.widths)
        out = self.potential.compute(graph, self.head)
        none = out.energy.new_zeros(1), torch.zeros_like(out.atomic_energies)
        stds = none if out.energy_std is None or out.atomic_std is None else (out.energy_std, out.atomic_std)
        parts = (out.energy, *seen, out.virial, stds[0], out.atomic_energies, stds[1], out.forces)
        self._numbers.copy_(
            torch.cat([part.detach().to(torch.float64).flatten() for part in parts]), non_blocking=True
        )


class Recorded:
    """Energies, forces and virial of one structure that moves, from the second step on by a recording."""

    def __init__(self, potential: Potential, head: int, *, skin: float = 1.0) -> None:
        self.potential, self.head, self.spec = potential, head, potential.config.graph_spec
        self.neighbors = NeighborList(self.spec.cutoff, skin)
        compression = potential.compression
        self._closest = COINCIDENT if compression is None else max(COINCIDENT, compression.closest)
        self._limits = closest_distances(self.spec.type_map)
        self._atoms_before: np.ndarray | None = None
        self._step: Step | None = None
        self._pairs: Pairs | None = None
        self._works, self._too_many = True, False

    def __call__(self, atoms: Atoms, check: DistanceCheck) -> Output | None:
        """Everything but atomic virials; None where the plain engine has to do it.

        That is: atoms of this kind for the first time, too many of them, or atoms so close that something
        has to be said about them.

        Raises:
            StructureError, ElementError: as in the plain engine.
        """
        before, self._atoms_before = self._atoms_before, atoms.numbers.copy()
        if before is None or not np.array_equal(before, atoms.numbers):
            self._step, self._too_many = None, False
            return None
        if self._too_many or not self._works:
            return None
        given = atoms.positions, atoms.cell.array
        step = self._step
        if step is not None:  # most often the pairs are still good: the GPU works while the CPU looks
            step.launch(*given)
        pairs = self.neighbors.update(*given, atoms.pbc)
        if step is None or pairs is not self._pairs:
            step = self._prepared(atoms, pairs)
            if step is None:
                return None
            step.launch(*given)
        output, seen = step.results()
        if not step.fits(seen.counts):
            step.record()
            step.launch(*given)
            output, seen = step.results()
        remarkable = seen.shortest < self._closest or (seen.relative < 1.0 and not check.warned)
        return None if remarkable else output

    def _prepared(self, atoms: Atoms, pairs: Pairs) -> Step | None:
        """The recorded step with these pairs in it, or None if it would be too large."""
        step, self._step = self._step, None
        most = int(np.bincount(pairs.i, minlength=len(atoms)).max())
        if step is None or most > step.inputs.neighbors.shape[1]:
            width = 8 * -(-int(_ROOM * most + 1) // 8)
            self._too_many = width * len(atoms) > MOST_CANDIDATES
            if self._too_many:
                return None
            step = Step(self.potential, self.head, type_indices(atoms, self.spec), width)
        step.wait()
        step.inputs.load(pairs, self._limits)
        step.load(atoms.positions, atoms.cell.array)
        if not step.widths:
            try:
                step.record()
            except RuntimeError as error:
                self._works = False
                warnings.warn(
                    f"this model's steps cannot be recorded as a CUDA graph ({error}); every operation is "
                    "launched alone, which is slower",
                    stacklevel=5,
                )
                return None
        self._step, self._pairs = step, pairs
        return step


def recorded_of(members: Sequence[Member], *, skin: float) -> list[Recorded]:
    """The recorded engine of each member; empty unless all members have one."""
    if any(why_not_recorded(m.potential, m.head_index) is not None for m in members):
        return []
    return [Recorded(m.potential, m.head_index, skin=skin) for m in members]
