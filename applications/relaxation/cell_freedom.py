"""What moves in a relaxation: one set of words for every function and verb.

    fixed      nothing: the structure is taken as it is
    positions  the atoms, in a cell that stays
    volume     the atoms and the size of the cell, its shape kept (a slab's area, a wire's length)
    axes       the atoms and the lengths of the cell along x, y and z
    shape      the atoms and the shape of the cell, its volume kept (a slab's area)
    cell       the atoms and the whole cell

The cell of a slab, a 2-D crystal or a wire changes in its periodic directions alone.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.constraints import FixBondLengths, FixInternals, FixLinearTriatomic
from ase.filters import FrechetCellFilter

from dpa2calc.applications.shared.warned import collected_warnings
from dpa2calc.dynamics.strain import PeriodicStrain, filling, strain_basis
from dpa2calc.errors import ConfigError

CellFreedom = Literal["fixed", "positions", "volume", "axes", "shape", "cell"]

_PULLING = (FixBondLengths, FixInternals, FixLinearTriatomic)
_TRACE = np.array([1, 1, 1, 0, 0, 0])  # of a Voigt vector, in ASE's order xx, yy, zz, yz, xz, xy


def moves_cell(free: CellFreedom) -> bool:
    """Whether the cell changes too."""
    return free not in ("fixed", "positions")


def check_constraints(atoms: Atoms, free: CellFreedom) -> None:
    """Raise ConfigError where a constraint pulls at atoms by forces that the stress does not hold.

    The others hold coordinates that change with the cell, as its own fractions do.
    """
    for item in atoms.constraints if moves_cell(free) else ():
        if hasattr(item, "adjust_potential_energy") or isinstance(item, _PULLING):
            raise ConfigError(
                f"relax={free!r} with a {type(item).__name__} on the atoms, whose forces are no part of the "
                "stress: the cell would not come to rest where the energy is lowest; take it off, or use "
                "relax='positions'"
            )


def hold_strain(atoms: Atoms, free: CellFreedom) -> None:
    """Give a slab or wire the constraint that keeps what is not free of its cell.

    Raises:
        ConfigError: nothing of the cell is left to change.
    """
    if moves_cell(free) and not atoms.pbc.all():
        atoms.set_constraint([*atoms.constraints, PeriodicStrain(strain_basis(atoms, free))])


def moving(atoms: Atoms, free: CellFreedom, pressure_gpa: float = 0.0) -> Atoms | FrechetCellFilter:
    """What an ASE optimiser moves: the atoms, or a filter that adds the cell's free strains."""
    if not moves_cell(free):
        return atoms
    if not atoms.pbc.all():
        return _CellFilter(atoms)  # PeriodicStrain decides what changes
    return _CellFilter(
        atoms,
        mask=_TRACE.tolist() if free == "axes" else None,
        hydrostatic_strain=free == "volume",
        constant_volume=free == "shape",
        scalar_pressure=pressure_gpa * units.GPa,
    )


class _CellFilter(FrechetCellFilter):
    """ASE's, without the warning of scipy's matrix logarithm of errors of 1e-12."""

    def get_positions(self) -> np.ndarray:
        """Positions (n + 3, 3) of the atoms in the undeformed cell, and the logarithm of the deformation."""
        with collected_warnings():
            return np.asarray(super().get_positions())


def stress_left(atoms: Atoms, free: CellFreedom, pressure_gpa: float = 0.0) -> float:
    """Largest deviation of a free component of the stress from the pressure, GPa; 0 where the cell stays.

    That of a slab or wire is its own, not that of the vacuum.
    """
    if not moves_cell(free):
        return 0.0
    stress = atoms.get_stress()  # (6,)
    deviation = stress + pressure_gpa * units.GPa * _TRACE
    if not atoms.pbc.all():
        deviation = stress / filling(atoms)
    elif free == "volume":
        deviation = deviation[:3].mean(keepdims=True)
    elif free == "axes":
        deviation = deviation[:3]
    elif free == "shape":
        deviation = stress - _TRACE * stress[:3].mean()
    return float(np.abs(deviation).max()) / units.GPa
