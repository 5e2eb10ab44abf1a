"""Diffusion of one species: tracer and collective coefficients, Haven ratio and ionic conductivity."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import units

from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.trajectory import TrajectoryLike
from dpa2calc.dynamics.averages import block_error, check_blocks
from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.files.results import Result, error_text, plus_minus

from .msd import choose_lags, ratio_error, slope_weights, squared_displacements
from .unwrapped import WITHOUT_CELL, Drift, Paths, read_paths

CM2_PER_S = 1e-4  # one Å²/ps
_N_LAGS = 100
_ROUNDING = 1e-10  # Å²/ps; no slope of a simulation is so small but by rounding


@dataclass(frozen=True, kw_only=True)
class Diffusion(Result):
    """Diffusion coefficients from the slope of mean-square displacements.

    All errors are those of `dynamics.averages`, from blocks of time origins. Coefficients are in Å²/ps (times
    1e-4: cm²/s), times in ps, conductivities in mS/cm.

    Attributes:
        species, n_atoms: what moves, and how many.
        time: lags (n_lags,); msd, msd_error (n_lags,) in Å², msd_xyz (n_lags, 3) along x, y, z.
        collective_msd, collective_msd_error: <|sum of displacements|²> / n_atoms (n_lags,) in Å²; None where
            the mass centre of the species is fixed by the choice of the frame of reference.
        fit: first and last lag of the fitted window.
        tracer, tracer_error: D* = slope(msd) / 6; tracer_xyz, tracer_xyz_error (3,): slope / 2 of each axis.
        collective, collective_error: the same of collective_msd, also called charge or jump diffusion.
        haven_ratio, haven_ratio_error: tracer / collective.
        temperature: in K; charge: in e. Both enter the conductivities only.
        conductivity, conductivity_error: n z² e² D* / (V k T), Nernst-Einstein with independent ions.
        collective_conductivity, collective_conductivity_error: the same with the collective coefficient.
        linearity: slope over the second half of the window by that over the first; 1 if diffusive.
        duration: in ps; n_frames, n_blocks; drift: the frame of reference.
        reason, collective_reason: why a coefficient, and all that follows from it, is not determined and NaN;
            "" where it is.
        without_cell: True where coordinates were taken as unwrapped because no direction is periodic.
        confined: True where some directions are periodic and others not, as in a slab: D counts them all.
    """

    species: str
    n_atoms: int
    time: np.ndarray
    msd: np.ndarray
    msd_error: np.ndarray
    msd_xyz: np.ndarray
    collective_msd: np.ndarray | None
    collective_msd_error: np.ndarray | None
    fit: tuple[float, float]
    tracer: float
    tracer_error: float
    tracer_xyz: np.ndarray
    tracer_xyz_error: np.ndarray
    collective: float | None
    collective_error: float | None
    haven_ratio: float | None
    haven_ratio_error: float | None
    temperature: float | None
    charge: float | None
    conductivity: float | None
    conductivity_error: float | None
    collective_conductivity: float | None
    collective_conductivity_error: float | None
    linearity: float
    duration: float
    n_frames: int
    n_blocks: int
    drift: str
    reason: str = ""
    collective_reason: str = ""
    without_cell: bool = False
    confined: bool = False

    def summary(self) -> str:
        at = "" if self.temperature is None else f" at {self.temperature:g} K"
        lines = [
            f"diffusion of {self.n_atoms} {self.species}{at}: {self.n_frames} frames, {self.duration:g} ps, "
            f"drift of {self.drift} taken off",
            f"  fit            lags {self.fit[0]:g} to {self.fit[1]:g} ps, errors (68 %) from "
            f"{self.n_blocks} blocks, late/early slope {error_text(self.linearity, '.2f')}",
        ]
        if self.without_cell:
            lines.append(f"  {WITHOUT_CELL}")
        lines.append("  tracer D       " + _coefficient(self.tracer, self.tracer_error, self.reason))
        if not self.reason:
            along = ", ".join(plus_minus(d, e) for d, e in zip(self.tracer_xyz, self.tracer_xyz_error))
            lines.append(f"    along x y z  {along}")
        if self.confined:
            lines.append("    not periodic in all directions: D is the mean of x, y and z, walls included")
        lines.append(
            "  collective D   " + _coefficient(self.collective, self.collective_error, self.collective_reason)
        )
        for name, field, unit in (
            ("Haven ratio  ", "haven_ratio", ""),
            ("conductivity ", "conductivity", " mS/cm (tracer)"),
            ("conductivity ", "collective_conductivity", " mS/cm (collective)"),
        ):
            value, error = getattr(self, field), getattr(self, f"{field}_error")
            if value is not None:
                number = plus_minus(value, error) if np.isfinite(value) else "not determined"
                lines.append(f"  {name}  {number}{unit}")
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None, *, collective: bool = True, label: str | None = None) -> Axes:
        """Draw the mean-square displacements with error bands and fitted lines; returns the axes."""
        ax = axes_for(ax, (5.0, 3.6))
        name = label or self.species
        curves = [(f"{name} tracer", self.msd, self.msd_error, self.tracer)]
        if collective and self.collective_msd is not None and self.collective_msd_error is not None:
            curves.append(
                (f"{name} collective", self.collective_msd, self.collective_msd_error, self.collective or 0.0)
            )
        window = (self.time >= self.fit[0] - 1e-9) & (self.time <= self.fit[1] + 1e-9)
        for text, msd, error, coefficient in curves:
            (line,) = ax.plot(self.time, msd, lw=1.6, label=text)
            ax.fill_between(self.time, msd - error, msd + error, color=line.get_color(), alpha=0.25, lw=0)
            t = self.time[window]
            ax.plot(t, msd[window].mean() + 6.0 * coefficient * (t - t.mean()), "k--", lw=1.0)
        ax.set(xlabel="time (ps)", ylabel="mean-square displacement (Å²)")
        ax.set(xlim=(0.0, self.time[-1]), ylim=(0.0, None))
        ax.legend(frameon=False)
        return ax


def _coefficient(value: float | None, error: float | None, reason: str) -> str:
    if value is None or error is None:
        return "none: the mass centre of the only species stands still by definition"
    if reason:
        return f"not determined: {reason}"
    return f"{plus_minus(value, error)} Å²/ps = ({value * CM2_PER_S:.3e} ± {error * CM2_PER_S:.1e}) cm²/s"


@application
def diffusion(
    trajectory: TrajectoryLike | Paths,
    species: str = "Li",
    *,
    interval_fs: float | None = None,
    temperature: float | None = None,
    charge: float | None = None,
    fit: tuple[float, float] | None = None,
    n_blocks: int = 20,
    drift: Drift = "auto",
    wrapped: bool = True,
    progress: bool = False,
) -> Diffusion:
    """Tracer and collective diffusion of one species, with the conductivity that they mean.

        <|r(t₀ + t) - r(t₀)|²> = 6 D t + constant, fitted over a window of lags t

    averaged over atoms and time origins t₀; the constant takes up vibrations and ballistic flight. The fitted
    slope is linear in the curve, so it is also an average over time origins; its error comes from blocks of
    origins at least 1.5 times longer than the longest lag, with Student's factor for their small number.
    On Brownian trajectories the 68 % interval holds the true value in 60 to 70 % of the cases. In liquids, D
    of a small periodic box is too low by kT 2.837 / (6π viscosity L); no such correction is made here.

    The slope means diffusion only where the curve is linear. Slopes over the first and the second half of
    the window are compared: where they differ by more than three times the 68 % error of their difference
    and by more than a quarter of the later one, the coefficient is not determined: it is NaN, as are
    conductivity and Haven ratio, and `reason` says why. A smaller difference beyond that error enters the
    error of the coefficient with its half. Brownian walks pass in more than 97 % of the cases. Tracer and
    collective coefficient are judged each by its own curve.

    Args:
        trajectory: file, list or iterator of Atoms, `Frames`, or `Paths` (from `read_paths`, to read once and
            analyse often).
        species: the element that diffuses.
        interval_fs, drift, wrapped, progress: see `read_paths`.
        temperature: in K, for the conductivity; none is given without it.
        charge: of the species in e, for the conductivity; none is given without it.
        fit: first and last lag of the window in ps; the last fifth to the whole of a tenth of the
            trajectory if None, i.e. (0.02, 0.1) times its duration. The last may be a quarter of it at most.
        n_blocks: at most this many blocks, each at least 1.5 times the longest lag (6 with the default fit).

    Raises:
        DataError: too few frames, or coordinates that cannot be unwrapped.
        ConfigError: a window outside the trajectory; wrong numbers.

    Warns:
        UserWarning: the displacement is not linear over the window, so the coefficient is not determined.

    Example:
        >>> result = diffusion("md.traj", "Li", interval_fs=100, temperature=600, charge=1)
        >>> print(result.summary()); result.plot().figure.savefig("msd.png")
    """
    paths = read_paths(
        trajectory, species, interval_fs=interval_fs, drift=drift, wrapped=wrapped, progress=progress
    )
    if temperature is not None and not temperature > 0.0:
        raise ConfigError(f"temperature = {temperature} K must be > 0")
    if temperature is not None and charge is not None and paths.volume == 0.0:
        warnings.warn(
            f"diffusion gives no conductivity, which needs a volume, so three periodic directions; pbc is "
            f"{paths.pbc.tolist()}", stacklevel=3,
        )  # fmt: skip
    lags, window, blocks_used = _window(paths, fit, check_blocks(n_blocks))
    time = lags * paths.interval_ps
    weights = slope_weights(time[window])

    squares = squared_displacements(paths.displacements, lags, blocks_used)  # (n_lags, n_blocks, 3)
    slopes = np.einsum("l,lbx->bx", weights, squares[window])  # (n_blocks, 3)
    tracer = slopes.sum(axis=1) / 6.0
    line = _Line.through(time[window], squares[window].sum(axis=2), f"mean-square displacement of {species}")
    values: dict[str, Any] = {
        "msd": squares.sum(axis=2).mean(axis=1),
        "msd_error": block_error(squares.sum(axis=2).T),
        "msd_xyz": squares.mean(axis=1),
        "linearity": line.ratio,
        "reason": line.reason,
        "tracer": line.checked(tracer.mean()),
        "tracer_error": line.checked(np.hypot(block_error(tracer), line.doubt / 6.0)),
        "tracer_xyz": line.checked(slopes.mean(axis=0) / 2.0),
        "tracer_xyz_error": line.checked(np.hypot(block_error(slopes) / 2.0, line.doubt / 6.0)),
    }
    if line.reason:
        warnings.warn(f"D of {species} is not determined: {line.reason}", stacklevel=3)
    values |= _collective(paths, lags, window, weights, tracer, line)
    for name, source in (("conductivity", "tracer"), ("collective_conductivity", "collective")):
        for end in ("", "_error"):
            d = values[source + end]
            values[name + end] = None if d is None else nernst_einstein(d, paths, temperature, charge)
    return Diffusion(
        species=species,
        n_atoms=paths.n_atoms,
        time=time,
        fit=(float(time[window][0]), float(time[window][-1])),
        temperature=temperature,
        charge=charge,
        duration=paths.duration,
        n_frames=paths.n_frames,
        n_blocks=blocks_used,
        drift=paths.drift,
        without_cell=paths.without_cell,
        confined=bool(paths.pbc.any() and not paths.pbc.all()),
        provenance={"source": paths.provenance.get("source")},
        **values,
    )


def nernst_einstein(
    coefficient: float, paths: Paths, temperature: float | None, charge: float | None
) -> float | None:
    """Conductivity n z² e² D / (V k T) in mS/cm, D in Å²/ps; None where one is missing."""
    if temperature is None or charge is None or paths.volume == 0.0:
        return None
    per_volume = paths.n_atoms / paths.volume * charge**2 * coefficient  # e² / (Å ps)
    # e/(Å ps V) = 1.6e-19 * 1e22 S/m, and 10 mS/cm are 1 S/m
    return 10.0 * per_volume / (units.kB * temperature) * units._e * 1e22


def _window(
    paths: Paths, fit: tuple[float, float] | None, n_blocks: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Lags in frames (n_lags,), which of them are fitted (n_lags,), and the number of blocks."""
    dt, duration = paths.interval_ps, paths.duration
    if paths.n_frames < 40:
        raise DataError(f"{paths.n_frames} frames are too few for a diffusion coefficient; give at least 40")
    first, last = fit if fit is not None else (0.02 * duration, 0.1 * duration)
    if not 0.0 <= first < last <= 0.25 * duration + 1e-9:
        raise ConfigError(
            f"fit = ({first:g}, {last:g}) ps: it must rise, from 0 up to a quarter of the trajectory "
            f"({0.25 * duration:g} ps), so that at least two independent blocks are left for the error"
        )
    longest = int(last / dt + 1e-6)
    lags = choose_lags(paths.n_frames, max(longest, 3), _N_LAGS)
    window = lags * dt >= first - 1e-9
    if longest < 3 or window.sum() < 3:
        raise ConfigError(
            f"fit = ({first:g}, {last:g}) ps holds fewer than 3 lags of {dt:g} ps; widen it or save frames "
            "more often"
        )
    room = (paths.n_frames - longest) / (1.5 * longest)
    return lags, window, max(2, min(n_blocks, int(room)))


