"""Curves with error bands, and others to compare them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from dpa2calc.files.figures import Axes

Curve = TypeVar("Curve")


def draw_curve(ax: Axes, x: np.ndarray, y: np.ndarray, error: np.ndarray, label: str) -> None:
    """A line and, where it is known, a band of its error; all (n,)."""
    (line,) = ax.plot(x, y, lw=1.8, label=label)
    if np.isfinite(error).all():
        ax.fill_between(x, y - error, y + error, color=line.get_color(), alpha=0.3, lw=0)


def draw_references(
    ax: Axes, reference: Curve | Mapping[str, Curve] | None,
    points: Callable[[Curve], tuple[np.ndarray, np.ndarray]],
) -> None:  # fmt: skip
    """Nothing, one curve, or several by name, in black; `points` gives x and y of one."""
    named = reference if isinstance(reference, Mapping) else {"reference": reference}
    for (name, curve), style in zip(named.items(), ("--", ":", "-.") * len(named)):
        if curve is not None:
            ax.plot(*points(curve), "k" + style, lw=1.3, label=name, zorder=3)
