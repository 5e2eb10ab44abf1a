"""From ASE Atoms to a Graph: flat candidate pairs (kept under a Verlet skin) to padded rows.

    build = GraphBuilder(config.graph_spec, skin=1.0)
    graph = build(atoms)            # each MD step; searches only when the skin is used up
    graph = graph_from_atoms(atoms, config)   # once, without a skin

Only as much order is made as the model needs. Each block of a model reads a leading part of the rows,
so neighbours come in shells: those within the smallest cutoff, then those up to the next. Inside a
shell no model depends on the order, unless the rule "nearest" has to leave neighbours out: then, and
only then, the rows are sorted by distance.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from dpa2calc.ambient import own_modes
from dpa2calc.errors import StructureError
from dpa2calc.structures.graph import FAR, Graph
from dpa2calc.structures.graph_spec import GraphSpec, type_indices
from dpa2calc.structures.lattice import cell_volume
from dpa2calc.structures.search import HIGHEST_DENSITY
from dpa2calc.structures.verlet import NeighborList, Pairs, select_nearest

# Looks at i, j (n_pairs,), squared distances (n_pairs,) in Å^2, atomic numbers (n_atoms,); may raise or warn.
Inspector = Callable[[Tensor, Tensor, Tensor, np.ndarray], None]


@dataclass(frozen=True)
class Candidates:
    """Flat pairs on the device, with the Cartesian offsets of one cell.

    i, j: (n_pairs + 1,) int64, sorted by i but for the last one; offsets: (n_pairs + 1, 3) float64, Å. The
    last pair is no pair: its vector is (FAR, 0, 0), and padding slots point at it.
    """

    pairs: Pairs
    cell: np.ndarray
    i: Tensor
    j: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, pairs: Pairs, cell: np.ndarray, device: torch.device | str) -> Candidates:
        """Move the pairs to the device."""
        i, j = (torch.from_numpy(np.append(a, 0)).to(device) for a in (pairs.i, pairs.j))
        return cls(pairs, cell.copy(), i, j, _offsets(pairs, cell).to(device))

    def with_cell(self, cell: np.ndarray) -> Candidates:
        """The same pairs in a deformed cell."""
        offsets = _offsets(self.pairs, cell).to(self.offsets.device)
        return dataclasses.replace(self, cell=cell.copy(), offsets=offsets)

    def vectors(self, positions: Tensor) -> Tensor:
        """r_j - r_i, (n_pairs + 1, 3), Å."""
        vectors = positions.index_select(0, self.j)
        vectors -= positions.index_select(0, self.i)
        vectors += self.offsets
        return vectors


def _offsets(pairs: Pairs, cell: np.ndarray) -> Tensor:
    offsets = np.empty((len(pairs.i) + 1, 3))
    np.matmul(pairs.shift, cell, out=offsets[:-1])
    offsets[-1] = FAR, 0.0, 0.0
    return torch.from_numpy(offsets)


class GraphBuilder:
    """Graphs of one structure that moves: the pairs are searched again only when they must be."""

    def __init__(self, spec: GraphSpec, *, skin: float = 1.0, device: torch.device | str = "cpu") -> None:
        self.spec, self.device = spec, torch.device(device)
        self.neighbors = NeighborList(spec.cutoff, skin)
        self._candidates: Candidates | None = None

    @own_modes()
    def __call__(self, atoms: Atoms, *, positions: bool = False, inspect: Inspector | None = None) -> Graph:
        """The graph at these positions.

        Args:
            positions: add what atomic virials need.
            inspect: is shown all pairs with their squared distances.

        Raises:
            StructureError: no atoms, NaN, a periodic cell without volume.
            ElementError: an element is not in the type map.
        """
        cell = atoms.cell.array
        pairs = self.neighbors.update(atoms.positions, cell, atoms.pbc)
        known = self._candidates
        if known is None or known.pairs is not pairs:
            self._candidates = Candidates.of(pairs, cell, self.device)
        elif not np.array_equal(known.cell, cell):
            self._candidates = known.with_cell(cell)
        assert self._candidates is not None
        return assemble(atoms, self.spec, self._candidates, positions=positions, inspect=inspect)


class HasGraphSpec(Protocol):
    """What says by itself which graph it wants: the configuration of a model."""

    @property
    def graph_spec(self) -> GraphSpec: ...


def graph_from_atoms(
    atoms: Atoms,
    config: HasGraphSpec | GraphSpec,
    *,
    positions: bool = True,
    inspect: Inspector | None = None,
) -> Graph:
    """Dense neighbour table of one structure, shell by shell (a fresh search, no skin).

    Args:
        positions, inspect: as for `GraphBuilder`.

    Raises:
        StructureError: no atoms, NaN, a periodic cell without volume, more than 2 atoms/Å^3.
        ElementError: an element is not in the type map.
    """
    spec = config if isinstance(config, GraphSpec) else config.graph_spec
    return GraphBuilder(spec, skin=0.0)(atoms, positions=positions, inspect=inspect)


def assemble(
    atoms: Atoms, spec: GraphSpec, candidates: Candidates, *, positions: bool, inspect: Inspector | None
) -> Graph:
    """The graph of one structure from candidate pairs that hold all those within the cutoff."""
    i, j = candidates.i, candidates.j
    n_atoms, padding = len(atoms), len(i) - 1
    types = torch.from_numpy(type_indices(atoms, spec)).to(i.device)
    vectors = candidates.vectors(torch.from_numpy(np.array(atoms.positions, dtype=np.float64)).to(i.device))
    # A product with ones adds the three components several times faster than a sum over the last axis.
    squares = (vectors * vectors) @ vectors.new_ones(3)  # (n_pairs + 1,)
    if inspect is not None:
        inspect(i, j, squares, atoms.numbers)
    places = None
    if not _leaves_out_by_type(candidates, squares, types, spec):
        places = shell_places(i, squares, spec, n_atoms)
    chosen, slots, width = places if places is not None else nearest_places(i, squares, spec, n_atoms)
    if width > HIGHEST_DENSITY * 4 / 3 * math.pi * spec.cutoff**3:
        crowded = int(torch.bincount(slots // width).argmax())
        raise StructureError(
            f"atom {crowded} has {width} neighbours within {spec.cutoff:g} Å, more than matter can hold; "
            "check positions and cell, and their unit (Å)"
        )
    # Gathering rows by a table of pair numbers is faster than scattering the rows.
    source = i.new_full((n_atoms * width,), padding)
    source.scatter_(0, slots, chosen)
    return Graph(
        types=types,
        structure=torch.zeros_like(types),
        n_structures=1,
        neighbors=j.index_select(0, source).view(n_atoms, width),
        vectors=vectors.index_select(0, source).view(n_atoms, width, 3),
        mask=(source != padding).view(n_atoms, width),
        positions=_wrapped(atoms).to(i.device) if positions else None,
    )


def _wrapped(atoms: Atoms) -> Tensor:
    """Positions inside the cell, (n_atoms, 3); as they are where the cell has no inside, nor a stress."""
    wrapped = atoms.get_positions(wrap=cell_volume(atoms) is not None)
    return torch.from_numpy(wrapped.astype(np.float64))


def shell_places(
    i: Tensor, squares: Tensor, spec: GraphSpec, n_atoms: int
) -> tuple[Tensor, Tensor, int] | None:
    """Which pairs are kept and where they go, with the shells in order and no order inside one.

    Args:
        i: (n_pairs,) centres, not decreasing among the pairs within the cutoff.
        squares: (n_pairs,) squared distances, Å^2.

    Returns:
        chosen (n,) positions in the pair list, slots (n,) in the flattened rows, width of the rows;
        or None if the rule "nearest" has to leave neighbours out, so that rows must be sorted.
    """
    members, centers, counts = [], [], []
    inner = 0.0
    for cutoff in spec.shells:
        inside = squares < cutoff**2
        if inner:
            inside &= squares >= inner
        members.append(inside.nonzero().squeeze(1))
        centers.append(i.index_select(0, members[-1]))
        counts.append(torch.bincount(centers[-1], minlength=n_atoms))
        inner = cutoff**2
    totals = torch.stack(counts).cumsum(dim=0)  # (n_shells, n_atoms): neighbours within each cutoff
    largest = totals.amax(dim=1).tolist()
    if spec.nearest and any(largest[spec.shells.index(cutoff)] > nsel for cutoff, nsel in spec.blocks):
        return None
    width = max(largest[-1], 1)
    slots = []
    row_starts = torch.arange(n_atoms, device=i.device) * width
    for shell, center in enumerate(centers):
        # Rank inside the shell = place in the shell's list minus where the centre's part begins.
        begins = counts[shell].cumsum(0) - counts[shell]
        shift = row_starts - begins + (totals[shell] - counts[shell])
        slots.append(torch.arange(len(center), device=i.device) + shift.index_select(0, center))
    if len(slots) == 1:
        return members[0], slots[0], width
    return torch.cat(members), torch.cat(slots), width


def _leaves_out_by_type(candidates: Candidates, squares: Tensor, types: Tensor, spec: GraphSpec) -> bool:
    """Whether some atom has more neighbours of one type than the model keeps."""
    if not spec.type_sel:
        return False
    inside = squares < spec.cutoff**2
    n_types = len(spec.type_map)
    index = candidates.i * n_types + types[candidates.j]
    counts = torch.bincount(index[inside], minlength=len(types) * n_types).view(-1, n_types)
    return bool((counts > counts.new_tensor(spec.type_sel)).any())


def nearest_places(i: Tensor, squares: Tensor, spec: GraphSpec, n_atoms: int) -> tuple[Tensor, Tensor, int]:
    """As `shell_places`, with every row sorted by distance and cut to the longest nsel.

    Ties within 1e-7 Å keep the order of the pair list, which is (neighbour, shift).
    """
    i, squares = i[:-1], squares[:-1]  # without the padding pair
    counts = torch.bincount(i, minlength=n_atoms)
    begins = counts.cumsum(0) - counts
    column = torch.arange(len(i), device=i.device) - begins[i]
    distances = squares.new_full((n_atoms, int(counts.max())), torch.inf)
    distances[i, column] = squares.sqrt()
    order, mask = select_nearest(distances, cutoff=spec.cutoff, nsel=spec.nsel)
    width = max(order.shape[1], 1)
    chosen = (begins.unsqueeze(1) + order)[mask]
    slots = torch.arange(n_atoms, device=i.device).unsqueeze(1) * width + torch.arange(
        order.shape[1], device=i.device
    )
    return chosen, slots[mask], width
