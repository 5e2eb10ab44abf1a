"""Mean-square displacements averaged over time origins, kept apart by blocks of origins."""

from __future__ import annotations

import numpy as np

from dpa2calc.dynamics.averages import student

_CHUNK = 4_000_000  # numbers of one temporary array


def choose_lags(n_frames: int, longest: int, n_lags: int) -> np.ndarray:
    """Up to n_lags lags, in frames, evenly spaced from 1 to `longest`."""
    return np.unique(np.round(np.linspace(1, min(longest, n_frames - 1), n_lags)).astype(np.int64))


def squared_displacements(paths: np.ndarray, lags: np.ndarray, n_blocks: int) -> np.ndarray:
    """Mean squared displacement of each lag, block of time origins and direction.

        out[l, b, x] = < (r_x(t + lags[l]) - r_x(t))² > over particles and origins t of block b

    All lags use the same origins t <= n_frames - 1 - max(lags), so that anything linear in the curve, such
    as a fitted slope, is the mean of its values in the blocks.

    Of unwrapped positions (n_frames, n_particles, 3), at ascending lags in frames: (n_lags, n_blocks, 3).
    """
    n_origins = len(paths) - int(lags[-1])
    starts = np.array([part[0] for part in np.array_split(np.arange(n_origins), n_blocks)])
    counts = np.diff([*starts, n_origins])
    sums = np.zeros((len(lags), n_blocks, 3))
    step = max(1, _CHUNK // (3 * len(paths)))
    for first in range(0, paths.shape[1], step):
        some = np.ascontiguousarray(paths[:, first : first + step])
        for k, lag in enumerate(lags):
            moved = some[lag : lag + n_origins] - some[:n_origins]
            squares = np.einsum("tix,tix->tx", moved, moved)  # (n_origins, 3)
            sums[k] += np.add.reduceat(squares, starts, axis=0)
    return sums / (counts[:, None] * paths.shape[1])


def slope_weights(time: np.ndarray) -> np.ndarray:
    """Coefficients c (n,) of the least-squares slope of a line with intercept: slope = sum(c * values)."""
    centred = time - time.mean()
    return centred / np.sum(centred**2)


def ratio_error(numerator: np.ndarray, denominator: np.ndarray) -> float:
    """68 % half-width of mean(numerator) / mean(denominator) over blocks (n_blocks,), by leaving one out."""
    n_blocks = len(numerator)
    left = (numerator.sum() - numerator) / (denominator.sum() - denominator)
    return student(n_blocks - 1) * float(np.sqrt((n_blocks - 1) * np.var(left)))
