"""Drift and fluctuation of the total energy in NVE runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dpa2calc.dynamics.averages import BLOCKS, student
from dpa2calc.dynamics.result import MDResult
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.files.results import Result, error_text, plus_minus
from dpa2calc.files.typed import Json


@dataclass(frozen=True, kw_only=True)
class EnergyConservation(Result):
    """Rows are calculators, columns time steps. Energies in eV, times in fs unless named otherwise."""

    labels: tuple[str, ...]
    timesteps_fs: np.ndarray  # (n_steps,)
    n_atoms: int
    drift: np.ndarray  # (n_labels, n_steps) slope of the total energy, meV per atom and ps
    drift_error: np.ndarray  # its error (`dynamics.averages`), from block means
    fluctuation: np.ndarray  # (n_labels, n_steps) rms about the slope, meV per atom
    order: np.ndarray  # (n_labels,) exponent p of fluctuation ~ dt^p
    stopped: tuple[tuple[str, ...], ...]  # why a run stopped early, "" when it did not
    times_fs: list[list[np.ndarray]] = field(repr=False)  # of each run
    energies: list[list[np.ndarray]] = field(repr=False)  # total energy of each run, eV

    @classmethod
    def from_runs(
        cls,
        *,
        labels: tuple[str, ...],
        timesteps_fs: np.ndarray,
        runs: list[list[MDResult]],
        provenance: dict[str, Json],
    ) -> EnergyConservation:
        """Analyse NVE runs, one row of runs for each label and one run for each time step."""
        n_atoms = runs[0][0].n_atoms
        measured = np.array([[energy_drift(r.time_fs, r.total_energy, n_atoms) for r in row] for row in runs])
        drift, error, fluctuation = np.moveaxis(measured, 2, 0)  # (n_labels, n_steps, 3) -> 3 x (.., ..)
        return cls(
            labels=labels,
            timesteps_fs=timesteps_fs,
            n_atoms=n_atoms,
            drift=drift,
            drift_error=error,
            fluctuation=fluctuation,
            order=np.array([_order(timesteps_fs, row) for row in fluctuation]),
            stopped=tuple(tuple(run.reason for run in row) for row in runs),
            times_fs=[[run.time_fs for run in row] for row in runs],
            energies=[[run.total_energy for run in row] for row in runs],
            provenance=provenance,
        )

    def summary(self) -> str:
        """A table for each calculator."""
        lines = [f"energy conservation, {self.n_atoms} atoms, NVE"]
        for i, label in enumerate(self.labels):
            known = np.isfinite(self.order[i])
            falls = f"falls as dt^{self.order[i]:.2f}" if known else "has no order in dt"
            lines.append(f"{label}: fluctuation {falls}")
            lines.append("  dt (fs)   rms (meV/atom)   drift (meV/atom/ps)")
            for k, dt in enumerate(self.timesteps_fs):
                drift = plus_minus(self.drift[i, k], self.drift_error[i, k])
                note = f"   {self.stopped[i][k]}" if self.stopped[i][k] else ""
                rms = error_text(self.fluctuation[i, k], ".4g")
                lines.append(f"  {dt:7g}   {rms:>14s}   {drift}{note}")
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Fluctuation against time step on logarithmic axes, with the line of dt²."""
        ax = axes_for(ax)
        for i, label in enumerate(self.labels):
            text = f"{label}: dt$^{{{round(self.order[i], 2) + 0.0:.2f}}}$"
            ax.loglog(self.timesteps_fs, self.fluctuation[i], marker="o", label=text)
        guide = self.fluctuation[0, -1] * (self.timesteps_fs / self.timesteps_fs[-1]) ** 2
        ax.loglog(self.timesteps_fs, guide, color="k", linestyle=":", label="dt²")
        ax.set_xticks(self.timesteps_fs, [f"{dt:g}" for dt in self.timesteps_fs])
        ax.set_xticks([], minor=True)
        ax.set_xlabel("time step (fs)")
        ax.set_ylabel("rms of the total energy (meV/atom)")
        ax.legend()
        return ax

    def plot_energy(self, timestep_fs: float | None = None, ax: Axes | None = None) -> Axes:
        """Total energy against time for each calculator at one time step (the smallest if not given)."""
        ax = axes_for(ax)
        wanted = self.timesteps_fs[0] if timestep_fs is None else timestep_fs
        k = int(np.argmin(np.abs(self.timesteps_fs - wanted)))
        for i, label in enumerate(self.labels):
            change = (self.energies[i][k] - self.energies[i][k][0]) / self.n_atoms * 1000
            ax.plot(self.times_fs[i][k] / 1000, change, label=label)
        ax.set_xlabel("time (ps)")
        ax.set_ylabel("change of the total energy (meV/atom)")
        ax.set_title(f"time step {self.timesteps_fs[k]:g} fs", fontsize="medium")
        ax.legend()
        return ax


def energy_drift(time_fs: np.ndarray, energy: np.ndarray, n_atoms: int) -> tuple[float, float, float]:
    """Drift, its error (meV/atom/ps), and rms about it (meV/atom) of a total energy in eV.

    The slope is fitted to the means of ten blocks, which are taken as independent; its error (half-width
    of the 68 % interval) comes from their scatter about the line. NaN for fewer than 20 rows.
    """
    if len(time_fs) < 2 * BLOCKS:
        return float("nan"), float("nan"), float("nan")
    scale = 1000 / n_atoms
    values = (energy - energy[0]) * scale
    time_ps = time_fs / 1000
    blocks = np.array_split(np.arange(len(values)), BLOCKS)
    x = np.array([time_ps[block].mean() for block in blocks])
    y = np.array([values[block].mean() for block in blocks])
    (slope, offset), covariance = np.polyfit(x, y, 1, cov=True)
    rest = values - (slope * time_ps + offset)
    return float(slope), student(BLOCKS - 2) * float(np.sqrt(covariance[0, 0])), float(np.std(rest))


def _order(timesteps: np.ndarray, fluctuation: np.ndarray) -> float:
    good = np.isfinite(fluctuation) & (fluctuation > 0)
    if good.sum() < 2:
        return float("nan")
    return float(np.polyfit(np.log(timesteps[good]), np.log(fluctuation[good]), 1)[0])
