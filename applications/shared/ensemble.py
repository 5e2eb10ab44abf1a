"""The part of an error bar that is the model's: the spread of a property over the model's ensemble."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dpa2calc.errors import StructureError
from dpa2calc.files.results import Result, error_text

from .cached import Evaluated

Numbers = Callable[[Sequence[Evaluated]], Mapping[str, float]]
_SHARES = (1.0, 0.5, 0.25, 0.125)  # of a member's change that are tried, where a fit fails


@dataclass(frozen=True, kw_only=True)
class WithModelErrors(Result):
    """Base of results whose numbers come from few energies, forces or stresses.

    `model_errors`: by the name of a number, its spread over the ensemble of the model, in its unit, at the
    structures that the model itself relaxed; empty where the calculator knows no doubt, NaN where most
    members have no such property.
    """

    model_errors: dict[str, float] = field(default_factory=dict)

    def told(self, name: str, value: float, error: float | None, unit: str, digits: int) -> str:
        """A number with the error of its fit and, where it is known, of the model."""
        text = f"{value:.{digits}f}"
        model = self.model_errors.get(name)
        if error is not None:
            text += f" ± {error_text(error, f'.{digits}f')}" + (" (fit)" if model is not None else "")
        if model is not None:
            text += f" ± {_two_digits(model)} (model)"
        return f"{text} {unit}".rstrip()


def spread(numbers: Numbers, points: Sequence[Evaluated]) -> dict[str, float]:
    """Root mean square of what the members of the ensemble change numbers by.

    Where a member has no such number (a curve without a minimum), half of its change is tried and the effect
    doubled, and so on; where that fails too for most members, the spread is NaN.

    Args:
        numbers: of the points, by their names; StructureError where there are none.
        points: evaluated with `ensemble=True`. Without an ensemble the spread is {}.
    """
    if not points or any(point.ensemble is None for point in points):
        return {}
    base = numbers(points)
    n_members = len(points[0].ensemble["energy"])  # type: ignore[index]
    changes = [_change(numbers, base, points, member) for member in range(n_members)]
    found = [change for change in changes if change is not None]
    if 2 * len(found) <= n_members:
        return dict.fromkeys(base, math.nan)
    return {name: float(np.sqrt(np.mean([change[name] ** 2 for change in found]))) for name in base}


def _change(
    numbers: Numbers, base: Mapping[str, float], points: Sequence[Evaluated], member: int
) -> dict[str, float] | None:
    for share in _SHARES:
        try:
            found = numbers([_of_member(point, member, share) for point in points])
        except StructureError:
            continue
        return {name: (found[name] - value) / share for name, value in base.items()}
    return None


def _of_member(point: Evaluated, member: int, share: float) -> Evaluated:
    """The point as a member of the ensemble has it, or as one that differs by a share of that."""
    assert point.ensemble is not None
    changed = {name: getattr(point, name) + share * value[member] for name, value in point.ensemble.items()}
    return dataclasses.replace(point, **changed, ensemble=None)


def _two_digits(error: float) -> str:
    if not math.isfinite(error) or error <= 0:
        return "0" if error == 0 else "unknown"
    digits = 1 - math.floor(math.log10(error))
    return f"{round(error, digits):.{max(0, digits)}f}"
