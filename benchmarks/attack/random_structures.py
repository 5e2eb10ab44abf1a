"""Random structures of H and O for attacks: sensible ones, odd ones, and nonsense."""

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

ELEMENTS = ("O", "H")


def random_cell(rng: np.random.Generator, size: float) -> np.ndarray:
    """Cubic, orthorhombic, triclinic, sheared or left-handed (3, 3)."""
    kind = rng.integers(5)
    cell = np.diag(size * rng.uniform(0.6, 1.6, 3)) if kind else np.eye(3) * size
    if kind >= 2:
        cell = cell + rng.normal(scale=0.3 * size, size=(3, 3)) * (1 if kind > 2 else np.tri(3, k=-1))
    if kind == 4:
        cell = cell[[1, 0, 2]]
    return cell


def spaced(rng: np.random.Generator, n: int, cell: np.ndarray, gap: float) -> np.ndarray:
    """Up to n points in a cell that keep a distance, images included; (m, 3)."""
    kept: list[np.ndarray] = []
    shifts = np.array(np.meshgrid(*[[-1, 0, 1]] * 3)).reshape(3, -1).T @ cell
    for point in rng.uniform(size=(20 * n, 3)) @ cell:
        if all(np.linalg.norm(point - other + shifts, axis=1).min() > gap for other in kept):
            kept.append(point)
        if len(kept) == n:
            break
    return np.array(kept)


def sensible(rng: np.random.Generator) -> Atoms:
    """Liquids, crystals, clusters, slabs and wires of H and O at ordinary distances."""
    kind = rng.integers(4)
    if kind == 0:
        atoms = molecule("H2O")
        atoms.set_cell(random_cell(rng, rng.uniform(3, 14)))
    elif kind == 1:
        atoms = bulk("O", str(rng.choice(["sc", "bcc", "fcc"])), a=rng.uniform(2.2, 4.5))
        atoms = atoms.repeat(tuple(int(k) for k in rng.integers(1, 4, 3)))
        atoms.numbers = rng.choice([1, 8], len(atoms))
    else:
        cell = random_cell(rng, rng.uniform(3, 9))
        points = spaced(rng, int(rng.integers(1, 40)), cell, rng.uniform(0.7, 1.5))
        atoms = Atoms(rng.choice(ELEMENTS, len(points)), positions=points, cell=cell)
    atoms.rattle(rng.choice([0.0, 0.01, 0.1]), rng=rng)
    atoms.pbc = rng.integers(0, 2, 3) if rng.integers(2) else bool(rng.integers(2))
    return atoms


def odd(rng: np.random.Generator) -> Atoms:
    """A sensible structure with something unusual about its cell or its positions."""
    atoms = sensible(rng)
    cell = np.array(atoms.cell.array)
    free = np.flatnonzero(~atoms.pbc)
    kind = rng.integers(8)
    if kind == 0 and len(free):  # no vector, a tiny one or a dependent one where nothing is periodic
        cell[rng.choice(free)] = rng.choice([0.0, 1e-300, 1e-12, 1e-3]) * rng.normal(size=3)
    elif kind == 1 and len(free):
        k = rng.choice(free)
        cell[k] = cell[(k + 1) % 3] * rng.uniform(0.5, 2) + rng.choice([0, 1e-14, 1e-9]) * rng.normal(size=3)
    elif kind == 2:  # far away, by whole cells or in empty space
        atoms.positions += rng.choice([10.0, 1e4, 1e6]) * rng.normal(size=3)
    elif kind == 3:
        cell = cell * rng.choice([0.3, 3.0, 1e3])
    elif kind == 4:
        cell[rng.integers(3)] *= rng.choice([100.0, 1e5, 1e8])
    elif kind == 5 and len(atoms):
        atoms.positions[rng.integers(len(atoms))] += 10.0 ** rng.uniform(0, 8) * rng.normal(size=3)
    elif kind == 6 and len(atoms) > 1:
        atoms.positions[1] = atoms.positions[0] + 10.0 ** rng.uniform(-9, 0) * rng.normal(size=3)
    else:
        cell = cell + rng.integers(-4, 5, (3, 3)) @ cell  # another set of vectors, often sheared or singular
    atoms.set_cell(cell)
    return atoms


def nonsense(rng: np.random.Generator) -> Atoms:
    """Numbers that should be refused, most of them."""
    n = int(rng.integers(0, 6))
    values = np.array([0.0, 1e-300, 1e-9, 1.0, 3.0, 1e7, 1e9, 1e300, np.nan, np.inf, -np.inf])
    chance = values[rng.integers(len(values), size=(n + 3, 3))] * rng.choice([1, 1, 1, -1], (n + 3, 3))
    mix = np.where(rng.uniform(size=(n + 3, 3)) < 0.8, rng.uniform(0, 6, (n + 3, 3)), chance)
    symbols = rng.choice(["O", "H", "H", "O", "Cu", "X"], n)
    return Atoms(list(symbols), positions=mix[3:], cell=mix[:3], pbc=rng.integers(0, 2, 3))
