"""Quasi-harmonic approximation: thermal expansion and what follows, from phonons at several volumes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units

from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.cached import Evaluated, evaluate
from dpa2calc.applications.shared.structures import GPA, checked_copy, need_stress, positive, supercell_matrix
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.files.results import Result, library_versions, provenance
from dpa2calc.progress import progress_bar

from . import phonopy_bridge as _phonopy
from .eos_forms import Form, energy_of_volume, fit_energy_volume
from .quasi_harmonic_checks import undetermined

_JOULE_PER_MOL = units.mol / units.J


@dataclass(frozen=True, kw_only=True)
class QuasiHarmonic(Result):
    """Thermal properties at constant pressure; arrays over temperature (n_t,) unless said otherwise.

    Fields: `temperatures` K (those whose equilibrium volume lies inside the volumes sampled), `pressure` GPa;
    `volume` Å³/atom, `thermal_expansion` (volumetric, 1/K), `bulk_modulus` GPa (isothermal), `gibbs` eV/atom,
    `heat_capacity_p`, `heat_capacity_v` and `entropy` eV/K/atom, `grueneisen` (thermodynamic, NaN at 0 K).
    Input curves per atom: `volumes` (n_v,) Å³, `energies` (n_v,) eV static, `helmholtz` (n_t, n_v) eV,
    `fit_residual` rms of the fits of F(V), eV/atom; `lowest_frequencies` (n_v,) THz. Where the fits do not
    determine them (`quasi_harmonic_checks.undetermined`), expansion, bulk modulus, C_p and Grüneisen
    parameter are NaN, and `reason` says why ("" where all is determined); `beyond` says where the range of
    volumes ends before the temperatures do.
    """

    formula: str
    pressure: float
    temperatures: np.ndarray
    volume: np.ndarray
    thermal_expansion: np.ndarray
    bulk_modulus: np.ndarray
    gibbs: np.ndarray
    heat_capacity_p: np.ndarray
    heat_capacity_v: np.ndarray
    entropy: np.ndarray
    grueneisen: np.ndarray
    volumes: np.ndarray
    energies: np.ndarray
    helmholtz: np.ndarray
    fit_residual: np.ndarray
    lowest_frequencies: np.ndarray
    reason: str = ""
    beyond: str = ""

    def summary(self) -> str:
        """A table at a few temperatures."""
        lines = [
            f"Quasi-harmonic {self.formula} at {self.pressure:g} GPa ({len(self.volumes)} volumes, "
            f"largest fit residual {1e3 * self.fit_residual.max():.4f} meV/atom)",
            "  T (K)   V (Å³/atom)  alpha_V (1e-6/K)  B_T (GPa)  C_p, C_v (J/K/mol)  Grüneisen",
        ]
        wanted = np.unique([np.abs(self.temperatures - t).argmin() for t in (0, 100, 300, 500, 700, 1000)])
        for i in wanted:
            values = (
                1e6 * self.thermal_expansion[i],
                self.bulk_modulus[i],
                self.heat_capacity_p[i] * _JOULE_PER_MOL,
                self.heat_capacity_v[i] * _JOULE_PER_MOL,
                self.grueneisen[i],
            )
            cells = [
                f"{f'{value:.{digits}f}' if np.isfinite(value) else '-':>{width}}"
                for value, width, digits in zip(values, (16, 9, 9, 7, 9), (2, 2, 3, 3, 3))
            ]
            lines.append(f"  {self.temperatures[i]:6.1f}  {self.volume[i]:11.4f}  {'  '.join(cells)}")
        lines += [f"  not determined: {text}" for text in (self.reason, self.beyond) if text]
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Volumetric thermal expansion against temperature; returns the axes."""
        axes = axes_for(ax)
        axes.plot(self.temperatures, 1e6 * self.thermal_expansion)
        axes.set_xlabel("temperature (K)")
        axes.set_ylabel("volumetric thermal expansion (10⁻⁶/K)")
        gaps = " (gaps: not determined)" if self.reason else ""
        axes.set_title(f"{self.formula}: quasi-harmonic, {self.pressure:g} GPa{gaps}")
        return axes


