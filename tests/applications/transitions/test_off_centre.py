"""Cages and off-centre displacements, perovskite supercells."""

import numpy as np
import pytest

from dpa2calc.applications import find_cages, perovskite, solid_solution
from dpa2calc.applications.transitions.off_centre import direction_name
from dpa2calc.errors import ConfigError, StructureError


@pytest.mark.parametrize("repeats", [(1, 1, 1), (2, 2, 2), (3, 2, 1)])
@pytest.mark.parametrize(("centre", "n_members"), [("Ti", 6), ("Pb", 12)])
def test_displacements_are_exact_in_any_cell_and_wrapped(repeats, centre, n_members):
    ideal = perovskite("Pb", "Ti", repeats=repeats, lattice_constant=3.9)
    cages = find_cages(ideal, centre, "O", n_members)
    assert np.abs(cages.displacements(ideal)).max() < 1e-12
    rng = np.random.default_rng(1)
    moved = ideal.copy()
    shift = rng.normal(0, 0.15, (len(cages.centres), 3))
    moved.positions[cages.centres] += shift
    strain = np.eye(3) + rng.normal(0, 0.02, (3, 3))
    expected = shift @ strain
    moved.set_cell(moved.cell.array @ strain, scale_atoms=True)
    moved.positions += [7.3, -2.2, 11.1]
    assert np.allclose(cages.displacements(moved), expected, atol=1e-12)
    moved.wrap()
    assert np.allclose(cages.displacements(moved), expected, atol=1e-12)


def test_several_elements_share_the_b_site():
    fractions = {"Ti": 0.5, "Nb": 0.25, "Mg": 0.25}
    atoms = perovskite("Pb", fractions, repeats=(2, 2, 2))
    cages = find_cages(atoms, "Ti+Nb+Mg", "O", 6)
    assert len(cages.centres) == 8
    polar = perovskite("Pb", fractions, repeats=(2, 2, 2), polar_shift=0.2)
    assert np.allclose(cages.displacements(polar), [0, 0, 0.2])
    along = perovskite("Pb", fractions, repeats=(2, 2, 2), polar_shift=(0.1, -0.1, 0.1))
    assert np.allclose(cages.displacements(along), [0.1, -0.1, 0.1])


def test_cage_errors():
    ideal = perovskite("Pb", "Ti", repeats=(2, 2, 2))
    with pytest.raises(ConfigError, match="no Zr in the structure, which has O, Pb, Ti; name elements"):
        find_cages(ideal, "Zr", "O", 6)
    with pytest.raises(StructureError, match=r"the cage of 5 O around atom 8 \(Ti\) does not close: the"):
        find_cages(ideal, "Ti", "O", 5)
    with pytest.raises(StructureError, match="the frame has other atoms than the reference"):
        find_cages(ideal, "Ti", "O", 6).displacements(ideal[:-1])


def test_a_cluster_needs_a_box():
    cluster = perovskite("Pb", "Ti")
    cluster.cell, cluster.pbc = None, False
    with pytest.raises(StructureError, match="cages need a cell with a volume"):
        find_cages(cluster, "Ti", "O", 3)
    cluster.center(vacuum=6.0)
    assert find_cages(cluster, "Ti", "O", 3).members.shape == (1, 3)


def test_directions_have_names():
    cell = np.diag([4.0, 4.0, 4.2])
    assert direction_name(np.array([0, 0.01, -0.3]), cell) == "[0 0 -1]"
    assert direction_name(np.array([0.2, 0.21, 0.01]), cell) == "[1 1 0]"
    assert direction_name(np.array([-0.2, 0.21, 0.19]), cell) == "[-1 1 1]"
    assert direction_name(np.array([0, 0, 0.01]), cell, threshold=0.02) == "none"


def test_perovskite_has_the_right_neighbours_and_composition():
    atoms = perovskite("Pb", "Ti", repeats=(2, 2, 2), lattice_constant=4.0)
    assert atoms.get_chemical_formula() == "O24Pb8Ti8"
    distances = atoms.get_all_distances(mic=True)
    ti, oxygen = np.flatnonzero(atoms.symbols == "Ti"), np.flatnonzero(atoms.symbols == "O")
    pb = np.flatnonzero(atoms.symbols == "Pb")
    assert np.all(np.isclose(distances[np.ix_(ti, oxygen)], 2.0).sum(axis=1) == 6)
    assert np.all(np.isclose(distances[np.ix_(pb, oxygen)], np.sqrt(8)).sum(axis=1) == 12)


