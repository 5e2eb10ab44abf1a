"""Van Hove functions: how far atoms are after a time from their own and from each other's old places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.geometry import minkowski_reduce

from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.trajectory import TrajectoryLike
from dpa2calc.applications.structure.pair_counts import check_bins
from dpa2calc.dynamics.averages import BlockAverage, check_blocks
from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.figures import Axes
from dpa2calc.files.results import Result
from dpa2calc.structures.distances import pair_vectors
from dpa2calc.structures.search import face_distances

from .unwrapped import WITHOUT_CELL, Drift, Paths, read_paths


@dataclass(frozen=True, kw_only=True)
class VanHove(Result):
    """Self and distinct parts of the van Hove function of one species.

    Attributes:
        species: the element; time: lags (n_lags,) in ps.
        r: bin centres (n_bins,) in Å.
        self_part, self_error: 4π r² G_s(r, t), the probability density (n_lags, n_bins) in 1/Å of having
            moved by r; integrates to 1 over all r (`beyond` is the part outside the bins).
        distinct_part, distinct_error: G_d(r, t) / density (n_lags, n_bins): g(r) between places at time 0
            and other atoms' places at time t; 1 where there is no correlation. None for a single atom or
            without three periodic directions. A peak growing at r = 0 means that others move into vacated
            sites.
        beyond: probability (n_lags,) of having moved further than the last bin.
        non_gaussian: α₂ = 3<r⁴> / (5<r²>²) - 1 (n_lags,); 0 for Brownian motion, NaN where no atom moved.
        n_origins, n_blocks: time origins used, and blocks behind the errors of the shortest lag; longer lags
            have fewer and longer ones, and errors are NaN where fewer than two fit.
        without_cell: True where coordinates were taken as unwrapped because no direction is periodic.
    """

    species: str
    time: np.ndarray
    r: np.ndarray
    self_part: np.ndarray
    self_error: np.ndarray
    distinct_part: np.ndarray | None
    distinct_error: np.ndarray | None
    beyond: np.ndarray
    non_gaussian: np.ndarray
    n_origins: int
    n_blocks: int
    without_cell: bool = False

    def summary(self) -> str:
        lines = [f"van Hove function of {self.species}: {self.n_origins} time origins"]
        if self.without_cell:
            lines.append(f"  {WITHOUT_CELL}")
        for k, t in enumerate(self.time):
            most = self.r[np.argmax(self.self_part[k])]
            alpha = self.non_gaussian[k]
            shape = f"{alpha:.2f}" if np.isfinite(alpha) else "not determined: no atom moved"
            lines.append(
                f"  {t:8.3g} ps  most likely displacement {most:.2f} Å, non-Gaussian parameter "
                f"{shape}, {100 * self.beyond[k]:.1f} % beyond {self.r[-1]:.1f} Å"
            )
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the self part, and the distinct part on a second axes below; returns the first axes.

        With `ax` given, only the self part is drawn there.
        """
        import matplotlib.pyplot as plt

        parts = [(self.self_part, self.self_error, "4πr²G$_s$(r, t) (1/Å)")]
        if self.distinct_part is not None and self.distinct_error is not None:
            parts.append((self.distinct_part, self.distinct_error, "G$_d$(r, t) / ρ"))
        if ax is None:
            figure = plt.figure(figsize=(5.0, 3.0 * len(parts)), layout="constrained")
            axes: list[Axes] = list(figure.subplots(len(parts), 1, sharex=True, squeeze=False)[:, 0])
        else:
            axes = [ax]
        colours = plt.colormaps["viridis"](np.linspace(0.0, 0.9, len(self.time)))
        for axis, (values, errors, name) in zip(axes, parts):
            for k, t in enumerate(self.time):
                axis.plot(self.r, values[k], color=colours[k], lw=1.5, label=f"{t:g} ps")
                low, high = values[k] - errors[k], values[k] + errors[k]
                axis.fill_between(self.r, low, high, color=colours[k], alpha=0.2, lw=0)
            axis.set(ylabel=name, xlim=(0.0, self.r[-1]), ylim=(0.0, None))
        axes[-1].set_xlabel("r (Å)")
        axes[0].legend(frameon=False, fontsize=8)
        return axes[0]


