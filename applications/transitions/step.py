"""Where a measured curve falls most steeply, with an error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

SAMPLES = 400


@dataclass(frozen=True)
class StepPosition:
    """Temperature of a step and its error, K; NaN with a reason where there is none."""

    temperature: float
    error: float
    reason: str


def find_step(temperature: np.ndarray, order: np.ndarray, error: np.ndarray, seed: int = 0) -> StepPosition:
    """Locate the steepest fall of an order parameter with rising temperature.

    The position is the mean of the interval midpoints around the steepest interval, weighted by their
    slopes, as far as these exceed half the largest. This is right for a jump (one interval) and close to
    the critical temperature of a continuous transition, whose order parameter falls ever more steeply
    towards it; the half-height would lie well below.

    A step is one only against the noise. That is the larger of the errors given and of the scatter of the
    points about the best curve that never rises (isotonic regression): errors from short, correlated stages
    are too small, and points that go up and down show it. The fall over the steepest interval must exceed
    three times the noise of its two points, or the whole fall five times that of the points at its ends.
    Noise alone passes in less than 5 % of the cases, also where the errors given are half of the true ones.
    The error of the position adds its scatter when the points move within their errors, and the width of the
    interval over sqrt(12). A fall that is noise, or even and to no less than half, gives NaN with a reason.
    """
    by = np.argsort(temperature)
    x, y, s = temperature[by], order[by], np.nan_to_num(error[by])
    s = _noise(y, s)
    fall = y[:-1] - y[1:]
    noise = np.hypot(s[:-1], s[1:])
    edge = max(2, len(x) // 6)
    total = y[:edge].mean() - y[-edge:].mean()
    steepest = int(np.argmax(fall / np.diff(x)))
    expected = total * (x[steepest + 1] - x[steepest]) / (x[-1] - x[0])
    # a slow fall to no less than half, as thermal expansion brings, is no step
    clear = fall[steepest] > 1.5 * expected or y[-edge:].mean() < 0.5 * y[:edge].mean()
    ends = float(np.sqrt(np.sum(s[:edge] ** 2) + np.sum(s[-edge:] ** 2))) / edge  # error of the whole fall
    certain = fall[steepest] > 3 * noise[steepest] or total > 5 * ends
    if not (total > 0 and clear and certain):
        goes = f"the order parameter goes from {y[0]:.4g} to {y[-1]:.4g}"
        return StepPosition(np.nan, np.nan, f"no step between {x[0]:g} and {x[-1]:g} K: {goes}")
    rng = np.random.default_rng(seed)
    moved = [_steepest(x, y + s * rng.standard_normal(len(y))) for _ in range(SAMPLES)]
    width = x[steepest + 1] - x[steepest]
    return StepPosition(_steepest(x, y), float(np.hypot(np.std(moved), width / np.sqrt(12))), "")


def _noise(y: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Errors (n,) scaled up where the points scatter about a falling curve by more than these say."""
    fit = isotonic_regression(y, increasing=False)
    freedom = len(y) - (len(fit.blocks) - 1)
    if freedom < 1:
        return s
    if not (s > 0).all():
        return np.maximum(s, np.sqrt(np.sum((y - fit.x) ** 2) / freedom))
    return s * max(1.0, float(np.sqrt(np.sum(((y - fit.x) / s) ** 2) / freedom)))


def _steepest(x: np.ndarray, y: np.ndarray) -> float:
    slopes = (y[:-1] - y[1:]) / np.diff(x)
    middle = (x[:-1] + x[1:]) / 2
    top = int(np.argmax(slopes))
    low = np.flatnonzero(slopes <= slopes[top] / 2)  # what ends the steep part on either side
    before, after = low[low < top], low[low > top]
    part = slice(before[-1] + 1 if len(before) else 0, after[0] if len(after) else None)
    return float(np.average(middle[part], weights=slopes[part]))
