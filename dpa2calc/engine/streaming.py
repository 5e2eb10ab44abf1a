"""The streaming engine, for compressed models without message passing: compact list, moments, head, forces.

Atoms are taken in blocks, so that besides positions, forces and the neighbour list (6 bytes per pair)
memory does not grow with the system:

    distances, tables, contraction (compiled)  ->  fitting net and its gradient (matrix products by hand)
    ->  forces and virial of the block (compiled; nothing is kept a pair)

Each atom's energy depends on its own pair vectors alone, so a block is finished before the next begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from ase import Atoms

from dpa2calc.engine.arguments import block_head, kernel_arguments, why_no_block_head
from dpa2calc.errors import StructureError
from dpa2calc.kernels.streaming.compact import CompactList, CompactPairs
from dpa2calc.kernels.streaming.tuples import Model, System
from dpa2calc.kernels.threads import Workers
from dpa2calc.model.potential import Output, Potential
from dpa2calc.structures.graph_spec import type_indices
from dpa2calc.structures.search import check_geometry
from dpa2calc.validation import DistanceCheck

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
        self.head = block_head(potential, head)
        self._types: np.ndarray | None = None
        self._known: dict[int, tuple[Model, int, int]] = {}

    def __call__(self, atoms: Atoms, check: DistanceCheck) -> Output | None:
        """Everything but atomic virials; None if the rule "nearest" has to leave neighbours out.

        Raises:
            StructureError: as in the dense engine, and atoms closer than the tables reach.
            ElementError: an element is not in the type map.
        """
        types = type_indices(atoms, self.spec)
        geometry = check_geometry(atoms.positions, atoms.cell.array, atoms.pbc)
        changed = self._types is None or not np.array_equal(types, self._types)
        pairs = self.pairs.update(
            geometry, self.workers, groups=types if self._by_type else None, renew=changed
        )
        self._types = types
        return self._run(geometry.positions, geometry.cell, types, pairs, check)

    def _run(
        self,
        positions: np.ndarray,
        cell: np.ndarray,
        types: np.ndarray,
        pairs: CompactPairs,
        check: DistanceCheck,
    ) -> Output | None:
        from dpa2calc.kernels.streaming.passes import backward, forward
        from dpa2calc.kernels.tables.numba_loops import constant

        n, workers, kinds = len(types), self.workers, types[pairs.order]
        first = int(types[0])  # its type is that of padding
        if first not in self._known:
            self._known = {first: kernel_arguments(self.potential, first)}
        model, size, axis = self._known[first]
        sizes = constant(size)
        system = System(
            pairs.rows(positions, cell, workers),
            (pairs.start, pairs.neighbors, pairs.codes),
            pairs.offsets(cell),
            kinds,
            pairs.longest,
            model,
        )
        rounds = -(-n // (BLOCK * workers.count))  # every thread takes so many blocks of equal size
        block = -(-n // (rounds * workers.count))
        blocks = list(self._blocks(kinds, block))
        sums = [_Sums(n, len(model.sel)) for _ in range(min(workers.count, len(blocks)))]
        energies, limits = np.empty(n), check.inverse_squares
        too_many = False

        def work(part: int, ranges: Iterable[tuple[int, int]]) -> None:
            nonlocal too_many
            own = sums[part]
            moments = np.empty((block, 4 * size), dtype=model.table.dtype)
            descriptors = torch.empty(block, axis * size, dtype=self.potential.dtype)
            made = (moments, descriptors.numpy())
            for begin, end in ranges:
                forward(begin, end, begin, system, limits, own.closest, own.counts, *made, sizes, axis)
                too_many = too_many or (self._most is not None and bool((own.counts > self._most).any()))
                if too_many:
                    return
                energies[begin:end] = self.head(descriptors[: end - begin], kinds[begin:end])
                backward(begin, end, begin, system, *made, own.forces, own.virial, sizes, axis)

        workers.share(work, blocks)
        if too_many:
            return None
        self._check_distances(sums, pairs, types, check)
        return _output(energies, sums, pairs.order)

    def _blocks(self, kinds: np.ndarray, block: int) -> Iterator[tuple[int, int]]:
        """Ranges of rows; where each type has a fitting net of its own, a range has one type."""
        edges = [0, len(kinds)]
        if self._by_type:
            edges[1:1] = (np.flatnonzero(np.diff(kinds)) + 1).tolist()
        for first, last in zip(edges, edges[1:]):
            for begin in range(first, last, block):
                yield begin, min(begin + block, last)

    def _check_distances(
        self, sums: list[_Sums], pairs: CompactPairs, types: np.ndarray, check: DistanceCheck
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
            check.warn(*atoms_of(relative), types)


class _Sums:
    """What one thread adds up."""

    def __init__(self, n_atoms: int, n_counts: int) -> None:
        self.forces, self.virial = np.zeros((n_atoms, 3)), np.zeros((3, 3))
        # Of the closest pair, and of the closest relative to the limit of its types: what is compared,
        # squared distance, the two rows.
        self.closest = np.array([[np.inf, np.inf, 0.0, 0.0]] * 2)
        self.counts = np.zeros(n_counts, dtype=np.int64)


def _output(energies: np.ndarray, sums: list[_Sums], order: np.ndarray) -> Output:
    """Results in the order of the atoms."""
    total = sums[0].forces
    for own in sums[1:]:
        total += own.forces
    forces, atomic = np.empty_like(total), np.empty_like(energies)
    forces[order], atomic[order] = total, energies
    virial = np.sum([own.virial for own in sums], axis=0)
    return Output(
        energy=torch.tensor([float(atomic.sum())], dtype=torch.float64),
        atomic_energies=torch.from_numpy(atomic),
        forces=torch.from_numpy(forces),
        virial=torch.from_numpy(virial[None]),
    )
