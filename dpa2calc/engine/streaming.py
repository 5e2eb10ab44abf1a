"""The streaming engine, for compressed models without message passing: compact list, moments, head, forces.

Atoms are taken in blocks, so that besides positions, forces and the neighbour list (6 bytes per pair)
memory does not grow with the system:

    distances, tables, contraction (compiled)  ->  fitting net and its gradient (matrix products by hand)
    ->  forces and virial of the block (compiled; nothing is kept a pair)

Each atom's energy depends on its own pair vectors alone, so a block is finished before the next begins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from dpa2calc.engine.arguments import block_head, kernel_arguments, why_no_block_head
from dpa2calc.engine.committee import Member
from dpa2calc.engine.dense import Results, combine, split
from dpa2calc.errors import StructureError
from dpa2calc.kernels.native import Native, Ready, constant
from dpa2calc.kernels.streaming.compact import CompactList, CompactPairs
from dpa2calc.kernels.streaming.tuples import Model, System
from dpa2calc.kernels.threads import Workers
from dpa2calc.model.potential import Output, Potential
from dpa2calc.model.rigidity import Rigidity
from dpa2calc.structures.graph_spec import type_indices
from dpa2calc.structures.search import Geometry, check_geometry
from dpa2calc.validation import DistanceCheck, closest_distances

_FORWARD, _BACKWARD = Native("streaming.passes", "forward"), Native("streaming.passes", "backward")
# Results of one structure that moves; None where the dense engine has to do it.
Stream = Callable[[Atoms, DistanceCheck], Output | None]
BLOCK = 256  # rows; their descriptors just fill the cache of a core


def why_not_streamed(potential: Potential, head: int) -> str | None:
    """Why a compressed model needs the dense engine, or None."""
    config = potential.config
    if potential.compression is None:
        return "the model is not compressed"
    if config.heads[head].label:
        return "its head predicts no energies"
    if potential.descriptor.message_passing:
        return "it passes messages"
    if config.bridging is not None:
        return "it is bridged to a pair table"
    if config.neighbor_rule == "nearest" and config.pair_exclude_types:
        return "excluded pairs take the places of others under the rule 'nearest'"
    if potential.device.type != "cpu":
        return "it is not on the CPU"
    environment = potential.descriptor.tabulated_part().environment
    if environment.mean[:, 1:].any() or (environment.std[:, 1:] != environment.std[:, 1:2]).any():
        return "its environment statistics depend on the direction"
    return why_no_block_head(potential.heads[head])  # type: ignore[arg-type]


class Streaming:
    """Energies, forces and virial of one structure that moves, for a compressed potential and one head."""

    def __init__(self, potential: Potential, head: int, *, skin: float = 1.0) -> None:
        self.spec = potential.config.graph_spec
        self.potential, self.head_index = potential, head
        self.pairs = CompactList(self.spec.cutoff, skin)
        self.workers = Workers()
        assert potential.compression is not None
        self.closest = potential.compression.closest
        c = potential.config.descriptor
        self._by_type = not c.mixed_types
        # under the rule "nearest": what the model reads of an atom's neighbours, in all or of each type
        nearest = potential.config.neighbor_rule == "nearest"
        self._most = np.array(c.type_sel or (c.nsel,)) if nearest else None
        self.head, self._dtype = block_head(potential, head), potential.dtype
        # one over the squared distance of each pair of types below which a warning is due, 1/Å^2
        self._limits = closest_distances(self.spec.type_map) ** -2
        self._marks: np.ndarray | None = None
        self._known: dict[int, tuple[Ready, Ready, Ready, tuple[Model, int, int, int]]] = {}

    def __call__(
        self, atoms: Atoms, check: DistanceCheck, *, centers: int | None = None, first_type: int | None = None
    ) -> Output | None:
        """Everything but atomic virials; None if the rule "nearest" has to leave neighbours out.

        Args:
            centers: only the energies of the first so many atoms, and their derivatives with respect to all.
            first_type: of the first atom of the whole structure, where `atoms` are a part of it.

        Raises:
            StructureError: as in the dense engine, and atoms closer than the tables reach.
            ElementError: an element is not in the type map.
        """
        types = type_indices(atoms, self.spec)
        geometry = check_geometry(atoms.positions, atoms.cell.array, atoms.pbc)
        n = len(types) if centers is None else centers
        marks, n_types = types.copy(), len(self.spec.type_map)
        marks[n:] += n_types  # so that the rows of the centres come first
        changed = self._marks is None or not np.array_equal(marks, self._marks)
        groups = marks if self._by_type else marks // n_types if n < len(types) else None
        pairs = self.pairs.update(geometry, self.workers, groups=groups, centers=n, renew=changed)
        self._marks = marks
        first = int(types[0]) if first_type is None else first_type  # the type of padding
        made = self._run(geometry, types[pairs.order], n, first, pairs)
        if made is None:
            return None
        output, sums = made
        self._check_distances(sums, pairs, atoms.numbers, check)
        return output

    def _run(
        self, geometry: Geometry, kinds: np.ndarray, n: int, first: int, pairs: CompactPairs
    ) -> tuple[Output, list[_Sums]] | None:
        """The output for the n first rows, of types `kinds`; None if neighbours have to be left out."""
        workers = self.workers
        if first not in self._known:
            arguments = kernel_arguments(self.potential, first)
            wide, counted = constant(arguments[1]), constant(arguments[2])
            self._known = {first: (Ready(arguments[0]), wide, counted, arguments)}
        ready, wide, counted, (model, width, size, axis) = self._known[first]
        system = Ready(
            System(
                pairs.rows(geometry.positions, geometry.cell, workers),
                (pairs.start, pairs.neighbors, pairs.codes),
                pairs.offsets(geometry.cell),
                kinds,
                pairs.longest,
                ready,
            )
        )
        rounds = -(-n // (BLOCK * workers.count))  # every thread takes so many blocks of equal size
        block = -(-n // (rounds * workers.count))
        blocks = list(self._blocks(kinds[:n], block))
        sums = [_Sums(len(kinds), len(model.sel)) for _ in range(min(workers.count, len(blocks)))]
        energies, stds = np.empty(n), np.empty(n)
        rigidity = self.potential.rigidity(self.head_index)
        too_many = False

        def work(part: int, ranges: Sequence[tuple[int, int]]) -> None:
            nonlocal too_many
            own = sums[part]
            moments = torch.empty(block, 4 * width, dtype=self._dtype)
            descriptors = torch.empty(block, axis * size, dtype=self._dtype)
            for begin, end in ranges:
                rows = begin, end, begin, system
                _FORWARD(*rows, self._limits, own.closest, own.counts, moments, descriptors, wide, counted)
                too_many = too_many or (self._most is not None and bool((own.counts > self._most).any()))
                if too_many:
                    return
                energies[begin:end], features = self.head(descriptors[: end - begin], kinds[begin:end])
                if rigidity is not None:
                    of_block = torch.from_numpy(kinds[begin:end])
                    stds[begin:end] = rigidity.of_atoms(features, of_block).numpy()
                    made_sums = rigidity.sums(features, of_block)
                    own.features = made_sums if own.features is None else own.features + made_sums
                _BACKWARD(*rows, moments, descriptors, own.forces, own.virial, wide, counted)

        workers.share(work, blocks)
        if too_many:
            return None
        output = _output(energies, sums, pairs.order)
        if rigidity is not None:
            output = _with_deviations(output, rigidity, stds, sums, pairs.order)
        return output, sums

    def _blocks(self, kinds: np.ndarray, block: int) -> Iterator[tuple[int, int]]:
        """Ranges of rows; where each type has a fitting net of its own, a range has one type."""
        edges = [0, len(kinds)]
        if self._by_type:
            edges[1:1] = (np.flatnonzero(np.diff(kinds)) + 1).tolist()
        for first, last in zip(edges, edges[1:]):
            for begin in range(first, last, block):
                yield begin, min(begin + block, last)

    def _check_distances(
        self, sums: list[_Sums], pairs: CompactPairs, numbers: np.ndarray, check: DistanceCheck
    ) -> None:
        def atoms_of(line: np.ndarray) -> tuple[int, int, float]:
            i, j = sorted(int(pairs.order[int(row)]) for row in line[2:])
            return i, j, float(line[1]) ** 0.5

        nearest = atoms_of(min((own.closest[0] for own in sums), key=lambda line: line[0]))
        relative = min((own.closest[1] for own in sums), key=lambda line: line[0])
        check.coincident(*nearest)
        if nearest[2] < self.closest:
            raise StructureError(
                f"atoms {nearest[0]} and {nearest[1]} are {nearest[2]:.4g} Å apart, closer than the tables "
                f"of this compressed model reach ({self.closest:g} Å); check positions and cell, or evaluate "
                "it with compress=False"
            )
        if relative[0] < 1.0:
            check.warn(*atoms_of(relative), numbers)


class _Sums:
    """What one thread adds up."""

    def __init__(self, n_atoms: int, n_counts: int) -> None:
        self.forces, self.virial = np.zeros((n_atoms, 3)), np.zeros((3, 3))
        # Of the closest pair, and of the closest relative to the limit of its types: what is compared,
        # squared distance, the two rows.
        self.closest = np.array([[np.inf, np.inf, 0.0, 0.0]] * 2)
        self.counts = np.zeros(n_counts, dtype=np.int64)
        self.features: Tensor | None = None  # of the last layer, where a rigidity asks for them


def _output(energies: np.ndarray, sums: list[_Sums], order: np.ndarray) -> Output:
    """Results in the order of the atoms."""
    total = sums[0].forces
    for own in sums[1:]:
        total += own.forces
    forces, atomic = np.empty_like(total), np.empty_like(energies)
    forces[order], atomic[order[: len(energies)]] = total, energies
    virial = np.sum([own.virial for own in sums], axis=0)
    return Output(
        energy=torch.tensor([float(atomic.sum())], dtype=torch.float64),
        atomic_energies=torch.from_numpy(atomic),
        forces=torch.from_numpy(forces),
        virial=torch.from_numpy(virial[None]),
    )


def _with_deviations(
    output: Output, rigidity: Rigidity, stds: np.ndarray, sums: list[_Sums], order: np.ndarray
) -> Output:
    """The output with standard deviations of the energy and of those of atoms."""
    atomic = np.empty_like(stds)
    atomic[order[: len(stds)]] = stds
    features = torch.stack([own.features for own in sums if own.features is not None]).sum(dim=0)
    return dataclasses.replace(
        output, energy_std=rigidity.of_sums(features[None]).double(), atomic_std=torch.from_numpy(atomic)
    )


def streams_of(members: Sequence[Member], *, skin: float) -> list[Streaming]:
    """The streaming engine of each member; empty unless all members have one."""
    if any(why_not_streamed(m.potential, m.head_index) is not None for m in members):
        return []
    return [Streaming(m.potential, m.head_index, skin=skin) for m in members]


def streamed(streams: Sequence[Stream], atoms: Atoms, check: DistanceCheck) -> Results | None:
    """Results of an engine for structures that move, or None where it does not apply."""
    per_member = []
    for stream in streams:
        output = stream(atoms, check)
        if output is None:
            return None
        per_member += split(output, [atoms])
    return combine(per_member) if per_member else None
