"""`energy_std`, `energies_std` and `forces_std` of a single model: physics, engines, copies, warnings."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, TYPE_MAP, make_potential
from ase import Atoms

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.errors import ConfigError, ElementError
from dpa2calc.model.rigidity import Rigidity, RigidityFacts

FACTS = RigidityFacts(scale=0.01, force_scale=1.5, frames=3, atoms=12)


def sure_potential(name="dpa2-small", *, limits=1e9):
    """A potential that knows its doubt, with a random factor for each net."""
    potential = make_potential(name)
    head = potential.heads[0]
    normal = torch.Generator().manual_seed(1)
    factor = torch.randn(len(head.nets), 10, 10, generator=normal).tril() + 2 * torch.eye(10)
    head.rigidity = Rigidity(factor, torch.full((len(TYPE_MAP),), limits), FACTS).double()
    return potential


def calculator(potential, **options):
    return DPA2Calculator(potential, dtype="float64", device="cpu", **options)


@pytest.fixture
def atoms():
    cell = [[3.9, 0.2, -0.1], [1.4, 3.6, 0.3], [-0.9, 1.1, 4.1]]
    scaled = [[0, 0, 0], [0.45, 0.5, 0.1], [0.6, 0.1, 0.55], [0.1, 0.6, 0.6]]
    return Atoms("CuOHO", scaled_positions=scaled, cell=cell, pbc=True)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_results_are_those_of_a_model_without_doubt(name, atoms):
    plain, sure = calculator(make_potential(name)), calculator(sure_potential(name))
    (expected,), (found,) = plain.evaluate([atoms]), sure.evaluate([atoms])
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=1e-11)
    assert set(found) - set(expected) == {"energy_std", "energies_std"}
    assert found["energies_std"].shape == (4,) and (found["energies_std"] > 0).all()


@pytest.mark.parametrize("name", ["dpa2-small", "deeppot-se"])
def test_copies_of_a_cell_err_together_and_nothing_else_matters(name, atoms):
    calc = calculator(sure_potential(name))
    order = [2, 0, 3, 1]
    turned = atoms.copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    turned.translate([0.3, -1.2, 7.0])
    one, two, other, moved = calc.evaluate([atoms, atoms * (2, 1, 1), atoms[order], turned])
    assert two["energy_std"] == pytest.approx(2 * one["energy_std"], rel=1e-9)
    np.testing.assert_allclose(two["energies_std"], np.tile(one["energies_std"], 2), rtol=1e-9)
    for same in (other, moved):
        assert same["energy_std"] == pytest.approx(one["energy_std"], rel=1e-9)
    np.testing.assert_allclose(other["energies_std"], one["energies_std"][order], rtol=1e-9)


@pytest.mark.parametrize("name", ["dpa2-small", "deeppot-se", "dpa1-attention"])
def test_the_energy_deviation_is_that_of_the_last_weights(name, atoms):
    """Weights moved along each direction of the posterior change the energy by a part of the deviation."""
    potential = sure_potential(name)
    calc = calculator(potential)
    (result,) = calc.evaluate([atoms])
    changes = []
    for net, factor in enumerate(potential.heads[0].rigidity.factor):
        for direction in factor:
            moved = copy.deepcopy(potential)
            moved.heads[0].nets[net].layers[-1].matrix.data[:, 0] += FACTS.scale * direction
            changes.append(calculator(moved).evaluate([atoms])[0]["energy"] - result["energy"])
    assert np.linalg.norm(changes) == pytest.approx(result["energy_std"], rel=1e-8)


@pytest.mark.parametrize("name", ["dpa2-small", "deeppot-se"])
def test_forces_std_is_the_spread_of_models_with_drawn_weights(name, atoms):
    potential = sure_potential(name)
    calc = calculator(potential)
    found = calc.get_property("forces_std", atoms)
    kinds = torch.arange(len(potential.heads[0].nets))
    draws = potential.heads[0].rigidity.draws(kinds)  # (members, n_nets, m)
    changes = []
    for draw in draws:
        moved = copy.deepcopy(potential)
        for net, change in zip(moved.heads[0].nets, draw):
            net.layers[-1].matrix.data[:, 0] += change
        changes.append(calculator(moved).get_forces(atoms) - calc.get_forces(atoms))
    np.testing.assert_allclose(found, np.sqrt(np.mean(np.square(changes), axis=0)), atol=1e-10)
    assert found.max() > 1e-4
    (batched,) = calc.evaluate([atoms], forces_std=True)
    np.testing.assert_allclose(batched["forces_std"], found, atol=1e-12)


@pytest.mark.parametrize("name", ["dpa2-small", "deeppot-se", "dpa1-attention"])
def test_the_ensemble_is_that_of_models_with_drawn_weights(name, atoms):
    potential = sure_potential(name)
    found = calculator(potential).get_ensemble(atoms)
    (base,) = calculator(potential).evaluate([atoms])
    draws = potential.heads[0].rigidity.draws(torch.arange(len(potential.heads[0].nets)))
    for member, draw in enumerate(draws[:3]):
        moved = copy.deepcopy(potential)
        for net, change in zip(moved.heads[0].nets, draw):
            net.layers[-1].matrix.data[:, 0] += change
        (result,) = calculator(moved).evaluate([atoms])
        for key in ("energy", "forces", "stress"):
            np.testing.assert_allclose(found[key][member], result[key] - base[key], atol=1e-10)
    atoms.symbols[0] = "Si"
    with pytest.raises(ElementError, match="never saw Si"):
        calculator(potential).get_ensemble(atoms)
    assert found["stress"].shape == (8, 6) and np.abs(found["stress"]).max() > 1e-5


def test_the_ensemble_of_a_committee_is_its_models(atoms):
    potentials = [sure_potential(), make_potential("dpa2-small", seed=5)]
    calc = calculator(potentials[0], committee=potentials[1:])
    found, (mean,) = calc.get_ensemble(atoms), calc.evaluate([atoms])
    for member, potential in enumerate(potentials):
        (alone,) = calculator(potential).evaluate([atoms])
        np.testing.assert_allclose(found["forces"][member] + mean["forces"], alone["forces"], atol=1e-10)
    with calc.watching() as told:
        calc.get_potential_energy(atoms)
    assert told().forces_std == pytest.approx(mean["forces_std"].max()) and told().energies_std is None
    assert "committee of 2: its members' forces differ by up to" in told().summary()


def test_what_was_met_is_that_since_the_watch_began(atoms):
    calc = calculator(sure_potential(limits=1e9))
    strange = atoms.copy()
    strange.positions[2] += 0.3
    values = [calc.evaluate([one])[0]["energies_std"] for one in (atoms, strange)]
    least = int(np.argmax([value.max() for value in values]))
    first, second = [atoms, strange][least], [strange, atoms][least]
    with calc.watching() as outer:
        calc.get_potential_energy(first)
        with calc.watching() as inner:
            assert inner().energies_std is None and "nothing was evaluated" in inner().summary()
            calc.evaluate([second])
            assert inner().energies_std == pytest.approx(values[1 - least].max())
        assert outer().energies_std == pytest.approx(values[least].max())
    with calc.watching(first) as told:  # known already, so that nothing is computed again
        assert told().energies_std == pytest.approx(values[least].max())
    assert told().head == "PBE" and told().beyond == pytest.approx(values[least].max() / 1e9)


def met(calc, atoms, *deviations):
    """What a watch tells of structures whose atoms have these deviations over their range."""
    limits = calc._check_range.limits[atoms.numbers]
    with calc.watching() as told, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for ratios in deviations:
            calc._check_range(atoms, {"energies_std": np.asarray(ratios) * limits})
        return told()


def test_one_far_atom_in_one_step_of_many_is_told_of_and_does_not_condemn_the_others(atoms):
    calc, like, one = calculator(sure_potential(limits=1e-6)), np.full(4, 0.5), np.array([0.5] * 3 + [3.5])
    doubt = met(calc, atoms, *[like] * 999, one)
    assert (doubt.structures, doubt.far_structures, doubt.share_beyond) == (1000, 1, 1 / 4000)
    assert doubt.beyond == pytest.approx(3.5) and doubt.energies_std == pytest.approx(3.5e-6)
    assert doubt.summary().endswith(
        "3.5 times its range (0.025 % of the atoms beyond theirs, beyond 3 times in 1 of 1000 structures): "
        "like its training set, but for these few structures"
    )
    assert (
        "1 of 50 structures): far from its training set: do not rely"
        in met(calc, atoms, *[like] * 49, one).summary()
    )
    assert (
        met(calc, atoms, one)
        .summary()
        .endswith("(25 % of the atoms beyond theirs): far from its training set: do not rely on it")
    )


def test_one_atom_in_a_thousand_lies_beyond_its_range_as_in_the_training_set(atoms):
    calc, like, one = calculator(sure_potential(limits=1e-6)), np.full(4, 0.5), np.array([0.5] * 3 + [1.5])
    text = met(calc, atoms, *[like] * 249, one).summary()
    assert text.endswith(
        "(0.1 % of the atoms beyond theirs, beyond 3 times in none of 250 structures): like its training set"
    )
    assert "(12 % of the atoms beyond theirs" in (text := met(calc, atoms, like, one).summary())
    assert text.endswith("at the edge of its training set")
    assert "%" not in met(calc, atoms, like, like).summary().partition("least known")[2]


def test_what_a_watch_inside_has_met_counts_outside_too_and_nothing_after_it(atoms):
    calc, like = calculator(sure_potential(limits=1e-6)), np.full(4, 0.5)
    with calc.watching() as outer:
        met(calc, atoms, like)
        with calc.watching() as inner:
            met(calc, atoms, like * 7)
        met(calc, atoms, like, like * 9)
        assert (inner().structures, inner().beyond) == (1, pytest.approx(3.5))
        assert (outer().structures, outer().far_structures, outer().beyond) == (4, 2, pytest.approx(4.5))
    met(calc, atoms, like * 20)
    assert outer().structures == 4


def test_a_model_that_was_never_measured_has_no_ensemble_and_tells_nothing(atoms):
    calc = calculator(make_potential("dpa2-small"))
    assert calc.get_ensemble(atoms) is None
    with calc.watching(atoms) as told:
        calc.get_potential_energy(atoms)
        assert told() is None


def test_forces_belong_to_the_mean_model(atoms):
    calc = calculator(sure_potential())
    atoms.calc = calc
    atoms.get_potential_energy()
    forces = calc.get_property("forces_std", atoms) * 0 + calc.get_forces(atoms)
    step = 1e-4
    for index, axis in ((0, 0), (2, 1)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[index, axis] += sign * step
            energies.append(calc.get_potential_energy(moved))
        assert forces[index, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=1e-6)


def test_per_atom_stresses_and_forces_std_in_one_call(atoms):
    calc = calculator(sure_potential())
    calc.calculate(atoms, ["stresses", "forces_std"])
    assert {"stresses", "forces_std", "energies_std"} <= set(calc.results)


@pytest.mark.parametrize("name", ["dpa1-l0", "deeppot-se"])
def test_the_streaming_engine_agrees_with_the_dense_one(name, atoms):
    pytest.importorskip("numba")
    big = atoms * (3, 2, 2)
    fast, plain = (calculator(sure_potential(name), compress=c) for c in (True, False))
    assert fast._streams and not plain._streams
    energies = [calc.get_potential_energy(big) for calc in (fast, plain)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-5)
    assert fast.results["energy_std"] == pytest.approx(plain.results["energy_std"], rel=1e-5)
    np.testing.assert_allclose(fast.results["energies_std"], plain.results["energies_std"], rtol=1e-5)


def test_a_committee_keeps_its_meaning(atoms):
    sure = sure_potential()
    other = make_potential("dpa2-small", seed=5)
    results = calculator(sure, committee=[other]).evaluate([atoms])[0]
    energies = [calculator(p).evaluate([atoms])[0]["energy"] for p in (sure, other)]
    assert results["energy_std"] == pytest.approx(np.std(energies), abs=1e-12)
    assert "energies_std" not in results and "forces_std" in results


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_know_their_doubt(again, atoms):
    calc = calculator(sure_potential())
    expected = calc.get_property("energies_std", atoms)
    np.testing.assert_allclose(again(calc).get_property("energies_std", atoms), expected, rtol=1e-12)


def test_it_does_not_enter_the_identity():
    assert calculator(sure_potential()).identity() == calculator(make_potential("dpa2-small")).identity()


def test_one_warning_for_atoms_beyond_the_training_set(atoms):
    calc = calculator(sure_potential(limits=1e-6))
    with pytest.warns(
        UserWarning, match=r"atom \d \(\w+\) of HCuO2 is far from what head 'PBE' .*rank_heads"
    ):
        calc.get_potential_energy(atoms)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.evaluate([atoms])
        calculator(sure_potential()).get_potential_energy(atoms)


def test_forces_std_of_a_model_that_was_never_measured(atoms):
    with pytest.raises(ConfigError, match=r"head 'PBE' was never measured.*dpa2calc uncertainty MODEL"):
        calculator(make_potential("dpa2-small")).evaluate([atoms], forces_std=True)
