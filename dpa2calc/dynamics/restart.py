"""The restart file of a run: all that it needs to continue, and what it belongs to."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from dpa2calc.errors import DataError
from dpa2calc.files.arrays import read_arrays, write_arrays
from dpa2calc.files.identity import Part, calculator_identity, require_same, structure_identity, take_as_same
from dpa2calc.files.typed import Json

from .config import MDConfig
from .files import Mark, PathLike
from .words import RENAMED

Machine = dict[str, str | int | None]

FORMAT = "dpa2calc-md-restart"
VERSION = 1


@dataclass(frozen=True)
class RestartState:
    """Everything a run needs to continue from step `step` as if it had never stopped."""

    step: int
    positions: np.ndarray  # (n_atoms, 3) Å
    momenta: np.ndarray  # (n_atoms, 3) ASE units
    cell: np.ndarray  # (3, 3) Å
    numbers: np.ndarray  # (n_atoms,)
    masses: np.ndarray  # (n_atoms,) u
    pbc: np.ndarray  # (3,) bool
    first_volume: float  # Å³, NaN without a cell; for the volume guard
    integrator: dict[str, np.ndarray]
    rng: Mapping[str, Json]  # numpy bit-generator state
    config: dict[str, Json]
    marks: dict[str, Mark]  # where trajectory and log stood
    identity: dict[str, Part] | None  # of the first structure and the calculator; None in old files
    machine: Machine  # device and threads


_ARRAYS = ("positions", "momenta", "cell", "numbers", "masses", "pbc")
_HEADER = ("step", "first_volume", "rng", "config", "marks", "identity", "machine")


def run_identity(atoms: Atoms, config: MDConfig) -> dict[str, Part]:
    """What a run belongs to, beside its configuration: the structure it starts from and the calculator."""
    momenta = config.velocities != "new"
    return {
        "structure": structure_identity(atoms, momenta=momenta),
        "calculator": calculator_identity(atoms.calc),
    }


def machine(calculator: Calculator) -> Machine:
    """Device and threads, which decide the order of sums and so the last bits."""
    parameters = getattr(calculator, "parameters", None) or {}
    device = parameters.get("device") if isinstance(parameters, Mapping) else None
    torch = sys.modules.get("torch")
    return {
        "device": None if device is None else str(device),
        "threads": torch.get_num_threads() if torch else None,
    }


def forget(calculator: Calculator) -> None:
    """Make a calculator drop results and neighbour lists, so that nothing depends on the way here."""
    # ASE's reset is called at every step, and keeps neighbour lists
    drop = getattr(calculator, "forget", None) or getattr(calculator, "reset", None)
    if callable(drop):
        drop()
    for part in getattr(getattr(calculator, "mixer", None), "calcs", ()):  # ASE's sums do not pass it on
        forget(part)


def check_belongs(state: RestartState, path: PathLike, identity: dict[str, Part], now: Machine) -> None:
    """Refuse a restart file of other atoms or of another calculator; warn where bits may differ.

    Args:
        identity: `run_identity` of this run, now: its `machine`.

    Raises:
        ConfigError: names what differs, and the ways out.
    """
    ways = (
        "Give the structure and the calculator of that run to continue it, another restart file (and "
        "trajectory and log) for this one, or overwrite=True to start afresh"
    )
    if state.identity is None:
        take_as_same(str(path), "the structure and the calculator", stacklevel=7)
    else:
        require_same(state.identity, identity, where=str(path), ways=ways)
    for name, before in state.machine.items():
        if before is not None and now.get(name) is not None and before != now[name]:
            warnings.warn(
                f"{path} was written with {name} {before}, this run has {now[name]}: it continues the same "
                f"dynamics, but its last bits may differ; take {name} {before} again to repeat them",
                stacklevel=6,
            )


def save_restart(path: PathLike, state: RestartState) -> None:
    """Write to `path` (a `.npz` of arrays and one JSON text, no pickle), by a temporary name and rename.

    Raises:
        OutputError: the file cannot be written.
    """
    header = {"format": FORMAT, "version": VERSION, **{name: getattr(state, name) for name in _HEADER}}
    arrays = {name: getattr(state, name) for name in _ARRAYS}
    arrays.update({f"integrator/{name}": value for name, value in state.integrator.items()})
    write_arrays(path, header, arrays, compress=False)


def load_restart(path: PathLike) -> RestartState:
    """Read what `save_restart` wrote.

    Raises:
        DataError: the file is missing, damaged, or something else.
    """
    header, arrays = read_arrays(path, "a restart file of run_md")
    try:
        if not isinstance(header, dict):
            raise ValueError("it has no header")
        if header.get("format") != FORMAT or header.get("version") != VERSION:
            raise ValueError(f"format {header.get('format')!r}, version {header.get('version')!r}")
        header = {"marks": {}, "identity": None, "machine": {}, **header}  # earlier versions wrote none
        config = header["config"]
        if isinstance(config, dict) and config.get("cell_motion") in RENAMED:
            config["cell_motion"] = RENAMED[config["cell_motion"]]
        integrator = {k.split("/", 1)[1]: v for k, v in arrays.items() if k.startswith("integrator/")}
        found = {**{name: header[name] for name in _HEADER}, **{name: arrays[name] for name in _ARRAYS}}
        state = RestartState(**found, integrator=integrator)
        _check(state)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{Path(path)} is not a restart file of run_md, or is damaged ({reason}); "
            "give the right file, or delete it to start afresh"
        ) from error
    return state


def _check(state: RestartState) -> None:
    """Raise ValueError, TypeError, KeyError for what `save_restart` does not write."""
    _whole("step", state.step)
    n = len(state.numbers) if state.numbers.ndim else 0
    shapes = {
        "numbers": ((n,), "iu"), "positions": ((n, 3), "f"), "momenta": ((n, 3), "f"), "cell": ((3, 3), "f"),
        "masses": ((n,), "f"), "pbc": ((3,), "b"),
    }  # fmt: skip
    for name, (shape, kinds) in shapes.items():
        found = getattr(state, name)
        if n == 0 or found.shape != shape or found.dtype.kind not in kinds:
            raise ValueError(f"{name} has shape {found.shape} and type {found.dtype}, for {n} atoms")
    everything = {name: getattr(state, name) for name in shapes} | state.integrator
    for name, values in everything.items():
        if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
            raise ValueError(f"{name} holds NaN, infinity or text")
    if not isinstance(state.first_volume, (int, float)) or isinstance(state.first_volume, bool):
        raise ValueError(f"first_volume is {state.first_volume!r}")
    for name in ("rng", "config", "marks", "machine"):
        if not isinstance(getattr(state, name), dict):
            raise ValueError(f"{name} is {getattr(state, name)!r}")
    np.random.default_rng().bit_generator.state = state.rng  # which looks at it
    MDConfig(**state.config)
    for name, mark in state.marks.items():
        for key in ("frames", "bytes"):
            if key in mark or key == "bytes":
                _whole(f"{key} of the {name}", mark[key])
    if state.identity is not None and not all(isinstance(part, dict) for part in state.identity.values()):
        raise ValueError("identity is not what run_md writes")


def _whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is {value!r}")
