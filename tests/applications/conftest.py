"""Random walks with known diffusion coefficients, and small, fast calculators with known physics."""

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from emt_cases import with_emt

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


class Quick(Calculator):
    """ASE's comparison of atoms takes longer than these small systems; this one is enough here."""

    def check_state(self, atoms, tol=1e-15):
        mine = self.atoms
        if mine is None or len(mine) != len(atoms):
            return list(all_changes)
        same = np.array_equal(mine.positions, atoms.positions) and np.array_equal(mine.cell, atoms.cell)
        return [] if same else ["positions", "cell"]


class SoftSpheres(Quick):
    """E = sum over nearest-image pairs of A (1 - (r/rc)^2)^3 for r < rc: smooth, anharmonic, vectorised."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, strength: float = 20.0, cutoff: float = 3.6) -> None:
        super().__init__()
        self.strength, self.cutoff = strength, cutoff

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        cell = self.atoms.cell.array
        vectors = self.atoms.positions[None] - self.atoms.positions[:, None]  # (n, n, 3), from i to j
        vectors = vectors - np.round(vectors @ np.linalg.inv(cell)) @ cell
        x = (vectors**2).sum(axis=2) / self.cutoff**2  # (n, n)
        np.fill_diagonal(x, 1.0)
        rest = np.where(x < 1, 1 - x, 0.0)
        slope = -6 * self.strength * rest**2 / self.cutoff**2  # dE/dr over r, per pair
        pair = 0.5 * slope[..., None] * vectors
        energy = 0.5 * self.strength * float((rest**3).sum())
        virial = np.einsum("ija,ijb->ab", pair, vectors)
        stress = virial / self.atoms.get_volume()
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": 2 * pair.sum(axis=1),
            "stress": stress.flat[[0, 4, 8, 5, 2, 1]],
        }


class Springs(Quick):
    """Springs between neighbours of a crystal: stable, nearly harmonic, any cell shape.

    With rest="shortest" only the nearest neighbours; with "each", all within the radius, each at rest
    at its own length.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(
        self, crystal: Atoms, constant: float = 2.0, radius: float = 3.0, rest: str = "shortest"
    ) -> None:
        super().__init__()
        first, second, distances, shifts = neighbor_list("ijdS", crystal, radius)
        keep = (first < second) | ((first == second) & (shifts @ [1, 10, 100] > 0))
        self.first, self.second, self.shifts = first[keep], second[keep], shifts[keep]
        self.length = distances.min() if rest == "shortest" else distances[keep]
        self.constant = constant

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions
        vectors = x[self.second] - x[self.first] + self.shifts @ self.atoms.cell.array  # (n_pairs, 3)
        lengths = np.linalg.norm(vectors, axis=1)
        stretch = lengths - self.length
        pull = (self.constant * stretch / lengths)[:, None] * vectors  # force on `first`
        forces = np.zeros_like(x)
        np.add.at(forces, self.first, pull)
        np.add.at(forces, self.second, -pull)
        stress = pull.T @ vectors / self.atoms.get_volume()
        energy = 0.5 * self.constant * float(stretch @ stretch)
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}
        self.results["stress"] = stress.flat[[0, 4, 8, 5, 2, 1]]


class IdealGas(Quick):
    """No forces at all."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        zero = np.zeros((len(atoms), 3))
        self.results = {"energy": 0.0, "free_energy": 0.0, "forces": zero, "stress": np.zeros(6)}


class Remembering(SoftSpheres):
    """Forces whose last bits depend on how many evaluations came since the last reset.

    This stands for a neighbour list that is kept for some steps: the order of its sums differs
    after a restart unless the calculator forgets it at the same steps in both runs.
    """

    calls = 0
    break_at: int | None = None
    total = 0

    def reset(self):
        super().reset()
        self.calls = 0

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.calls += 1
        self.total += 1
        if self.break_at == self.total:
            raise KeyboardInterrupt
        self.results["forces"] = self.results["forces"] * (1 + 1e-13 * self.calls)


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
