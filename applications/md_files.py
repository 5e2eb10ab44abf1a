"""The files of a run: trajectory and log that can be cut back to a given frame, and the restart file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixCom
from ase.io.trajectory import Trajectory

from dpa2calc.errors import ConfigError, DataError

PathLike = str | os.PathLike[str]
FORMAT = "dpa2calc-md-restart"
VERSION = 1

# columns of the log, in order; an empty field means "not defined here" (no stress, no conserved quantity)
COLUMNS = (
    "step",
    "time_fs",
    "potential_energy_eV",
    "kinetic_energy_eV",
    "total_energy_eV",
    "conserved_energy_eV",
    "temperature_K",
    "target_temperature_K",
    "pressure_GPa",
    "volume_A3",
    "max_force_eV_per_A",
    "max_force_std_eV_per_A",
)


def make_frame(atoms: Atoms, step: int, timestep_fs: float) -> Atoms:
    """A copy of the atoms with the results at hand (energy, forces, stress), step and time."""
    frame = atoms.copy()
    frame.set_constraint([item for item in frame.constraints if not isinstance(item, FixCom)])
    found = {name: atoms.calc.results.get(name) for name in ("energy", "forces", "stress")}
    frame.calc = SinglePointCalculator(frame, **{k: np.copy(v) for k, v in found.items() if v is not None})
    if "energy" in frame.calc.results:
        frame.calc.results["energy"] = float(frame.calc.results["energy"])
    frame.info.update(step=step, time_fs=step * timestep_fs)
    return frame


class FrameWriter:
    """Append frames to a `.traj` or `.extxyz` file.

    `.traj` keeps every bit; `.extxyz` is text with eight decimals. Positions are never wrapped.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        if self.path.suffix not in (".traj", ".extxyz", ".xyz"):
            raise ConfigError(
                f"trajectory is {self.path.name!r}; its name must end in .traj (binary) or .extxyz (text)"
            )
        self.count = 0
        self._writer: Any = None

    def open(self, keep: dict[str, int] | None) -> None:
        """Start a new file, or cut an existing one back to the mark `keep` and append to it."""
        binary = self.path.suffix == ".traj"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if keep is not None:
            self.count = keep["frames"]
            _cut_ulm(self.path, keep["frames"]) if binary else _cut_text(self.path, keep["bytes"])
        mode = "w" if keep is None else "a"
        self._writer = Trajectory(self.path, mode) if binary else open(self.path, mode, encoding="utf-8")

    def open_append(self) -> None:
        """Go on at the end of an existing file."""
        binary = self.path.suffix == ".traj"
        self._writer = Trajectory(self.path, "a") if binary else open(self.path, "a", encoding="utf-8")

    def write(self, frame: Atoms) -> None:
        """Append one frame."""
        if self.path.suffix == ".traj":
            self._writer.write(frame)
        else:
            ase.io.write(self._writer, frame, format="extxyz")
        self.count += 1

    def mark(self) -> dict[str, int]:
        """Where the file stands now, everything written so far being on disk."""
        if self.path.suffix != ".traj":
            self._writer.flush()
        return {"frames": self.count, "bytes": self.path.stat().st_size}

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class LogWriter:
    """A CSV file with one row every few steps; numbers are written so that they read back exactly."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._handle: TextIO | None = None

    def open(self, keep: dict[str, int] | None) -> list[tuple[float, ...]]:
        """Start a new file, or cut an existing one back to a mark; returns the rows that stay."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows: list[tuple[float, ...]] = []
        if keep is not None:
            _cut_text(self.path, keep["bytes"])
            rows = read_log(self.path)
        self._handle = open(self.path, "w" if keep is None else "a", encoding="utf-8", newline="")
        if keep is None:
            self._handle.write(",".join(COLUMNS) + "\n")
        return rows

    def write(self, row: tuple[float, ...]) -> None:
        """Append one row in the order of COLUMNS; NaN becomes an empty field."""
        assert self._handle is not None
        fields = [str(int(row[0]))] + ["" if np.isnan(value) else repr(float(value)) for value in row[1:]]
        self._handle.write(",".join(fields) + "\n")

    def mark(self) -> dict[str, int]:
        """Where the file stands now, everything written so far being on disk."""
        assert self._handle is not None
        self._handle.flush()
        return {"bytes": self.path.stat().st_size}

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None


