"""One simulation of `run_md`: its steps, its guards, and the files that it keeps in step."""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms, units
from tqdm import tqdm

from dpa2calc.errors import ConfigError, DataError, StructureError
from dpa2calc.lattice import volume_or_nan

from .md_config import MDConfig
from .md_files import (
    FrameWriter,
    LogWriter,
    PathLike,
    RestartState,
    load_restart,
    make_frame,
    save_restart,
)
from .md_guards import Guard, committee_deviation, results_at_hand
from .md_integrators import Integrator, initialise_velocities, wants_fixed_com
from .md_result import MDResult
from .result import provenance


class Simulation:
    """The state of one call of `run_md`: steps, guards, files, restart."""

    def __init__(
        self, atoms: Atoms, config: MDConfig, paths: dict[str, PathLike | None], overwrite: bool
    ) -> None:
        self.config = config
        self.atoms = atoms.copy()
        self.atoms.calc = atoms.calc
        check_atoms(self.atoms, config)
        self.frames = FrameWriter(paths["trajectory"]) if paths["trajectory"] else None
        self.log = LogWriter(paths["log"]) if paths["log"] else None
        self.restart = Path(paths["restart"]) if paths["restart"] else None
        self.status, self.reason = "interrupted", "interrupted"  # until the run ends otherwise
        self.rows: list[tuple[float, ...]] = []
        self.step = 0
        self.first_volume = volume_or_nan(self.atoms)
        self.rng = np.random.default_rng(config.seed)
        self.resumed = self.restart is not None and self.restart.exists() and not overwrite
        state = load_restart(self.restart) if self.resumed and self.restart else None
        if not overwrite:
            self._refuse_existing(state.marks if state else {})
        _forget(self.atoms.calc, config)
        self._prepare(state)
        self.guard = Guard(config, self.integrator.n_dof, self.first_volume)
        self._open_files(state)
        self.good = self._copy_frame()
        self.synced = state or self._snapshot()
        self.first_step, self.seconds, self.written = self.step, 0.0, 0.0

    def run(self, progress: bool) -> None:
        """Do the steps; on any way out the restart file holds the last synchronised step."""
        bar = tqdm(
            total=self.config.steps, initial=self.step, unit="step", file=sys.stderr, disable=not progress,
            dynamic_ncols=True,
        )  # fmt: skip
        try:
            self._evaluate_first()
            started = self.written = time.perf_counter()
            while self.step < self.config.steps and self.status != "stopped":
                self._one_step()
                self.seconds = time.perf_counter() - started
                bar.update(1)
                if self.step % self.config.log_interval == 0:
                    bar.set_postfix_str(self._postfix(), refresh=False)
            if self.status != "stopped":
                self.status, self.reason = "finished", ""
        finally:
            bar.close()
            self._write_restart()
        if self.status == "stopped":
            self._keep_stopped()

    def _one_step(self) -> None:
        before, _, cell = self.good
        number = self.step + 1
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # the guard looks at the outcome
                self.integrator.step(number)
            problem = self.guard.check_step(self.atoms, before, cell)
            if problem is None and number % self.config.log_interval == 0:
                problem = self.guard.check_distances(self.atoms)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            problem = f"the calculator failed: {error}"
        if problem is not None:
            self.status, self.reason = "stopped", f"step {number}: {problem}"
            return
        self.step = number
        self.good = self._copy_frame()
        self._record()
        if self.config.sync_interval and number % self.config.sync_interval == 0:
            self._synchronise()

    def _evaluate_first(self) -> None:
        """Forces of the first configuration, which must pass the guards too."""
        self.atoms.get_forces(md=True)
        problem = self.guard.check_step(self.atoms, self.good[0], self.good[2])
        problem = problem or self.guard.check_distances(self.atoms)
        if problem:
            raise StructureError(f"the first configuration is no start for a run: {problem}")
        if not self.resumed:
            self._record()
            self.synced = self._snapshot()

    def _record(self) -> None:
        if self.step % self.config.log_interval == 0:
            row = self._row()
            self.rows.append(row)
            if self.log:
                self.log.write(row)
        if self.frames and self.step % self.config.trajectory_interval == 0:
            self.frames.write(make_frame(self.atoms, self.step, self.config.timestep_fs))

    def _row(self) -> tuple[float, ...]:
        atoms, nan = self.atoms, float("nan")
        potential, forces = results_at_hand(atoms)
        kinetic = float(atoms.get_kinetic_energy())
        deviation = committee_deviation(atoms.calc)
        volume = volume_or_nan(atoms)
        pressure = nan
        if atoms.pbc.all() and "stress" in atoms.calc.implemented_properties:
            pressure = -float(np.mean(atoms.get_stress(include_ideal_gas=True)[:3])) / units.GPa
        return (
            float(self.step),
            self.step * self.config.timestep_fs,
            potential,
            kinetic,
            potential + kinetic,
            self.integrator.conserved_energy(potential + kinetic),
            2 * kinetic / (self.integrator.n_dof * units.kB),
            self.config.target_temperature(self.step) if self.config.ensemble != "nve" else nan,
            pressure,
            volume,
            float(np.sqrt((forces**2).sum(axis=1).max())),
            nan if deviation is None else float(deviation.max()),
        )

    def _synchronise(self) -> None:
        """Make this step one from which a restart repeats every bit; write it if the last is old."""
        _forget(self.atoms.calc, self.config)
        self.synced = self._snapshot()
        if time.perf_counter() - self.written >= self.config.restart_seconds:
            self._write_restart()

    def _write_restart(self) -> None:
        if self.restart:
            save_restart(self.restart, self.synced)
            self.written = time.perf_counter()

    def _snapshot(self) -> RestartState:
        atoms = self.atoms
        files = {"trajectory": self.frames, "log": self.log}
        return RestartState(
            step=self.step,
            positions=atoms.get_positions(),
            momenta=atoms.get_momenta(),
            cell=atoms.cell.array.copy(),
            numbers=atoms.numbers.copy(),
            masses=atoms.get_masses(),
            pbc=atoms.pbc.copy(),
            first_volume=self.first_volume,
            integrator=self.integrator.get_state(),
            rng=dict(self.rng.bit_generator.state),
            config=self.config.to_dict(),
            marks={name: writer.mark() for name, writer in files.items() if writer},
        )

    def _prepare(self, state: RestartState | None) -> None:
        """Set the atoms and the integrator up, from the caller's atoms or from a restart."""
        atoms = self.atoms
        if state is None:
            initialise_velocities(atoms, self.config, self.rng, wants_fixed_com(atoms, self.config))
            self.integrator = Integrator(atoms, self.config, self.rng)
            return
        self.config.check_continues(state.config)
        if not np.array_equal(atoms.numbers, state.numbers) or not np.array_equal(atoms.pbc, state.pbc):
            raise DataError(
                f"{self.restart} holds {len(state.numbers)} atoms that are not these {len(atoms)} "
                f"({atoms.get_chemical_formula()}); give the atoms of the first run"
            )
        if state.step > self.config.steps:
            raise ConfigError(
                f"{self.restart} is already at step {state.step}; steps is the total, so give at least that, "
                f"not {self.config.steps}"
            )
        if not np.array_equal(atoms.get_masses(), state.masses):
            atoms.set_masses(state.masses)
        atoms.set_cell(state.cell)
        atoms.set_positions(state.positions, apply_constraint=False)
        atoms.set_momenta(state.momenta, apply_constraint=False)
        self.rng.bit_generator.state = state.rng
        self.step, self.first_volume = state.step, state.first_volume
        self.integrator = Integrator(atoms, self.config, self.rng)
        self.integrator.set_state(state.integrator, state.step)

    def _open_files(self, state: RestartState | None) -> None:
        marks = state.marks if state else {}
        if self.frames:
            self.frames.open(marks.get("trajectory"))
        if self.log:
            self.rows = self.log.open(marks.get("log"))

    def _refuse_existing(self, marks: dict[str, dict[str, int]]) -> None:
        """Raise rather than write over a file that this run does not continue."""
        for name, writer in (("trajectory", self.frames), ("log", self.log)):
            if writer and name not in marks and writer.path.exists():
                raise DataError(
                    f"{writer.path} exists; give overwrite=True to replace it, another name, or the restart "
                    "file of that run to continue it"
                )

    def _copy_frame(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.atoms.get_positions(), self.atoms.get_momenta(), self.atoms.cell.array.copy()

    def _keep_stopped(self) -> None:
        """Write the last good and the offending frame beside the trajectory, and warn."""
        kept = ""
        if self.frames:
            stem = self.frames.path.with_suffix("")
            bad = self.atoms.copy()
            bad.set_constraint()
            ase.io.write(f"{stem}-stopped.extxyz", bad)
            ase.io.write(f"{stem}-last-good.extxyz", self.result().final_atoms())
            kept = f"; the last good frame is in {stem}-last-good.extxyz"
        warnings.warn(f"molecular dynamics stopped at {self.reason}{kept}", stacklevel=4)

    def _postfix(self) -> str:
        rate = self._rate()
        row = self.rows[-1]
        return f"{rate:.3g} ns/day, T={row[6]:.0f} K, E={row[2]:.3f} eV"

    def _rate(self) -> float:
        done = self.step - self.first_step
        return (
            done * self.config.timestep_fs * 1e-6 / self.seconds * 86400 if self.seconds > 0 else float("nan")
        )

    def close(self) -> None:
        """Close the files."""
        for writer in (self.frames, self.log):
            if writer:
                writer.close()

    def result(self) -> MDResult:
        """Numbers of the run so far."""
        table = np.array(self.rows).reshape(len(self.rows), 12).T  # (n_rows, 12) -> (12, n_rows)
        positions, momenta, cell = self.good
        names = ("potential_energy", "kinetic_energy", "total_energy", "conserved_energy", "temperature")
        return MDResult(
            status=self.status,  # type: ignore[arg-type]
            reason=self.reason,
            config=self.config.to_dict(),
            n_atoms=len(self.atoms),
            n_steps=self.step,
            step=table[0].astype(int),
            time_fs=table[1],
            **dict(zip(names, table[2:7])),
            target_temperature=table[7],
            pressure=table[8] * units.GPa,
            volume=table[9],
            max_force=table[10],
            max_force_std=table[11],
            numbers=self.atoms.numbers.copy(),
            positions=positions,
            momenta=momenta,
            cell=cell,
            pbc=self.atoms.pbc.copy(),
            ns_per_day=self._rate(),
            trajectory=str(self.frames.path) if self.frames else None,
            log=str(self.log.path) if self.log else None,
            restart=str(self.restart) if self.restart else None,
            provenance=provenance(self.atoms.calc, seed=self.config.seed),
        )


def check_atoms(atoms: Atoms, config: MDConfig) -> None:
    """Raise where there is nothing that these dynamics could move."""
    if len(atoms) == 0:
        raise StructureError("there are no atoms to move")
    if atoms.calc is None:
        raise StructureError("the atoms have no calculator; set atoms.calc first")
    if config.ensemble == "npt" and "stress" not in atoms.calc.implemented_properties:
        raise ConfigError(f"NPT needs stresses, which {type(atoms.calc).__name__} does not give; use NVT")
    if not (atoms.get_masses() > 0).all():
        raise StructureError("an atom has no mass; give every atom a mass above 0")


def _forget(calculator: Any, config: MDConfig) -> None:
    """Make a calculator drop results and neighbour lists, so that nothing depends on the way here."""
    if not config.sync_interval:
        return
    reset = getattr(calculator, "reset", None)
    if callable(reset):
        reset()
    for part in getattr(getattr(calculator, "mixer", None), "calcs", ()):  # ASE's sums do not pass it on
        _forget(part, config)
