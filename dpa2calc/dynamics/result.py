"""What a molecular dynamics run returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from ase import Atoms, units

from dpa2calc.errors import ConfigError
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.files.results import Result, plus_minus
from dpa2calc.files.typed import Json
from dpa2calc.structures.attached import Attached, attach

from .averages import series_error


@dataclass(frozen=True, kw_only=True)
class MDResult(Result):
    """Numbers of one run, from its first step on, at every logged step.

    Energies in eV, temperatures in K, pressure in eV/Å³ (kinetic part included), volume in Å³, forces in
    eV/Å, `time_fs` in fs; the last good frame has positions and cell in Å, momenta in ASE's units, and what
    else the atoms had is `attached`.
    """

    status: Literal["finished", "stopped", "interrupted"]
    reason: str  # why it stopped, "" when finished
    config: dict[str, Json] = field(repr=False)
    n_atoms: int
    n_steps: int  # steps done in all
    step: np.ndarray = field(repr=False)  # (n_rows,)
    time_fs: np.ndarray = field(repr=False)
    potential_energy: np.ndarray = field(repr=False)  # eV
    kinetic_energy: np.ndarray = field(repr=False)
    total_energy: np.ndarray = field(repr=False)
    conserved_energy: np.ndarray = field(repr=False)  # eV; NaN for Langevin and for ramps
    temperature: np.ndarray = field(repr=False)  # K
    target_temperature: np.ndarray = field(repr=False)  # K
    pressure: np.ndarray = field(repr=False)  # eV/Å³, kinetic part included; NaN without stress
    volume: np.ndarray = field(repr=False)  # Å³; NaN without a cell
    max_force: np.ndarray = field(repr=False)  # eV/Å
    max_force_std: np.ndarray = field(repr=False)  # eV/Å; NaN without a committee
    numbers: np.ndarray = field(repr=False)  # the last good frame: (n_atoms,)
    positions: np.ndarray = field(repr=False)  # (n_atoms, 3) Å, never wrapped
    momenta: np.ndarray = field(repr=False)  # (n_atoms, 3)
    cell: np.ndarray = field(repr=False)  # (3, 3) Å
    pbc: np.ndarray = field(repr=False)  # (3,)
    ns_per_day: float  # of this call; NaN when it did no step
    trajectory: str | None = None
    log: str | None = None
    restart: str | None = None
    attached: Attached = field(default_factory=dict, repr=False)

    def final_atoms(self) -> Atoms:
        """The last good frame, without calculator, constraints and labels."""
        atoms = Atoms(self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        attach(atoms, self.attached)
        atoms.set_momenta(self.momenta)
        return atoms

    def average(self, name: str, skip_fs: float = 0.0) -> tuple[float, float]:
        """Mean of a logged quantity and its 68 % error from blocks of rows (`dynamics.averages`).

        Args:
            name: a field such as "temperature".
            skip_fs: rows before this time are left out.

        Raises:
            ConfigError: no row is left.
        """
        values = getattr(self, name)[self.time_fs >= skip_fs]
        if not len(values):
            last = self.time_fs[-1] if len(self.time_fs) else 0.0
            raise ConfigError(f"skip_fs = {skip_fs:g} leaves no row of a log that ends at {last:g} fs")
        return float(np.mean(values)), series_error(values)

    def summary(self) -> str:
        """One screen: what was run, how it ended, averages over the second half."""
        ensemble = self.config["ensemble"].upper()
        last = self.time_fs[-1] if len(self.time_fs) else 0.0
        lines = [
            f"{ensemble} molecular dynamics, {self.n_atoms} atoms, {self.n_steps} steps "
            f"of {self.config['timestep_fs']} fs: {self.status}"
            + (f" ({self.reason})" if self.reason else "")
        ]
        if np.isfinite(self.ns_per_day):
            lines.append(f"speed              {self.ns_per_day:.4g} ns/day")
        if len(self.time_fs) >= 2:
            lines.append(f"averages from {last / 2:.6g} to {last:.6g} fs (± 68 %)")
            rows = [
                ("temperature", "temperature", 1.0, "K"),
                ("potential energy", "potential_energy", 1.0, "eV"),
            ]
            if np.isfinite(self.pressure).all():
                rows.append(("pressure", "pressure", 1 / units.GPa, "GPa"))
            if ensemble == "NPT":
                rows.append(("volume", "volume", 1.0, "Å³"))
            for label, name, factor, unit in rows:
                mean, error = self.average(name, last / 2)
                lines.append(f"{label:18s} {plus_minus(mean * factor, error * factor)} {unit}")
            drift = self.energy_drift()
            if np.isfinite(drift):
                lines.append(f"drift of conserved {drift * 1e3:.3g} meV/atom/ns")
        for label in ("trajectory", "log", "restart"):
            if getattr(self, label):
                lines.append(f"{label:18s} {getattr(self, label)}")
        return "\n".join(lines)

    def energy_drift(self) -> float:
        """Slope of the conserved energy in eV per atom and nanosecond; NaN where none is conserved."""
        if len(self.time_fs) < 2 or not np.isfinite(self.conserved_energy).all():
            return float("nan")
        slope = np.polyfit(self.time_fs, self.conserved_energy - self.conserved_energy[0], 1)[0]
        return float(slope) / self.n_atoms * 1e6

    def plot(self, ax: Axes | None = None) -> Axes:
        """Temperature (left axis) and potential energy per atom (right axis) against time."""
        ax = axes_for(ax)
        picoseconds = self.time_fs / 1000
        ax.plot(picoseconds, self.temperature, color="C3", linewidth=0.8, label="temperature")
        ax.plot(
            picoseconds, self.target_temperature, color="k", linewidth=0.8, linestyle="--", label="target"
        )
        ax.set_xlabel("time (ps)")
        ax.set_ylabel("temperature (K)", color="C3")
        energy = ax.twinx()
        energy.plot(picoseconds, self.potential_energy / self.n_atoms, color="C0", linewidth=0.8)
        energy.set_ylabel("potential energy (eV/atom)", color="C0")
        energy.ticklabel_format(useOffset=False)
        return ax
