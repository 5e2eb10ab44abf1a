"""Is energy conserved? Drift and fluctuation of NVE runs against the time step, for one or more calculators.

Velocity Verlet conserves a shadow energy that differs from the true one by a term of order dt², so the
fluctuation of the total energy of a smooth, conservative potential falls as dt² and does not drift.
Forces that are no gradient of an energy do work around closed loops: their drift stays as dt falls.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.structures import checked_copy, positive
from dpa2calc.dynamics.files import PathLike
from dpa2calc.dynamics.result import MDResult
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.identity import Part, calculator_identity, claim, structure_identity
from dpa2calc.files.lock import working_in
from dpa2calc.files.results import provenance
from dpa2calc.files.typed import shown

from .conservation_result import EnergyConservation
from .md import run_md

ROWS = 500  # logged energies a run, about
_MOST_STEPS = 1e12


class TurnedForces(Calculator):
    """A calculator's energy with its forces turned by a small angle about z: no gradient of any energy.

    It stands for models that predict forces directly: sin(angle) is the relative size of the error.
    """

    implemented_properties = ["energy", "forces"]

    def __init__(self, calculator: Calculator, degrees: float = 3.0) -> None:
        super().__init__()
        self.calculator, self.degrees = calculator, float(degrees)

    def identity(self) -> Part:
        """What decides the numbers; see `dpa2calc.files.identity`."""
        return {"degrees": self.degrees, "calculator": calculator_identity(self.calculator)}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Evaluate the calculator and turn its forces."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        if "numbers" in system_changes and hasattr(self.calculator, "reset"):  # after a reset of this one
            self.calculator.reset()
        inner = self.atoms.copy()
        inner.calc = self.calculator
        angle = np.radians(self.degrees)
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])  # acts on row vectors
        self.results = {"energy": inner.get_potential_energy(), "forces": inner.get_forces() @ turn}


@application
def energy_conservation(
    atoms: Atoms,
    timesteps_fs: Sequence[float] = (0.25, 0.5, 1.0, 2.0),
    *,
    duration_fs: float = 2000.0,
    temperature: float = 300.0,
    equilibration_fs: float = 500.0,
    compare: Mapping[str, Calculator] | None = None,
    label: str = "conservative",
    seed: int = 0,
    folder: PathLike | None = None,
    progress: bool = True,
) -> EnergyConservation:
    """Run NVE from one equilibrated state with several time steps and measure drift and fluctuation.

    Args:
        atoms: with a calculator; never changed.
        timesteps_fs: time steps, fs; at least two.
        duration_fs: length of each run, fs.
        temperature: of the Langevin run that makes the common start, K.
        equilibration_fs: its length, fs, done with the smallest time step.
        compare: further calculators by label, such as {"turned": TurnedForces(atoms.calc)}, run from the
            same state.
        label: name of the atoms' own calculator.
        folder: keeps logs and restart files, so that a stopped call resumes; a temporary one if None.
        progress: show steps on stderr.

    Raises:
        ConfigError, StructureError: wrong options or atoms, or a folder that belongs to others.

    Example:
        >>> result = energy_conservation(atoms, compare={"turned": TurnedForces(atoms.calc)})
        >>> print(result.summary()); result.plot()
    """
    start, calculator = checked_copy(atoms, what="energy_conservation", periodic=False)
    steps = _check(timesteps_fs, duration_fs, equilibration_fs, label, compare)
    calculators = {label: calculator, **(compare or {})}
    belongs: dict[str, Part] = {
        "structure": structure_identity(start, momenta=True),
        "calculator": calculator_identity(calculator),
        "options": {
            "temperature": float(temperature), "equilibration_fs": float(equilibration_fs), "seed": seed,
            "shortest timestep_fs": steps[0], "duration_fs": float(duration_fs),
        },
    }  # fmt: skip
    stems = [_stem(name, dt) for name in calculators for dt in steps]
    if len(set(stems)) < len(stems):
        raise ConfigError(
            f"two runs would write the same files ({', '.join(sorted(stems))}); give labels that differ in "
            "letters or digits, and time steps that differ by more than 1e-5"
        )
    with work_folder(folder, belongs) as place:
        start.calc = calculator
        state = _equilibrated(start, steps[0], equilibration_fs, temperature, seed, place, progress)
        runs: list[list[MDResult]] = []
        for name, calc in calculators.items():
            state.calc = calc
            runs.append([_nve(state, name, dt, duration_fs, temperature, place, progress) for dt in steps])
    return EnergyConservation.from_runs(
        labels=tuple(calculators),
        timesteps_fs=np.array(steps),
        runs=runs,
        provenance=provenance(calculator, seed=seed, temperature=temperature, duration_fs=duration_fs),
    )


def _check(
    timesteps: Sequence[float],
    duration: float,
    equilibration: float,
    label: str,
    compare: Mapping[str, Calculator] | None,
) -> list[float]:
    steps = sorted({float(value) for value in timesteps})
    for value in steps:
        positive("timesteps_fs", value)
    positive("duration_fs", duration)
    if len(steps) < 2:
        raise ConfigError(f"timesteps_fs is {list(timesteps)}; give at least two different time steps")
    if equilibration < 0:
        raise ConfigError(f"equilibration_fs is {equilibration}; it must be 0 or more")
    if duration < 100 * steps[-1]:
        raise ConfigError(
            f"duration_fs is {duration:g}, only {duration / steps[-1]:.0f} steps of {steps[-1]:g} fs; "
            f"give at least {100 * steps[-1]:g}"
        )
    if max(duration, equilibration) > _MOST_STEPS * steps[0]:
        raise ConfigError(
            f"duration_fs is {duration:g} and equilibration_fs {equilibration:g}, over {_MOST_STEPS:g} "
            f"steps of {steps[0]:g} fs; give less"
        )
    for name, calculator in (compare or {}).items():
        if not (hasattr(calculator, "implemented_properties") or hasattr(calculator, "get_potential_energy")):
            raise ConfigError(
                f"compare[{name!r}] is {shown(calculator)}, not a calculator; give one for each label, "
                "such as TurnedForces(atoms.calc)"
            )
    if label in (compare or {}):
        raise ConfigError(f"compare holds the label {label!r} of the atoms' own calculator; rename one")
    return steps


def _equilibrated(
    atoms: Atoms, dt: float, length: float, temperature: float, seed: int, place: Path, progress: bool
) -> Atoms:
    result = run_md(
        atoms,
        steps=round(length / dt),
        timestep_fs=dt,
        temperature=temperature,
        seed=seed,
        thermostat="langevin",
        restart=place / "equilibration.npz",
        progress=progress,
    )
    if result.status != "finished":
        raise StructureError(
            f"the run that makes the common start stopped: {result.reason}; use a shorter time step, a lower "
            "temperature, or a relaxed structure"
        )
    state = atoms.copy()
    state.set_cell(result.cell)
    state.set_positions(result.positions, apply_constraint=False)
    state.set_momenta(result.momenta, apply_constraint=False)
    return state


def _stem(label: str, dt: float) -> str:
    return "".join(c if c.isalnum() else "-" for c in label) + f"-{dt:g}fs"


def _nve(
    state: Atoms, label: str, dt: float, duration: float, temperature: float, place: Path, progress: bool
) -> MDResult:
    stem = _stem(label, dt)
    n_steps = round(duration / dt)
    result = run_md(
        state,
        steps=n_steps,
        ensemble="nve",
        timestep_fs=dt,
        temperature=temperature,
        velocities="keep",
        log_interval=max(1, n_steps // ROWS),
        log=place / f"{stem}.csv",
        restart=place / f"{stem}.npz",
        progress=progress,
    )
    if result.status != "finished":
        warnings.warn(f"{label}, {dt:g} fs: {result.reason}", stacklevel=4)
    return result


@contextlib.contextmanager
def work_folder(folder: PathLike | None, belongs: dict[str, Part]) -> Iterator[Path]:
    """The folder of runs that belong together, tied to what they belong to; a temporary one if None.

    Raises:
        ConfigError: the folder holds the runs of something else, or another run is at work there.
        OutputError: it cannot be written.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="dpa2calc-") as name:
            yield Path(name)
        return
    with working_in(folder):
        label = Path(folder) / "identity.json"
        begun = not label.exists() and any(Path(folder).glob("*.npz"))
        if not begun:
            claim(label, belongs)
        yield Path(folder)
        if begun:  # by an earlier version, perhaps for other work: each run has looked at its restart file
            claim(label, belongs)