def test_solid_solutions_of_the_paper():
    one = solid_solution(PIN=0.29, PMN=0.45, PT=0.26)
    assert one == pytest.approx({"In": 0.145, "Nb": 0.445, "Mg": 0.15, "Ti": 0.26})
    charges = {"In": 3, "Nb": 5, "Mg": 2, "Ti": 4}
    assert sum(charges[name] * value for name, value in one.items()) == pytest.approx(4)
    atoms = perovskite("Pb", one, repeats=(6, 6, 6), lattice_constant=4.05, seed=1)
    counts = {name: int((atoms.symbols == name).sum()) for name in one}
    assert counts == {"In": 31, "Nb": 96, "Mg": 33, "Ti": 56} or sum(counts.values()) == 216
    assert all(abs(counts[name] - one[name] * 216) <= 1 for name in one)
    other = perovskite("Pb", one, repeats=(6, 6, 6), lattice_constant=4.05, seed=2)
    assert str(other.symbols) != str(atoms.symbols)
    with pytest.raises(ConfigError, match=r"add up to 0\.7; they must be 0 or more and add up to 1"):
        solid_solution(PIN=0.3, PT=0.4)
    with pytest.raises(ConfigError, match="they must be 0 or more"):
        solid_solution(PZ=-0.2, PT=1.2)
    with pytest.raises(ConfigError, match="sites = 0 is not allowed"):
        solid_solution(PT=1, sites=0)
    with pytest.raises(ConfigError, match="PMT is not a known end member; the names are PT, PZ, PMN"):
        solid_solution(PMT=1)


def test_rocksalt_order_keeps_unlike_neighbours():
    atoms = perovskite("Pb", {"Mg": 0.5, "Nb": 0.5}, repeats=(4, 4, 4), ordering="rocksalt")
    sites = np.flatnonzero(np.isin(atoms.get_chemical_symbols(), ["Mg", "Nb"]))
    near = np.isclose(atoms.get_all_distances(mic=True)[np.ix_(sites, sites)], 4.0)
    symbols = np.array(atoms.get_chemical_symbols())[sites]
    unlike = symbols[:, None] != symbols[None]
    assert near.sum() == 64 * 6 and np.all(unlike[near])
    with pytest.raises(ConfigError, match=r"rocksalt order needs even repeats, not \(3, 2, 2\)"):
        perovskite("Pb", {"Mg": 0.5, "Nb": 0.5}, repeats=(3, 2, 2), ordering="rocksalt")


def test_whole_formula_units_keep_a_supercell_neutral():
    charge = {"In": 3, "Nb": 5, "Mg": 2, "Ti": 4}
    for parts in ({"PIN": 0.29, "PMN": 0.45, "PT": 0.26}, {"PIN": 0.36, "PMN": 0.36, "PT": 0.28}):
        for n in (2, 4, 6):
            fractions = solid_solution(**parts, sites=n**3)
            atoms = perovskite("Pb", fractions, repeats=(n, n, n))
            assert sum(charge.get(symbol, 0) for symbol in atoms.symbols) == 4 * n**3
            if n == 6:
                exact = solid_solution(**parts)
                assert all(abs(fractions[name] - exact[name]) < 0.01 for name in exact)
    with pytest.raises(ConfigError, match="1 sites cannot hold whole formula units of PIN, PMN"):
        solid_solution(PIN=0.5, PMN=0.5, sites=1)


def test_whole_formula_units_of_large_supercells_are_those_of_a_full_search():
    parts, sizes = {"PIN": 0.41, "PMN": 0.3, "PZN": 0.29}, {"PIN": 2, "PMN": 3, "PZN": 3}

    def away(n_pin, n_pmn, n_pzn, sites):
        counts = {"PIN": n_pin, "PMN": n_pmn, "PZN": n_pzn}
        return sum((counts[k] * sizes[k] / sites - parts[k]) ** 2 for k in parts)

    for sites in (5, 12, 31, 64):
        found = [
            (away(i, j, (sites - 2 * i - 3 * j) // 3, sites), i, j)
            for i in range(sites // 2 + 1)
            for j in range((sites - 2 * i) // 3 + 1)
            if (sites - 2 * i - 3 * j) % 3 == 0
        ]
        _, n_pin, n_pmn = min(found)
        fractions = solid_solution(**parts, sites=sites)
        assert fractions["In"] * sites == pytest.approx(n_pin)
        assert fractions.get("Mg", 0.0) * sites == pytest.approx(n_pmn)
    many = solid_solution(PIN=0.29, PMN=0.45, PT=0.26, sites=8000)  # billions of combinations
    assert many["Ti"] * 8000 == pytest.approx(2080) and many["Mg"] * 8000 == pytest.approx(1200)
