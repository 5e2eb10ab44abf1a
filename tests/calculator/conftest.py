"""A zoo of structures, and calculators of every architecture, shared by the tests of the calculator."""

from collections.abc import Callable

import numpy as np
import pytest
from architectures import ARCHITECTURES, make_potential
from ase import Atoms
from ase.build import bulk, molecule

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.model.potential import Potential


@pytest.fixture(scope="session")
def potential_of() -> Callable[..., Potential]:
    """`make_potential`, for tests that want a potential of their own."""
    return make_potential


@pytest.fixture(scope="session", params=ARCHITECTURES)
def architecture(request) -> str:
    """The name of every architecture in turn."""
    return request.param


@pytest.fixture(scope="session")
def potential(architecture) -> Potential:
    """A potential of every architecture in turn."""
    return make_potential(architecture)


@pytest.fixture(scope="session")
def calc(potential) -> DPA2Calculator:
    """A float64 calculator of every architecture in turn."""
    return DPA2Calculator(potential, dtype="float64", device="cpu")


@pytest.fixture(scope="session")
def one_calc() -> DPA2Calculator:
    """One float64 calculator, where the architecture does not matter."""
    return DPA2Calculator(make_potential("dpa2-small"), dtype="float64", device="cpu")


def _bulk() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[1:3] = ["O", "H"]
    return atoms


def _triclinic() -> Atoms:
    cell = [[3.9, 0.2, -0.1], [1.4, 3.6, 0.3], [-0.9, 1.1, 4.1]]
    scaled = [[0, 0, 0], [0.45, 0.5, 0.1], [0.6, 0.1, 0.55], [0.1, 0.6, 0.6]]
    return Atoms("CuOHO", scaled_positions=scaled, cell=cell, pbc=True)


def _short() -> Atoms:
    """A cell shorter than every cutoff: an atom meets its own images."""
    return Atoms("OH", [[0, 0, 0], [1.3, 1.0, 0.9]], cell=[2.6, 2.7, 2.5], pbc=True)


def _slab() -> Atoms:
    """pbc TTF, thinner than the cutoff and with little vacuum, so full pbc would be another energy."""
    atoms = Atoms("CuOHCu", [[0, 0, 0], [1.6, 1.5, 0.7], [0.3, 1.6, 1.7], [1.9, 0.2, 2.2]])
    atoms.set_cell([3.3, 3.1, 4.5])
    atoms.pbc = (True, True, False)
    return atoms


def _wire() -> Atoms:
    atoms = Atoms(
        "OHCu", [[0, 0, 0], [1.1, 0.6, 0.3], [2.0, -0.8, 0.9]], cell=[[3.4, 0.5, 0], [0, 4, 0], [0, 0, 4]]
    )
    atoms.pbc = (True, False, False)
    return atoms


def _compressed() -> Atoms:
    """More neighbours than nsel: the constants of the model stay, the sums go on."""
    return Atoms("CuOHO", bulk("Cu", cubic=True).positions * 0.62, cell=[2.24, 2.3, 2.2], pbc=True)


STRUCTURES = {
    "bulk": _bulk,
    "triclinic": _triclinic,
    "short-cell": _short,
    "slab": _slab,
    "wire": _wire,
    "molecule": lambda: molecule("H2O"),
    "single-atom": lambda: Atoms("Cu", [[0.3, 0.1, -0.2]]),
    "compressed": _compressed,
}


@pytest.fixture(params=STRUCTURES)
def atoms(request) -> Atoms:
    """Every structure in turn, rattled so that no symmetry hides an error."""
    structure = STRUCTURES[request.param]()
    structure.rattle(0.05, rng=np.random.default_rng(7))
    return structure


@pytest.fixture
def structure_of() -> Callable[[str], Atoms]:
    """One structure of the zoo by name, rattled."""

    def make(name: str) -> Atoms:
        structure = STRUCTURES[name]()
        structure.rattle(0.05, rng=np.random.default_rng(7))
        return structure

    return make