@dataclass(frozen=True)
class _Line:
    """Is a curve a line? Its later over its earlier slope, and what their difference means."""

    ratio: float
    doubt: float  # half of a difference beyond its error, in the unit of the slope; 0 within it
    reason: str  # "" where the curve is a line

    @classmethod
    def through(cls, time: np.ndarray, curve: np.ndarray, what: str) -> _Line:
        """Compare the halves of a curve (n_lags, n_blocks) at times (n_lags,) in ps."""
        half = len(time) // 2 + 1
        early = slope_weights(time[:half]) @ curve[:half]  # (n_blocks,)
        late = slope_weights(time[-half:]) @ curve[-half:]
        first, last = float(early.mean()), float(late.mean())
        ratio = last / first if first else float("nan")
        if abs(last - first) <= max(3.0 * float(block_error(late - early)), _ROUNDING):
            return cls(ratio, 0.0, "")
        if abs(last - first) <= 0.25 * abs(last):
            return cls(ratio, 0.5 * abs(last - first), "")
        change = f"by {last / first - 1.0:+.0%}" if first else "from zero"
        return cls(
            ratio,
            0.0,
            f"the {what} is not linear from {time[0]:g} to {time[-1]:g} ps: its slope changes {change}. "
            "Move the fit window to longer times, or run longer",
        )

    def checked(self, value: Any) -> Any:
        """A value that follows from the slope; NaN where there is none."""
        value = np.asarray(value, dtype=float) * (np.nan if self.reason else 1.0)
        return float(value) if value.ndim == 0 else value