@application
def quasi_harmonic(
    atoms: Atoms,
    *,
    strains: Sequence[float] | np.ndarray | None = None,
    temperatures: Sequence[float] | np.ndarray | None = None,
    pressure: float = 0.0,
    form: Form = "vinet",
    min_length: float = 12.0,
    supercell: Sequence[Any] | np.ndarray | None = None,
    displacement: float = 0.01,
    mesh: float | Sequence[int] = 60.0,
    fmax: float = 1e-4,
    max_steps: int = 500,
    imaginary_tolerance: float = 0.05,
    symprec: float = 1e-3,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> QuasiHarmonic:
    """Minimise F(V, T) = E(V) + F_vibration(V, T) + P V over the volume at each temperature.

    At each volume positions and cell shape take the minimum of the static energy. Numbers that the fits of
    F(V) do not determine are NaN, with a reason (see QuasiHarmonic).

    Args:
        atoms: crystal with a calculator that offers stress, near its equilibrium volume; not changed.
        strains: linear strains, default 9 from -0.02 to 0.04 (crystals expand).
        temperatures: K, ascending; default 0 to 1000 in steps of 10.
        pressure: GPa.
        form: equation of state fitted to F(V).
        min_length, supercell, displacement, mesh, fmax, max_steps, imaginary_tolerance, symprec: as in
            `phonons`.
        folder: forces are kept here, and the work resumes from them.
        progress: show progress bars on stderr.

    Raises:
        StructureError: imaginary modes at a volume (the approximation has no meaning there), or the
            equilibrium volume at the lowest temperature is outside the volumes.
        ConfigError: fewer than 5 strains, temperatures not ascending.
    """
    crystal, calculator = checked_copy(atoms, what="quasi_harmonic")
    _phonopy.require_libraries()
    need_stress(calculator, "quasi_harmonic")
    grid = np.linspace(-0.02, 0.04, 9) if strains is None else np.sort(np.asarray(strains, dtype=float))
    times = np.arange(0.0, 1001.0, 10.0) if temperatures is None else np.asarray(temperatures, dtype=float)
    if len(np.unique(grid)) < 5:
        raise ConfigError(f"strains must be 5 or more different linear strains, got {grid.tolist()}")
    if len(times) < 3 or times[0] < 0 or np.any(np.diff(times) <= 0):
        raise ConfigError(
            "temperatures must be three or more ascending numbers >= 0 K (they are differentiated)"
        )
    for name, value in (("min_length", min_length), ("displacement", displacement), ("fmax", fmax)):
        positive(name, value)
    _phonopy.check_sampling(crystal, mesh)
    settings = Relaxation(fmax=fmax, free="shape", max_steps=max_steps, symmetry=True, symprec=symprec)
    points = _static(crystal, calculator, grid, settings, folder, progress)
    lowest: list[float] = []
    columns: tuple[list[np.ndarray], ...] = ([], [], [])  # free energy, entropy, heat capacity
    # the unstrained crystal decides, so that all volumes have the same supercell
    common = np.eye(3, dtype=int)
    if supercell is None:
        common = supercell_matrix(_phonopy.primitive_cell(crystal, symprec), min_length, symprec)
    shown = progress_bar(points, desc="quasi-harmonic", unit="volume", shown=progress)
    for strain, point in zip(grid, shown):
        primitive = _phonopy.primitive_cell(point.atoms, symprec)
        matrix = common
        if supercell is not None:
            matrix = _phonopy.to_primitive_matrix(supercell, point.atoms, primitive)
        constants = _phonopy.force_constants(
            primitive, matrix, calculator, displacement=displacement, folder=folder, progress=False
        )
        frequencies, weights = _mesh(constants, mesh)
        lowest.append(float(frequencies.min()))
        _check_stable(lowest[-1], imaginary_tolerance, float(strain), point.atoms)
        thermal = _phonopy.thermal_properties(frequencies, weights, times)
        for values, column in zip(columns, thermal):
            values.append(column / len(primitive))
    record = provenance(calculator, function="quasi_harmonic", strains=grid.tolist(), fmax=fmax, form=form)
    record.update(library_versions("phonopy", "spglib"))
    vibration = tuple(np.array(values).T for values in columns)  # each (n_t, n_v)
    return _minimised(points, times, vibration, pressure / GPA, form, np.array(lowest), record)


def _static(
    crystal: Atoms, calculator: Any, grid: np.ndarray, settings: Relaxation, folder: Any, progress: bool
) -> list[Evaluated]:
    structures = []
    for strain in grid:
        strained = crystal.copy()
        strained.set_cell(crystal.cell.array * (1.0 + strain), scale_atoms=True)
        structures.append(strained)
    return evaluate(
        structures,
        calculator,
        what="static volumes",
        folder=folder,
        relaxation=settings,
        stress=True,
        progress=progress,
    )


def _mesh(constants: _phonopy.ForceConstants, mesh: float | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    constants.phonon.run_mesh(mesh)
    result = constants.phonon.mesh
    return np.array(result.frequencies), np.array(result.weights, dtype=float)


def _check_stable(lowest: float, tolerance: float, strain: float, atoms: Atoms) -> None:
    if lowest < -tolerance:
        raise StructureError(
            f"quasi_harmonic: imaginary modes down to {lowest:.3f} THz at strain {strain:+.3f} "
            f"(volume {atoms.get_volume() / len(atoms):.3f} Å³/atom); leave this strain out, enlarge the "
            "supercell, or look at phonons() of that volume"
        )


def _minimised(
    points: list[Evaluated], temperatures: np.ndarray, vibration: tuple[np.ndarray, ...], pressure: float,
    form: Form, lowest: np.ndarray, record: dict[str, Any],
) -> QuasiHarmonic:  # fmt: skip
    n_atoms = len(points[0].atoms)
    volumes = np.array([point.atoms.get_volume() for point in points]) / n_atoms
    energies = np.array([point.energy for point in points]) / n_atoms
    free, entropy, capacity = vibration
    helmholtz = energies + free  # (n_t, n_v)
    fits: list[np.ndarray] = []
    residuals: list[float] = []
    beyond = ""
    for temperature, curve in zip(temperatures, helmholtz + pressure * volumes):
        try:
            best, _ = fit_energy_volume(volumes, curve, form)
        except StructureError as error:
            if not fits:
                raise StructureError(f"quasi_harmonic at {temperature:g} K: {error}") from error
            beyond = "the crystal expands beyond the volumes sampled; add larger strains"
            warnings.warn(f"quasi_harmonic stops below {temperature:g} K: {beyond}", stacklevel=4)
            beyond = f"anything from {temperature:g} K on, where {beyond}"
            break
        fits.append(best)
        residuals.append(_residual(volumes, curve, best, form))
    n = len(fits)
    if n < 3:
        raise StructureError(
            "quasi_harmonic: fewer than three temperatures are inside the volumes; add larger strains"
        )
    gibbs, volume, modulus, _ = np.array(fits).T.copy()
    times = temperatures[:n]
    expansion = np.gradient(volume, times, edge_order=2) / volume
    expansion[times == 0.0] = 0.0  # third law
    at = [_interpolate(volumes, values[:n], volume) for values in (capacity, entropy)]
    capacity_p = at[0] + times * expansion**2 * modulus * volume
    with np.errstate(divide="ignore", invalid="ignore"):
        grueneisen = np.where(at[0] > 1e-3 * units.kB, expansion * modulus * volume / at[0], np.nan)
    curves = (helmholtz + pressure * volumes)[:n]
    unknown, reason = undetermined(times, volumes, curves, form, np.array(fits))
    if reason:
        warnings.warn(f"quasi_harmonic: not everything is determined: {reason}", stacklevel=3)
    for values in (expansion, modulus, capacity_p, grueneisen):
        values[unknown] = np.nan
    return QuasiHarmonic(
        provenance=record,
        formula=points[0].atoms.get_chemical_formula(),
        pressure=float(pressure * GPA),
        temperatures=times,
        volume=volume,
        thermal_expansion=expansion,
        bulk_modulus=modulus * GPA,
        gibbs=gibbs,
        heat_capacity_p=capacity_p,
        heat_capacity_v=at[0],
        entropy=at[1],
        grueneisen=grueneisen,
        volumes=volumes,
        energies=energies,
        helmholtz=helmholtz[:n],
        fit_residual=np.array(residuals),
        lowest_frequencies=lowest,
        reason=reason,
        beyond=beyond,
    )


def _residual(volumes: np.ndarray, curve: np.ndarray, best: np.ndarray, form: Form) -> float:
    return float(np.sqrt(np.mean((energy_of_volume(form, volumes, *best) - curve) ** 2)))


def _interpolate(volumes: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values (n_t, n_v) at one volume per temperature, by a cubic polynomial in volume."""
    x = volumes / volumes.mean() - 1.0
    coefficients = np.polynomial.polynomial.polyfit(x, values.T, 3)  # (4, n_t)
    return np.array(
        [np.polynomial.polynomial.polyval(a, c) for a, c in zip(at / volumes.mean() - 1.0, coefficients.T)]
    )
