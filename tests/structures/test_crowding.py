"""Structures whose pairs would take gigabytes are refused before any pair is looked for."""

import numpy as np
import pytest
from ase.build import bulk

from dpa2calc.errors import StructureError
from dpa2calc.structures import search as module
from dpa2calc.structures.distances import pair_vectors
from dpa2calc.structures.verlet import NeighborList, neighbor_pairs


def _crowds():
    """Structures whose pairs would take gigabytes: what is wrong, and words of the error."""
    rng = np.random.default_rng(4)
    points, cube = rng.random((5000, 3)), np.diag([40.0, 40.0, 40.0])
    zero, layer, wire = np.zeros((3, 3)), np.diag([0.15, 0.15, 0.0]), np.diag([0.0, 0.0, 0.11])
    return [
        ("fractional coordinates in a crystal", points, cube, True, r"5000 atoms, .* \(fractional ones"),
        ("fractional coordinates in a molecule", points, zero, False, r"atoms, atom \d+ among them"),
        ("a crowd in empty space", points + [0, 0, 1e7], np.diag([1e8] * 3), True, "among them"),
        ("far crowds", points + 1e7 * (rng.random((5000, 1)) < 0.5), zero, False, "among them"),
        ("a layer", 5 * points[:60], layer, [1, 1, 0], r"area of 0\.0225 Å\^2 for 60 atoms"),
        ("a layer, not quite as dense", 5 * points[:60], 2 * layer, [1, 1, 0], r"atoms/Å\^3"),
        ("a long crystal of layers", points[:60], np.diag([0.15, 0.15, 1e6]), True, r"atoms/Å\^3"),
        ("a wire", points[:400], wire, [0, 0, 1], "atom 0 among them"),
        ("one atom", points[:1], np.diag([0.11] * 3), True, r"volume of 0\.001331 Å\^3 for 1 atoms"),
    ]


@pytest.mark.parametrize("case", _crowds(), ids=lambda case: case[0])
@pytest.mark.parametrize("search", ["pairs", "compact", "vectors"])
def test_what_would_fill_the_memory_is_refused_before_the_search(case, search, monkeypatch):
    """Of millions of pairs none is looked for."""
    _, positions, cell, pbc, words = case
    for name in ("_search_vesin", "_search_tree"):
        monkeypatch.setattr(module, name, None)
    with pytest.raises(StructureError, match=words):
        if search == "pairs":
            neighbor_pairs(positions, cell, pbc=pbc, cutoff=10.0)
        elif search == "vectors":
            pair_vectors(positions, cell, pbc, 10.0, full=False)
        else:
            compact = pytest.importorskip("dpa2calc.kernels.streaming.compact")
            compact.compact_pairs(module.check_geometry(positions, cell, pbc), 10.0, None)


def test_a_range_with_too_many_neighbours_is_refused():
    copper = bulk("Cu", cubic=True)
    with pytest.raises(
        StructureError, match=r"neighbours within 101 Å of each \(at most 50000 are allowed\)"
    ):
        NeighborList(1.0, skin=100.0).update(copper.positions, copper.cell.array, True)


@pytest.mark.parametrize(("density", "allowed"), [(1.0, True), (2.0, True), (9.0, False)])
@pytest.mark.parametrize("pbc", [[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
def test_density_of_matter_is_allowed(density, allowed, pbc):
    """1 atom/Å^3 is hydrogen at 500 GPa; far more than 2 is refused."""
    side = density ** (-1 / 3)
    lattice = np.stack(np.meshgrid(*[np.arange(22)] * 3), -1).reshape(-1, 3) * side
    geometry = module.check_geometry(lattice, np.eye(3) * 22 * side, pbc)
    if allowed:
        assert module.make_box(geometry, 7.0).pbc.tolist() == [bool(p) for p in pbc]
    else:
        with pytest.raises(StructureError, match="at most 2874 are allowed"):
            module.make_box(geometry, 7.0)