def _collective(
    paths: Paths, lags: np.ndarray, window: np.ndarray, weights: np.ndarray, tracer: np.ndarray, line: _Line
) -> dict[str, Any]:
    """Fields of Diffusion for the sum of all displacements; all None where it is zero by definition."""
    names = ("collective_msd", "collective_msd_error", "collective", "collective_error", "haven_ratio")
    if paths.drift == "all" and not paths.host_symbols:
        return dict.fromkeys((*names, "haven_ratio_error"))
    total = paths.displacements.sum(axis=1, keepdims=True)  # (n_frames, 1, 3)
    squares = (
        squared_displacements(total, lags, len(tracer)).sum(axis=2) / paths.n_atoms
    )  # (n_lags, n_blocks)
    collective = weights @ squares[window] / 6.0  # (n_blocks,)
    what = f"mean-square displacement of all {paths.species} together"
    moves = abs(collective.mean()) > _ROUNDING
    mine = _Line.through(lags[window] * paths.interval_ps, squares[window], what)
    return {
        "collective_msd": squares.mean(axis=1),
        "collective_msd_error": block_error(squares.T),
        "collective_reason": mine.reason,
        "collective": mine.checked(collective.mean()),
        "collective_error": mine.checked(np.hypot(block_error(collective), mine.doubt / 6.0)),
        "haven_ratio": line.checked(mine.checked(tracer.mean() / collective.mean() if moves else np.nan)),
        "haven_ratio_error": line.checked(mine.checked(ratio_error(tracer, collective) if moves else np.nan)),
    }
