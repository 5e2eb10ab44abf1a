"""What a relaxation returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
from ase import Atoms, units
from ase.cell import Cell
from ase.geometry import find_mic

from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.files.results import Result
from dpa2calc.structures.attached import Attached, attach
from dpa2calc.structures.given import Form, in_form

if TYPE_CHECKING:
    from pymatgen.core import Molecule, Structure


@dataclass(frozen=True, kw_only=True)
class RelaxResult(Result):
    """The relaxed structure and the way to it.

    `energy` and `enthalpy` in eV, `max_force` in eV/Å, `pressure` and `stress_deviation` in eV/Å³, `volume`
    in Å³, positions and cells in Å; `reason` says what was not reached; `attached` is what else the atoms
    had.
    """

    converged: bool
    reason: str  # what was not reached, "" when converged
    n_steps: int
    energy: float  # eV
    cell_freedom: str  # what moved: "positions", "cell", ...; earlier versions wrote "fixed" and "full"
    pressure: float  # eV/Å³
    space_group_before: str  # such as "Fm-3m (225)"; "" without spglib or for what is not a crystal
    space_group_after: str
    step: np.ndarray = field(repr=False)  # (n_rows,) of this call
    enthalpy: np.ndarray = field(repr=False)  # eV; the energy when the cell is fixed
    max_force: np.ndarray = field(repr=False)  # eV/Å
    stress_deviation: np.ndarray = field(repr=False)  # eV/Å³, largest over the free components
    volume: np.ndarray = field(repr=False)  # Å³
    numbers: np.ndarray = field(repr=False)
    pbc: np.ndarray = field(repr=False)
    start_positions: np.ndarray = field(repr=False)  # (n_atoms, 3) Å
    start_cell: np.ndarray = field(repr=False)  # (3, 3) Å
    positions: np.ndarray = field(repr=False)
    cell: np.ndarray = field(repr=False)
    trajectory: str | None = None
    attached: Attached = field(default_factory=dict, repr=False)
    start_enthalpy: float = math.nan  # eV, also of a relaxation that was resumed; NaN in earlier files
    held: bool = False  # atoms or coordinates were fixed, so that the whole could not drift

    def atoms(self) -> Atoms:
        """The relaxed structure, without calculator, constraints, velocities and labels."""
        atoms = Atoms(self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        return attach(atoms, self.attached)

    def structure(self) -> Atoms | Structure | Molecule:
        """The relaxed structure in the form that was given: Atoms, or pymatgen's Structure or Molecule."""
        return in_form(self.atoms(), cast(Form, self.provenance.get("given", "Atoms")))

    def largest_displacement(self) -> float:
        """How far the atom that moved most has moved, Å.

        Motion with the cell does not count, and none of all atoms together unless some were fixed.
        """
        moved = self.positions - self.start_positions
        if np.linalg.matrix_rank(self.start_cell) == 3:
            moved = self.positions - self.start_positions @ np.linalg.solve(self.start_cell, self.cell)
            moved = find_mic(moved, self.cell, self.pbc)[0]
        if not self.held:
            moved = moved - moved.mean(axis=0)
        return float(np.linalg.norm(moved, axis=1).max())

    def summary(self) -> str:
        """One screen: how it ended, energy gained, geometry before and after."""
        n_atoms = len(self.numbers)
        formula = Atoms(self.numbers).get_chemical_formula()
        state = "converged" if self.converged else "NOT converged"
        before = self.enthalpy[0] if math.isnan(self.start_enthalpy) else self.start_enthalpy
        change = (self.enthalpy[-1] - before) / n_atoms * 1000
        label = "enthalpy" if self.pressure else "energy"
        lines = [
            f"relaxation of {formula} ({n_atoms} atoms, {self.cell_freedom} relaxed): {state}, "
            f"{self.n_steps} steps",
            f"energy             {self.energy:.6f} eV ({label} change {change:.3f} meV/atom)",
            f"largest force      {self.max_force[-1]:.2g} eV/Å",
            f"largest move       {self.largest_displacement():.4f} Å",
        ]
        if self.cell_freedom not in ("fixed", "positions"):
            pressure = self.pressure / units.GPa
            before, after = Atoms(cell=self.start_cell).cell, Atoms(cell=self.cell).cell
            lines += [
                f"stress deviation   {self.stress_deviation[-1] / units.GPa:.2g} GPa from {pressure:g} GPa",
                f"cell before        {_cell_text(before)}",
                f"cell after         {_cell_text(after)}",
                f"volume             {before.volume:.4f} -> {after.volume:.4f} Å³",
            ]
            if not self.pbc.all():  # the volume is that of the vacuum
                sizes = [_measure(cell.array[self.pbc]) for cell in (before, after)]
                name, unit = ("area", "Å²") if self.pbc.sum() == 2 else ("length", "Å")
                lines[-1] = f"{name:18s} {sizes[0]:.4f} -> {sizes[1]:.4f} {unit}, in the periodic directions"
        if self.space_group_after:
            lines.append(f"space group        {self.space_group_before} -> {self.space_group_after}")
        if self.reason:
            lines.append(self.reason)
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Largest force (left axis) and energy above the last (right axis) against the step."""
        ax = axes_for(ax)
        ax.semilogy(self.step, np.maximum(self.max_force, 1e-12), color="C3", marker=".")
        ax.set_xlabel("step")
        ax.set_ylabel("largest force (eV/Å)", color="C3")
        energy = ax.twinx()
        above = (self.enthalpy - self.enthalpy[-1]) / len(self.numbers) * 1000
        energy.plot(self.step, above, color="C0", marker=".")
        label = "enthalpy" if self.pressure else "energy"
        energy.set_ylabel(f"{label} above the last (meV/atom)", color="C0")
        return ax


def _measure(vectors: np.ndarray) -> float:
    """Area or length that vectors (n, 3) span."""
    return float(np.sqrt(np.linalg.det(vectors @ vectors.T)))


def _cell_text(cell: Cell) -> str:
    a, b, c, alpha, beta, gamma = cell.cellpar()
    return f"{a:.4f} {b:.4f} {c:.4f} Å, {alpha:.3f} {beta:.3f} {gamma:.3f} deg"
