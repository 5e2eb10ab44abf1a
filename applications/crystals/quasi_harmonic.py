"""Quasi-harmonic approximation: thermal expansion and what follows, from phonons at several volumes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from ase import Atoms, units

from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.cached import evaluate
from dpa2calc.applications.shared.connected import check_connected
from dpa2calc.applications.shared.structures import GPA, checked_copy, need_stress, positive
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.files.results import Result, library_versions
from dpa2calc.progress import progress_bar

from . import phonopy_bridge as _phonopy
from .eos import stretched
from .eos_forms import Form, energy_of_volume, fit_energy_volume, fit_errors, fit_variants, volume_change

_MODULUS = 0.10  # share of B_T that its error may reach
_EXPANSION = 0.30  # share of the expansion by which other fits may differ
_FLOOR = 0.10  # of the largest expansion: below it that share is taken of this
_RISE = 0.02  # share by which B_T may rise with temperature


@dataclass(frozen=True, kw_only=True)
class QuasiHarmonic(Result):
    """Thermal properties at constant pressure; arrays over temperature (n_t,) unless said otherwise.

    Fields: `temperatures` K (those whose equilibrium volume lies inside the volumes sampled), `pressure` GPa;
    `volume` Å³/atom, `thermal_expansion` (volumetric, 1/K), `bulk_modulus` GPa (isothermal), `gibbs` eV/atom,
    `heat_capacity_p`, `heat_capacity_v` and `entropy` eV/K/atom, `grueneisen` (thermodynamic, NaN at 0 K).
    Input curves per atom: `volumes` (n_v,) Å³, `energies` (n_v,) eV static, `helmholtz` (n_t, n_v) eV,
    `fit_residual` rms of the fits of F(V), eV/atom; `lowest_frequencies` (n_v,) THz. Where the fits do not
    determine them (`undetermined`), expansion, bulk modulus, C_p and Grüneisen
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
        columns = (
            (1e6 * self.thermal_expansion, 16, 2),
            (self.bulk_modulus, 9, 2),
            (self.heat_capacity_p * _phonopy.JOULE_PER_MOL, 9, 3),
            (self.heat_capacity_v * _phonopy.JOULE_PER_MOL, 7, 3),
            (self.grueneisen, 9, 3),
        )
        wanted = np.unique([np.abs(self.temperatures - t).argmin() for t in (0, 100, 300, 500, 700, 1000)])
        for i in wanted:
            cells = [
                f"{f'{column[i]:.{digits}f}' if np.isfinite(column[i]) else '-':>{width}}"
                for column, width, digits in columns
            ]
            lines.append(f"  {self.temperatures[i]:6.1f}  {self.volume[i]:11.4f}  {'  '.join(cells)}")
        lines += [f"  not determined: {text}" for text in (self.reason, self.beyond) if text]
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Volumetric thermal expansion against temperature; returns the axes."""
        axes = axes_for(ax)
        axes.plot(self.temperatures, 1e6 * self.thermal_expansion)
        axes.set(xlabel="temperature (K)", ylabel="volumetric thermal expansion (10⁻⁶/K)")
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
    supercell: _phonopy.Supercell | None = None,
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
    crystal, calculator = checked_copy(atoms, what="quasi_harmonic", masses=True)
    _phonopy.require_libraries()
    need_stress(calculator, "quasi_harmonic")
    grid = np.linspace(-0.02, 0.04, 9) if strains is None else np.sort(np.asarray(strains, dtype=float))
    times = np.arange(0.0, 1001.0, 10.0) if temperatures is None else np.asarray(temperatures, dtype=float)
    _check(grid, times, min_length=min_length, displacement=displacement, fmax=fmax)
    check_connected(crystal, name="quasi_harmonic", what="thermal expansion")
    _phonopy.check_sampling(crystal, mesh)
    settings = Relaxation(fmax=fmax, free="shape", max_steps=max_steps, symmetry=True, symprec=symprec)
    points = evaluate(
        stretched(crystal, grid), calculator, what="static volumes", folder=folder, relaxation=settings,
        stress=True, progress=progress,
    )  # fmt: skip
    # the unstrained crystal decides, so that all volumes have the same supercell
    rows = _phonopy.supercell_rows(
        supercell, crystal, _phonopy.primitive_cell(crystal, symprec, calculator), min_length, symprec
    )
    lowest, vibrations = [], []
    shown = progress_bar(points, desc="quasi-harmonic", unit="volume", shown=progress)
    for strain, point in zip(grid, shown):
        primitive = _phonopy.primitive_cell(point.atoms, symprec, calculator)
        matrix = _phonopy.in_primitive_vectors(rows, point.atoms, primitive)
        constants = _phonopy.force_constants(
            primitive, matrix, calculator, displacement=displacement, folder=folder, progress=False
        )
        _phonopy.run_mesh(constants.phonon, mesh)
        frequencies = np.array(constants.phonon.mesh.frequencies)
        weights = np.array(constants.phonon.mesh.weights, dtype=float)
        lowest.append(float(frequencies.min()))
        _check_stable(lowest[-1], imaginary_tolerance, float(strain), point.atoms)
        thermal = _phonopy.thermal_properties(frequencies, weights, times)
        vibrations.append(np.array(thermal) / len(primitive))
    curves = _Curves(
        formula=crystal.get_chemical_formula(),
        volumes=np.array([point.atoms.get_volume() for point in points]) / len(crystal),
        energies=np.array([point.energy for point in points]) / len(crystal),
        vibrations=np.array(vibrations).transpose(1, 2, 0),
        lowest=np.array(lowest),
    )
    return _minimised(curves, times, pressure / GPA, form)


def _check(grid: np.ndarray, times: np.ndarray, **numbers: float) -> None:
    if len(np.unique(grid)) < 5 or not (np.abs(grid) < 0.5).all():
        raise ConfigError(
            f"strains must be 5 or more different linear strains between -0.5 and 0.5, got {grid.tolist()}"
        )
    if times.ndim != 1 or not len(times) or not (times[0] >= 0 and (np.diff(times) > 0).all()):
        raise ConfigError(f"temperatures must be ascending numbers >= 0 K, got {times.tolist()}")
    for name, value in numbers.items():
        positive(name, value)


@dataclass(frozen=True, kw_only=True)
class _Curves:
    """Per atom (n_v,), and of the vibrations free energy, entropy, heat capacity (3, n_t, n_v)."""

    formula: str
    volumes: np.ndarray
    energies: np.ndarray
    vibrations: np.ndarray
    lowest: np.ndarray


def _check_stable(lowest: float, tolerance: float, strain: float, atoms: Atoms) -> None:
    if lowest < -tolerance:
        raise StructureError(
            f"quasi_harmonic: imaginary modes down to {lowest:.3f} THz at strain {strain:+.3f} "
            f"(volume {atoms.get_volume() / len(atoms):.3f} Å³/atom); leave this strain out, enlarge the "
            "supercell, or look at phonons() of that volume"
        )


def _fits(
    volumes: np.ndarray, curves: np.ndarray, temperatures: np.ndarray, form: Form
) -> tuple[np.ndarray, str]:
    """Fits (n, 4) of the curves (n_t, n_v) up to the first that has no minimum inside, and where that is."""
    fits: list[np.ndarray] = []
    for temperature, curve in zip(temperatures, curves):
        try:
            fits.append(fit_energy_volume(volumes, curve, form))
        except StructureError as error:
            if not fits:
                raise StructureError(f"quasi_harmonic at {temperature:g} K: {error}") from error
            grows = 2 * int(curve.argmin()) >= len(curve)  # volumes ascend
            way, more = ("expands beyond", "larger") if grows else ("shrinks below", "smaller")
            why = f"the crystal {way} the volumes sampled; add {more} strains"
            warnings.warn(f"quasi_harmonic stops below {temperature:g} K: {why}", stacklevel=5)
            return np.array(fits), f"anything from {temperature:g} K on, where {why}"
    return np.array(fits), ""


def _minimised(curves: _Curves, temperatures: np.ndarray, pressure: float, form: Form) -> QuasiHarmonic:
    volumes, (free, entropy, capacity) = curves.volumes, curves.vibrations
    helmholtz = curves.energies + free  # (n_t, n_v)
    free_enthalpy = helmholtz + pressure * volumes
    fits, beyond = _fits(volumes, free_enthalpy, temperatures, form)
    n = len(fits)
    gibbs, volume, modulus, _ = fits.T.copy()
    times = temperatures[:n]
    expansion = thermal_expansion(volumes, entropy, form, fits)
    at = [_interpolate(volumes, values[:n], volume) for values in (capacity, entropy)]
    capacity_p = at[0] + times * expansion**2 * modulus * volume
    with np.errstate(divide="ignore", invalid="ignore"):
        grueneisen = np.where(at[0] > 1e-3 * units.kB, expansion * modulus * volume / at[0], np.nan)
    unknown, reason = undetermined(times, volumes, free_enthalpy[:n], entropy[:n], form, fits)
    if reason:
        warnings.warn(f"quasi_harmonic: not everything is determined: {reason}", stacklevel=4)
    for values in (expansion, modulus, capacity_p, grueneisen):
        values[unknown] = np.nan
    left = [energy_of_volume(form, volumes, *best) - curve for best, curve in zip(fits, free_enthalpy)]
    return QuasiHarmonic(
        provenance=library_versions(*_phonopy.LIBRARIES),
        formula=curves.formula,
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
        energies=curves.energies,
        helmholtz=helmholtz[:n],
        fit_residual=np.sqrt(np.mean(np.square(left), axis=1)),
        lowest_frequencies=curves.lowest,
        reason=reason,
        beyond=beyond,
    )


def _interpolate(volumes: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values (n_t, n_v) at one volume per temperature, by a cubic polynomial in volume."""
    fit = np.polynomial.polynomial.polyfit(volumes / volumes.mean() - 1.0, values.T, 3)  # (4, n_t)
    return (np.vander(at / volumes.mean() - 1.0, 4, increasing=True) * fit.T).sum(axis=1)


