"""A temperature scan at constant pressure, up and down, and what it says of a phase transition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from dpa2calc.applications.md.conservation import work_folder
from dpa2calc.applications.md.md import run_md
from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.structures import checked_copy, need_stress, positive
from dpa2calc.dynamics.config import CellMotion
from dpa2calc.dynamics.files import PathLike
from dpa2calc.dynamics.words import earlier_word
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.identity import Part, calculator_identity, structure_identity
from dpa2calc.files.results import provenance

from .off_centre import Cages, find_cages
from .result import PhaseTransition
from .stage import Stage, measure_stage


@dataclass(frozen=True, kw_only=True)
class _Scan:
    temperatures: tuple[float, ...]
    cooling: bool
    steps: int
    skip: float
    timestep_fs: float
    pressure_gpa: float
    cell_motion: CellMotion
    thermostat_time_fs: float
    barostat_time_fs: float
    sample_interval: int
    seed: int

    def decisive(self) -> dict[str, Any]:
        """The options that a resumed scan must keep; more temperatures and the way down may be added."""
        free = ("temperatures", "cooling", "skip")
        kept = {name: value for name, value in vars(self).items() if name not in free}
        return {**kept, "cell_motion": earlier_word(self.cell_motion)}


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
    off-centre displacement |<d>| when `centre` is given, else the tetragonal strain c/a - 1.

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
    scan = _Scan(
        temperatures=_temperatures(temperatures), cooling=cooling, timestep_fs=timestep_fs,
        steps=_steps(picoseconds, timestep_fs), skip=_fraction(equilibration), pressure_gpa=pressure_gpa,
        cell_motion=cell_motion, thermostat_time_fs=thermostat_time_fs, barostat_time_fs=barostat_time_fs,
        sample_interval=sample_interval, seed=seed,
    )  # fmt: skip
    if min(repeats) < 1:
        raise ConfigError(f"repeats is {repeats}; give three whole numbers of at least 1")
    cages = None
    if centre is not None:
        cages = find_cages(start if reference is None else reference, centre, cage, n_members)
        if not np.array_equal(cages.numbers, start.numbers):
            raise StructureError("reference has other atoms, or another order of them, than the structure")
    belongs: dict[str, Part] = {
        "structure": structure_identity(start),
        "calculator": calculator_identity(calculator),
        "options": scan.decisive(),
    }
    with work_folder(folder, belongs) as place:
        stages = _run(start, calculator, scan, cages, np.array(repeats), place, progress)
    return PhaseTransition.from_stages(
        stages,
        n_atoms=len(start),
        formula=start.get_chemical_formula(),
        centre=centre or "",
        pressure_gpa=pressure_gpa,
        provenance=provenance(calculator, seed=seed, picoseconds=picoseconds, timestep_fs=timestep_fs),
    )


def _run(
    start: Atoms,
    calculator: Any,
    scan: _Scan,
    cages: Cages | None,
    repeats: np.ndarray,
    place: Path,
    progress: bool,
) -> list[Stage]:
    state = start.copy()
    stages: list[Stage] = []
    branches = [("heating", scan.temperatures)]
    if scan.cooling:
        branches.append(("cooling", scan.temperatures[::-1]))
    for branch, temperatures in branches:
        for temperature in temperatures:
            number = len(stages)
            stem = place / f"{number:03d}-{branch}-{temperature:g}K"
            state.calc = calculator
            result = run_md(
                state,
                steps=scan.steps,
                ensemble="npt",
                temperature=temperature,
                pressure_gpa=scan.pressure_gpa,
                cell_motion=scan.cell_motion,
                timestep_fs=scan.timestep_fs,
                thermostat_time_fs=scan.thermostat_time_fs,
                barostat_time_fs=scan.barostat_time_fs,
                velocities="new",
                seed=scan.seed + number,
                trajectory_interval=scan.sample_interval,
                log_interval=scan.sample_interval,
                trajectory=f"{stem}.traj",
                log=f"{stem}.csv",
                restart=f"{stem}.npz",
                progress=progress,
            )
            if result.status != "finished":
                raise StructureError(
                    f"the stage at {temperature:g} K ({branch}) stopped: {result.reason}; use a shorter time "
                    "step, a lower highest temperature, or a model that knows this material"
                )
            stages.append(measure_stage(result, branch, temperature, cages, repeats, scan.skip))
            state.set_cell(result.cell)
            state.set_positions(result.positions)
    return stages


def _temperatures(values: Sequence[float]) -> tuple[float, ...]:
    found = tuple(float(value) for value in values)
    if len(found) < 5 or any(b <= a for a, b in zip(found, found[1:])) or found[0] <= 0:
        raise ConfigError(f"temperatures is {list(found)}; give at least five, increasing, above 0 K")
    return found


def _steps(picoseconds: float, timestep_fs: float) -> int:
    positive("picoseconds", picoseconds)
    positive("timestep_fs", timestep_fs)
    return round(picoseconds * 1000 / timestep_fs)


def _fraction(value: float) -> float:
    if not 0 <= value < 0.9:
        raise ConfigError(f"equilibration is {value}; it is a fraction of each stage, from 0 to below 0.9")
    return value
