"""Nothing that the caller has switched on around a call changes a number."""

import functools
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from modes import MODES

from dpa2calc import DPA2Calculator, load_model
from dpa2calc.ambient import gradient, own_modes
from dpa2calc.store.checkpoint import save_checkpoint
from dpa2calc.structures.graph_builder import graph_from_atoms


@pytest.fixture(params=MODES)
def mode(request) -> Callable[[], Any]:
    """Every mode in turn."""
    return MODES[request.param]


@pytest.fixture(scope="module")
def crystal():
    """Four elements' worth of forces and a stress."""
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[1:3] = ["O", "H"]
    atoms.rattle(0.05, seed=3)
    return atoms


def _all_results(calc: DPA2Calculator, atoms) -> dict[str, Any]:
    """What every entry of a calculator says."""
    own = atoms.copy()
    own.calc = calc
    calc.reset()
    found = {"single": own.get_forces(), "stresses": own.get_stresses(), "stress": own.get_stress()}
    (many,) = calc.evaluate([atoms], stresses=True)
    found |= {f"many {key}": value for key, value in many.items()}
    if len(calc._members) > 1:
        found["forces_std"] = calc.results["forces_std"]
    return found | {"descriptors": calc.get_descriptors(atoms)}


def _equal(got: dict[str, Any], right: dict[str, Any]) -> None:
    assert got.keys() == right.keys()
    for key, value in right.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)
    assert np.abs(got["single"]).max() > 1e-3


CASES = [("dpa2-all-updates", "float32"), ("dpa2-paper", "float64"), ("dpa1-attention", "float32")]


@pytest.fixture(scope="module")
def outside(crystal, potential_of) -> Callable[..., tuple[Any, DPA2Calculator, dict[str, Any]]]:
    """Function: a potential, a calculator of it, and what that says outside all modes; once each."""

    @functools.cache
    def of(name: str, **options: Any) -> tuple[Any, DPA2Calculator, dict[str, Any]]:
        potential = potential_of(name)
        calc = DPA2Calculator(potential, device="cpu", **options)
        return potential, calc, _all_results(calc, crystal)

    return of


@pytest.mark.parametrize("name, dtype", CASES)
def test_results_are_those_outside(mode, name, dtype, crystal, outside):
    potential, calc, right = outside(name, dtype=dtype)
    with mode():
        inside = _all_results(calc, crystal)
        made = DPA2Calculator(potential, dtype=dtype, device="cpu")
        made_inside = _all_results(made, crystal)
        loaded = pickle.loads(pickle.dumps(calc))
    _equal(inside, right)
    _equal(made_inside, right)
    _equal(_all_results(made, crystal), right)
    _equal(_all_results(loaded, crystal), right)


def test_committee(mode, crystal, potential_of):
    calc = DPA2Calculator(
        potential_of("dpa2-small"), device="cpu", committee=[potential_of("dpa2-small", seed=1)]
    )
    right = _all_results(calc, crystal)
    with mode():
        _equal(_all_results(calc, crystal), right)
    assert right["forces_std"].max() > 1e-3


@pytest.mark.parametrize("name", ["dpa1-l0", "deeppot-se"])
def test_compressed(mode, name, crystal, outside):
    pytest.importorskip("numba")
    potential, calc, right = outside(name, compress=True)
    assert calc._streams
    with mode():
        made = DPA2Calculator(potential, device="cpu", compress=True)
        _equal(_all_results(calc, crystal), right)
    _equal(_all_results(made, crystal), right)


def test_dispersion(mode, crystal, potential_of):
    pytest.importorskip("dftd3")
    calc = DPA2Calculator(potential_of("dpa1-l0"), device="cpu", dispersion="d3bj:pbe")
    (right,) = calc.evaluate([crystal])
    with mode():
        (got,) = calc.evaluate([crystal])
    for key, value in right.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


def test_files_and_potentials(mode, crystal, potential_of, tmp_path):
    potential = potential_of("dpa2-all-updates")
    right = potential.compute(graph_from_atoms(crystal, potential.config), atomic_virial=True)
    with mode():
        save_checkpoint(potential, tmp_path / "model.safetensors")
        loaded = load_model(tmp_path / "model.safetensors")
        graph = graph_from_atoms(crystal, potential.config)
        inside = loaded.compute(graph, atomic_virial=True)
    outside = loaded.compute(graph, atomic_virial=True)
    assert loaded.dtype == potential.dtype
    for got in (inside, outside):
        for name in ("energy", "atomic_energies", "forces", "virial", "atomic_virial"):
            assert torch.equal(getattr(got, name).detach(), getattr(right, name).detach()), name


def test_graphs_made_in_inference_mode_can_be_differentiated(crystal, potential_of):
    potential = potential_of("dpa2-small")
    graph = graph_from_atoms(crystal, potential.config)
    with torch.inference_mode():
        made = graph.__class__(**{k: v.clone() if hasattr(v, "clone") else v for k, v in vars(graph).items()})
    right, got = potential.compute(graph), potential.compute(made)
    assert torch.equal(got.forces, right.forces)


def test_no_gradient_is_not_a_zero_gradient():
    x = torch.zeros(2, 3)
    with torch.no_grad(), pytest.raises(RuntimeError, match="gradients are switched off"):
        gradient(x.sum(), x, retain_graph=False)


def test_the_callers_modes_are_back_afterwards(mode, crystal, one_calc):
    def state() -> tuple[Any, ...]:
        return (
            torch.is_inference_mode_enabled(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
            np.geterr(),
            list(warnings.filters),
        )

    with mode():
        before = state()
        one_calc.evaluate([crystal])
        assert state() == before


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads(threads, crystal, potential_of):
    before = torch.get_num_threads()
    calc = DPA2Calculator(potential_of("dpa2-all-updates"), dtype="float64", device="cpu")
    right = _all_results(calc, crystal)
    try:
        torch.set_num_threads(threads)
        got = _all_results(calc, crystal)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for key, value in right.items():
        np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-11, err_msg=key)


def test_gradients_can_be_left_to_the_caller():
    with torch.no_grad(), own_modes(grad=False):
        assert not torch.is_grad_enabled()
    with torch.no_grad(), own_modes():
        assert torch.is_grad_enabled()


def test_a_potential_converted_in_inference_mode(crystal, potential_of):
    potential = potential_of("dpa2-small")
    graph = graph_from_atoms(crystal, potential.config)
    right = potential.compute(graph).forces
    with torch.inference_mode():
        single = potential_of("dpa2-small").to(torch.float32)
    assert not any(p.is_inference() for p in single.parameters())
    np.testing.assert_allclose(single.compute(graph).forces, right.detach(), atol=1e-5)


def test_two_threads_give_the_same_bits_every_time(crystal, potential_of):
    pytest.importorskip("numba")
    atoms, before = crystal.repeat((3, 3, 2)), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        calc = DPA2Calculator(potential_of("dpa1-l0"), device="cpu", compress=True)
        right = _all_results(calc, atoms)
        for _ in range(5):
            _equal(_all_results(calc, atoms), right)
    finally:
        torch.set_num_threads(before)
