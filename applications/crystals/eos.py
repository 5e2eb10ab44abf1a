"""Equation of state: energy against volume, equilibrium volume, bulk modulus and its pressure derivative."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from ase import Atoms
from ase.cell import Cell

from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.cached import Evaluated, evaluate
from dpa2calc.applications.shared.connected import check_connected, unbound
from dpa2calc.applications.shared.ensemble import WithModelErrors, spread
from dpa2calc.applications.shared.structures import GPA, checked_copy, need_stress, offers_stress, positive
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.figures import Axes, axes_for

from .eos_forms import Form, energy_of_volume, fit_energy_volume, fit_errors, pressure_of_volume

# Below this bulk modulus (GPa) nothing holds a crystal together: solid helium and hydrogen reach it, a gas
# and a molecule in a box do not.
_LEAST_MODULUS = 0.05
_QUANTITY = "equation of state"


@dataclass(frozen=True, kw_only=True)
class EquationOfState(WithModelErrors):
    """Energy-volume curve of one cell and its fit.

    Fields (per given cell unless said otherwise): `volumes` (n,) Å³, `energies` (n,) eV, `pressures` (n,) GPa
    from the calculator's stress (NaN without stress), `cells` (n, 3, 3) Å; fitted `volume` Å³, `energy` eV,
    `bulk_modulus` GPa, `bulk_modulus_derivative`, each with an error that holds the scatter of the fit, the
    spread of the three forms and the dependence on the range (`eos_forms.fit_errors`); `cellpar`: lengths
    (Å) and angles (degrees) of the cell at the fitted volume; `other_forms`: form -> (volume, bulk modulus,
    derivative); `residual` rms of the fit in
    eV/atom; `pressure_mismatch` rms of -dE/dV of the fit against the stress, GPa; `max_deviatoric_stress`
    GPa over the volumes, NaN without stress. `model_errors` of the four fitted numbers.
    """

    formula: str
    n_atoms: int
    form: Form
    volumes: np.ndarray
    energies: np.ndarray
    pressures: np.ndarray
    cells: np.ndarray
    volume: float
    volume_error: float
    energy: float
    energy_error: float
    bulk_modulus: float
    bulk_modulus_error: float
    bulk_modulus_derivative: float
    bulk_modulus_derivative_error: float
    cellpar: np.ndarray
    other_forms: dict[str, tuple[float, float, float]]
    residual: float
    pressure_mismatch: float
    max_deviatoric_stress: float

    def summary(self) -> str:
        """Main numbers with units and errors."""
        lengths, angles = self.cellpar[:3], self.cellpar[3:]
        moduli = [values[1] for values in self.other_forms.values()]
        derivative = self.bulk_modulus_derivative, self.bulk_modulus_derivative_error
        lines = [
            f"Equation of state of {self.formula} ({self.form}, {len(self.volumes)} volumes)",
            f"  volume          {self.told('volume', self.volume, self.volume_error, 'Å³/cell', 4)}"
            f"  ({self.volume / self.n_atoms:.4f} Å³/atom)",
            f"  cell            a={lengths[0]:.4f} b={lengths[1]:.4f} c={lengths[2]:.4f} Å, "
            f"α={angles[0]:.3f} β={angles[1]:.3f} γ={angles[2]:.3f}°",
            f"  energy          {self.energy / self.n_atoms:.6f} eV/atom",
            f"  bulk modulus    "
            f"{self.told('bulk_modulus', self.bulk_modulus, self.bulk_modulus_error, 'GPa', 2)}"
            f"  (three forms: {min(moduli):.2f} to {max(moduli):.2f})",
            f"  dB/dP           {self.told('bulk_modulus_derivative', *derivative, '', 2)}",
            f"  fit residual    {1e3 * self.residual:.4f} meV/atom rms",
        ]
        if np.isfinite(self.pressure_mismatch):
            lines.append(f"  -dE/dV against the calculator's stress: {self.pressure_mismatch:.3f} GPa rms")
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Energy against volume per atom with the fitted curve; returns the axes."""
        axes = axes_for(ax)
        grid = np.linspace(self.volumes.min(), self.volumes.max(), 200)
        curve = energy_of_volume(
            self.form, grid, self.energy, self.volume, self.bulk_modulus / GPA, self.bulk_modulus_derivative
        )
        n = self.n_atoms
        axes.plot(grid / n, (curve - self.energy) / n, label=f"{self.form}, B = {self.bulk_modulus:.1f} GPa")
        axes.plot(self.volumes / n, (self.energies - self.energy) / n, "o", label="calculated")
        axes.axvline(self.volume / n, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlabel="volume (Å³/atom)", ylabel="energy above the minimum (eV/atom)")
        axes.set_title(f"{self.formula}: V = {self.volume / n:.3f} Å³/atom")
        axes.legend()
        return axes


