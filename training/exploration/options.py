"""Options of work in rounds: the molecular dynamics that explores, and what every loop around it needs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeVar, cast, get_args

from dpa2calc.dynamics.words import current_word, earlier_word
from dpa2calc.errors import ConfigError
from dpa2calc.files.options import at_least, parse_options, refuse_idle, settle
from dpa2calc.files.typed import as_written, build, shown
from dpa2calc.model.config import check

Ensemble = Literal["nve", "nvt", "npt"]
CellMotion = Literal["volume", "cell"]
Options = TypeVar("Options", bound="LoopOptions")


@dataclass(frozen=True, kw_only=True)
class MDCondition:
    """Molecular dynamics like that of the application: `[[md]]` in a file.

    Every combination of temperature and pressure gives `trajectories` trajectories a round, each from
    another start structure and with other velocities.
    """

    ensemble: Annotated[Ensemble, "nve, nvt (Langevin) or npt (Martyna-Tobias-Klein)"] = "nvt"
    temperature: Annotated[tuple[float, ...], "K; in nve that of the first velocities"] = (300.0,)
    pressure: Annotated[tuple[float, ...], "GPa, only in npt"] = (0.0,)
    cell: Annotated[CellMotion, "volume or cell: how the cell may change in npt"] = "volume"
    timestep: Annotated[float, "fs"] = 1.0
    steps: Annotated[int, "steps of each trajectory"] = 1000
    sample_interval: Annotated[int, "steps between sampled frames"] = 50
    trajectories: Annotated[int, "trajectories of each temperature and pressure in a round"] = 2
    thermostat_time: Annotated[float, "relaxation time of the thermostat, fs"] = 100.0
    barostat_time: Annotated[float, "relaxation time of the barostat, fs"] = 1000.0
    structures: Annotated[tuple[str, ...], "files to start from (default: the start frames)"] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "cell", current_word(self.cell, get_args(CellMotion), "md.cell"))
        # as written, because the numbers are part of the names by which trajectories on disk are known
        settle(self, "md", number=as_written)
        check(bool(self.temperature), "md.temperature", self.temperature, "at least one, K")
        check(min(self.temperature) > 0, "md.temperature", self.temperature, "above 0 K")
        check(bool(self.pressure), "md.pressure", self.pressure, "at least one, GPa")
        fixed = self.ensemble != "npt" and any(self.pressure)
        check(not fixed, "md.pressure", self.pressure, "0 unless ensemble = 'npt'")
        if self.ensemble != "npt":
            refuse_idle(self, "unless ensemble = 'npt'", "cell", "barostat_time", section="md.")
        if self.ensemble == "nve":
            refuse_idle(self, "with ensemble = 'nve'", "thermostat_time", section="md.")
        for name in ("timestep", "thermostat_time", "barostat_time"):
            check(getattr(self, name) > 0, f"md.{name}", getattr(self, name), "above 0 fs")
        for name in ("steps", "sample_interval", "trajectories"):
            check(getattr(self, name) > 0, f"md.{name}", getattr(self, name), "at least 1")
        check(self.sample_interval <= self.steps, "md.sample_interval", self.sample_interval, "up to steps")

    def stored(self) -> dict[str, object]:
        """All options as files on disk have them, in the words of every version."""
        return {**dataclasses.asdict(self), "cell": earlier_word(self.cell)}

    def points(self) -> Iterator[tuple[float, float]]:
        """Every (temperature K, pressure GPa)."""
        return itertools.product(self.temperature, self.pressure)


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """What every loop of training, dynamics and choice of frames is told."""

    round_key: ClassVar[str]  # of a frame's round, in its info

    frames_per_round: Annotated[int, "at most this many frames are added in a round, chosen diverse"] = 50
    max_rounds: Annotated[int, "stop after this many rounds at the latest"] = 8
    accurate_share: Annotated[float, "stop when this share of frames is within the threshold"] = 0.98
    perturbed: Annotated[int, "perturbed copies of each start frame"] = 0
    contacts: Annotated[int, "copies of each start frame with two unbonded atoms brought close"] = 0
    displacement: Annotated[float, "standard deviation of the perturbed copies' displacements, Å"] = 0.05
    strain: Annotated[float, "standard deviation of their strains"] = 0.01
    later_steps: Annotated[int, "training steps of the rounds after the first (0 = as in [train])"] = 0
    later_learning_rate: Annotated[float, "learning rate of those rounds (0 = as in [train])"] = 0.0
    final_steps: Annotated[int, "steps of a last training on all labelled frames (0 = none)"] = 0
    force_limit: Annotated[float, "a larger force on an atom (eV/Å) is an explosion"] = 50.0
    temperature_limit: Annotated[float, "a temperature over this many times the target is one too"] = 5.0
    seed: Annotated[int, "of start structures, velocities and perturbations"] = 1

    def __post_init__(self) -> None:
        settle(self)
        for name in ("force_limit", "displacement", "strain"):
            check(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        check(0 < self.accurate_share <= 1, "accurate_share", self.accurate_share, "above 0, up to 1")
        check(self.temperature_limit > 1, "temperature_limit", self.temperature_limit, "above 1")
        at_least(self, 1, "frames_per_round", "max_rounds")
        at_least(
            self, 0, "perturbed", "contacts", "later_steps", "later_learning_rate", "final_steps", "seed"
        )

    @property
    def drivers(self) -> tuple[str, ...]:
        """Who moves the atoms, one after the other."""
        raise NotImplementedError

    def replace(self: Options, **changes: object) -> Options:
        """The same with some options changed.

        Raises:
            ConfigError: an unknown name (the nearest is suggested) or a wrong value.
        """
        same = build(type(self), {**vars(self), **changes}, read=lambda hint, value, name: value)
        return cast(Options, same)  # checked by `settle`


def conditions_of(md: object) -> tuple[MDCondition, ...]:
    """One condition or several, as `MDCondition` or as mappings of its options.

    Raises:
        ConfigError: there is none, or a key or value is wrong.
    """
    several: list[object] = [md]
    if isinstance(md, Iterable) and not isinstance(md, (Mapping, str)):
        several = list(md)
    if not several:
        raise ConfigError("md is empty; give at least one condition, such as MDCondition(temperature=(300,))")
    found = []
    for item in several:
        if not isinstance(item, (MDCondition, Mapping)):
            raise ConfigError(
                f"md = {shown(md)} is not allowed; allowed: an MDCondition, a table of its options, or a "
                "list of them"
            )
        found.append(item if isinstance(item, MDCondition) else _condition(item))
    return tuple(found)


def _condition(options: Mapping[str, object]) -> MDCondition:
    words = {k: current_word(v, get_args(CellMotion), "md.cell") for k, v in options.items() if k == "cell"}
    return parse_options(MDCondition, {**options, **words}, "md")
