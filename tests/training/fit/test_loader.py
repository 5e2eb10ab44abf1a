"""Neighbour tables kept for later epochs give the graph that a fresh search gives."""

import dataclasses

import numpy as np
import pytest
import torch

from dpa2calc.structures.graph_builder import graph_from_atoms
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.fit.loader import Budget, GraphStore


@pytest.mark.parametrize("cells", [0, 5, 126, 127, 128, 200, 400, 100_000])
@pytest.mark.parametrize("kept", [True, False])
def test_atoms_many_cells_apart_have_their_vectors(lj_data, tiny_model, cells, kept):
    frame = lj_data(1)[0]
    shifts = np.array([[0, 0, 0], [cells, 0, 0], [-cells, 1, 0], [0, cells, -cells]])
    far = dataclasses.replace(frame, positions=frame.positions + shifts @ frame.cell)
    store = GraphStore(Dataset((far,)), tiny_model(), budget=Budget(2**20 if kept else 0))
    first, second = store.graph(0), store.graph(0)
    fresh = graph_from_atoms(frame.atoms(), store.spec, positions=False)
    for graph in (first, second):
        lengths = torch.linalg.vector_norm(graph.vectors, dim=-1)
        wanted = torch.linalg.vector_norm(fresh.vectors, dim=-1)
        torch.testing.assert_close(lengths, wanted, rtol=0, atol=1e-7)
        torch.testing.assert_close(graph.vectors.sum(1), fresh.vectors.sum(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("pbc", "cell"),
    [
        ((True, False, False), [[4, 0, 0], [4, 0, 0], [0, 0, 0]]),
        ((True, False, False), [[4, 0, 0], [8, 0, 0], [1, 0, 0]]),
        ((True, True, False), [[4, 0, 0], [0, 4, 0], [4, 4, 0]]),
        ((True, True, False), [[4, 0, 0], [0, 4, 0], [0, 0, 1e-9]]),
        ((False, True, False), [[0, 0, 0], [1, 4, 0], [0, 0, 0]]),
    ],
)
def test_vectors_of_directions_that_are_not_periodic_do_not_matter(lj_data, tiny_model, pbc, cell):
    cell, pbc = np.array(cell, dtype=float), np.array(pbc)
    frame = dataclasses.replace(lj_data(1)[0], cell=cell, pbc=pbc)
    frame = dataclasses.replace(frame, positions=frame.positions * 1.5)
    store = GraphStore(Dataset((frame,)), tiny_model())
    graph, fresh = store.graph(0), graph_from_atoms(frame.atoms(), store.spec, positions=False)
    assert fresh.mask.any()
    torch.testing.assert_close(graph.vectors, fresh.vectors, rtol=0, atol=1e-9)
