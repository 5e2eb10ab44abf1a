"""Neighbour pairs against brute force over images and matscipy; exactness of the skin."""

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, graphene, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.structures.distances import near_others, pair_vectors
from dpa2calc.structures.graph_builder import GraphBuilder
from dpa2calc.structures.graph_spec import GraphSpec
from dpa2calc.structures.verlet import NeighborList, neighbor_pairs, select_nearest


def brute_force(positions, cell, pbc, cutoff):
    """Every pair from explicit images: {(i, j, S0, S1, S2)}; no cell list, no wrapping."""
    positions, cell = np.asarray(positions, float), np.asarray(cell, float)
    lattice = cell[np.asarray(pbc)]
    reach = [0, 0, 0]
    if len(lattice):
        # |shift @ lattice + r_j - r_i| <= cutoff bounds each shift by the dual lattice vectors.
        dual = np.linalg.pinv(lattice).T  # (n_periodic, 3)
        spread = np.linalg.norm(positions[:, None] - positions[None], axis=-1).max()
        bounds = np.ceil((cutoff + spread) * np.linalg.norm(dual, axis=1)).astype(int)
        for axis, bound in zip(np.flatnonzero(pbc), bounds):
            reach[axis] = int(bound)
    found = set()
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        vectors = positions[None] - positions[:, None] + np.array(shift) @ cell
        for i, j in zip(*np.nonzero((vectors**2).sum(-1) < cutoff**2)):
            if i != j or any(shift):
                found.add((int(i), int(j), *shift))
    return found


def as_set(pairs):
    rows = np.column_stack([pairs.i, pairs.j, pairs.shift]).tolist()
    assert len(rows) == len(set(map(tuple, rows))), "a pair is there twice"
    return set(map(tuple, rows))


def make_systems():
    rng = np.random.default_rng(7)
    skew = [[4.0, 0.0, 0.0], [1.9, 3.1, 0.0], [-1.2, 0.8, 3.5]]
    water = molecule("H2O")
    far = bulk("NaCl", "rocksalt", a=5.64)
    far.positions += [[3 * 5.64, -10, 0.1], [0.0, 7.0, -20.0]]
    slab = graphene(vacuum=None)
    slab.rattle(0.05, seed=1)
    slab.cell[2] = 0
    slab.pbc = [True, True, False]
    wire = Atoms("C3", rng.normal(size=(3, 3)), cell=[[0, 0, 0], [0, 2.7, 0], [0, 0, 0]], pbc=[0, 1, 0])
    cos, sin = np.cos(np.radians(20)), np.sin(np.radians(20))
    tilted = [[3.0, 0, 0], [3.0 * cos, 3.0 * sin, 0], [0.1, 0.2, 3.0]]
    random = rng.random((12, 3)) @ np.diag([5.0, 6.0, 7.0])
    return {
        "fcc, one atom, 248 images": (bulk("Cu", a=3.61), 9.0),
        "triclinic shorter than the cutoff": (
            Atoms("CHO", rng.random((3, 3)) @ skew, cell=skew, pbc=True),
            6.0,
        ),
        "left-handed": (Atoms("CHO", rng.random((3, 3)) * 4, cell=np.diag([4, 5, -4.5]), pbc=True), 5.0),
        "20 degrees": (Atoms("He2", [[0, 0, 0], [1, 0.4, 1.2]], cell=tilted, pbc=True), 4.0),
        "very skewed": (
            Atoms("He2", [[0, 0, 0], [1, 0.4, 1.2]], cell=[[3, 0, 0], [31.2, 3, 0], [0, -20.1, 3]], pbc=True),
            3.5,
        ),
        "atoms far outside": (far, 5.0),
        "molecule without a cell": (water, 3.0),
        "two molecules far apart": (
            Atoms("H4", [[0, 0, 0], [0.8, 0, 0], [2e6, 0, 0], [2e6 + 0.8, 0, 0]]),
            5.0,
        ),
        "single atom": (Atoms("He"), 5.0),
        "slab with c = 0": (slab, 6.0),
        "slab with c in the plane": (Atoms("C2", slab.positions, cell=slab.cell, pbc=[1, 1, 0]), 4.0),
        "wire": (wire, 7.0),
        "pbc TFT": (Atoms("H12", random, cell=[5, 6, 7], pbc=[True, False, True]), 6.5),
        "pbc FFT": (Atoms("H12", random * 3 - 8, cell=[5, 6, 7], pbc=[False, False, True]), 6.5),
        "bulk": (Atoms("H12", random, cell=[5, 6, 7], pbc=True), 4.0),
        "flat periodic plate": (Atoms("H2", [[0, 0, 0], [1, 0, 0]], cell=[9e3, 9e3, 6], pbc=True), 6.5),
        "overlapping atoms": (Atoms("H3", [[0, 0, 0], [0, 0, 0], [1, 0, 0]], cell=[4, 4, 4], pbc=True), 3.0),
        "overlapping atoms, tree": (
            Atoms("H3", [[0, 0, 0], [0, 0, 0], [1, 0, 0]], cell=[4, 4, 3e5], pbc=[0, 1, 1]),
            3.0,
        ),
    }


