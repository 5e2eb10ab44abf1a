"""Errors of predicted energies, forces and stresses against labels that came with the structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa

from dpa2calc.files.results import ShownBySummary
from dpa2calc.structures.lattice import is_crystal

from .names import as_array, as_number, stored_label, virial_label


@dataclass(frozen=True)
class Labels:
    """What a file says of one structure: energy (eV), forces (n_atoms, 3), stress (6,), each or None."""

    energy: float | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None


def labels_of(
    atoms: Atoms,
    *,
    energy: str = "energy",
    forces: str = "forces",
    stress: str = "stress",
    virial: str = "virial",
) -> Labels:
    """Labels by name in a stored calculator result, `atoms.info` or `atoms.arrays`; nothing is computed.

    A stress is six numbers, nine, or (3, 3), in ASE's sign; without one it is taken from a `virial`
    (eV, -volume * stress). Only cells that are periodic in three directions have one.

    Raises:
        DataError: a label has the wrong shape, is not a number, or belongs to other positions.
    """
    found = [stored_label(atoms, key) for key in (energy, forces)]
    matrix, _ = virial_label(atoms, stress=stress, virial=virial)
    if not is_crystal(atoms):
        matrix = None
    return Labels(
        None if found[0] is None else as_number(found[0], energy),
        None if found[1] is None else as_array(found[1], (len(atoms), 3), forces),
        None if matrix is None else full_3x3_to_voigt_6_stress(-matrix / atoms.get_volume()),
    )


@dataclass(frozen=True)
class ErrorFigure:
    """Mean absolute and root mean square error, bias (mean of prediction minus label), number of values."""

    mae: float
    rmse: float
    bias: float
    count: int

    @classmethod
    def of(cls, differences: np.ndarray) -> ErrorFigure:
        """From prediction minus label, any shape."""
        flat = np.asarray(differences, dtype=np.float64).ravel()
        return cls(
            float(np.abs(flat).mean()), float(np.sqrt((flat**2).mean())), float(flat.mean()), int(flat.size)
        )


@dataclass(frozen=True)
class LabelErrors(ShownBySummary):
    """Errors over all structures that have the label.

    energy: meV/atom. energy_shifted: the same after taking the mean difference (`energy.bias`) away, which
    tells a constant offset between two codes from real errors. forces: meV/Å, a component. stress: GPa.
    """

    n_structures: int
    energy: ErrorFigure | None = None
    energy_shifted: ErrorFigure | None = None
    forces: ErrorFigure | None = None
    stress: ErrorFigure | None = None

    def summary(self) -> str:
        """A small table."""
        rows = [
            ("energy", "meV/atom", self.energy),
            ("energy, mean shift removed", "meV/atom", self.energy_shifted),
            ("forces", "meV/Å", self.forces),
            ("stress", "GPa", self.stress),
        ]
        lines = [
            f"errors against the labels of {self.n_structures} structures",
            f"{'':<28}{'RMSE':>10}{'MAE':>10}{'bias':>10}",
        ]
        lines += [
            f"{name:<28}{f.rmse:10.3f}{f.mae:10.3f}{f.bias:10.3f} {unit} ({f.count} values)"
            for name, unit, f in rows
            if f is not None
        ]
        return "\n".join(lines)


def label_errors(
    structures: Sequence[Atoms], results: Sequence[dict[str, Any]], labels: Sequence[Labels]
) -> LabelErrors | None:
    """Errors over all structures, None where no structure has a label.

    Args:
        results: one dict a structure with energy (eV), forces (n_atoms, 3), and stress (6,) if any.
        labels: one a structure.
    """
    triples = list(zip(structures, results, labels))
    energies = [1e3 * (r["energy"] - l.energy) / len(a) for a, r, l in triples if l.energy is not None]
    forces = [1e3 * (r["forces"] - l.forces).ravel() for _, r, l in triples if l.forces is not None]
    stress = [(r["stress"] - l.stress) / GPa for _, r, l in triples if l.stress is not None and "stress" in r]
    if not (energies or forces or stress):
        return None
    shifted = np.array(energies) - np.mean(energies) if len(energies) > 1 else None
    return LabelErrors(
        n_structures=_labelled(labels),
        energy=ErrorFigure.of(np.array(energies)) if energies else None,
        energy_shifted=ErrorFigure.of(shifted) if shifted is not None else None,
        forces=ErrorFigure.of(np.concatenate(forces)) if forces else None,
        stress=ErrorFigure.of(np.concatenate(stress)) if stress else None,
    )


def _labelled(labels: Sequence[Labels]) -> int:
    return sum(any(value is not None for value in (l.energy, l.forces, l.stress)) for l in labels)
