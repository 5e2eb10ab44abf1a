"""One trajectory of an exploration: sampled, guarded, labelled by the teacher, and restartable."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.constraints import FixCom

from dpa2calc.errors import DataError
from dpa2calc.progress import progress_bar
from dpa2calc.structures.lattice import cell_volume
from dpa2calc.training.data.checks.report import overlap
from dpa2calc.training.data.dataset import frame_from_atoms
from dpa2calc.training.data.readers.frame_file import FrameFile, labelled

from .config import DistillConfig, Driver, MDCondition

DISTANCE_INTERVAL = 10  # steps between searches for overlapping atoms
VOLUME_LIMIT = 2.0  # a cell that grows or shrinks by this factor has exploded


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What one trajectory is to do; `seed` decides its velocities and its thermostat's noise."""

    number: int
    round: int
    driver: Driver
    condition: MDCondition
    temperature: float
    pressure: float
    start: Atoms
    seed: int

    @property
    def label(self) -> str:
        """A short text for messages and for the frames' `group`."""
        pressure = f" {self.pressure:g} GPa" if self.condition.ensemble == "npt" else ""
        where = f"{self.condition.ensemble} {self.temperature:g} K{pressure}"
        return f"round {self.round}, trajectory {self.number}: {self.driver}, {where}, {self.start.symbols}"

    def fingerprint(self) -> str:
        """Changes when anything that decides the frames changes."""
        words = (self.driver, asdict(self.condition), self.temperature, self.pressure, self.seed)
        digest = hashlib.sha256(repr(words).encode())
        for array in (self.start.numbers, self.start.positions, self.start.cell.array):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Walk:
    """How a trajectory went: steps done, frames kept, and why it was cut ("" if it was not)."""

    label: str
    steps: int
    frames: int
    cut: str


def explore(
    plan: Sequence[Trajectory],
    folder: Path,
    *,
    drivers: Mapping[str, Any],
    config: DistillConfig,
    progress: bool,
) -> list[Walk]:
    """Run all trajectories of a round, each into its own file of `folder`.

    Args:
        drivers: calculators by name; "teacher" labels, whoever moves the atoms.
    """
    walks = []
    total = sum(t.condition.steps for t in plan)
    with progress_bar(total=total, desc="exploring", unit="step", shown=progress) as bar:
        for trajectory in plan:
            walk = run_trajectory(
                trajectory,
                path=folder / f"{trajectory.number:03d}.extxyz",
                teacher=drivers["teacher"],
                driver=drivers[trajectory.driver],
                config=config,
                bar=bar,
            )
            walks.append(walk)
    return walks


def run_trajectory(
    trajectory: Trajectory,
    *,
    path: Path,
    teacher: Any,
    driver: Any,
    config: DistillConfig,
    bar: Any | None = None,
) -> Walk:
    """Run a trajectory and keep its sampled frames, with the teacher's labels, in `path` (extxyz).

    After a kill the same call resumes at the last sampled frame; a finished file is not made again.
    A trajectory that explodes ends there: the offending frame and what follows are not kept.

    Args:
        driver: the calculator that moves the atoms: `teacher` itself, or the student.

    Raises:
        DataError: the calculator fails on the start structure.
    """
    file = FrameFile(path)
    mark = trajectory.fingerprint()
    if file.note.get("trajectory", mark) != mark:
        file.restart()
    if not file.finished:
        _Walker(trajectory, file, teacher, driver, config, bar).run(mark)
    note = file.note
    return Walk(label=trajectory.label, steps=note["step"], frames=note["frames"], cut=note["cut"])


