"""Ends of a band: what holds them apart, and equal atoms listed in another order."""

import re
import warnings

import numpy as np
import pytest
from ase.build import add_adsorbate, bulk, fcc100, molecule
from ase.constraints import FixAtoms, FixCom
from emt_cases import adatom_hop

from dpa2calc.applications.defects.neb import nudged_elastic_band
from dpa2calc.applications.defects.neb_order import exchanged_atoms
from dpa2calc.errors import StructureError


def test_a_centre_of_mass_that_is_held_is_told_of_with_the_way_out():
    """The shift that the message names makes a band of the two ends; the barrier is that without FixCom."""
    initial, final = adatom_hop()
    initial.set_constraint()
    final.set_constraint()
    options = {"n_images": 3, "fmax": 0.1, "progress": False}
    free = nudged_elastic_band(initial, final, **options).barrier_forward
    initial.set_constraint(FixCom())
    text = r"other centres of mass, which FixCom holds; move the final state as a whole by \[(.*)\] Å, or"
    with pytest.raises(StructureError, match=text) as told:
        nudged_elastic_band(initial, final, **options)
    final.positions += np.array(re.search(text, str(told.value))[1].split(","), dtype=float)
    held = nudged_elastic_band(initial, final, **options)
    assert held.barrier_forward == pytest.approx(free, abs=0.01)


def test_constraints_of_the_final_state_that_are_others_are_told_of():
    initial, final = adatom_hop()
    held = list(final.constraints)
    final.set_constraint(FixAtoms([0]))
    with pytest.warns(UserWarning, match="the final state has other constraints than the initial one"):
        first = nudged_elastic_band(initial, final, n_images=3, fmax=0.2, progress=False)
    for same in ([], held):
        final.set_constraint(same)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = nudged_elastic_band(initial, final, n_images=3, fmax=0.2, progress=False)
        assert again.barrier_forward == pytest.approx(first.barrier_forward, abs=1e-9)


def exchange(atoms, *pairs):
    """The same structure with pairs of atoms listed in exchanged order."""
    order = list(range(len(atoms)))
    for i, j in pairs:
        order[i], order[j] = order[j], order[i]
    return atoms[order]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("pairs", [[(0, 1)], [(0, 5), (2, 7)], [(0, 1), (1, 2)], [(40, 41), (0, 3)]])
def test_atoms_listed_in_another_order_are_found(pairs, wrapped):
    """Two species in a periodic crystal; three in a ring are a cycle."""
    rng = np.random.default_rng(0)
    start = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(2)
    start = start[np.argsort(start.numbers, kind="stable")]  # 32 Na, then 32 Cl
    final = start.copy()
    final.positions += rng.normal(scale=0.1, size=final.positions.shape)
    assert exchanged_atoms(start, final) == []
    final = exchange(final, *pairs)
    if wrapped:
        final.positions += rng.integers(-2, 3, size=(64, 3)) @ final.cell.array
    cycles = exchanged_atoms(start, final)
    assert {atom for cycle in cycles for atom in cycle} == {atom for pair in pairs for atom in pair}
    order = np.arange(64)
    for cycle in cycles:
        order[cycle] = np.roll(cycle, -1)
    assert exchanged_atoms(start, final[order]) == []


def test_hops_and_exchange_mechanisms_keep_their_order():
    slab = fcc100("Al", (3, 3, 3), vacuum=8, periodic=True)
    start, hop, chain = slab.copy(), slab.copy(), slab.copy()
    add_adsorbate(start, "Al", 2.0, "hollow", offset=(0, 0))
    add_adsorbate(hop, "Al", 2.0, "hollow", offset=(1, 0))
    assert exchanged_atoms(start, hop) == []
    # the adatom goes into the surface and pushes an atom of it up on the other side
    add_adsorbate(chain, "Al", 2.0, "hollow", offset=(1, 1))
    pushed = int(
        np.argmin(
            np.linalg.norm(start.positions[:-1] - (start.positions[-1] + chain.positions[-1]) / 2, axis=1)
        )
    )
    chain.positions[[pushed, -1]] = [chain.positions[-1], start.positions[pushed]]
    assert np.linalg.norm(chain.positions - start.positions, axis=1).max() > 2
    assert exchanged_atoms(start, chain) == []


def test_inverted_ammonia_is_no_exchange():
    start, final = molecule("NH3"), molecule("NH3")
    final.positions[:, 2] *= -1
    assert exchanged_atoms(start, final) == []


@pytest.mark.filterwarnings("ignore:nudged_elastic_band is not converged")
def test_exchanged_atoms_are_named_and_the_way_out_works():
    initial, final = adatom_hop()
    swapped = exchange(final, (4, 5))
    good = nudged_elastic_band(initial, final, n_images=3, fmax=0.1, progress=False)
    with pytest.warns(UserWarning, match=r"change places between the two ends: Cu 4 and 5\. Listed") as said:
        bad = nudged_elastic_band(initial, swapped, n_images=3, fmax=0.1, max_steps=2, progress=False)
    assert bad.exchanged == [[4, 5]] and good.exchanged == []
    assert "equal atoms change places: 4 and 5" in bad.summary()
    (text,) = (str(item.message) for item in said if "change places" in str(item.message))
    scope = {"final": swapped}
    exec(text[text.index("order = list") :], scope)
    np.testing.assert_allclose(scope["final"].positions, final.positions)
