"""The two ends of a path: do they belong together, and may the atoms move as a whole?"""

from __future__ import annotations

import warnings

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation
from ase.calculators.calculator import BaseCalculator
from ase.geometry import find_mic

from dpa2calc.errors import StructureError
from dpa2calc.files.identity import structure_identity
from dpa2calc.structures.given import as_energy

_FIELD = 1e-3  # eV; rounding changes the energy of a molecule that moves and turns by less


def warn_of_constraints(start: Atoms, final: Atoms) -> None:
    """Warn of constraints of the final state that are not those of the initial one."""
    first, last = (structure_identity(atoms)["constraints"] for atoms in (start, final))
    if last and first != last:
        warnings.warn(
            "nudged_elastic_band: the final state has other constraints than the initial one, whose hold for "
            "the whole path; give both the same",
            stacklevel=4,
        )


def floats(start: Atoms, calculator: BaseCalculator) -> bool:
    """Whether all atoms may move and turn together: no cell, no constraint and no field holds them."""
    if start.pbc.any() or start.constraints:
        return False
    moved = start.copy()
    moved.rotate(40.0, (1.0, 2.0, 3.0))
    moved.translate((0.37, -0.21, 0.29))  # no motion that a symmetric field would not see
    first, second = (as_energy(calculator.get_potential_energy(atoms)) for atoms in (start, moved))
    return abs(second - first) < _FIELD


def matched(start: Atoms, final: Atoms, floating: bool) -> Atoms:
    """The final state with the constraints of the start and positions on the shorter way."""
    if not np.array_equal(final.numbers, start.numbers):
        raise StructureError(
            f"the two ends must hold the same atoms in the same order: {start.get_chemical_formula()} "
            f"and {final.get_chemical_formula()}; sort the atoms of one of them"
        )
    if (start.pbc != final.pbc).any() or np.abs(start.cell.array - final.cell.array).max() > 1e-6:
        raise StructureError("the two ends must have the same cell and pbc; relax both at fixed cell first")
    if not np.isfinite(final.positions).all():
        raise StructureError("nudged_elastic_band: the positions of the final state contain NaN or infinity")
    step = find_mic(final.positions - start.positions, start.cell, start.pbc)[0]
    if np.linalg.norm(step, axis=1).max() < 0.05:
        raise StructureError(
            "the two ends are the same structure (no atom moves 0.05 Å); there is no path between"
        )
    moved = start.copy()
    moved.set_positions(start.positions + step)
    stop = start.copy()
    stop.set_positions(start.positions + step, apply_constraint=False)
    if np.abs(off := moved.positions - stop.positions).max() > 1e-3:
        raise StructureError(_unreachable(start, off))
    if floating:
        minimize_rotation_and_translation(start, stop)
    return stop


def _unreachable(start: Atoms, off: np.ndarray) -> str:
    """What is wrong where the constraints of the start keep atoms by so much, (n, 3) Å, off the other end."""
    kinds = ", ".join(dict.fromkeys(type(item).__name__ for item in start.constraints))
    if np.ptp(off, axis=0).max() < 1e-6:  # FixCom
        return (
            f"the two ends have other centres of mass, which {kinds} holds; move the final state as a whole "
            f"by {off[0].round(4).tolist()} Å, or leave the constraint out, which a path does not need"
        )
    atom = int(np.linalg.norm(off, axis=1).argmax())
    return (
        f"the constraints of the initial state ({kinds}) keep its atoms from the final one: atom {atom} "
        f"({start.symbols[atom]}) would stay {np.linalg.norm(off[atom]):.3g} Å away; what is held must be "
        "the same in both ends"
    )