class _Walker:
    """The state of one trajectory."""

    def __init__(
        self,
        trajectory: Trajectory,
        file: FrameFile,
        teacher: Any,
        driver: Any,
        config: DistillConfig,
        bar: Any,
    ):
        self.trajectory, self.file, self.config, self.bar = trajectory, file, config, bar
        self.teacher, self.driver = teacher, driver
        self.condition = trajectory.condition
        self.rng = np.random.default_rng(trajectory.seed)
        start = trajectory.start
        self.atoms = Atoms(numbers=start.numbers, positions=start.positions, cell=start.cell, pbc=start.pbc)
        self.atoms.calc = driver
        self.step = 0
        self.first_volume = cell_volume(self.atoms) or 0.0

    def run(self, mark: str) -> None:
        """Step to the end or to an explosion; a sample is also a point to go on from."""
        state = self.file.note.get("state")
        self._prepare(state)
        cut, every = "", self.condition.sample_interval
        if self.bar is not None:
            self.bar.update(self.step)
        while self.step < self.condition.steps and not cut:
            cut = self._one_step()
            if not cut and self.step % every == 0:
                cut = self._sample(mark)
            if self.bar is not None:
                self.bar.update(1)
        self.file.finish(trajectory=mark, step=self.step, cut=cut, time=time.time())

    def _prepare(self, state: dict[str, Any] | None) -> None:
        """Velocities and integrator, from the beginning or from the state of the last sample."""
        if state is not None:
            self.step = state["step"]
            self.atoms.set_cell(np.array(state["cell"]))
            self.atoms.set_positions(np.array(state["positions"]))
        _forget(self.driver)
        try:
            forces = self.atoms.get_forces()
        except Exception as error:  # a calculator may raise anything
            raise DataError(f"{self.trajectory.label}: the calculator fails at the start: {error}") from error
        if not np.isfinite(forces).all():
            raise DataError(f"{self.trajectory.label}: forces on the start structure are not finite")
        if state is None:
            set_velocities(self.atoms, self.trajectory.temperature, self.rng)
        else:
            self.atoms.set_momenta(np.array(state["momenta"]))
            self.rng.bit_generator.state = state["rng"]
        self.dynamics = self._integrator()
        if state is not None:
            _set_numbers(self.dynamics, state["dynamics"])

    def _integrator(self) -> Any:
        c, t = self.condition, self.trajectory
        step = c.timestep * units.fs
        if c.ensemble == "nve":
            from ase.md.verlet import VelocityVerlet

            return VelocityVerlet(self.atoms, step)
        if c.ensemble == "nvt":
            from ase.md.langevin import Langevin

            if len(self.atoms) > 1:
                self.atoms.set_constraint(FixCom())
            friction = 1.0 / (c.thermostat_time * units.fs)
            return Langevin(
                self.atoms, step, temperature_K=t.temperature, friction=friction, fixcm=False, rng=self.rng
            )
        from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT

        kind = IsotropicMTKNPT if c.cell == "isotropic" else MTKNPT
        return kind(
            self.atoms,
            step,
            temperature_K=t.temperature,
            pressure_au=t.pressure * units.GPa,
            tdamp=c.thermostat_time * units.fs,
            pdamp=c.barostat_time * units.fs,
        )

    def _one_step(self) -> str:
        """Move once; the reason if that was an explosion."""
        try:
            self.dynamics.step()
            forces = self.atoms.get_forces()
        except Exception as error:  # overlapping atoms, a broken cell: whatever the calculator says
            return f"step {self.step + 1}: {type(error).__name__}: {error}"
        self.step += 1
        reason = self._explosion(forces)
        return f"step {self.step}: {reason}" if reason else ""

    def _explosion(self, forces: np.ndarray) -> str:
        if not (np.isfinite(forces).all() and np.isfinite(self.atoms.positions).all()):
            return "positions or forces are not finite"
        largest = float(np.linalg.norm(forces, axis=1).max())
        if largest > self.config.force_limit:
            return f"a force of {largest:.3g} eV/Å, over force_limit = {self.config.force_limit:g}"
        n_dof = max(3 * len(self.atoms) - 3, 1)
        temperature = 2.0 * self.atoms.get_kinetic_energy() / (n_dof * units.kB)
        # the temperature of few atoms fluctuates by sqrt(2 / n_dof) of itself
        limit = self.trajectory.temperature * self.config.temperature_limit * (1 + 3 * (2 / n_dof) ** 0.5)
        if temperature > limit:
            return f"{temperature:.4g} K, over temperature_limit at {limit:.4g} K"
        if self.condition.ensemble == "npt":
            ratio = self.atoms.get_volume() / self.first_volume
            if not 1.0 / VOLUME_LIMIT < ratio < VOLUME_LIMIT:
                return f"the volume is {ratio:.3g} times the first one"
        if self.step % DISTANCE_INTERVAL == 0 or self.step % self.condition.sample_interval == 0:
            found = overlap(frame_from_atoms(_bare(self.atoms)))
            if found is not None:
                i, j, distance = found
                return f"atoms {i} and {j} are {distance:.3g} Å apart"
        return ""

    def _sample(self, mark: str) -> str:
        """Label and keep this frame and the state after it; the reason if the teacher refuses the frame."""
        _forget(self.driver)  # what follows must not depend on what came before
        t = self.trajectory
        info = {
            "group": f"{t.driver} {t.condition.ensemble} {t.temperature:g} K {t.pressure:g} GPa",
            "distill_round": t.round,
            "trajectory": t.number,
            "step": self.step,
        }
        try:
            frame = labelled(self.atoms, self.teacher, **info)
            reason = unsound(frame, self.config)
        except Exception as error:  # the teacher may raise anything on a frame of the student's
            reason = f"the teacher fails: {error}"
        if reason:
            return f"step {self.step}: {reason}"
        state = {
            "step": self.step,
            "positions": self.atoms.positions.tolist(),
            "momenta": self.atoms.get_momenta().tolist(),
            "cell": self.atoms.cell.array.tolist(),
            "rng": self.rng.bit_generator.state,
            "dynamics": _numbers(self.dynamics),
        }
        self.file.append(frame, trajectory=mark, state=state)
        return ""


