"""One trajectory of an exploration: sampled, guarded, labelled by the teacher, and restartable."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from dpa2calc.dynamics.config import MDConfig
from dpa2calc.dynamics.restart import forget
from dpa2calc.dynamics.simulation import Simulation
from dpa2calc.errors import ConfigError, DataError, OutputError, StructureError
from dpa2calc.files.identity import read_digest
from dpa2calc.progress import progress_bar
from dpa2calc.structures.attached import bare
from dpa2calc.training.data.checks.distances import overlap
from dpa2calc.training.data.frame import frame_from_atoms
from dpa2calc.training.data.readers.frame_file import FrameFile, labelled

from .options import LoopOptions, MDCondition

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(__name__)
DISTANCE_INTERVAL = 10  # steps between searches for overlapping atoms
VOLUME_LIMIT = 2.0  # a cell that grows or shrinks by this factor has exploded


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What one trajectory is to do; `seed` decides its velocities and its thermostat's noise."""

    number: int
    round: int
    driver: str
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
        words = (self.driver, self.condition.stored(), self.temperature, self.pressure, self.seed)
        digest = hashlib.sha256(repr(words).encode())
        for array in (self.start.numbers, self.start.positions, self.start.cell.array):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(read_digest(self.start))
        return digest.hexdigest()[:16]

    def md(self, limits: LoopOptions) -> MDConfig:
        """The molecular dynamics of it: each sample is also a point to resume from."""
        c = self.condition
        n_dof = max(3 * len(self.start) - 3, 1)
        # the temperature of few atoms fluctuates by sqrt(2 / n_dof) of itself
        hottest = self.temperature * limits.temperature_limit * (1 + 3 * (2 / n_dof) ** 0.5)
        return MDConfig(
            steps=c.steps,
            ensemble=c.ensemble,
            timestep_fs=c.timestep,
            temperature=self.temperature,
            pressure_gpa=self.pressure,
            thermostat_time_fs=c.thermostat_time,
            barostat_time_fs=c.barostat_time,
            cell_motion=c.cell,
            velocities="new",
            seed=self.seed,
            log_interval=c.steps,
            sync_interval=c.sample_interval,
            restart_seconds=0.0,
            temperature_limit=min(hottest, 1e30),  # infinity turns a limit off
            force_limit=None if np.isinf(limits.force_limit) else limits.force_limit,
            volume_limit=VOLUME_LIMIT,
            step_limit=None,
            lost_distance=None,
        )


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
    drivers: Mapping[str, Calculator],
    teacher: Calculator,
    config: LoopOptions,
    progress: bool,
) -> list[Walk]:
    """Run all trajectories of a round, each into its own file of `folder`.

    Args:
        drivers: calculators by name, that move the atoms. teacher: labels the samples, whoever moves them.
    """
    total = sum(t.condition.steps for t in plan)
    with progress_bar(total=total, desc="exploring", unit="step", shown=progress) as bar:
        return [
            run_trajectory(
                trajectory,
                path=folder / f"{trajectory.number:03d}.extxyz",
                teacher=teacher,
                driver=drivers[trajectory.driver],
                config=config,
                bar=bar,
            )
            for trajectory in plan
        ]


def run_trajectory(
    trajectory: Trajectory,
    *,
    path: Path,
    teacher: Calculator,
    driver: Calculator,
    config: LoopOptions,
    bar: tqdm[object] | None = None,
) -> Walk:
    """Run a trajectory and keep its sampled frames, with the teacher's labels, in `path` (extxyz).

    After a kill the same call resumes at the last sampled frame; a finished file is not made again.
    A trajectory that explodes ends there: the offending frame and what follows are not kept.

    Args:
        driver: the calculator that moves the atoms: `teacher` itself, or another.

    Raises:
        ConfigError: the trajectory was begun with another calculator.
        DataError: the calculator fails on the start structure.
    """
    file, mark = FrameFile(path), trajectory.fingerprint()
    restart = path.with_suffix(".npz")
    if file.note.get("trajectory", mark) != mark:
        file.restart()
    if "state" in file.note and not file.finished:
        logger.warning("%s was begun by an earlier version; it begins again", trajectory.label)
        file.restart()
    if not file.finished:
        sampler = _Sampler(trajectory, file, teacher, config, bar)
        step, cut = sampler.run(driver, restart)
        file.finish(trajectory=mark, step=step, cut=cut, time=time.time())
    restart.unlink(missing_ok=True)
    note = file.note
    return Walk(label=trajectory.label, steps=note["step"], frames=note["frames"], cut=note["cut"])


