"""Random walks with known diffusion coefficients."""

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms

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
