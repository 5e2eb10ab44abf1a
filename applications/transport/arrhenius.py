"""Activation energies from values at several temperatures."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from ase import units

from dpa2calc.applications.shared.application import application
from dpa2calc.dynamics.averages import student
from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.files.results import Result

from .diffusion import CM2_PER_S, Diffusion

_FITTED = (
    "activation_energy", "activation_energy_error", "log_prefactor", "log_prefactor_error", "correlation",
    "chi2_reduced",
)  # fmt: skip
Quantity = Literal["tracer", "collective"]


@dataclass(frozen=True, kw_only=True)
class Arrhenius(Result):
    """D(T) = D₀ exp(-E / kT), fitted to ln D.

    Attributes:
        species, quantity: what was fitted.
        temperatures: (n,) in K; values, errors: coefficients (n,) in Å²/ps; errors are NaN where not known.
        activation_energy, activation_energy_error: in eV.
        log_prefactor, log_prefactor_error: ln of D₀ in Å²/ps.
        correlation: of activation energy and log_prefactor in the fit.
        chi2_reduced: of the weighted fit, NaN with two temperatures or without errors.
        reason: why nothing was fitted and all numbers of the fit are NaN; "" where there is a fit.
    """

    species: str
    quantity: str
    temperatures: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    activation_energy: float
    activation_energy_error: float
    log_prefactor: float
    log_prefactor_error: float
    correlation: float
    chi2_reduced: float
    reason: str = ""

    def at(self, temperature: float) -> tuple[float, float, float]:
        """Fitted value at a temperature in K, in Å²/ps, and the ends of its 68 % interval."""
        x = 1.0 / (units.kB * temperature)  # 1/eV
        log = self.log_prefactor - self.activation_energy * x
        variance = (
            self.log_prefactor_error**2
            + (x * self.activation_energy_error) ** 2
            - 2.0 * x * self.correlation * self.log_prefactor_error * self.activation_energy_error
        )
        width = np.sqrt(max(variance, 0.0))
        return float(np.exp(log)), float(np.exp(log - width)), float(np.exp(log + width))

    def summary(self) -> str:
        n = len(self.temperatures)
        lines = [
            f"Arrhenius fit of {self.quantity} diffusion of {self.species}, {n} temperatures",
            f"  activation energy  {self._energy()}{f': {self.reason}' if self.reason else ''}",
        ]
        if not self.reason:
            value, low, high = (x * CM2_PER_S for x in self.at(300.0))
            known = np.isfinite(self.chi2_reduced)
            lines += [
                f"  prefactor          {np.exp(self.log_prefactor) * CM2_PER_S:.2e} cm²/s "
                f"(times or over {np.exp(self.log_prefactor_error):.2f})",
                *([f"  reduced chi²       {self.chi2_reduced:.2f}"] if known else []),
                f"  D at 300 K         {value:.2e} cm²/s, 68 % in {low:.1e} to {high:.1e}",
            ]
        for t, d, e in zip(self.temperatures, self.values * CM2_PER_S, self.errors * CM2_PER_S):
            error = f" ± {e:.1e}" if np.isfinite(e) else ""
            number = f"{d:.3e}{error} cm²/s" if np.isfinite(d) else "not determined"
            lines.append(f"    {t:7.1f} K  {number}")
        return "\n".join(lines)

    def _energy(self) -> str:
        known = f"{self.activation_energy:.3f} ± {self.activation_energy_error:.3f} eV"
        return "not determined" if self.reason else known

    def plot(
        self, ax: Axes | None = None, *, label: str | None = None,
        references: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]] | None = None,
    ) -> Axes:  # fmt: skip
        """Draw D in cm²/s, logarithmic, against 1000/T with the fit and its 68 % band; returns the axes.

        Args:
            ax: matplotlib axes; new ones if None.
            references: name -> (temperatures in K, D in cm²/s), drawn as open markers beside it.
            label: name of this data in the legend.
        """
        ax = axes_for(ax, (5.0, 3.8))
        name = label or f"{self.species} {self.quantity}"
        y, e = self.values * CM2_PER_S, np.nan_to_num(self.errors) * CM2_PER_S
        lower = np.minimum(e, 0.9 * y)  # a bar below zero cannot be drawn on a logarithmic axis
        points = ax.errorbar(
            1000.0 / self.temperatures, y, yerr=[lower, e], fmt="o", capsize=2, label=name, zorder=4
        )
        others = [np.atleast_1d(t) for t, _ in (references or {}).values()]
        ends = np.concatenate([self.temperatures, *others])
        x = np.linspace(0.97 * 1000.0 / ends.max(), 1.03 * 1000.0 / ends.min(), 100)
        line = np.array([self.at(1000.0 / value) for value in x]) * CM2_PER_S  # (100, 3)
        colour = points[0].get_color()
        ax.plot(x, line[:, 0], "-", color=colour, lw=1.2, label=f"fit, {self._energy()}")
        ax.fill_between(x, line[:, 1], line[:, 2], color=colour, alpha=0.2, lw=0)
        for (text, (t, d)), marker in zip((references or {}).items(), "sD^v<>pPX*" * 5):
            ax.plot(1000.0 / np.atleast_1d(t), np.atleast_1d(d), marker, mfc="none", ms=6, label=text)
        ax.set(xlabel="1000 / T (1/K)", ylabel="D (cm²/s)", yscale="log")
        ax.legend(frameon=False, fontsize=8)
        return ax


@application
def arrhenius(
    data: Sequence[Diffusion] | Sequence[float] | np.ndarray,
    values: Sequence[float] | np.ndarray | None = None,
    *,
    errors: Sequence[float] | np.ndarray | None = None,
    quantity: Quantity = "tracer",
    species: str = "Li",
) -> Arrhenius:
    """Fit ln D = ln D₀ - E / kT by least squares, weighted by the errors of ln D.

    Where the points scatter more than their errors say (reduced chi² over 1), the errors of the fit are
    scaled up by its root. Without errors they come from the scatter alone, with Student's factor.

    Where the coefficient of a result is not determined, neither is the activation energy: the fit is NaN and
    `reason` names the temperatures.

    Args:
        data: results of `diffusion` that know their temperature, or temperatures (n,) in K.
        values: with temperatures, the coefficients (n,) in Å²/ps.
        errors: with temperatures, their 68 % errors (n,) in Å²/ps.
        quantity: which coefficient of the results.
        species: name for plots, with temperatures.

    Raises:
        DataError: fewer than two temperatures (three without errors), or a coefficient that is not positive.
        ConfigError: results without temperature or of several species, arrays of different lengths.

    Warns:
        UserWarning: a coefficient is zero within its error, so its logarithm is hardly known.

    Example:
        >>> fit = arrhenius([diffusion(f"{t}K.traj", "Li", temperature=t) for t in (500, 600, 700, 900)])
        >>> print(fit.summary())
    """
    results = [item for item in data if isinstance(item, Diffusion)]
    if results:
        temperatures, values, errors = _from_results(results, quantity)
        species = results[0].species
    elif values is None:
        raise ConfigError("arrhenius takes a list of Diffusion results, or temperatures and values")
    else:
        temperatures = np.asarray(data, dtype=float)
    values = np.asarray(values, dtype=float)
    errors = np.full(len(values), np.nan) if errors is None else np.asarray(errors, dtype=float)
    given: dict[str, Any] = {
        "species": species, "quantity": quantity, "temperatures": temperatures, "values": values,
        "errors": errors,
    }  # fmt: skip
    sources = {"sources": [result.provenance.get("source") for result in results]}
    missing = np.flatnonzero(np.isnan(values)) if results else np.empty(0, dtype=int)
    if len(missing):
        first = results[missing[0]]
        why = first.reason if quantity == "tracer" else first.collective_reason
        reason = f"D at {', '.join(f'{t:g}' for t in temperatures[missing])} K is not determined ({why}), or "
        reason += "leave that temperature out"
        given |= dict.fromkeys(_FITTED, float("nan"))
        return Arrhenius(**given, reason=reason, provenance=sources)
    _check(temperatures, values, errors)

    known = bool(np.isfinite(errors).all())
    sigma = errors / values if known else np.ones(len(values))
    design = np.stack([np.ones(len(values)), -1.0 / (units.kB * temperatures)], axis=1)  # (n, 2)
    covariance = np.linalg.inv(design.T @ (design / sigma[:, None] ** 2))
    solution = covariance @ design.T @ (np.log(values) / sigma**2)
    freedom = len(values) - 2
    chi2 = float(np.sum(((np.log(values) - design @ solution) / sigma) ** 2) / freedom) if freedom else np.nan
    if known:
        scale = max(1.0, np.sqrt(chi2)) if freedom else 1.0
    else:
        scale = np.sqrt(chi2) * student(freedom)
    spread = np.sqrt(np.diag(covariance))
    return Arrhenius(
        **given,
        activation_energy=float(solution[1]),
        activation_energy_error=float(scale * spread[1]),
        log_prefactor=float(solution[0]),
        log_prefactor_error=float(scale * spread[0]),
        correlation=float(covariance[0, 1] / (spread[0] * spread[1])),
        chi2_reduced=chi2 if known else float("nan"),
        provenance=sources,
    )


def _from_results(results: list[Diffusion], quantity: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    for result in results:
        if result.temperature is None:
            raise ConfigError("a Diffusion result has no temperature; call diffusion(..., temperature=...)")
        if getattr(result, quantity) is None:
            raise ConfigError(f"the result at {result.temperature:g} K has no {quantity} coefficient")
    if len(species := sorted({result.species for result in results})) > 1:
        raise ConfigError(f"the results are of {' and '.join(species)}; a fit is of one species, so fit each")
    columns = [(r.temperature, getattr(r, quantity), getattr(r, f"{quantity}_error")) for r in results]
    temperatures, values, errors = np.array(columns, dtype=float).T
    return temperatures, values, errors


def _check(temperatures: np.ndarray, values: np.ndarray, errors: np.ndarray) -> None:
    if not temperatures.shape == values.shape == errors.shape or temperatures.ndim != 1:
        raise ConfigError(
            f"temperatures {temperatures.shape}, values {values.shape} and errors {errors.shape} must be "
            "lists of one length"
        )
    needed = 2 if np.isfinite(errors).all() else 3
    if len(np.unique(temperatures)) < needed or not (temperatures > 0.0).all():
        raise DataError(
            f"temperatures {temperatures.tolist()} K: a fit needs {needed} different ones above 0, better 4 "
            "or more"
        )
    for t, d, e in zip(temperatures, values, errors):
        if not d > 0.0:
            raise DataError(
                f"D = {d:g} Å²/ps at {t:g} K has no logarithm: nothing diffused measurably there; run longer "
                "or leave it out"
            )
        if e >= d:
            warnings.warn(
                f"D = {d:.2g} ± {e:.2g} Å²/ps at {t:g} K is zero within its error; run longer or leave it "
                "out",
                stacklevel=4,
            )
        if e <= 0.0:
            raise DataError(f"the error of D at {t:g} K is {e:g}; errors must be > 0, or all left out")
