"""Slabs, 2-D crystals and wires: strain and stress in the periodic directions alone."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.structures.lattice import cell_volume

LAYER = 3.0  # Å of room that is added to the extent of the atoms: about one layer


def check_partly_periodic(atoms: Atoms, what: str, pressure: float) -> None:
    """Raise unless the cell can be strained in its periodic directions.

    Raises:
        StructureError: no periodic direction, or no cell vector across the vacuum.
        ConfigError: a pressure, which needs three periodic directions.
    """
    if not atoms.pbc.any():
        raise StructureError(
            f"{what} needs a crystal, periodic in three directions, or a slab or wire, periodic in some; pbc "
            f"is {atoms.pbc.tolist()}. A molecule has no cell to change; set atoms.pbc if this is none"
        )
    if cell_volume(atoms) is None:
        raise StructureError(
            f"{what} needs three cell vectors, as stress is per volume, but the lengths are "
            f"{np.round(atoms.cell.lengths(), 3).tolist()} Å; give the vacuum a vector, for example with "
            "atoms.center(vacuum=8, axis=2)"
        )
    if pressure and not atoms.pbc.all():
        raise ConfigError(
            f"{what}: a pressure of {pressure:g} GPa with pbc {atoms.pbc.tolist()} has no meaning, as the "
            "volume of the cell is mostly vacuum; use 0, or a crystal that is periodic in three directions"
        )


def periodic_projector(atoms: Atoms) -> np.ndarray:
    """Projector (3, 3) on the space of the periodic cell vectors."""
    vectors = atoms.cell.array[atoms.pbc]  # (n_periodic, 3)
    return vectors.T @ np.linalg.pinv(vectors.T)


def strain_basis(atoms: Atoms, freedom: str) -> np.ndarray:
    """Orthonormal symmetric strains (n, 3, 3) of the periodic directions that a kind of freedom allows.

    Args:
        freedom: "volume" (equal in all periodic directions), "axes" (lengths along x, y, z), "shape" (at
            constant area) or "cell".

    Raises:
        ConfigError: nothing is left to change, or "axes" with periodic directions that are not along x, y, z.
    """
    projector = periodic_projector(atoms)
    n = round(float(np.trace(projector)))
    if freedom == "volume":
        return projector[None] / np.sqrt(n)
    if freedom == "axes":
        if not np.allclose(projector, np.diag(np.diag(projector)), atol=1e-6):
            raise ConfigError(
                "axes are lengths along x, y and z, but the periodic cell vectors do not span such "
                "directions; turn the structure, or use 'cell' or 'volume'"
            )
        return np.array([np.diag(row) for row in np.eye(3) if row @ projector @ row > 0.5])
    axes = np.linalg.svd(projector)[0][:, :n].T  # (n, 3)
    if freedom == "shape":
        found = [
            (np.outer(axes[i], axes[i]) - np.outer(axes[-1], axes[-1])) / np.sqrt(2) for i in range(n - 1)
        ]
    else:
        found = [np.outer(axis, axis) for axis in axes]
    for i in range(n):
        for j in range(i):
            found.append((np.outer(axes[i], axes[j]) + np.outer(axes[j], axes[i])) / np.sqrt(2))
    if not found:
        raise ConfigError("a wire has a length and no shape; use 'cell'")
    return np.array(found)


class PeriodicStrain:
    """ASE constraint that keeps only the stress of strains that may change, as FixSymmetry does."""

    def __init__(self, basis: np.ndarray) -> None:
        self.basis = basis  # (n, 3, 3), orthonormal

    def adjust_stress(self, atoms: Atoms, stress: np.ndarray) -> None:
        """Project a stress (6,) in place."""
        full = voigt_6_to_full_3x3_stress(stress)
        shares = np.einsum("kij,ij->k", self.basis, full)
        stress[:] = full_3x3_to_voigt_6_stress(np.einsum("k,kij->ij", shares, self.basis))

    def adjust_positions(self, atoms: Atoms, positions: np.ndarray) -> None:
        """Positions are free."""

    def adjust_forces(self, atoms: Atoms, forces: np.ndarray) -> None:
        """Forces are free."""

    def get_removed_dof(self, atoms: Atoms) -> int:
        """Atoms keep all their freedom."""
        return 0

    def index_shuffle(self, atoms: Atoms, indices: np.ndarray) -> None:
        """The strain knows no atoms."""

    def copy(self) -> PeriodicStrain:
        """The same constraint."""
        return PeriodicStrain(self.basis)


def filling(atoms: Atoms) -> float:
    """Share of the cell's volume that the atoms of a slab or wire take; 1 for a crystal.

    Across the vacuum they take their extent and 3 Å, the room of a layer, so that the share does not depend
    on how much vacuum there is. Stress over this share is that of the slab itself.
    """
    if atoms.pbc.all():
        return 1.0
    projector = periodic_projector(atoms)
    outside = np.linalg.svd(np.eye(3) - projector)[0][:, : 3 - int(atoms.pbc.sum())]  # (3, n_vacuum)
    periodic = atoms.cell.array[atoms.pbc]
    measure = float(np.sqrt(np.linalg.det(periodic @ periodic.T)))
    extents = np.ptp(atoms.positions @ outside, axis=0) + LAYER
    return min(1.0, float(measure * np.prod(extents)) / atoms.get_volume())