def undetermined(
    temperatures: np.ndarray, volumes: np.ndarray, curves: np.ndarray, entropy: np.ndarray, form: Form,
    fits: np.ndarray,
) -> tuple[np.ndarray, str]:  # fmt: skip
    """Temperatures at which expansion and bulk modulus mean nothing.

    Three rules, each at every temperature: the error of B_T (`eos_forms.fit_errors`: scatter, spread of the
    forms, dependence on the range) is at most 10 % of it; the expansion from the other forms and from the
    inner half of the volumes differs by at most 30 %; and B_T has not risen by more than 2 % above a value
    at a lower temperature, as no crystal stiffens so far by warming.

    Returns:
        (n_t,) bool, and the reasons, "" where every temperature passes.
    """
    errors, others = [], []
    names = [*(other for other in get_args(Form) if other != form), form]
    for curve, rate, best in zip(curves, entropy, fits):
        variants = fit_variants(volumes, curve, form, best)
        errors.append(fit_errors(volumes, curve, form, best, variants)[2])
        inner, whole = variants.indices, np.arange(len(volumes))
        found = zip(names, (whole, whole, inner), [*variants.others, variants.inner])
        others.append([_expansion(volumes[which], rate[which], name, fit) for name, which, fit in found])
    modulus, expansion = fits[:, 2], thermal_expansion(volumes, entropy, form, fits)
    allowed = _EXPANSION * np.maximum(np.abs(expansion), _FLOOR * np.abs(expansion).max())
    apart = ~(np.abs(np.array(others).T - expansion) <= allowed).all(axis=0)
    apart[temperatures == 0.0] = False
    rules = (
        (np.array(errors) > _MODULUS * modulus, f"the error of B_T exceeds {_MODULUS:.0%} of it"),
        (apart, f"the expansion changes by more than {_EXPANSION:.0%} with the volumes or the form fitted"),
        (modulus > (1.0 + _RISE) * np.minimum.accumulate(modulus), "B_T rises with temperature"),
    )
    reasons = [
        f"{text} (at {int(bad.sum())} temperatures from {temperatures[bad][0]:g} K)"
        for bad, text in rules
        if bad.any()
    ]
    return np.any([bad for bad, _ in rules], axis=0), "; ".join(reasons)


def thermal_expansion(volumes: np.ndarray, entropy: np.ndarray, form: Form, fits: np.ndarray) -> np.ndarray:
    """Volumetric expansion (n_t,) in 1/K of the fitted volumes, whatever the temperatures between.

    The free energies from which they are fitted change with temperature by minus the entropy (n_t, n_v).
    """
    return np.array([_expansion(volumes, rate, form, best) for rate, best in zip(entropy, fits)])


def _expansion(volumes: np.ndarray, entropy: np.ndarray, form: Form, best: np.ndarray) -> float:
    return volume_change(form, volumes, -entropy, best) / float(best[1])