SYSTEMS = make_systems()
SYSTEMS["slab with c in the plane"][0].cell[2] = SYSTEMS["slab with c in the plane"][0].cell[0]


@pytest.mark.parametrize("name", SYSTEMS)
def test_pairs_agree_with_brute_force(name):
    atoms, cutoff = SYSTEMS[name]
    pairs = neighbor_pairs(atoms.positions, atoms.cell.array, pbc=atoms.pbc, cutoff=cutoff)
    assert as_set(pairs) == brute_force(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    distances = np.linalg.norm(pairs.vectors(atoms.positions, atoms.cell.array), axis=1)
    assert (distances <= cutoff).all()


@pytest.mark.parametrize("seed", range(4))
def test_pairs_agree_with_matscipy_in_random_triclinic_cells(seed):
    matscipy = pytest.importorskip("matscipy.neighbours")
    rng = np.random.default_rng(seed)
    cell = np.diag([7.0, 8.0, 9.0]) + rng.normal(size=(3, 3))
    pbc = rng.random(3) < 0.7
    # matscipy drops atoms outside the cell along directions without pbc: keep them inside.
    positions = rng.random((60, 3)) @ cell + (rng.integers(-3, 4, (60, 3)) * pbc) @ cell
    i, j, shift = matscipy.neighbour_list("ijS", positions=positions, cell=cell, pbc=pbc, cutoff=5.5)
    pairs = neighbor_pairs(positions, cell, pbc=pbc, cutoff=5.5)
    assert as_set(pairs) == set(map(tuple, np.column_stack([i, j, shift]).tolist()))


def test_order_is_by_centre_neighbour_shift_also_far_outside_the_cell():
    rng = np.random.default_rng(0)
    positions, cell = rng.random((9, 3)) * 4, np.diag([4.0, 4.0, 4.0])
    reference = np.zeros(0)
    for cells_away in (0, 3, 10**7):  # 10**7 cells: the shifts no longer fit one packed integer
        moved = positions.copy()
        moved[3] += cells_away * cell[0]
        moved[5] -= cells_away * (cell[0] + cell[1] - cell[2])
        pairs = neighbor_pairs(moved, cell, pbc=True, cutoff=5.0)
        rows = np.column_stack([pairs.i, pairs.j, pairs.shift])
        assert (np.lexsort(rows.T[::-1]) == np.arange(len(rows))).all()
        distances = np.linalg.norm(pairs.vectors(moved, cell), axis=1)
        if cells_away == 0:
            reference = distances
        np.testing.assert_allclose(distances, reference, rtol=0, atol=1e-7)


def test_count_in_fcc_shells():
    copper = bulk("Cu", a=4.0, cubic=True).repeat(3)
    for cutoff, count in ((2.9, 12), (4.1, 18), (4.95, 42)):  # shells of 12, 6, 24
        pairs = neighbor_pairs(copper.positions, copper.cell.array, pbc=True, cutoff=cutoff)
        assert len(pairs.i) == count * len(copper)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_pairs_agree_with_brute_force_anywhere(data):
    """Random cells of any handedness and skew, any pbc, atoms anywhere."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    pbc = data.draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    rng = np.random.default_rng(seed)
    cell = rng.normal(size=(3, 3)) * 3
    lengths = np.linalg.norm(cell, axis=1)
    volume = np.sqrt(np.linalg.det(cell[list(pbc)] @ cell[list(pbc)].T)) if any(pbc) else 1.0
    if volume < 0.15 * np.prod(lengths[list(pbc)]) or lengths.min() < 1.2:
        return
    positions = rng.normal(size=(rng.integers(1, 6), 3)) * data.draw(st.sampled_from([0.5, 3.0, 8.0]))
    cutoff = data.draw(st.floats(0.5, 4.0))
    pairs = neighbor_pairs(positions, cell, pbc=pbc, cutoff=cutoff)
    assert as_set(pairs) == brute_force(positions, cell, pbc, cutoff)


def within(pairs, positions, cell, cutoff):
    """The pairs below the cutoff at these positions, as rows."""
    near = np.linalg.norm(pairs.vectors(positions, cell), axis=1) < cutoff
    return np.column_stack([pairs.i, pairs.j, pairs.shift])[near]


@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 1, 0), (0, 1, 0), (0, 0, 0)])
def test_skin_is_exact_over_a_random_walk_with_cell_changes(pbc):
    rng = np.random.default_rng(11)
    cell = np.array([[6.0, 0.3, 0.0], [-0.5, 5.5, 0.2], [0.0, 1.0, 7.0]])
    positions = rng.random((20, 3)) @ cell
    neighbors = NeighborList(4.0, skin=0.8)
    for step in range(200):
        positions = positions + rng.normal(size=positions.shape) * 0.02
        if step % 3 == 0:  # a barostat: atoms follow the strain
            strain = np.eye(3) + rng.normal(size=(3, 3)) * 0.002
            cell, positions = cell @ strain, positions @ strain
        if step % 50 == 49:  # a cell that jumps while the atoms stay
            cell = cell * rng.uniform(0.9, 1.1, 3)[:, None]
        if step == 120:
            positions = positions + 17.0  # drift does not count as movement
        found = within(neighbors.update(positions, cell, pbc), positions, cell, 4.0)
        fresh = within(neighbor_pairs(positions, cell, pbc=pbc, cutoff=4.0), positions, cell, 4.0)
        np.testing.assert_array_equal(found, fresh)
    assert 3 < neighbors.n_searches < 100


def test_skin_reuses_the_very_same_pairs_and_notices_atoms_moved_in_place():
    atoms = bulk("Cu", cubic=True).repeat(2)
    neighbors = NeighborList(4.0, skin=1.0)
    first = neighbors.update(atoms.positions, atoms.cell.array, atoms.pbc)
    atoms.positions[0, 0] += 0.45
    assert neighbors.update(atoms.positions, atoms.cell.array, atoms.pbc) is first
    strained = atoms.copy()
    strained.set_cell(atoms.cell * 1.01, scale_atoms=True)
    assert neighbors.update(strained.positions, strained.cell.array, strained.pbc) is first
    atoms.positions[0, 0] += 0.6
    assert neighbors.update(atoms.positions, atoms.cell.array, atoms.pbc) is not first
    assert neighbors.n_searches == 2
    neighbors.update(atoms.positions, atoms.cell.array, [True, True, False])
    neighbors.update(atoms.positions[1:], atoms.cell.array, [True, True, False])
    assert neighbors.n_searches == 4


def test_skin_stays_valid_when_an_atom_is_wrapped_back():
    cell = np.eye(3) * 6.0
    positions = np.array([[5.9, 1.0, 1.0], [1.0, 1.0, 1.0]])
    neighbors = NeighborList(3.0, skin=1.0)
    neighbors.update(positions, cell, True)
    positions[0, 0] = 0.1  # was 6.1
    found = within(neighbors.update(positions, cell, True), positions, cell, 3.0)
    fresh = within(neighbor_pairs(positions, cell, pbc=True, cutoff=3.0), positions, cell, 3.0)
    np.testing.assert_array_equal(found, fresh)


def test_without_skin_any_movement_searches_again():
    positions = np.array([[0.0, 0, 0], [1.5, 0, 0]])
    neighbors = NeighborList(2.0, skin=0.0)
    neighbors.update(positions, np.zeros((3, 3)), False)
    neighbors.update(positions, np.zeros((3, 3)), False)
    assert neighbors.n_searches == 1
    neighbors.update(positions + [[0.0, 0, 0], [1e-6, 0, 0]], np.zeros((3, 3)), False)
    assert neighbors.n_searches == 2


def test_atoms_without_neighbours_have_no_slots():
    order, mask = select_nearest(torch.zeros(3, 0, dtype=torch.float64), cutoff=2.0)
    assert order.shape == mask.shape == (3, 0)


@pytest.mark.parametrize("kind", ["cpu", "as on a device"])
@pytest.mark.parametrize("nsel", [None, 4, 1000])
def test_select_nearest_sorts_truncates_and_breaks_ties_by_slot(kind, nsel):
    from dpa2calc.structures import verlet as neighbors

    rng = np.random.default_rng(5)
    distances = rng.choice([1.0, 1.5, 2.0, 2.5, np.inf], size=(30, 17))
    distances[:, 4] = 2.2
    noisy = distances + rng.uniform(-1, 1, distances.shape) * 1e-9  # rounding does not change the order
    if kind == "cpu":
        order, mask = (x.numpy() for x in select_nearest(torch.from_numpy(noisy), cutoff=2.4, nsel=nsel))
    else:
        order, mask = (x.numpy() for x in neighbors._select_torch(torch.from_numpy(noisy), 2.4, nsel))
    expected = [[s for s in np.argsort(row, kind="stable") if row[s] < 2.4][:nsel] for row in distances]
    assert order.shape[1] == max(map(len, expected))
    for row, keep, slots in zip(order, mask, expected):
        assert row[keep].tolist() == slots
        assert not keep[len(slots) :].any()
    assert order.min() >= 0 and order.max() < 17


def test_nearest_rows_do_not_depend_on_the_skin_or_on_the_cell_an_atom_sits_in():
    crystal = bulk("Cu", a=3.6, cubic=True).repeat(2)  # shells full of ties
    spec = GraphSpec(("Cu",), ((5.0, 15),), nearest=True)  # cuts through the second shell
    rows = []
    for skin, move in ((0.0, 0), (1.3, 0), (0.5, 4)):
        moved = crystal.copy()
        moved.positions[5] += move * crystal.cell.array[1]
        graph = GraphBuilder(spec, skin=skin)(moved)
        rows.append((graph.neighbors.numpy(), graph.vectors.numpy()))
    assert rows[0][0].shape == (32, 15)
    for index, vectors in rows[1:]:
        np.testing.assert_array_equal(index, rows[0][0])
        np.testing.assert_allclose(vectors, rows[0][1], rtol=0, atol=1e-12)


CUBE = np.eye(3) * 5.0


@pytest.mark.parametrize(
    ("positions", "cell", "pbc", "message"),
    [
        (np.zeros((0, 3)), CUBE, True, "no atoms"),
        ([[0, 0, 0], [0, np.nan, 0]], CUBE, True, r"positions\[1\] = \[0.0, nan, 0.0\] is not finite"),
        ([[0, 0, np.inf]], CUBE, False, r"positions\[0\].*not finite"),
        ([[0, 0, 1e9]], CUBE, True, "too large to be resolved"),
        ([[0, 0, 0]], np.full((3, 3), np.nan), True, r"cell\[0\] = .* is not finite"),
        ([[0, 0, 0]], np.diag([5, 5, 0]), True, r"vector c = .* no length.*pbc = \[True, True, False\]"),
        ([[0, 0, 0]], np.zeros((3, 3)), [0, 1, 0], "vector b = .* no length"),
        ([[0, 0, 0]], [[5, 0, 0], [0, 5, 0], [5, 5, 0]], True, "lie in one plane, so the cell has no volume"),
        ([[0, 0, 0]], [[5, 0, 0], [0, 5, 0], [-3, 0, 0]], [1, 0, 1], "in one line, so the cell has no area"),
        ([[0, 0, 0]], np.eye(3) * 0.1, True, r"volume of 0.001 Å\^3 for 1 atoms.*unit"),
        ([[0, 0, 0]], np.eye(3) * 1e-4, [1, 0, 0], "length of 0.0001 Å"),
        ([[0, 0, 0]], [[3, 0, 0], [3, 0.05, 0], [0, 0, 40]], True, "repeats every 0.05 Å"),
        ([0, 0, 0], CUBE, True, r"positions have shape \(3,\)"),
        ([[0, 0, 0]], np.eye(2), True, r"cell has shape \(2, 2\)"),
    ],
)
def test_unusable_structures_are_refused(positions, cell, pbc, message):
    with pytest.raises(StructureError, match=message):
        neighbor_pairs(positions, cell, pbc=pbc, cutoff=6.0)
    with pytest.raises(StructureError, match=message):
        NeighborList(5.0).update(positions, cell, pbc)


def test_wrong_options_are_refused():
    for cutoff in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match=r"cutoff = .* above 0"):
            neighbor_pairs(np.zeros((1, 3)), CUBE, pbc=True, cutoff=cutoff)
    with pytest.raises(ConfigError, match=r"skin = -0\.1"):
        NeighborList(5.0, skin=-0.1)
    with pytest.raises(ConfigError, match="nsel = 0"):
        select_nearest(torch.ones(1, 1), cutoff=2.0, nsel=0)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("name", SYSTEMS)
def test_vectors_for_analyses_are_those_of_the_pairs(name, full):
    atoms, cutoff = SYSTEMS[name]
    place = (atoms.positions, atoms.cell.array, atoms.pbc)
    i, j, vectors = pair_vectors(*place, cutoff, full=full)
    pairs = neighbor_pairs(atoms.positions, atoms.cell.array, pbc=atoms.pbc, cutoff=cutoff)
    expected = np.column_stack([pairs.i, pairs.j, pairs.vectors(*place[:2])])
    found = np.column_stack([i, j, vectors])
    if not full:  # the other half has the opposite vectors
        found = np.concatenate([found, np.column_stack([j, i, -vectors])])
    for rows in (expected, found):
        rows[:, 2:] = np.round(rows[:, 2:], 6) + 0.0
    assert sorted(map(tuple, found)) == sorted(map(tuple, expected))


@pytest.mark.parametrize("cutoff", [1.3, 2.9, 7.0])
@pytest.mark.parametrize("name", SYSTEMS)
def test_whether_atoms_have_others_near_without_all_pairs(name, cutoff):
    atoms = SYSTEMS[name][0]
    place = (atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    chosen = np.arange(len(atoms))[::-1]
    expected = np.isin(chosen, pair_vectors(*place, full=True)[0])
    np.testing.assert_array_equal(near_others(*place, chosen), expected)
    np.testing.assert_array_equal(near_others(*place, chosen[:1]), expected[:1])
