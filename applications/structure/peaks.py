"""Peaks and minima of a noisy curve on an even grid."""

from __future__ import annotations

import numpy as np


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
