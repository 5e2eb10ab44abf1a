"""From ASE Atoms to a Graph."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from vesin import NeighborList

from dpa2calc.errors import ElementError, StructureError
from dpa2calc.graph import FAR, Graph
from dpa2calc.model.config import ModelConfig


def type_indices(atoms: Atoms, type_map: tuple[str, ...]) -> np.ndarray:
    """Index of each atom's element in the type map, (n_atoms,).

    Raises:
        ElementError: an element is not in the type map.
    """
    index = {symbol: i for i, symbol in enumerate(type_map)}
    missing = sorted(set(atoms.symbols) - set(index))
    if missing:
        raise ElementError(
            f"this model has no type for {', '.join(missing)}; its type map is {', '.join(type_map)}"
        )
    return np.array([index[symbol] for symbol in atoms.symbols], dtype=np.int64)


def graph_from_atoms(atoms: Atoms, config: ModelConfig) -> Graph:
    """Dense neighbour table of one structure, nearest first (a fresh search, no skin)."""
    types = type_indices(atoms, config.type_map)
    if len(atoms) == 0:
        raise StructureError("the structure has no atoms")
    positions = atoms.get_positions()
    wrapped = atoms.get_positions(wrap=True)
    search = NeighborList(cutoff=config.cutoff, full_list=True)
    i, j, vectors, distances, shifts = search.compute(
        positions, atoms.cell.array, periodic=atoms.pbc, quantities="ijDdS"
    )
    nsel = config.descriptor.nsel if config.neighbor_rule == "nearest" else None
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], j, np.round(distances, 7), i))
    counts = np.bincount(i, minlength=len(atoms))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    i, j, vectors = i[order], j[order], vectors[order]
    rank = np.arange(len(i)) - starts[i]
    if nsel is not None:
        keep = rank < nsel
        i, j, vectors, rank = i[keep], j[keep], vectors[keep], rank[keep]
    width = int(rank.max()) + 1 if len(rank) else 1
    table = np.zeros((len(atoms), width), dtype=np.int64)
    mask = np.zeros((len(atoms), width), dtype=bool)
    dense = np.zeros((len(atoms), width, 3))
    dense[..., 0] = FAR
    table[i, rank], mask[i, rank], dense[i, rank] = j, True, vectors
    return Graph(
        types=torch.from_numpy(types),
        structure=torch.zeros(len(atoms), dtype=torch.int64),
        n_structures=1,
        neighbors=torch.from_numpy(table),
        vectors=torch.from_numpy(dense),
        mask=torch.from_numpy(mask),
        positions=torch.from_numpy(wrapped),
    )