@application
def equation_of_state(
    atoms: Atoms,
    *,
    strains: Sequence[float] | np.ndarray | None = None,
    form: Form = "birch-murnaghan",
    relax: Literal["fixed", "positions", "shape"] = "shape",
    fmax: float = 1e-4,
    max_steps: int = 500,
    keep_symmetry: bool = True,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> EquationOfState:
    """Energy against volume of a crystal, and the fit of an equation of state.

    Args:
        atoms: crystal with a calculator; not changed.
        strains: linear strains of the given cell; default 11 from -0.03 to 0.03 (volume -9 % to +9 %).
        form: the curve reported; all three are fitted and compared.
        relax: at each volume nothing ("fixed"), the "positions", or positions and the "shape" of the cell
            at constant volume (right for a crystal that is not cubic; costs nothing for one that is).
        fmax: convergence of that relaxation, eV/Å.
        max_steps: give up a relaxation after so many steps.
        keep_symmetry: hold the space group during relaxations (needs spglib).
        folder: finished volumes are kept here, and the work resumes from them.
        progress: show a progress bar on stderr.

    Raises:
        StructureError: no crystal, minimum outside the range, a relaxation that does not converge; or atoms
            that the cell does not bind (a molecule in a box, a gas), and energies that do not determine the
            bulk modulus to better than half of it.
        ConfigError: fewer than 5 strains, unknown form or relax.

    Example:
        >>> result = equation_of_state(bulk("Cu", cubic=True, calculator...))  # doctest: +SKIP
        >>> print(result.summary())  # doctest: +SKIP
    """
    crystal, calculator = checked_copy(atoms, what="equation_of_state")
    grid = np.linspace(-0.03, 0.03, 11) if strains is None else np.sort(np.asarray(strains, dtype=float))
    if len(np.unique(grid)) < 5 or np.abs(grid).max() >= 0.5:
        raise ConfigError(
            "strains must be 5 or more different linear strains between -0.5 and 0.5 (four numbers are "
            f"fitted), got {grid.tolist()}"
        )
    positive("fmax", fmax)
    check_connected(crystal, name="equation_of_state", what=_QUANTITY)
    if relax == "shape":
        need_stress(calculator, "equation_of_state with relax='shape' (relax='positions' works without)")
    settings = None
    if relax != "fixed":
        settings = Relaxation(fmax=fmax, free=relax, max_steps=max_steps, symmetry=keep_symmetry)
    points = evaluate(
        stretched(crystal, grid), calculator, what="equation of state", folder=folder, relaxation=settings,
        stress=offers_stress(calculator), ensemble=True, progress=progress,
    )  # fmt: skip
    return _fitted(points, form, crystal, relax)


def stretched(crystal: Atoms, strains: np.ndarray) -> list[Atoms]:
    """The crystal with all its lengths multiplied by 1 + strain, once for each strain."""
    structures = [crystal.copy() for _ in strains]
    for strain, structure in zip(strains, structures):
        structure.set_cell(crystal.cell.array * (1.0 + strain), scale_atoms=True)
    return structures


def _check_bound(volumes: np.ndarray, energies: np.ndarray, crystal: Atoms) -> None:
    """Raise unless the energies change with the volume as those of the softest crystal do."""
    change, middle = float(np.ptp(energies)), float(volumes.mean())
    share = np.ptp(volumes) / 2.0 / middle
    if change < 0.5 * _LEAST_MODULUS / GPA * middle * share**2:
        raise StructureError(
            f"equation_of_state: the energy of {crystal.get_chemical_formula()} changes by only "
            f"{1e3 * change / len(crystal):.3g} meV/atom from {volumes.min():.1f} to {volumes.max():.1f} Å³, "
            f"less than a crystal with a bulk modulus of {_LEAST_MODULUS} GPa: "
            f"{unbound(_QUANTITY)}"
        )


def _fitted(points: list[Evaluated], form: Form, crystal: Atoms, relax: str) -> EquationOfState:
    n_atoms = len(crystal)
    cells = np.array([point.atoms.cell.array for point in points])  # (n, 3, 3)
    volumes = np.abs(np.linalg.det(cells))
    energies = np.array([point.energy for point in points])
    stresses = np.array([point.stress for point in points])
    pressures = -stresses[:, :3].mean(axis=1) * GPA
    deviatoric = stresses * GPA + np.outer(pressures, [1, 1, 1, 0, 0, 0])
    _check_bound(volumes, energies, crystal)
    fits: dict[Form, np.ndarray] = {n: fit_energy_volume(volumes, energies, n) for n in get_args(Form)}
    best = fits[form]
    errors = fit_errors(volumes, energies, form, best)
    if errors[2] > 0.5 * best[2]:
        raise StructureError(
            f"equation_of_state: the bulk modulus of {crystal.get_chemical_formula()}, {best[2] * GPA:.3g} ± "
            f"{errors[2] * GPA:.2g} GPa, is not determined: the energies scatter about every curve. Widen "
            "the strains, lower fmax, use dtype='float64', or look at the energies by eye"
        )
    mismatch = pressures - pressure_of_volume(form, volumes, *best[1:]) * GPA
    largest = float(np.abs(deviatoric).max())
    if largest > 0.1 and relax != "shape":
        warnings.warn(
            f"equation_of_state: stresses other than pressure reach {largest:.2f} GPa; the crystal is "
            "not cubic, so use relax='shape' for the true bulk modulus",
            stacklevel=4,
        )
    return EquationOfState(
        formula=crystal.get_chemical_formula(),
        n_atoms=n_atoms,
        form=form,
        volumes=volumes,
        energies=energies,
        pressures=pressures,
        cells=cells,
        volume=float(best[1]),
        volume_error=float(errors[1]),
        energy=float(best[0]),
        energy_error=float(errors[0]),
        bulk_modulus=float(best[2] * GPA),
        bulk_modulus_error=float(errors[2] * GPA),
        bulk_modulus_derivative=float(best[3]),
        bulk_modulus_derivative_error=float(errors[3]),
        cellpar=_cellpar_at(volumes, cells, float(best[1])),
        other_forms={name: (float(p[1]), float(p[2] * GPA), float(p[3])) for name, p in fits.items()},
        residual=float(np.sqrt(np.mean((energy_of_volume(form, volumes, *best) - energies) ** 2)) / n_atoms),
        pressure_mismatch=float(np.sqrt(np.mean(mismatch**2))),
        max_deviatoric_stress=largest,
        model_errors=spread(lambda of: _numbers(of, volumes, form), points),
    )


def _numbers(points: Sequence[Evaluated], volumes: np.ndarray, form: Form) -> dict[str, float]:
    """What is fitted to the energies of points at these volumes."""
    found = fit_energy_volume(volumes, np.array([point.energy for point in points]), form)
    names = ("energy", "volume", "bulk_modulus", "bulk_modulus_derivative")
    return {name: float(v) for name, v in zip(names, found * np.array([1.0, 1.0, GPA, 1.0]))}


def _cellpar_at(volumes: np.ndarray, cells: np.ndarray, volume: float) -> np.ndarray:
    """Cell lengths and angles (6,) at a volume, from cells (n, 3, 3) that change smoothly with volume."""
    shapes = cells / np.cbrt(volumes)[:, None, None]  # unit-volume cells
    fit = np.polynomial.polynomial.polyfit(volumes / volume - 1.0, shapes.reshape(-1, 9), 3)  # (4, 9)
    shape = fit[0].reshape(3, 3)
    return Cell(shape * np.cbrt(volume / abs(np.linalg.det(shape)))).cellpar()
