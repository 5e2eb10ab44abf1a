"""The one input of every model: atoms, and for each atom its neighbours, nearest first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One or several structures as a dense neighbour table.

    The table is padded to the largest real neighbour count `k`, not to `nsel`. Row `i` lists the
    neighbours of atom `i` shell by shell (a shell ends at a cutoff of the model), real ones first; inside
    a shell by increasing distance only where the rule "nearest" leaves neighbours out.

    Attributes:
        types: (n_atoms,) int64, index into the model's type map.
        structure: (n_atoms,) int64, which structure the atom belongs to.
        n_structures: number of structures.
        neighbors: (n_atoms, k) int64, index of the atom (of the periodic image's owner); 0 in padding.
        vectors: (n_atoms, k, 3) float64, r_j - r_i in Å; padding holds (far, 0, 0) beyond every cutoff.
        mask: (n_atoms, k) bool, True for real neighbours.
        positions: (n_atoms, 3) float64, positions wrapped into the cell, Å; needed only for atomic
            virials. None when not asked for.
        fparam: (n_structures, n) frame parameters or None.
        aparam: (n_atoms, n) atomic parameters or None.
        widths: by cutoff of the model, columns that hold all neighbours within it, or None where that has to
            be seen from the values.
    """

    types: Tensor
    structure: Tensor
    n_structures: int
    neighbors: Tensor
    vectors: Tensor
    mask: Tensor
    positions: Tensor | None = None
    fparam: Tensor | None = None
    aparam: Tensor | None = None
    widths: Mapping[float, int] | None = None

    @property
    def n_atoms(self) -> int:
        """Number of atoms in all structures together."""
        return self.types.shape[0]

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def usable(self) -> Graph:
        """The same graph without tensors made in inference mode, of which PyTorch keeps no derivatives."""
        return self._each(lambda tensor: tensor.clone() if tensor.is_inference() else tensor)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Graph:
        fields = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **fields)  # type: ignore[arg-type]


FAR = 1.0e3  # Å; padding lies beyond every cutoff, so all its switch functions and gradients are exactly 0


def collate(graphs: list[Graph]) -> Graph:
    """Join graphs into one batch; neighbour tables are padded to the widest."""
    if len(graphs) == 1:
        return graphs[0]
    width = max(graph.neighbors.shape[1] for graph in graphs)
    counts = [graph.n_atoms for graph in graphs]
    starts = [sum(counts[:i]) for i in range(len(counts))]
    first_structures = [sum(g.n_structures for g in graphs[:i]) for i in range(len(graphs))]

    def widen(table: Tensor) -> Tensor:
        return pad(table, (0, 0) * (table.dim() - 2) + (0, width - table.shape[1]))

    mask = torch.cat([widen(g.mask) for g in graphs])
    vectors = torch.cat([widen(g.vectors) for g in graphs])
    vectors[..., 0].masked_fill_(~mask, FAR)
    return Graph(
        types=torch.cat([g.types for g in graphs]),
        structure=torch.cat([g.structure + s for g, s in zip(graphs, first_structures)]),
        n_structures=sum(g.n_structures for g in graphs),
        neighbors=torch.cat([widen(g.neighbors) + s for g, s in zip(graphs, starts)]),
        vectors=vectors,
        mask=mask,
        positions=_cat_optional([g.positions for g in graphs]),
        fparam=_cat_optional([g.fparam for g in graphs]),
        aparam=_cat_optional([g.aparam for g in graphs]),
    )


def _cat_optional(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if len(present) == len(parts) else None
