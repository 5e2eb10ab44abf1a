"""Noisy curves on an even grid: their peaks and minima, and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dpa2calc.files.figures import Axes


def smooth_curve(values: np.ndarray, window: int) -> np.ndarray:
    """Triangular running mean over about `window` bins, ends repeated."""
    half = window // 2
    if half == 0:
        return values
    kernel = np.concatenate([np.arange(1, half + 2), np.arange(half, 0, -1)]).astype(float)
    return np.convolve(np.pad(values, half, mode="edge"), kernel / kernel.sum(), mode="valid")


def first_maximum(r: np.ndarray, g: np.ndarray) -> int:
    """Bin of the first peak: the highest bin of the first region where smoothed g exceeds half its maximum.

    Noise at small r therefore does not count as a peak, and a shoulder belongs to its peak.
    """
    smooth = smooth_curve(g, round(0.15 / (r[1] - r[0])))
    over = smooth > 0.5 * smooth.max()
    if not over.any():
        return int(np.argmax(g))
    start = int(np.argmax(over))
    stop = start + int(np.argmin(over[start:])) if not over[start:].all() else len(g)
    return start + int(np.argmax(g[start:stop]))


def vertex(r: np.ndarray, g: np.ndarray, top: int) -> tuple[float, float]:
    """Vertex of the parabola through bins top - 1, top, top + 1."""
    if not 0 < top < len(g) - 1:
        return float(r[top]), float(g[top])
    left, middle, right = g[top - 1 : top + 2]
    curvature = left - 2.0 * middle + right
    if curvature >= 0.0:
        return float(r[top]), float(g[top])
    offset = 0.5 * (left - right) / curvature  # in bins, |offset| <= 0.5
    return float(r[top] + offset * (r[1] - r[0])), float(middle - 0.25 * (left - right) * offset)


def first_minimum(r: np.ndarray, g: np.ndarray) -> float | None:
    """Position of the first minimum after the first peak of g smoothed over 0.3 Å; None if there is none.

    Where g stays at its lowest value (the gap after an O-H bond, between a crystal's shells) it is the
    middle of that gap.
    """
    smooth = smooth_curve(g, round(0.3 / (r[1] - r[0])))
    lowest = first_maximum(r, g)
    while lowest + 1 < len(g) and smooth[lowest + 1] > smooth[lowest]:  # smoothing may have moved the top
        lowest += 1
    top = smooth[lowest]
    # Walk down until g has risen again by 5 % of the drop: the lowest point on the way.
    for i in range(lowest + 1, len(g)):
        if smooth[i] < smooth[lowest]:
            lowest = i
        elif smooth[i] > smooth[lowest] + 0.05 * (top - smooth[lowest]) + 1e-12:
            break
    else:
        return None
    last = lowest
    while last + 1 < len(g) and smooth[last + 1] <= smooth[lowest] + 1e-12:
        last += 1
    return float(0.5 * (r[lowest] + r[last]))


def blocks_line(n_frames: int, n_blocks: int) -> str:
    """How many frames were read, and what the error bars come from."""
    frames = f"{n_frames} frame{'' if n_frames == 1 else 's'}"
    return f"{frames}, errors from {n_blocks} blocks" if n_blocks > 1 else f"{frames}, too few for error bars"


def draw_curve(ax: Axes, x: np.ndarray, y: np.ndarray, error: np.ndarray, label: str) -> None:
    """A line and, where it is known, a band of its error; all (n,)."""
    (line,) = ax.plot(x, y, lw=1.8, label=label)
    if np.isfinite(error).all():
        ax.fill_between(x, y - error, y + error, color=line.get_color(), alpha=0.3, lw=0)


def draw_references(
    ax: Axes, reference: object, points: Callable[[Any], tuple[np.ndarray, np.ndarray]]
) -> None:
    """Nothing, one curve, or several by name, in black; `points` gives x and y of one."""
    named = reference if isinstance(reference, Mapping) else {"reference": reference}
    for (name, curve), style in zip(named.items(), ("--", ":", "-.") * len(named)):
        if curve is not None:
            ax.plot(*points(curve), "k" + style, lw=1.3, label=name, zorder=3)
