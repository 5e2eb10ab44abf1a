"""Small, fast calculators with known physics."""

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list


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