class _Sampler:
    """Looks at the steps of one trajectory, and keeps its samples."""

    def __init__(
        self,
        trajectory: Trajectory,
        file: FrameFile,
        teacher: Calculator,
        config: LoopOptions,
        bar: tqdm[object] | None,
    ):
        self.trajectory, self.file, self.teacher = trajectory, file, teacher
        self.config, self.bar = config, bar

    def run(self, driver: Calculator, restart: Path) -> tuple[int, str]:
        """The steps done, and why the trajectory was cut ("" if it was not)."""
        atoms = bare(self.trajectory.start)
        forget(driver)  # what it did before must not show in the last bits
        atoms.calc = driver
        try:
            md = Simulation(
                atoms,
                self.trajectory.md(self.config),
                restart=restart,
                overwrite=not self.file.note["frames"],
                watch=self.look,
            )
        except ConfigError as error:
            begun = f"; or remove {restart}" if restart.exists() else ""
            raise ConfigError(f"{self.trajectory.label}: {error}{begun}") from error
        if self.bar is not None:
            self.bar.update(md.step)
        if not md.step:
            self._check_start(atoms)
        with contextlib.closing(md):
            try:
                md.run(progress=False)
            except (ConfigError, DataError, OutputError):
                raise
            except StructureError as error:
                return md.step, f"step {md.step}: {error}"
            except Exception as error:  # overlapping atoms, a broken cell: whatever the calculator says
                return md.step, f"step {md.step + 1}: {type(error).__name__}: {error}"
        return md.step, md.reason

    def look(self, atoms: Atoms, step: int) -> str | None:
        """After each step: the reason to cut there; a sample is labelled and kept."""
        if self.bar is not None:
            self.bar.update(1)
        sample = step % self.trajectory.condition.sample_interval == 0
        if (sample or step % DISTANCE_INTERVAL == 0) and (close := too_close(atoms)):
            return close
        # after a kill the steps since the last restart point come again; their frames are there
        return self._sample(atoms, step) if sample and step > self.file.note.get("step", 0) else None

    def _check_start(self, atoms: Atoms) -> None:
        label = self.trajectory.label
        try:
            forces = atoms.get_forces()
        except Exception as error:  # a calculator may raise anything
            raise DataError(f"{label}: the calculator fails at the start: {error}") from error
        if not np.isfinite(forces).all():
            raise DataError(f"{label}: forces on the start structure are not finite")

    def _sample(self, atoms: Atoms, step: int) -> str | None:
        """Label and keep this frame; the reason if it cannot be labelled or is unsound."""
        t = self.trajectory
        info = {
            "group": f"{t.driver} {t.condition.ensemble} {t.temperature:g} K {t.pressure:g} GPa",
            self.config.round_key: t.round,
            "trajectory": t.number,
            "step": step,
        }
        # a teacher that moves the atoms has just been there, and its caches are dropped after each sample
        label = labelled if atoms.calc is self.teacher else fresh_label
        try:
            frame = label(atoms, self.teacher, **info)
            reason = unsound(frame, self.config)
        except Exception as error:  # a calculator may raise anything on another's frame
            return f"labelling fails: {error}"
        if reason:
            return reason
        self.file.append(frame, trajectory=t.fingerprint(), step=step)
        return None


def fresh_label(atoms: Atoms, teacher: Calculator, **info: object) -> Atoms:
    """`labelled` by a teacher that has forgotten all earlier frames: after a kill the same bits come out."""
    forget(teacher)
    return labelled(atoms, teacher, **info)


def unsound(frame: Atoms, config: LoopOptions) -> str:
    """Why a labelled frame must not be trained on, or ""."""
    bad = [name for name, values in frame.calc.results.items() if not np.isfinite(values).all()]
    if bad:
        return f"its labels are not finite ({', '.join(bad)})"
    largest = float(np.linalg.norm(frame.get_forces(), axis=1).max())
    if largest > config.force_limit:
        return f"its force of {largest:.3g} eV/Å is over force_limit = {config.force_limit:g}"
    return too_close(frame)


def too_close(atoms: Atoms) -> str:
    """Which atoms overlap, or ""."""
    try:
        found = overlap(frame_from_atoms(bare(atoms)))
    except StructureError as error:  # far more atoms in a place than any matter has
        return str(error)
    return "" if found is None else f"atoms {found[0]} and {found[1]} are {found[2]:.3g} Å apart"
