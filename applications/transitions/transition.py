"""A temperature scan at constant pressure, up and down, and what it says of a phase transition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms

from dpa2calc.applications.md.conservation import work_folder
from dpa2calc.applications.md.md import run_md
from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.structures import checked_copy, need_stress, positive
from dpa2calc.dynamics.config import CellMotion, MDConfig
from dpa2calc.dynamics.files import PathLike
from dpa2calc.dynamics.result import MDResult
from dpa2calc.dynamics.words import earlier_word
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.identity import Part, calculator_identity, structure_identity

from .off_centre import find_cages
from .result import PhaseTransition
from .stage import Stage, measure_stage


@application
def phase_transition(
    atoms: Atoms,
    temperatures: Sequence[float],
    *,
    picoseconds: float = 10.0,
    equilibration: float = 0.4,
    cooling: bool = True,
    pressure_gpa: float = 0.0,
    cell_motion: CellMotion = "cell",
    timestep_fs: float = 1.0,
    thermostat_time_fs: float = 100.0,
    barostat_time_fs: float = 1000.0,
    repeats: tuple[int, int, int] = (1, 1, 1),
    centre: str | None = None,
    cage: str = "O",
    n_members: int = 6,
    reference: Atoms | None = None,
    sample_interval: int = 20,
    seed: int = 0,
    folder: PathLike | None = None,
    progress: bool = True,
) -> PhaseTransition:
    """Heat (and cool) a crystal in steps of constant temperature and find where it transforms.

    Each stage is an NPT run that starts from the end of the one before. The order parameter is the mean
    off-centre displacement |<d>| when `centre` is given, else the tetragonal strain |c/a - 1|.

    Args:
        atoms: supercell with a calculator that gives stress; never changed. Start in the low-temperature
            phase, for example with `perovskite(..., polar_shift=0.1)`.
        temperatures: K, increasing, at least five (ten or more for a transition temperature worth quoting).
        picoseconds: length of a stage.
        equilibration: fraction of each stage left out of its averages.
        cooling: also go back down, to show the hysteresis.
        repeats: unit cells along the three cell vectors, so that lengths come out per unit cell.
        centre: element(s) whose displacement from the cage is followed, "Ti" or "Ti+Nb+Mg+In".
        cage, n_members: the atoms around it: "O" and 6 for a B site, 12 for an A site.
        reference: structure in which cages are found (default: the atoms given).
        sample_interval: steps between analysed frames.
        folder: keeps trajectories, logs and restart files, so that a stopped scan resumes.

    Raises:
        ConfigError, StructureError: wrong options or atoms, or a stage that a guard stopped.

    Example:
        >>> atoms = perovskite("Pb", "Ti", repeats=(4, 4, 4), lattice_constant=3.97, polar_shift=0.15)
        >>> atoms.calc = DPA2Calculator(head="FerroEle")
        >>> scan = phase_transition(atoms, range(300, 1000, 50), centre="Ti", repeats=(4, 4, 4))
        >>> print(scan.summary()); scan.plot()
    """
    start, calculator = checked_copy(atoms, what="phase_transition")
    need_stress(calculator, "phase_transition")
    rising = np.asarray(temperatures, dtype=float)
    _check(rising, equilibration, repeats, picoseconds=picoseconds, timestep_fs=timestep_fs)
    config = MDConfig(
        steps=round(picoseconds * 1000 / timestep_fs), ensemble="npt", timestep_fs=timestep_fs,
        pressure_gpa=pressure_gpa, cell_motion=cell_motion, thermostat_time_fs=thermostat_time_fs,
        barostat_time_fs=barostat_time_fs, velocities="new", seed=seed,
        trajectory_interval=sample_interval, log_interval=sample_interval,
    )  # fmt: skip
    cages = None
    if centre is not None:
        cages = find_cages(start if reference is None else reference, centre, cage, n_members)
        if not np.array_equal(cages.numbers, start.numbers):
            raise StructureError("reference has other atoms, or another order of them, than the structure")
    belongs: dict[str, Part] = {
        "structure": structure_identity(start),
        "calculator": calculator_identity(calculator),
        "options": _decisive(config),
    }
    stages: list[Stage] = []
    branches = {"heating": rising, "cooling": rising[::-1] if cooling else rising[:0]}
    with work_folder(folder, belongs) as place:
        start.calc = calculator
        for branch, temperature in ((name, float(t)) for name, row in branches.items() for t in row):
            stem = place / f"{len(stages):03d}-{branch}-{temperature:g}K"
            one = replace(config, temperature=temperature, seed=seed + len(stages))
            result = _stage_run(start, one, branch, stem, progress)
            stages.append(measure_stage(result, branch, temperature, cages, np.array(repeats), equilibration))
            start.set_cell(result.cell)
            start.set_positions(result.positions)
    return PhaseTransition.from_stages(
        stages, n_atoms=len(start), formula=start.get_chemical_formula(), centre=centre or "",
        pressure_gpa=pressure_gpa,
    )  # fmt: skip


def _check(
    temperatures: np.ndarray, equilibration: float, repeats: tuple[int, int, int], **lengths: float
) -> None:
    if len(temperatures) < 5 or not (temperatures[0] > 0 and (np.diff(temperatures) > 0).all()):
        raise ConfigError(
            f"temperatures is {temperatures.tolist()}; give at least five, increasing, above 0 K"
        )
    if not 0 <= equilibration < 0.9:
        raise ConfigError(
            f"equilibration is {equilibration}; it is a fraction of each stage, from 0 to below 0.9"
        )
    for name, value in lengths.items():
        positive(name, value)
    if min(repeats) < 1:
        raise ConfigError(f"repeats is {repeats}; give three whole numbers of at least 1")


def _decisive(config: MDConfig) -> Part:
    """The options that a resumed scan must keep; more temperatures and the way down may be added."""
    names = ("steps", "timestep_fs", "pressure_gpa", "thermostat_time_fs", "barostat_time_fs", "seed")
    kept = {name: getattr(config, name) for name in names}
    cell_motion, interval = earlier_word(config.cell_motion), config.trajectory_interval
    return {**kept, "cell_motion": cell_motion, "sample_interval": interval}


def _stage_run(atoms: Atoms, config: MDConfig, branch: str, stem: Path, progress: bool) -> MDResult:
    result = run_md(
        atoms, config, trajectory=f"{stem}.traj", log=f"{stem}.csv", restart=f"{stem}.npz", progress=progress
    )
    if result.status != "finished":
        raise StructureError(
            f"the stage at {config.highest_temperature():g} K ({branch}) stopped: {result.reason}; use a "
            "shorter time step, a lower highest temperature, or a model that knows this material"
        )
    return result
