"""Are the phonons converged? The same crystal with several supercells and displacements."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from dpa2calc.applications.shared.application import application
from dpa2calc.errors import ConfigError
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.files.results import Result, library_versions

from . import phonopy_bridge as _phonopy
from .phonon_result import Phonons
from .phonons import phonons


@dataclass(frozen=True, kw_only=True)
class PhononConvergence(Result):
    """Phonons against supercell and displacement; each row is one calculation.

    Fields (n rows): `kind` ("supercell" or "displacement"), `min_lengths` Å, `displacements` Å,
    `n_supercell_atoms`, `image_distances` Å, `highest` THz, `lowest` THz, `zero_point_energy` eV/atom,
    `heat_capacity` eV/K/atom at 300 K, `rms_difference` and `max_difference` THz of the frequencies along
    the path from the row's reference (the largest supercell, or the smallest displacement).
    `converged_length` and `converged_displacement` (Å): the cheapest settings that are, as all better ones,
    below `tolerance` THz in rms difference; NaN where only the reference itself is.
    """

    formula: str
    tolerance: float
    kind: list[str]
    min_lengths: np.ndarray
    displacements: np.ndarray
    n_supercell_atoms: np.ndarray
    image_distances: np.ndarray
    highest: np.ndarray
    lowest: np.ndarray
    zero_point_energy: np.ndarray
    heat_capacity: np.ndarray
    rms_difference: np.ndarray
    max_difference: np.ndarray
    converged_length: float
    converged_displacement: float

    def summary(self) -> str:
        """A table of all rows and the settings recommended."""
        lines = [
            f"Convergence of the phonons of {self.formula} (differences from the best of each kind)",
            "  varied        length Å  displ. Å  atoms  highest THz  ZPE meV  C_V J/K/mol  rms THz  max THz",
        ]
        for i, kind in enumerate(self.kind):
            capacity = self.heat_capacity[i] * _phonopy.JOULE_PER_MOL
            lines.append(
                f"  {kind:12s}  {self.min_lengths[i]:8.2f}  {self.displacements[i]:8.4f}  "
                f"{self.n_supercell_atoms[i]:5d}  {self.highest[i]:11.4f}  "
                f"{1e3 * self.zero_point_energy[i]:7.3f}  {capacity:11.3f}  "
                f"{self.rms_difference[i]:7.4f}  {self.max_difference[i]:7.4f}"
            )
        lines.append(
            f"  within {self.tolerance:g} THz rms: min_length={self.converged_length:g} Å, "
            f"displacement={self.converged_displacement:g} Å (nan: only the reference itself; go further)"
        )
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Rms difference against supercell length; returns the axes."""
        axes = axes_for(ax)
        rows = np.array([kind == "supercell" for kind in self.kind])
        axes.plot(self.image_distances[rows], self.rms_difference[rows], "o-")
        axes.axhline(self.tolerance, color="grey", linestyle=":")
        axes.set(xlabel="distance of periodic images (Å)", ylabel="rms difference of frequencies (THz)")
        axes.set_title(f"Phonons of {self.formula}: convergence")
        return axes


@application
def phonon_convergence(
    atoms: Atoms,
    *,
    min_lengths: Sequence[float] = (8.0, 12.0, 16.0),
    displacements: Sequence[float] = (0.005, 0.01, 0.02),
    tolerance: float = 0.02,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> PhononConvergence:
    """Repeat `phonons` for growing supercells, and for several displacements in the smallest of them.

    Args:
        atoms: relaxed crystal with a calculator; not changed.
        min_lengths: two or more supercell lengths, Å; the largest is the reference.
        displacements: two or more displacements, Å; the smallest is the reference, so mind the noise of a
            float32 calculator.
        tolerance: rms difference of frequencies (THz) that counts as converged.
        folder: forces are kept here (shared with `phonons`), and the work resumes from them.
        progress: show progress bars on stderr.
        options: other arguments of `phonons` (relax, fmax, symprec, ...).

    Raises:
        ConfigError: fewer than two lengths or displacements; else as `phonons`.
    """
    lengths, steps = sorted(set(map(float, min_lengths))), sorted(set(map(float, displacements)))
    if len(lengths) < 2 or len(steps) < 2:
        raise ConfigError(
            f"two or more different min_lengths and displacements are needed, got {min_lengths} and "
            f"{displacements}"
        )
    if {"supercell", "min_length", "displacement", "temperatures"} & set(options):
        raise ConfigError(
            "supercell, min_length, displacement and temperatures are set by phonon_convergence itself"
        )
    common = {"folder": folder, "progress": progress, "temperatures": [300.0], **options}
    usual = 0.01 if 0.01 in steps else steps[len(steps) // 2]
    by_length = [phonons(atoms, min_length=length, displacement=usual, **common) for length in lengths]
    by_step = [phonons(atoms, min_length=lengths[0], displacement=step, **common) for step in steps]
    rows, n = by_length + by_step, len(lengths)
    best = [by_length[-1]] * n + [by_step[0]] * len(steps)
    rms, largest = np.array([_difference(row, reference) for row, reference in zip(rows, best)]).T
    shorter, coarser = within(rms[: n - 1][::-1], tolerance), within(rms[n + 1 :], tolerance)
    return PhononConvergence(
        provenance=library_versions(*_phonopy.LIBRARIES),
        formula=rows[0].formula,
        tolerance=tolerance,
        kind=["supercell"] * n + ["displacement"] * len(steps),
        min_lengths=np.array(lengths + [lengths[0]] * len(steps)),
        displacements=np.array([row.displacement for row in rows]),
        n_supercell_atoms=np.array([row.n_supercell_atoms for row in rows]),
        image_distances=np.array([row.image_distance for row in rows]),
        highest=np.array([row.mesh_frequencies.max() for row in rows]),
        lowest=np.array([row.lowest_frequency for row in rows]),
        zero_point_energy=np.array([row.zero_point_energy for row in rows]),
        heat_capacity=np.array([row.heat_capacity[0] for row in rows]),
        rms_difference=rms,
        max_difference=largest,
        converged_length=lengths[n - 1 - shorter] if shorter else float("nan"),
        converged_displacement=steps[coarser] if coarser else float("nan"),
    )


def within(values: np.ndarray, tolerance: float) -> int:
    """How many values, from the first on, are below the tolerance; one beyond a worse one is chance."""
    over = np.flatnonzero(~(values < tolerance))
    return int(over[0]) if len(over) else len(values)


def _difference(row: Phonons, reference: Phonons) -> tuple[float, float]:
    """Root-mean-square and largest difference (THz) of the bands of two results of the same crystal."""
    change = row.band_frequencies - reference.band_frequencies
    return float(np.sqrt((change**2).mean())), float(np.abs(change).max())
