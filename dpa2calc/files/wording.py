"""How numbers are written in summaries."""

from __future__ import annotations

import math


def plus_minus(value: float, error: float) -> str:
    """A value with its error, both to the error's second digit: "1620 ± 460", "0.2513 ± 0.0022"."""
    if not (math.isfinite(error) and error > 0.0 and math.isfinite(value)):
        return f"{value:.4g} ± {error:.2g}"
    digits = 1 - math.floor(math.log10(error))
    if digits > 7 or (digits < 0 and abs(value) > 1e6):
        return f"{value:.4g} ± {error:.2g}"
    if digits < 0:
        value, error = round(value, digits), round(error, digits)
    return f"{value:.{max(digits, 0)}f} ± {error:.{max(digits, 0)}f}"
