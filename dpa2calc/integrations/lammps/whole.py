"""LAMMPS on one process: the structure goes to an ASE calculator as it is, with its periodic directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import voigt_6_to_full_3x3_stress

from dpa2calc.engine.dense import has_stress
from dpa2calc.errors import StructureError

from .state import image_cells, own_atoms, per_atom, read_box


class Share(NamedTuple):
    """Forces (n, 3) and energies (n,) of a process's atoms, energy and virial of all; eV and Å.

    virial: (3, 3), sum of r (x) F; energies and virial are NaN where they are not defined.
    """

    energy: float
    energies: np.ndarray
    forces: np.ndarray
    virial: np.ndarray


class Whole:
    """Evaluates all atoms with any ASE calculator."""

    def __init__(self, lmp: Any, calculator: Calculator, symbols: Sequence[str]) -> None:
        self._lmp, self._calculator = lmp, calculator
        self._numbers = np.array([0, *Atoms(list(symbols)).numbers])

    def __call__(self) -> Share:
        """Energy, forces and virial at this step."""
        lmp, n, box = self._lmp, own_atoms(self._lmp), read_box(self._lmp)
        order = np.argsort(per_atom(lmp, "id", n), kind="stable")
        # Unwrapped, so that the neighbour list outlives the steps at which LAMMPS wraps atoms.
        unwrapped = per_atom(lmp, "x", n) - box.low + image_cells(lmp, n) @ box.cell
        numbers = self._numbers[per_atom(lmp, "type", n)]
        # A box wrapped around a flat layer has next to no volume; only pbc says what the structure is.
        room = np.where(box.pbc, 1.0, np.maximum(1.0, 1.0 / box.heights))
        atoms = Atoms(numbers[order], unwrapped[order], cell=box.cell * room[:, None], pbc=box.pbc)
        stress = (
            ["stress"] if has_stress(atoms) and "stress" in self._calculator.implemented_properties else []
        )
        try:
            self._calculator.calculate(atoms, ["energy", "forces", *stress], list(all_changes))
        except StructureError as error:
            raise StructureError(f"{error} (atoms are counted from 0, in the order of their IDs)") from error
        results = self._calculator.results
        forces, energies = np.empty((n, 3)), np.full(n, np.nan)
        forces[order] = results["forces"]
        if "energies" in results:
            energies[order] = results["energies"]
        return Share(float(results["energy"]), energies, forces, self._virial(atoms, stress != []))

    def _virial(self, atoms: Atoms, has_one: bool) -> np.ndarray:
        results = self._calculator.results
        if has_one:
            virial: np.ndarray = -voigt_6_to_full_3x3_stress(results["stress"]) * atoms.get_volume()
            return virial
        if not atoms.pbc.any():
            return atoms.positions.T @ results["forces"]
        return np.full((3, 3), np.nan)