@application
def van_hove(
    trajectory: TrajectoryLike | Paths,
    species: str = "Li",
    *,
    lags_ps: Sequence[float],
    interval_fs: float | None = None,
    r_max: float | None = None,
    bin_width: float = 0.1,
    n_origins: int = 200,
    n_blocks: int = 10,
    drift: Drift = "auto",
    wrapped: bool = True,
    progress: bool = False,
) -> VanHove:
    """Van Hove self and distinct functions at the lags asked for.

    Args:
        trajectory, species, interval_fs, drift, wrapped, progress: see `read_paths`.
        lags_ps: times in ps; each is rounded to whole frames.
        r_max: range in Å; half the smallest height of the mean cell if None, which is also the most.
        bin_width: in Å.
        n_origins: at most this many, evenly spaced.
        n_blocks: blocks of origins behind the errors, at most; each is at least 1.5 times as long as the lag,
            as in `diffusion`, since origins within a lag see the same motion.

    The distinct part places the atoms in the mean cell; use an NVT trajectory where that matters.
    """
    paths = read_paths(
        trajectory, species, interval_fs=interval_fs, drift=drift, wrapped=wrapped, progress=progress
    )
    if paths.n_frames < 3:
        raise DataError(f"{paths.n_frames} frames are too few for a van Hove function; give at least 3")
    steps = np.round(np.array(lags_ps, dtype=float) / paths.interval_ps)
    if not (len(steps) and steps.min() >= 1 and steps.max() < paths.n_frames - 1):
        raise ConfigError(
            f"lags_ps = {list(lags_ps)}: each must be from {paths.interval_ps:g} ps (one frame) to "
            f"{(paths.n_frames - 2) * paths.interval_ps:g} ps"
        )
    lags, widest = steps.astype(int), np.inf
    if paths.pbc.all():
        widest = 0.5 * float(face_distances(minkowski_reduce(paths.cell)[0]).min())
    r_max = min(widest, 10.0) if r_max is None else r_max
    if not 0.0 < bin_width <= r_max or r_max > widest + 1e-9:
        raise ConfigError(
            f"bin_width = {bin_width} Å, r_max = {r_max:.3f} Å: the range must be from one bin up to half "
            f"the cell, {widest:.3f} Å"
        )
    check_bins(r_max, bin_width)
    n_bins = int(r_max / bin_width + 1e-9)
    distinct = bool(paths.pbc.all()) and paths.n_atoms > 1
    origins = np.unique(np.linspace(0, paths.n_frames - 1 - lags.max(), n_origins).round().astype(int))
    span = int(origins[-1] - origins[0]) + 1  # frames
    blocks = np.minimum(check_blocks(n_blocks), np.minimum(span / (1.5 * lags), len(origins)).astype(int))
    selves, others, (second, fourth) = _averages(paths, lags, origins, distinct, blocks, bin_width, n_bins)
    self_part = selves.mean()
    moved = second > 1e-20  # Å², far below any vibration: the rounding of coordinates
    return VanHove(
        species=species,
        time=lags * paths.interval_ps,
        r=bin_width * (np.arange(n_bins) + 0.5),
        self_part=self_part,
        self_error=selves.error(),
        distinct_part=others.mean() if distinct else None,
        distinct_error=others.error() if distinct else None,
        beyond=1.0 - self_part.sum(axis=1) * bin_width,
        non_gaussian=np.where(moved, 0.6 * fourth / np.where(moved, second, 1.0) ** 2 - 1.0, np.nan),
        n_origins=len(origins),
        n_blocks=int(blocks.max()),
        without_cell=paths.without_cell,
        provenance={"source": paths.provenance.get("source")},
    )


def _averages(
    paths: Paths, lags: np.ndarray, origins: np.ndarray, distinct: bool, blocks: np.ndarray, width: float,
    n_bins: int,
) -> tuple[_ByLag, _ByLag, np.ndarray]:  # fmt: skip
    """Self and distinct parts (n_lags, n_bins), block by block, and the means of d² and d⁴ (2, n_lags)."""
    selves, others = _ByLag(blocks), _ByLag(blocks)
    moments = np.zeros((2, len(lags)))
    for origin in origins:
        moved = np.linalg.norm(paths.displacements[origin + lags] - paths.displacements[origin], axis=2)
        selves.add([_histogram(row, width, n_bins) / (paths.n_atoms * width) for row in moved])
        moments += (moved**2).mean(axis=1), (moved**4).mean(axis=1)
        if distinct:
            others.add([_distinct(paths, origin, origin + lag, width, n_bins) for lag in lags])
    return selves, others, moments / len(origins)


class _ByLag:
    """Averages of curves, each lag with a number of blocks of its own; no error below two."""

    def __init__(self, blocks: np.ndarray) -> None:
        self._blocks = blocks  # (n_lags,)
        self._averages = [BlockAverage(max(2, int(n))) for n in blocks]

    def add(self, curves: Sequence[np.ndarray]) -> None:
        """Take one origin's curves (n_lags, n_bins)."""
        for average, curve in zip(self._averages, curves):
            average.add(curve)

    def mean(self) -> np.ndarray:
        """(n_lags, n_bins)."""
        return np.array([average.mean() for average in self._averages])

    def error(self) -> np.ndarray:
        """(n_lags, n_bins)."""
        errors = np.array([average.error() for average in self._averages])
        return np.where(self._blocks[:, None] < 2, np.nan, errors)


def _histogram(distances: np.ndarray, bin_width: float, n_bins: int) -> np.ndarray:
    bins = (distances / bin_width).astype(np.int64)
    return np.bincount(bins[bins < n_bins], minlength=n_bins).astype(float)


def _distinct(paths: Paths, before: int, after: int, bin_width: float, n_bins: int) -> np.ndarray:
    """G_d / density (n_bins,) between the places in one frame and those of the other atoms in a later one."""
    n = paths.n_atoms
    places = (paths.start + paths.displacements[[before, after]]).reshape(-1, 3)  # (2 n, 3)
    i, j, vectors = pair_vectors(places, paths.cell, paths.pbc, bin_width * n_bins, full=False)
    low, high = np.minimum(i, j), np.maximum(i, j)
    crossing = (low < n) & (high >= n) & (high - n != low)
    counts = _histogram(np.linalg.norm(vectors[crossing], axis=1), bin_width, n_bins)
    shells = 4.0 / 3.0 * np.pi * np.diff((bin_width * np.arange(n_bins + 1)) ** 3)
    return counts * paths.volume / (n * (n - 1) * shells)
