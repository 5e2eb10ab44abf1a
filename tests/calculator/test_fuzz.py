"""Whatever `ase.Atoms` can hold gives finite numbers or one of our errors, never a silent NaN."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.errors import DPA2CalcError
from dpa2calc.structures.lattice import cell_volume

SETTINGS = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
lengths = st.one_of(
    st.floats(-6, 6),
    st.sampled_from([0.0, -0.0, 1e-300, 1e-12, 1e-5, 0.01, 1e4, 1e7, 1e9, 1e300, np.nan, np.inf, -np.inf]),
)
sane = st.floats(-6, 6)
symbols = st.sampled_from(["O", "H", "Cu", "Cu", "O", "H", "X", "Si"])


@st.composite
def structures(draw, number=lengths, symbol=symbols):
    """Atoms with any positions, cell and pbc, most of them nonsense."""
    n = draw(st.integers(0, 5))
    positions = [[draw(number) for _ in range(3)] for _ in range(n)]
    kind = draw(st.sampled_from(["none", "box", "any"]))
    cell = {
        "none": lambda: np.zeros((3, 3)),
        "box": lambda: np.diag([draw(st.floats(2.0, 9.0)) for _ in range(3)]),
        "any": lambda: np.array([[draw(number) for _ in range(3)] for _ in range(3)]),
    }[kind]()
    return Atoms(
        [draw(symbol) for _ in range(n)],
        positions=np.array(positions).reshape(n, 3),
        cell=cell,
        pbc=[draw(st.booleans()) for _ in range(3)],
    )


@pytest.fixture(scope="module", params=["dpa2-all-updates", "dpa1-attention", "deeppot-se"])
def calculators(request, potential_of):
    """float32 and float64 of one architecture."""
    potential = potential_of(request.param)
    return [DPA2Calculator(potential, dtype=dtype) for dtype in ("float32", "float64")]


def assert_finite_or_refused(calc, atoms):
    before = atoms.copy()
    results = None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "atoms .* are only", UserWarning)
        try:
            calc.get_potential_energy(atoms)
            results = calc.results
            if "stress" in results:
                calc.get_stresses(atoms)
        except DPA2CalcError as error:
            assert len(str(error)) > 20
            assert calc.results == {}
        try:
            calc.get_stress(atoms)
        except (DPA2CalcError, PropertyNotImplementedError):
            pass
    if results:
        for key, value in results.items():
            assert np.isfinite(value).all(), key
        assert results["forces"].shape == (len(atoms), 3)
    np.testing.assert_array_equal(atoms.positions, before.positions)
    np.testing.assert_array_equal(atoms.cell.array, before.cell.array)


@SETTINGS
@given(atoms=structures())
def test_nonsense_is_refused_or_finite(calculators, atoms):
    for calc in calculators:
        assert_finite_or_refused(calc, atoms)


@SETTINGS
@given(atoms=structures(number=sane, symbol=st.sampled_from(["O", "H", "Cu"])))
def test_random_structures_give_balanced_forces(calculators, atoms):
    calc = calculators[1]
    assert_finite_or_refused(calc, atoms)
    if calc.results:
        scale = max(1.0, abs(calc.results["forces"]).max())
        np.testing.assert_allclose(calc.results["forces"].sum(axis=0), 0, atol=1e-8 * scale)


@SETTINGS
@given(batch=st.lists(structures(number=sane), max_size=4), batch_atoms=st.integers(1, 12))
def test_lists_are_evaluated_or_refused_with_the_number_of_the_structure(calculators, batch, batch_atoms):
    calc = calculators[1]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "atoms .* are only", UserWarning)
        try:
            results = calc.evaluate(batch, batch_atoms=batch_atoms)
        except DPA2CalcError as error:
            assert str(error).startswith("structure ")
            return
    assert len(results) == len(batch)
    for result, atoms in zip(results, batch):
        assert np.isfinite(result["energy"]) and result["forces"].shape == (len(atoms), 3)
        assert ("stress" in result) == bool(atoms.pbc.any() and cell_volume(atoms) is not None)
