"""One simulation: its steps, its guards, and the files that it keeps in step."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms, units

from dpa2calc.errors import ConfigError, DataError, OutputError, StructureError
from dpa2calc.files.atomic import write_text
from dpa2calc.files.results import provenance
from dpa2calc.progress import progress_bar
from dpa2calc.structures.attached import attached, drop_labels
from dpa2calc.structures.lattice import volume_or_nan

from .config import MDConfig
from .files import COLUMNS, LogWriter, Mark, PathLike
from .frames import FrameWriter, extxyz_text, make_frame
from .guards import Guard, check_atoms, committee_deviation, results_at_hand
from .integrators import Integrator, initialise_velocities, wants_fixed_com
from .restart import RestartState, check_belongs, forget, load_restart, machine, run_identity, save_restart
from .result import MDResult


class Simulation:
    """One run: steps, guards, files, restart.

    Args:
        atoms: with a calculator; never changed.
        trajectory, log, restart, overwrite: as in `run_md`.
        watch: called after every good step with the atoms and the number of the step; a text that it returns
            stops the run. What it keeps must take the steps after the last restart point a second time.
    """

    def __init__(
        self,
        atoms: Atoms,
        config: MDConfig,
        *,
        trajectory: PathLike | None = None,
        log: PathLike | None = None,
        restart: PathLike | None = None,
        overwrite: bool = False,
        watch: Callable[[Atoms, int], str | None] | None = None,
    ) -> None:
        self.config, self.watch = config, watch
        self.atoms = atoms.copy()
        self.atoms.calc = atoms.calc
        check_atoms(self.atoms, config)
        self.frames = FrameWriter(trajectory) if trajectory else None
        self.log = LogWriter(log) if log else None
        files: dict[str, FrameWriter | LogWriter | None] = {"trajectory": self.frames, "log": self.log}
        self.files = {name: file for name, file in files.items() if file}
        self.restart = Path(restart) if restart else None
        self.status, self.reason = "interrupted", "interrupted"  # until the run ends otherwise
        self.rows: list[tuple[float, ...]] = []
        self.step = 0
        self.first_volume = volume_or_nan(self.atoms)
        self.rng = np.random.default_rng(config.seed)
        self.identity, self.machine = run_identity(self.atoms, config), machine(self.atoms.calc)
        earlier = None
        if self.restart and self.restart.exists() and not overwrite:
            earlier = load_restart(self.restart)
            self._check_continues(earlier, self.restart)
        if not overwrite:
            self._refuse_existing(earlier.marks if earlier else {})
        # a run that was killed before its first synchronised step begins again
        self.state = earlier if earlier and earlier.step else None
        if config.sync_interval:
            forget(self.atoms.calc)
        self._prepare(self.state)
        self.guard = Guard(config, self.integrator.n_dof, self.first_volume)
        self.good = self._copy_frame()
        self.synced = self._snapshot()
        self.first_step, self.seconds, self.written = self.step, 0.0, 0.0

    def run(self, progress: bool) -> None:
        """Do the steps; on any way out the restart file holds the last synchronised step."""
        self._continue_files() if self.state else self._begin()
        total = self.config.steps
        bar = progress_bar(total=total, initial=self.step, unit="step", shown=progress, dynamic_ncols=True)
        try:
            started = self.written = time.perf_counter()
            while self.step < self.config.steps and self.status != "stopped":
                self._one_step()
                self.seconds = time.perf_counter() - started
                bar.update(1)
                if self.step % self.config.log_interval == 0:
                    bar.set_postfix_str(self._postfix(), refresh=False)
            if self.status != "stopped":
                self.status, self.reason = "finished", ""
        except BaseException:
            with contextlib.suppress(OutputError):  # the first error says more
                self._write_restart()
            raise
        finally:
            bar.close()
        self._write_restart()

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
        if problem is None and self.watch is not None:
            problem = self.watch(self.atoms, number)
        if problem is not None:
            self.status, self.reason = "stopped", f"step {number}: {problem}"
            return
        self.step = number
        self.good = self._copy_frame()
        self._record()
        if self.config.sync_interval and number % self.config.sync_interval == 0:
            self._synchronise()

    def _begin(self) -> None:
        """Look at the first configuration; only when it can be run, write the files, the restart file first.

        From that file on, whatever a kill leaves behind is known to be this run's own.
        """
        self._evaluate_first()
        nothing = {
            name: {"name": file.path.name, "frames": 0, "bytes": 0} for name, file in self.files.items()
        }
        self.synced = dataclasses.replace(self._snapshot(), marks=nothing)
        self._write_restart()
        for file in self.files.values():
            file.open(None)
        self._record()

    def _continue_files(self) -> None:
        """Cut trajectory and log back to the restart file, and check the forces there."""
        assert self.state is not None
        config, marks, step = self.config, self.state.marks, self.step
        if self.frames:
            every = config.trajectory_interval
            kept = marks.get("trajectory")
            self.frames.open(kept, numbers=self.state.numbers, step=step // every * every)
        if self.log:
            self.rows = self.log.open(marks.get("log"), steps=range(0, step + 1, config.log_interval))
        self._evaluate_first()
        self.synced = self._snapshot()

    def _evaluate_first(self) -> None:
        """Forces of the first configuration, which must pass the guards too."""
        self.atoms.get_forces(md=True)
        problem = self.guard.check_step(self.atoms, self.good[0], self.good[2])
        problem = problem or self.guard.check_distances(self.atoms)
        if problem:
            raise StructureError(f"the first configuration is no start for a run: {problem}")

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
            volume_or_nan(atoms),
            float(np.sqrt((forces**2).sum(axis=1).max())),
            nan if deviation is None else float(deviation.max()),
        )

    def _synchronise(self) -> None:
        """Make this step one from which a restart repeats every bit; write it if the last is old."""
        forget(self.atoms.calc)
        self.synced = self._snapshot()
        if time.perf_counter() - self.written >= self.config.restart_seconds:
            self._write_restart()

    def _write_restart(self) -> None:
        if self.restart:
            for file in self.files.values():
                file.sync()
            save_restart(self.restart, self.synced)
            self.written = time.perf_counter()

    def _snapshot(self) -> RestartState:
        atoms = self.atoms
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
            marks={name: file.mark() for name, file in self.files.items() if file.is_open},
            identity=self.identity,
            machine=self.machine,
        )

    def _prepare(self, state: RestartState | None) -> None:
        """Set the atoms and the integrator up, from the caller's atoms or from a restart."""
        atoms, first_cell = self.atoms, self.atoms.cell.array.copy()
        if state is None:
            initialise_velocities(atoms, self.config, self.rng, wants_fixed_com(atoms, self.config))
            self.integrator = Integrator(atoms, self.config, self.rng, first_cell)
            return
        if not np.array_equal(atoms.get_masses(), state.masses):
            atoms.set_masses(state.masses)
        # bonds that a constraint holds have the lengths of the first structure, to the last bit
        atoms.set_momenta(np.zeros((len(atoms), 3)))
        atoms.set_cell(state.cell)
        atoms.set_positions(state.positions, apply_constraint=False)
        atoms.set_momenta(state.momenta, apply_constraint=False)
        self.rng.bit_generator.state = state.rng
        self.step, self.first_volume = state.step, state.first_volume
        self.integrator = Integrator(atoms, self.config, self.rng, first_cell)
        self.integrator.set_state(state.integrator, state.step)

    def _check_continues(self, state: RestartState, path: Path) -> None:
        """Raise unless the restart file belongs to these atoms, this calculator and these options."""
        self.config.check_continues(state.config)
        atoms = self.atoms
        if not np.array_equal(atoms.numbers, state.numbers):
            raise DataError(
                f"{path} holds {len(state.numbers)} atoms that are not these {len(atoms)} "
                f"({atoms.get_chemical_formula()}); give the atoms of the first run"
            )
        check_belongs(state, path, self.identity, self.machine)
        if state.step > self.config.steps:
            raise ConfigError(
                f"{path} is already at step {state.step}; steps is the total, so give at least that, "
                f"not {self.config.steps}"
            )

    def _refuse_existing(self, marks: dict[str, Mark]) -> None:
        """Raise rather than write over a file that this run does not continue."""
        for name, file in self.files.items():
            mark = marks.get(name)
            own = mark is not None and (mark["bytes"] or mark.get("name") == file.path.name)
            if file.path.exists() and not own:
                raise DataError(
                    f"{file.path} exists; give overwrite=True to replace it, another name, or the restart "
                    "file of that run to continue it"
                )

    def _copy_frame(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.atoms.get_positions(), self.atoms.get_momenta(), self.atoms.cell.array.copy()

    def keep_stopped(self) -> None:
        """Of a stopped run: write the last good and the offending frame beside the trajectory, and warn."""
        kept = ""
        if self.frames:
            stem = self.frames.path.with_suffix("")
            bad = self.atoms.copy()
            bad.set_constraint()
            drop_labels(bad)
            for name, frame in (("stopped", bad), ("last-good", self.result().final_atoms())):
                write_text(f"{stem}-{name}.extxyz", extxyz_text(frame))
            kept = f"; the last good frame is in {stem}-last-good.extxyz"
        warnings.warn(f"molecular dynamics stopped at {self.reason}{kept}", stacklevel=4)

    def _postfix(self) -> str:
        row = dict(zip(COLUMNS, self.rows[-1]))
        temperature, energy = row["temperature_K"], row["potential_energy_eV"]
        return f"{self._rate():.3g} ns/day, T={temperature:.0f} K, E={energy:.3f} eV"

    def _rate(self) -> float:
        nanoseconds = (self.step - self.first_step) * self.config.timestep_fs * 1e-6
        return nanoseconds / self.seconds * 86400 if self.seconds > 0 else float("nan")

    def close(self) -> None:
        """Close the files."""
        for file in self.files.values():
            file.close()

    def result(self) -> MDResult:
        """Numbers of the run so far."""
        table = np.array(self.rows).reshape(len(self.rows), len(COLUMNS)).T  # (n_columns, n_rows)
        column = dict(zip(COLUMNS, table))
        positions, momenta, cell = self.good
        energies = ("potential_energy", "kinetic_energy", "total_energy", "conserved_energy")
        return MDResult(
            status=self.status,  # type: ignore[arg-type]
            reason=self.reason,
            config=self.config.to_dict(),
            n_atoms=len(self.atoms),
            n_steps=self.step,
            step=column["step"].astype(int),
            time_fs=column["time_fs"],
            **{name: column[f"{name}_eV"] for name in energies},  # type: ignore[arg-type]
            temperature=column["temperature_K"],
            target_temperature=column["target_temperature_K"],
            pressure=column["pressure_GPa"] * units.GPa,
            volume=column["volume_A3"],
            max_force=column["max_force_eV_per_A"],
            max_force_std=column["max_force_std_eV_per_A"],
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
            attached=attached(self.atoms),
        )
