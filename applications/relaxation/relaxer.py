"""The one relaxer: how structures are relaxed, by `relax` and before they are evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import ase.optimize
import numpy as np
from ase import Atoms
from ase.constraints import FixConstraint
from ase.filters import FrechetCellFilter

from dpa2calc.applications.shared.structures import (
    arrays_read,
    check_finite,
    kinds_of,
    need_stress,
    quiet_spglib,
    require,
    symmetry_dataset,
)
from dpa2calc.errors import StructureError
from dpa2calc.files.identity import Part
from dpa2calc.structures.lattice import cell_volume

from .cell_freedom import CellFreedom, hold_strain, moves_cell, moving

Optimizer = Literal["auto", "bfgs", "lbfgs", "fire", "fire2", "bfgs-linesearch", "gpmin"]

_CLASSES = {
    "bfgs": ase.optimize.BFGS,
    "lbfgs": ase.optimize.LBFGS,
    "fire": ase.optimize.FIRE,
    "fire2": ase.optimize.FIRE2,
    "bfgs-linesearch": ase.optimize.BFGSLineSearch,
    "gpmin": ase.optimize.GPMin,
}
# in the names of the folders of evaluated structures
_KEYS = {"positions": "fixed", "shape": "volume", "cell": "free"}


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """How a structure is relaxed.

    Args:
        fmax: largest force left on an atom, eV/Å. 0 leaves the end to the caller.
        free: what moves; `run` holds cell gradients per atom in eV to the same number.
        pressure_gpa: GPa.
        optimizer: "auto" takes BFGS while its dense Hessian costs less than the forces, else FIRE. Not LBFGS:
            where the energy curves downwards, as around a vacancy that is about to lose its symmetry, it can
            wander about the saddle for a thousand steps.
        max_steps: give up after so many optimiser steps.
        symmetry: keep the space group of the start (needs spglib).
        symprec: distance tolerance of that space group, Å.
    """

    fmax: float
    free: CellFreedom = "positions"
    pressure_gpa: float = 0.0
    optimizer: Optimizer = "auto"
    max_steps: int = 500
    symmetry: bool = False
    symprec: float = 1e-3

    def __post_init__(self) -> None:
        """Find out that spglib is missing before the first structure is relaxed.

        Raises:
            MissingDependencyError: symmetry is to be kept and spglib is not installed.
        """
        if self.symmetry:
            require("spglib", "keeping the symmetry during a relaxation")

    def key(self) -> Part:
        """What tells its results from those of another one, as stored results are named."""
        names = ("fmax", "max_steps", "symmetry", "symprec")
        return {"cell": _KEYS[self.free], **{name: getattr(self, name) for name in names}}

    def steps(self, atoms: Atoms, n_steps: int) -> Iterator[Atoms | FrechetCellFilter]:
        """Relax atoms (calculator attached) in place by at most `n_steps` steps.

        Yields what the optimiser moves, at the start and after each step, before anything is computed there.
        """
        if self.symmetry:
            with quiet_spglib():
                atoms.set_constraint([*atoms.constraints, _kept_symmetry(atoms, self.symprec)])
        hold_strain(atoms, self.free)
        name: str = self.optimizer
        if name == "auto":
            name = "bfgs" if len(atoms) <= 200 else "fire"
        options = {} if name == "gpmin" else {"maxstep": 0.1}
        target = moving(atoms, self.free, self.pressure_gpa)
        optimizer = _CLASSES[name](target, logfile=None, **options)
        optimizer.fmax = self.fmax  # GPMin looks at it within a step
        yield target
        for _ in range(n_steps):
            optimizer.step()
            yield target

    def run(self, atoms: Atoms, *, what: str) -> None:
        """Relax atoms (calculator attached) in place; their own constraints stay.

        Raises:
            StructureError: not converged within max_steps.
        """
        if self.symmetry:
            symmetry_dataset(atoms, self.symprec, "keeping the symmetry during a relaxation")
        if moves_cell(self.free):
            need_stress(atoms.calc, f"relaxing the cell for {what}")
        own = list(atoms.constraints)
        reached = np.inf
        for target in self.steps(atoms, self.max_steps):
            reached = float(np.linalg.norm(target.get_forces(), axis=1).max())
            check_finite(atoms, atoms.calc, what, reached)  # an optimiser would fail by errors of its own
            if reached < self.fmax:
                break
        else:
            raise StructureError(
                f"{what}: the relaxation of {atoms.get_chemical_formula()} did not reach "
                f"fmax={self.fmax:g} eV/Å in {self.max_steps} steps (now {reached:.2g}); "
                "raise max_steps or fmax, use dtype='float64', or start from a better structure"
            )
        atoms.set_constraint(own)


def _kept_symmetry(atoms: Atoms, symprec: float) -> FixConstraint:
    """The symmetry of the atoms, which is made exact; of what the calculator reads too."""
    from ase.constraints import FixSymmetry  # needs spglib

    if cell_volume(atoms) is None:
        raise StructureError(
            "a symmetry is kept in a cell with three vectors, but the lengths are "
            f"{np.round(atoms.cell.lengths(), 3).tolist()} Å; relax without it (keep_symmetry=False), or "
            "give the vacuum vectors: atoms.center(vacuum=8)"
        )
    kinds, firsts = kinds_of(atoms, arrays_read(atoms, atoms.calc))
    if len(firsts) == len(set(atoms.numbers)):
        return FixSymmetry(atoms, symprec=symprec)
    others = Atoms(kinds, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    made = FixSymmetry(others, symprec=symprec)
    atoms.set_cell(others.cell)
    atoms.set_positions(others.positions)
    return made
