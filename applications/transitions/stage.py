"""Averages of one stage of a temperature scan, from its log and trajectory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import units
from ase.io.trajectory import Trajectory

from dpa2calc.dynamics.averages import series_error
from dpa2calc.dynamics.result import MDResult
from dpa2calc.errors import ConfigError

from .off_centre import Cages, direction_name

LEAST_FRAMES = 20


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Means and errors (`dynamics.averages`) of one temperature. ASE units."""

    branch: str
    target: float  # K
    temperature: tuple[float, float]  # K
    enthalpy: tuple[float, float]  # eV, of the whole cell, kinetic energy included
    enthalpy_variance: float  # eV²
    volume: tuple[float, float]  # Å³, of the whole cell
    lengths: np.ndarray  # (3, 2) Å per unit cell: means and errors, along the cell vectors
    angles: np.ndarray  # (3, 2) degrees
    tetragonality: tuple[float, float]  # longest mean length over the mean of the other two
    displacement: np.ndarray  # (3, 2) Å: mean vector of all centres, NaN without cages
    polar: tuple[float, float]  # Å: mean over time of |mean over centres|
    local: tuple[float, float]  # Å: mean over centres and time of |d|
    direction: str
    n_frames: int


def measure_stage(
    result: MDResult, branch: str, target: float, cages: Cages | None, repeats: np.ndarray, skip: float
) -> Stage:
    """Average the part of a run after the fraction `skip`; raises ConfigError with too few frames."""
    begin = skip * result.time_fs[-1]
    rows = result.time_fs >= begin
    pressure = float(result.config["pressure_gpa"]) * units.GPa
    enthalpy = result.total_energy[rows] + pressure * result.volume[rows]
    lengths, angles, vectors, local = _frames(result, cages, repeats, begin)
    if len(lengths) < LEAST_FRAMES:
        raise ConfigError(
            f"only {len(lengths)} frames are left of the stage at {target:g} K, at least {LEAST_FRAMES} are "
            "needed; raise picoseconds, or lower sample_interval or equilibration"
        )
    mean_lengths = lengths.mean(axis=0)
    longest = int(np.argmax(np.abs(mean_lengths - np.median(mean_lengths))))
    others = [k for k in range(3) if k != longest]
    ratio = lengths[:, longest] / lengths[:, others].mean(axis=1)
    displacement = _means(vectors)
    noise = 3 * float(np.linalg.norm(displacement[:, 1]))
    return Stage(
        branch=branch,
        target=target,
        temperature=_mean(result.temperature[rows]),
        enthalpy=_mean(enthalpy),
        enthalpy_variance=float(np.var(enthalpy)),
        volume=_mean(result.volume[rows]),
        lengths=_means(lengths),
        angles=_means(angles),
        tetragonality=_mean(ratio),
        displacement=displacement,
        polar=_mean(np.linalg.norm(vectors, axis=1)),
        local=_mean(local),
        direction=direction_name(displacement[:, 0], result.cell, noise) if cages else "",
        n_frames=len(lengths),
    )


def _frames(
    result: MDResult, cages: Cages | None, repeats: np.ndarray, begin: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lengths (n, 3), angles (n, 3), mean displacement (n, 3), mean |displacement| (n,) of the frames."""
    assert result.trajectory is not None
    rows: list[np.ndarray] = []
    with Trajectory(result.trajectory) as frames:
        for frame in frames:
            if frame.info["time_fs"] < begin:
                continue
            moved = cages.displacements(frame) if cages else np.full((1, 3), np.nan)
            local = np.linalg.norm(moved, axis=1).mean()
            lengths = frame.cell.lengths() / repeats
            rows.append(np.concatenate([lengths, frame.cell.angles(), moved.mean(axis=0), [local]]))
    table = np.array(rows).reshape(-1, 10)
    return table[:, :3], table[:, 3:6], table[:, 6:9], table[:, 9]


def _mean(values: np.ndarray) -> tuple[float, float]:
    return float(np.mean(values)), series_error(values)


def _means(columns: np.ndarray) -> np.ndarray:
    return np.array([_mean(column) for column in columns.T])