def set_velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Maxwell-Boltzmann momenta without motion of the centre of mass, scaled to exactly `temperature` K."""
    masses = atoms.get_masses()[:, None]  # (n_atoms, 1)
    momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses)
    if len(atoms) > 1:
        momenta -= masses * momenta.sum(axis=0) / masses.sum()
    n_dof = max(3 * len(atoms) - 3, 1)
    wanted = n_dof * units.kB * temperature
    atoms.set_momenta(momenta * np.sqrt(wanted / (momenta**2 / masses).sum()))


def unsound(frame: Atoms, config: DistillConfig) -> str:
    """Why a labelled frame must not be trained on, or ""."""
    forces = frame.get_forces()
    if not (np.isfinite(frame.get_potential_energy()) and np.isfinite(forces).all()):
        return "the teacher's energy or forces are not finite"
    largest = float(np.linalg.norm(forces, axis=1).max())
    if largest > config.force_limit:
        return f"the teacher's force of {largest:.3g} eV/Å is over force_limit = {config.force_limit:g}"
    found = overlap(frame_from_atoms(_bare(frame)))
    return "" if found is None else f"atoms {found[0]} and {found[1]} are {found[2]:.3g} Å apart"


def _bare(atoms: Atoms) -> Atoms:
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def _forget(calculator: Any) -> None:
    """Drop results and neighbour lists where the calculator can."""
    reset = getattr(calculator, "reset", None)
    if callable(reset):
        reset()


_PARTS = ("", "_thermostat", "_barostat")  # of ASE's integrators that keep variables of their own


def _numbers(dynamics: Any) -> dict[str, Any]:
    """Every number and array that an integrator and its parts hold, ready for JSON."""
    found: dict[str, Any] = {}
    for part in _PARTS:
        owner = getattr(dynamics, part) if part and hasattr(dynamics, part) else dynamics
        if part and owner is dynamics:
            continue
        for name, value in vars(owner).items():
            if isinstance(value, (float, np.floating)):
                found[f"{part}.{name}"] = float(value)
            elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
                found[f"{part}.{name}"] = value.tolist()
    return found


def _set_numbers(dynamics: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        part, name = key.split(".", 1)
        owner = getattr(dynamics, part) if part else dynamics
        setattr(owner, name, np.array(value) if isinstance(value, list) else value)
