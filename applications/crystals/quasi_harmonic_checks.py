"""Where the fits of F(V) do not determine what follows from them, and why."""

from __future__ import annotations

import numpy as np

from .eos_forms import Form, fit_errors, fit_variants

_MODULUS = 0.10  # share of B_T that its error may reach
_EXPANSION = 0.30  # share of the expansion by which other fits may differ
_FLOOR = 0.10  # of the largest expansion: below it that share is taken of this
_RISE = 0.02  # share by which B_T may rise with temperature


def undetermined(
    temperatures: np.ndarray, volumes: np.ndarray, curves: np.ndarray, form: Form, fits: np.ndarray
) -> tuple[np.ndarray, str]:
    """Temperatures at which expansion and bulk modulus mean nothing.

    Three rules, each at every temperature: the error of B_T (`eos_forms.fit_errors`: scatter, spread of the
    forms, dependence on the range) is at most 10 % of it; the expansion from the other forms and from the
    inner half of the volumes differs by at most 30 %; and B_T has not risen by more than 2 % above a value
    at a lower temperature, as no crystal stiffens so far by warming.

    Args:
        temperatures: (n_t,) K. volumes: (n_v,) Å³. curves: F(V) + PV (n_t, n_v) eV.
        fits: parameters (n_t, 4) of `form` at each temperature.

    Returns:
        (n_t,) bool, and the reasons, "" where every temperature passes.
    """
    errors, known = [], []
    for curve, best in zip(curves, fits):
        variants = fit_variants(volumes, curve, form, best)
        errors.append(fit_errors(volumes, curve, form, best, variants)[2])
        known.append([*variants.others[:, 1], variants.inner[1]])
    modulus, expansion = fits[:, 2], thermal_expansion(temperatures, fits[:, 1])
    others = np.array([thermal_expansion(temperatures, column) for column in np.array(known).T])  # (3, n_t)
    allowed = _EXPANSION * np.maximum(np.abs(expansion), _FLOOR * np.abs(expansion).max())
    apart = ~(np.abs(others - expansion) <= allowed).all(axis=0)
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


def thermal_expansion(temperatures: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """Volumetric expansion (n_t,) in 1/K from volumes (n_t,)."""
    return np.gradient(volume, temperatures, edge_order=2) / volume
