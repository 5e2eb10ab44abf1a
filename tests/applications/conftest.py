"""Random walks with known diffusion coefficients, and structures with the forces of `simple_forces`."""

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from emt_cases import with_emt
from simple_forces import IdealGas, Remembering, SoftSpheres, Springs

from dpa2calc.applications import Paths


def _walk(
    n_frames: int, n_atoms: int, *, coefficient: float = 0.1, interval_ps: float = 0.1, seed: int = 0
) -> np.ndarray:
    """Brownian displacements (n_frames, n_atoms, 3) with a diffusion coefficient in Å²/ps."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(n_frames, n_atoms, 3)) * np.sqrt(2.0 * coefficient * interval_ps)
    steps[0] = 0.0
    return np.cumsum(steps, axis=0)


def _paths(displacements: np.ndarray, *, interval_ps: float = 0.1, length: float = 20.0) -> Paths:
    return Paths(
        species="Li",
        start=np.zeros(displacements.shape[1:]),
        displacements=displacements,
        interval_ps=interval_ps,
        cell=length * np.eye(3),
        pbc=np.array([True] * 3),
        drift="framework",
        drift_path=np.zeros((len(displacements), 3)),
        host_symbols=("S",),
        host_positions=np.zeros((1, 3)),
    )


def _frames(
    displacements: np.ndarray, cell: np.ndarray, *, host: str = "S20", wrap: bool = True, seed: int = 0
) -> list[Atoms]:
    """Li that move as told through a lattice of still host atoms."""
    rng = np.random.default_rng(seed)
    n = displacements.shape[1]
    atoms = Atoms(f"Li{n}{host}", cell=cell, pbc=True)
    atoms.positions = rng.random((len(atoms), 3)) @ cell
    frames = []
    for moved in displacements:
        frames.append(atoms.copy())
        frames[-1].positions[:n] += moved
        if wrap:
            frames[-1].wrap()
    return frames


@pytest.fixture
def brownian_walk() -> Callable[..., np.ndarray]:
    """walk(n_frames, n_atoms, coefficient=0.1, interval_ps=0.1, seed=0) -> (n_frames, n_atoms, 3) in Å."""
    return _walk


@pytest.fixture
def paths_of() -> Callable[..., Paths]:
    """paths_of(displacements, interval_ps=0.1, length=20.0) -> Paths of Li in a cubic cell."""
    return _paths


@pytest.fixture
def frames_of() -> Callable[..., list[Atoms]]:
    """frames_of(displacements, cell, host="S20", wrap=True) -> list of Atoms."""
    return _frames


@pytest.fixture(scope="session")
def soft_spheres():
    """Make a dense liquid of soft spheres: 12 atoms of mass 40 in a cube."""

    def make(calculator=None, n_atoms=12):
        rng = np.random.default_rng(3)
        side = 8.6
        atoms = Atoms(f"Ar{n_atoms}", positions=rng.random((n_atoms, 3)) * side, cell=[side] * 3, pbc=True)
        atoms.calc = calculator or SoftSpheres()
        for _ in range(200):  # slide down to where no pair overlaps badly
            forces = atoms.get_forces()
            atoms.positions += 0.02 * forces / max(1.0, np.abs(forces).max())
        return atoms

    return make


@pytest.fixture(scope="session")
def spring_crystal():
    """Make fcc copper of 32 atoms with springs between nearest neighbours; bulk modulus about 50 GPa."""

    def make():
        atoms = bulk("Cu", cubic=True, a=3.6) * (2, 2, 2)
        atoms.calc = Springs(atoms)
        return atoms

    return make


@pytest.fixture(scope="session")
def remembering():
    """The class of a calculator whose forces depend on its history since `reset`."""
    return Remembering


@pytest.fixture(scope="session")
def ideal_gas():
    """Make atoms without forces."""

    def make(n_atoms):
        rng = np.random.default_rng(5)
        atoms = Atoms(f"Ar{n_atoms}", positions=rng.random((n_atoms, 3)) * 20, cell=[20] * 3, pbc=True)
        atoms.calc = IdealGas()
        return atoms

    return make


@pytest.fixture(scope="session")
def copper():
    """Make fcc copper with ASE's EMT, which keeps a neighbour list for some steps."""

    def make(repeat=(2, 1, 1)):
        return with_emt(bulk("Cu", cubic=True) * repeat)

    return make


@pytest.fixture(scope="session")
def springs_class():
    """The class of a calculator of springs, to build on."""
    return Springs
