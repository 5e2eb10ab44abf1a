"""Three forms of an equation of state, their fit, and the error that the fit really has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from dpa2calc.errors import StructureError

Form = Literal["birch-murnaghan", "vinet", "murnaghan"]


def energy_of_volume(
    form: Form,
    volume: npt.ArrayLike,
    e0: npt.ArrayLike,
    v0: npt.ArrayLike,
    b0: npt.ArrayLike,
    b1: npt.ArrayLike,
) -> np.ndarray:
    """Energy (eV) of a volume (Å³) from energy e0 and volume v0 at rest, bulk modulus b0 (eV/Å³), b1 = dB/dP.

    All may be arrays, as NumPy broadcasts them.

    Forms: third-order Birch-Murnaghan (Birch, Phys. Rev. 71, 809, 1947), Vinet et al. (J. Phys. C 19,
    L467, 1986), Murnaghan (PNAS 30, 244, 1944).
    """
    volume, e0, v0, b0, b1 = (np.asarray(given, dtype=float) for given in (volume, e0, v0, b0, b1))
    if form == "birch-murnaghan":
        x = (v0 / volume) ** (2.0 / 3.0)
        return e0 + 9.0 * v0 * b0 / 16.0 * ((x - 1.0) ** 3 * b1 + (x - 1.0) ** 2 * (6.0 - 4.0 * x))
    if form == "vinet":
        x = np.cbrt(volume / v0)
        slope = 1.5 * (b1 - 1.0)
        # the integral of 3 b0 (1 - x) / x^2 exp(slope (1 - x)); zero at x = 1
        return e0 + 9.0 * b0 * v0 / slope**2 * (1.0 - (1.0 - slope * (1.0 - x)) * np.exp(slope * (1.0 - x)))
    ratio = (v0 / volume) ** b1
    return e0 + b0 * volume / b1 * (ratio / (b1 - 1.0) + 1.0) - b0 * v0 / (b1 - 1.0)


def pressure_of_volume(form: Form, volume: npt.ArrayLike, v0: float, b0: float, b1: float) -> np.ndarray:
    """Pressure -dE/dV of the same three forms, in the unit of b0."""
    volume = np.asarray(volume, dtype=float)
    if form == "birch-murnaghan":
        x = np.cbrt(v0 / volume)
        return 1.5 * b0 * (x**7 - x**5) * (1.0 + 0.75 * (b1 - 4.0) * (x**2 - 1.0))
    if form == "vinet":
        x = np.cbrt(volume / v0)
        return 3.0 * b0 * (1.0 - x) / x**2 * np.exp(1.5 * (b1 - 1.0) * (1.0 - x))
    return b0 / b1 * ((v0 / volume) ** b1 - 1.0)


def fit_energy_volume(volumes: np.ndarray, energies: np.ndarray, form: Form) -> np.ndarray:
    """Least-squares parameters (4,) e0 (eV), v0 (Å³), b0 (eV/Å³), b1 of energies (n,) at volumes (n,).

    Raises:
        StructureError: the lowest energy is not inside the range, there is no minimum, or the fit fails.
    """
    c2, c1, _ = np.polyfit(volumes - volumes.mean(), energies - energies.min(), 2)
    guess_v0 = volumes.mean() - c1 / (2.0 * c2) if c2 > 0 else np.nan
    span = f"the volumes {volumes.min():.3f} to {volumes.max():.3f} Å³"
    lowest = volumes[energies.argmin()]
    if lowest in (volumes.min(), volumes.max()):
        raise StructureError(
            f"the lowest energy lies outside {span} (lowest at {lowest:.3f}): relax the cell first, or widen "
            "the strain range"
        )
    if not volumes.min() < guess_v0 < volumes.max():
        raise StructureError(
            f"the energies have no minimum in {span}: the lowest is at {lowest:.3f} Å³, but their parabola "
            f"bends {'up' if c2 > 0 else 'down'}wards with its vertex elsewhere; look at the energies by eye"
        )
    scales = np.array([1.0, guess_v0, 2.0 * c2 * guess_v0, 1.0])  # the third is the parabola's bulk modulus
    found = least_squares(
        lambda p: energy_of_volume(form, volumes, *(p * scales)) - (energies - energies.min()),
        jac=lambda p: _slopes(form, volumes, p * scales, 1e-6 * scales) * scales,
        x0=(0.0, 1.0, 1.0, 4.5), method="lm", xtol=1e-12, ftol=1e-13, gtol=1e-14, max_nfev=2000,
    )  # fmt: skip
    if not found.success or not np.isfinite(found.x).all():
        raise StructureError(
            f"no {form} curve fits the energies: {found.message}; look at the energies by eye"
        )
    return found.x * scales + np.array([energies.min(), 0.0, 0.0, 0.0])


def standard_errors(volumes: np.ndarray, energies: np.ndarray, form: Form, best: np.ndarray) -> np.ndarray:
    """Errors (4,) of fitted parameters, with the residuals as noise."""
    left = energies - energy_of_volume(form, volumes, *best)
    noise = np.sqrt((left**2).sum() / max(1, len(volumes) - 4))
    return noise * _unit_errors(form, volumes, best)


@dataclass(frozen=True)
class Variants:
    """Fits of the other forms (2, 4), and of the inner half of the volumes, `indices`; NaN without a fit."""

    others: np.ndarray
    inner: np.ndarray
    indices: np.ndarray


def fit_variants(volumes: np.ndarray, energies: np.ndarray, form: Form, best: np.ndarray) -> Variants:
    """Fit the other forms, and the inner half of the range about the volume best[1], at least five."""
    share = np.abs(np.cbrt(volumes / best[1]) - 1.0)
    indices = np.sort(np.argsort(share)[: max(5, int((share <= 0.55 * share.max()).sum()))])

    def parameters(which: np.ndarray, kind: Form) -> np.ndarray:
        try:
            return fit_energy_volume(volumes[which], energies[which], kind)
        except StructureError:
            return np.full(4, np.nan)

    whole = np.arange(len(volumes))
    others = [parameters(whole, other) for other in get_args(Form) if other != form]
    inner = best if len(indices) == len(volumes) else parameters(indices, form)
    return Variants(np.array(others), inner, indices)


def fit_errors(
    volumes: np.ndarray, energies: np.ndarray, form: Form, best: np.ndarray, variants: Variants | None = None
) -> np.ndarray:
    """Errors (4,) of a fit that hold what the residuals alone do not show, infinite where a variant has none.

    Summed in quadrature: the standard errors of the fit; the largest difference to the two other forms; and
    the difference to a fit of the inner half of the range, as far as it exceeds what the scatter of the
    energies about a smooth curve explains.
    """
    variants = variants or fit_variants(volumes, energies, form, best)
    errors = standard_errors(volumes, energies, form, best)
    spread = np.abs(variants.others - best).max(axis=0)
    if np.isnan(variants.inner).any() or np.isnan(variants.others).any():
        return np.full(4, np.inf)
    known = _noise(volumes, energies) * _unit_errors(form, volumes[variants.indices], best)
    doubt = np.maximum(0.0, (variants.inner - best) ** 2 - known**2)
    return np.sqrt(errors**2 + spread**2 + doubt)


def _noise(volumes: np.ndarray, energies: np.ndarray) -> float:
    """Scatter (eV) of energies about a polynomial that is freer than an equation of state; 0 if too few."""
    degree = min(6, len(volumes) - 4)
    if degree < 4:
        return 0.0
    x = 2.0 * (volumes - volumes.mean()) / np.ptp(volumes)
    left = energies - np.polynomial.Chebyshev.fit(x, energies, degree)(x)
    return float(np.sqrt((left**2).sum() / (len(volumes) - degree - 1)))


def volume_change(form: Form, volumes: np.ndarray, change: np.ndarray, best: np.ndarray) -> float:
    """First-order change of the fitted volume (Å³) with a change (n,) of the energies; NaN without a fit."""
    if np.isnan(best).any():
        return float("nan")
    design, scale = _design(form, volumes, best)
    return float(np.linalg.lstsq(design, change, rcond=None)[0][1] * scale[1])


def _unit_errors(form: Form, volumes: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Standard errors (4,) of the parameters for energies with noise of 1 eV."""
    design, scale = _design(form, volumes, best)
    return np.sqrt(np.diag(np.linalg.pinv(design.T @ design))) * scale


def _design(form: Form, volumes: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives (n, 4) of the energies by the parameters in units of their scale (4,)."""
    scale = np.array([1.0, best[1], best[2], 1.0])
    steps = 1e-5 * np.array([1.0, best[1], best[2], abs(best[3]) + 1.0])
    return _slopes(form, volumes, best, steps) * scale, scale


def _slopes(form: Form, volumes: np.ndarray, parameters: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Derivatives (n, 4) of the energies by the parameters (4,), by central differences."""
    moved = parameters[:, None, None] + np.stack([np.diag(steps), -np.diag(steps)], axis=1)  # (4, 2, 4)
    ahead, behind = energy_of_volume(form, volumes, *moved[..., None])  # (4, n) each
    return (ahead - behind).T / (2.0 * steps)
