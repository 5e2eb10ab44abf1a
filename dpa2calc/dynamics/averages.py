"""The one error bar of this package: the half-width of the 68 % interval of a mean, from block averages.

A correlated series is cut into a few consecutive blocks, each longer than the correlation time, so that the
block averages B are nearly independent and nearly normal. With n of them

    error = t(n - 1) std(B, ddof=1) / sqrt(n) sqrt((1 + r) / (1 - r)),

where r is the correlation of neighbouring blocks, 0 unless it is seen: a series that is short for its
correlation time leaves blocks that go together, and so count for fewer than n. Its estimate from few blocks
is too low, which is corrected (Marriott and Pope, Biometrika 41, 390 (1954); Kendall, ibid. 403). t(f) is
Student's factor at 68.27 % for f degrees of freedom (1.06 for ten blocks, 1.32 for three, 1 for many): mean ±
error holds the true mean in 68 % of the cases, however few the blocks (Student, Biometrika 6, 1 (1908); block
averages: Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989), and Frenkel and Smit, Understanding Molecular
Simulation, appendix D). On first-order autoregressive series the share is 60 to 73 % for series over five
correlation times long (tests/dynamics/test_averages.py), and half at two; for streams, which have ten blocks,
63 to 73 % over fifty, and 54 to 60 % between five and 25.
This is the error of sampling: that of the model is no part of it.
"""

from __future__ import annotations

import numpy as np

from dpa2calc.errors import DataError

BLOCKS = 10  # of a stream
_OF_A_SERIES = 20  # more blocks see a correlation better
_SEEN = 1.7  # standard deviations of the correlation of independent blocks, 1 / sqrt(n) each
_HIGHEST = 0.9


def student(freedom: int) -> float:
    """Student's factor t(f), from a standard error of f degrees of freedom to the 68 % half-width."""
    from scipy.special import stdtrit  # when needed: importing it takes longer than the rest of this file

    return float(stdtrit(freedom, 0.5 + 0.5 * 0.682689))


def block_error(blocks: np.ndarray) -> np.ndarray:
    """Error (...) of the mean of independent block averages (n_blocks, ...); NaN for one block."""
    n_blocks = len(blocks)
    if n_blocks < 2:
        return np.full(blocks.shape[1:], np.nan)
    error = student(n_blocks - 1) * blocks.std(axis=0, ddof=1) / np.sqrt(n_blocks)
    r = _correlation(blocks)
    return error * np.sqrt((1.0 + r) / (1.0 - r))


def _correlation(blocks: np.ndarray) -> np.ndarray:
    """Correlation (...) of neighbours among blocks (n_blocks, ...); 0 where chance would do."""
    n = len(blocks)
    off = blocks - blocks.mean(axis=0)
    squares, products = (off**2).sum(axis=0), (off[1:] * off[:-1]).sum(axis=0)
    found = products / np.where(squares > 0.0, squares, 1.0)
    seen = found + 1.0 / n > _SEEN / np.sqrt(n)
    return np.where(seen, np.minimum(found + (1.0 + 3.0 * found) / n, _HIGHEST), 0.0)


def series_error(values: np.ndarray) -> float:
    """`block_error` of the mean of a correlated series (n,); NaN for fewer than two values."""
    if len(values) < 2:
        return float("nan")
    parts = np.array_split(np.asarray(values, dtype=float), min(_OF_A_SERIES, len(values)))
    return float(block_error(np.array([part.mean() for part in parts])))


def check_blocks(n_blocks: int) -> int:
    """The number of blocks, refused below 2."""
    if n_blocks < 2:
        raise DataError(f"n_blocks = {n_blocks}: error bars need at least 2 blocks, better {BLOCKS}")
    return n_blocks


class BlockAverage:
    """Mean of a stream of arrays of unknown length and its `block_error`, in constant memory.

    The stream is cut into at most `capacity` consecutive fine blocks; when they are full,
    neighbours are merged and the block length doubles. At the end they are joined to `n_blocks` blocks
    of (nearly) equal length.
    """

    def __init__(self, n_blocks: int = BLOCKS) -> None:
        self.n_blocks = check_blocks(n_blocks)
        self.capacity = 16 * n_blocks
        self.length = 1
        self.sums: list[np.ndarray] = []
        self.counts: list[int] = []

    @property
    def n_frames(self) -> int:
        """How many arrays came in."""
        return sum(self.counts)

    def add(self, values: np.ndarray) -> None:
        """Take one frame's array; all have the same shape."""
        if self.counts and self.counts[-1] < self.length:
            self.sums[-1] = self.sums[-1] + values
            self.counts[-1] += 1
            return
        if len(self.counts) == self.capacity:
            self.sums = [first + second for first, second in zip(self.sums[::2], self.sums[1::2])]
            self.counts = [first + second for first, second in zip(self.counts[::2], self.counts[1::2])]
            self.length *= 2
        self.sums.append(np.array(values, dtype=float))
        self.counts.append(1)

    def mean(self) -> np.ndarray:
        """Average over all frames."""
        return np.sum(self.sums, axis=0) / self.n_frames

    def blocks(self) -> np.ndarray:
        """Block averages, shape (n, ...) with n = min(n_blocks, frames)."""
        groups = np.array_split(np.arange(len(self.counts)), min(self.n_blocks, len(self.counts)))
        counts = np.array(self.counts)
        return np.array([np.sum([self.sums[i] for i in g], axis=0) / counts[g].sum() for g in groups])

    def error(self) -> np.ndarray:
        """`block_error` of the mean."""
        return block_error(self.blocks())