def read_log(path: PathLike) -> list[tuple[float, ...]]:
    """Rows of a log file, in the order of COLUMNS, NaN for empty fields.

    Raises:
        DataError: the file is no log of `run_md`.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        if not lines or lines[0] != ",".join(COLUMNS):
            raise ValueError("the first line is not the header that run_md writes")
        rows = [
            tuple(float(item) if item else float("nan") for item in line.split(",")) for line in lines[1:]
        ]
        if any(len(row) != len(COLUMNS) for row in rows):
            raise ValueError(f"a line has not {len(COLUMNS)} fields")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a log written by run_md: {error}") from error
    return rows


@dataclass(frozen=True)
class RestartState:
    """Everything a run needs to go on from step `step` as if it had never stopped."""

    step: int
    positions: np.ndarray  # (n_atoms, 3) Å
    momenta: np.ndarray  # (n_atoms, 3) ASE units
    cell: np.ndarray  # (3, 3) Å
    numbers: np.ndarray  # (n_atoms,)
    masses: np.ndarray  # (n_atoms,) u
    pbc: np.ndarray  # (3,) bool
    first_volume: float  # Å³, NaN without a cell; for the volume guard
    integrator: dict[str, np.ndarray]
    rng: dict[str, Any]  # numpy bit-generator state
    config: dict[str, Any]
    marks: dict[str, dict[str, int]] = field(default_factory=dict)  # file positions: trajectory, log


_ARRAYS = ("positions", "momenta", "cell", "numbers", "masses", "pbc")


def save_restart(path: PathLike, state: RestartState) -> None:
    """Write to `path` (a `.npz` of arrays and one JSON text, no pickle), by a temporary name and rename."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "step": state.step,
        "first_volume": state.first_volume,
        "rng": state.rng,
        "config": state.config,
        "marks": state.marks,
    }
    arrays = {name: getattr(state, name) for name in _ARRAYS}
    arrays.update({f"integrator/{name}": value for name, value in state.integrator.items()})
    temporary = target.with_name(target.name + ".part")
    with open(temporary, "wb") as handle:
        np.savez(handle, __json__=np.array(json.dumps(header)), **arrays)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, target)


def load_restart(path: PathLike) -> RestartState:
    """Read what `save_restart` wrote.

    Raises:
        DataError: the file is missing, damaged, or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            header = json.loads(str(stored["__json__"]))
            if header.get("format") != FORMAT or header.get("version") != VERSION:
                raise ValueError(f"format {header.get('format')!r}, version {header.get('version')!r}")
            arrays = {name: stored[name] for name in stored.files if name != "__json__"}
        integrator = {k.split("/", 1)[1]: v for k, v in arrays.items() if k.startswith("integrator/")}
        return RestartState(
            **{name: arrays[name] for name in _ARRAYS},
            **{name: header[name] for name in ("step", "first_volume", "rng", "config", "marks")},
            integrator=integrator,
        )
    except Exception as error:  # zipfile, json, numpy and key errors all mean the same to the user
        raise DataError(
            f"{path} is not a restart file of run_md ({type(error).__name__}: {error}); "
            "give the right file, or delete it to start afresh"
        ) from error


def _cut_text(path: Path, size: int) -> None:
    _check_size(path, path.stat().st_size if path.exists() else -1, size, "bytes")
    os.truncate(path, size)


def _cut_ulm(path: Path, frames: int) -> None:
    """Make an ASE `.traj` file forget its frames from number `frames` on.

    The number of items is the 64-bit integer at byte 32 of ASE's ulm files; the data of dropped
    frames stays behind as dead bytes.
    """
    count = -1
    if path.exists():
        with open(path, "rb") as handle:
            handle.seek(32)
            count = int(np.frombuffer(handle.read(8), "<i8")[0])
    _check_size(path, count, frames, "frames")
    with open(path, "r+b") as handle:
        handle.seek(32)
        handle.write(np.array(frames, "<i8").tobytes())


def _check_size(path: Path, found: int, expected: int, what: str) -> None:
    if found < expected:
        state = "is missing" if found < 0 else f"has {found} {what}"
        raise DataError(
            f"{path} {state}, but the restart file was written when it had {expected}; "
            "put the file back, or delete the restart file to start afresh"
        )
