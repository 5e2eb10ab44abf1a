"""What a molecular dynamics run is asked to do: one frozen, validated record."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from ase import units

from dpa2calc.errors import ConfigError
from dpa2calc.files.typed import Hint, Json, argument, check_fields, typed

from .words import current_word

Ensemble = Literal["nve", "nvt", "npt"]
Thermostat = Literal["langevin", "bussi", "nose-hoover"]
CellMotion = Literal["volume", "axes", "cell"]
Velocities = Literal["auto", "keep", "new"]
Target = float | tuple[float, float]

# what may change between a run and its continuation without changing the trajectory itself
FREE_ON_RESUME = frozenset({"steps", "restart_seconds"})


@dataclass(frozen=True, kw_only=True)
class MDConfig:
    """A molecular dynamics run.

    Times are in fs, temperatures in K, pressures in GPa, distances in Å, forces in eV/Å.

    Example:
        >>> MDConfig(steps=2000, temperature=330, timestep_fs=0.5)
    """

    steps: int  # total number of steps, counted from the very first run
    ensemble: Ensemble = "nvt"
    timestep_fs: float = 0.5
    # K; a pair (start, end) is a linear ramp over `ramp_steps`. NVE uses it for the first velocities only
    temperature: Target = 300.0
    pressure_gpa: Target = 0.0  # NPT only; a pair is a linear ramp
    ramp_steps: int | None = None  # None: the ramp takes `steps`; afterwards the end value is held
    thermostat: Thermostat = "langevin"  # NVT only; NPT always uses Nose-Hoover chains (MTK)
    thermostat_time_fs: float = 100.0  # relaxation time: 1/friction, Bussi's tau, Nose-Hoover's tdamp
    # NPT: volume only, three lengths (of cell vectors at right angles, else along x, y and z), or the whole
    # cell. Slabs and wires (pbc in some directions) change in these alone, at zero pressure: volume is then
    # their area or length
    cell_motion: CellMotion = "volume"
    barostat_time_fs: float = 1000.0
    chain_length: int = 3  # Nose-Hoover chains, thermostat and barostat
    fix_com: bool | None = None  # remove centre-of-mass motion; None: yes unless the atoms have constraints
    velocities: Velocities = "auto"  # auto: keep the atoms' momenta if any is not zero, else draw new ones
    seed: int = 0  # of the first velocities and of the stochastic thermostats
    # output
    trajectory_interval: int = 100  # steps between frames
    log_interval: int = 10  # steps between rows of the log
    # Every `sync_interval` steps the calculator forgets its caches (neighbour lists), so that a restart
    # from there repeats every bit; a restart file holds such a point. 0: never reset, no exact restart.
    sync_interval: int = 100
    restart_seconds: float = 30.0  # write the restart file at most this often (and at the end)
    # guards: None switches one off; the run stops with the last good frame kept
    temperature_limit: float | None = None  # K; None: ten times the highest target, widened for few atoms
    force_limit: float | None = 100.0  # largest force on one atom
    step_limit: float | None = 1.0  # largest displacement of one atom in one step
    min_distance: float | None = None  # smallest distance of two atoms, checked with the log
    lost_distance: float | None = 10.0  # an atom whose nearest neighbour is farther is lost (with the log)
    volume_limit: float | None = 3.0  # NPT: largest ratio, either way, of the volume to the first one
    committee_limit: float | None = None  # largest entry of calc.results["forces_std"]
    uncertainty_limit: float | None = None  # eV, largest entry of calc.results["energies_std"]

    def __post_init__(self) -> None:
        motion = current_word(self.cell_motion, get_args(CellMotion), "cell_motion", stacklevel=4)
        object.__setattr__(self, "cell_motion", motion)
        check_fields(self, read=_read)
        if any(value <= 0 for value in _pair(self.temperature)):
            raise ConfigError(f"temperature is {self.temperature} K; it must be above 0 K")
        if self.ensemble != "npt" and any(_pair(self.pressure_gpa)):
            raise ConfigError(
                f"pressure_gpa is {self.pressure_gpa}, but ensemble={self.ensemble!r} keeps the cell; use "
                "ensemble='npt'"
            )
        for name in ("timestep_fs", "thermostat_time_fs", "barostat_time_fs"):
            _above_zero(name, getattr(self, name), "fs")
        if not self.restart_seconds >= 0:
            raise ConfigError(f"restart_seconds is {self.restart_seconds}; it must be 0 s or more")
        for name in ("steps", "sync_interval", "seed"):
            _whole(name, getattr(self, name), least=0)
        for name in ("trajectory_interval", "log_interval", "chain_length", "ramp_steps"):
            _whole(name, getattr(self, name), least=1)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and (field.name.endswith("_limit") or field.name.endswith("_distance")):
                _above_zero(field.name, value, "")
        if self.volume_limit is not None and self.volume_limit <= 1:
            raise ConfigError(f"volume_limit is {self.volume_limit}; it is a ratio and must be above 1")

    def target_temperature(self, step: int) -> float:
        """Target temperature in K at a global step."""
        return _ramp(self.temperature, step, self.ramp_steps or self.steps)

    def target_pressure(self, step: int) -> float:
        """Target pressure in eV/Å³ at a global step."""
        return _ramp(self.pressure_gpa, step, self.ramp_steps or self.steps) * units.GPa

    @property
    def ramped(self) -> bool:
        """True when temperature or pressure changes during the run."""
        return any(first != last for first, last in map(_pair, (self.temperature, self.pressure_gpa)))

    def highest_temperature(self) -> float:
        """The larger of the start and end target, in K."""
        return max(_pair(self.temperature))

    def to_dict(self) -> dict[str, Json]:
        """JSON-able values of all fields."""
        return dataclasses.asdict(self)

    def check_continues(self, earlier: dict[str, Json]) -> None:
        """Raise ConfigError unless this run can continue one made with `earlier` (a `to_dict`).

        Only `steps` and `restart_seconds` may differ; a ramp also keeps its length.
        """
        mine = self.to_dict()
        for name, value in mine.items():
            before = earlier.get(name, value)
            before = tuple(before) if isinstance(before, list) else before
            if name == "ramp_steps" and self.ramped:
                value, before = value or self.steps, before or earlier.get("steps")
            if name not in FREE_ON_RESUME and value != before:
                raise ConfigError(
                    f"the restart file was made with {name}={before!r}, this run asks for {value!r}; "
                    f"give {name}={before!r} to continue, or another restart file to start afresh"
                )


def _pair(value: Target) -> tuple[float, float]:
    return value if isinstance(value, tuple) else (value, value)


def _read(hint: Hint, value: Json, name: str) -> object:
    if hint != Target:
        return argument(hint, value, name)
    one = isinstance(value, (list, tuple, np.ndarray)) and np.size(value) == 1
    return typed(hint, np.ravel(value)[0] if one else value, name)


def _ramp(target: Target, step: int, length: int) -> float:
    first, last = _pair(target)
    return first + (last - first) * min(1.0, step / max(1, length))


def _above_zero(name: str, value: float, unit: str) -> None:
    if value <= 0:
        raise ConfigError(f"{name} is {value!r}; it must be a number above 0 {unit}".rstrip())


def _whole(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {least}")
