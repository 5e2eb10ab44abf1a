"""The paths of one species through a trajectory: unwrapped, with the drift of the host taken off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce

from dpa2calc.errors import ConfigError, DataError, StructureError

from ._application import application
from .pairs import indices_of
from .result import Result, provenance
from .trajectory import Frames, TrajectoryLike, with_progress

Drift: TypeAlias = Literal["auto", "framework", "all", "none"]

# A step longer than this share of the cell cannot be told from one the other way round.
_AMBIGUOUS = 0.45


@dataclass(frozen=True, kw_only=True)
class Paths(Result):
    """Unwrapped paths of the atoms of one element.

    Attributes:
        species: the element.
        start: positions (n_atoms, 3) in the first frame, in Å.
        displacements: (n_frames, n_atoms, 3) in Å from the first frame, through periodic boundaries,
            relative to what `drift` names.
        interval_ps: time between frames in ps.
        cell: mean cell (3, 3) in Å.
        pbc: periodic directions (3,).
        drift: "framework", "all" or "none".
        drift_path: displacement (n_frames, 3) in Å that was taken off.
        host_symbols, host_positions: the other atoms (n_host,) and their mean positions (n_host, 3) in Å,
            drift taken off.
    """

    species: str
    start: np.ndarray
    displacements: np.ndarray
    interval_ps: float
    cell: np.ndarray
    pbc: np.ndarray
    drift: str
    drift_path: np.ndarray
    host_symbols: tuple[str, ...]
    host_positions: np.ndarray

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.displacements)

    @property
    def n_atoms(self) -> int:
        """Number of atoms of the species."""
        return self.displacements.shape[1]

    @property
    def duration(self) -> float:
        """Time from the first to the last frame in ps."""
        return (self.n_frames - 1) * self.interval_ps

    @property
    def volume(self) -> float:
        """Volume of the mean cell in Å³; 0 where it is not periodic in three directions."""
        return abs(float(np.linalg.det(self.cell))) if self.pbc.all() else 0.0

    def summary(self) -> str:
        length = np.linalg.norm(self.displacements[-1], axis=1)
        return (
            f"{self.n_atoms} {self.species} over {self.n_frames} frames, {self.duration:.3f} ps: "
            f"net displacement {length.mean():.2f} Å on average, {length.max():.2f} Å at most; "
            f"drift taken off: {self.drift}, {np.linalg.norm(self.drift_path[-1]):.3f} Å"
        )


@application
def read_paths(
    trajectory: TrajectoryLike | Paths,
    species: str = "Li",
    *,
    interval_fs: float | None = None,
    drift: Drift = "auto",
    wrapped: bool = True,
    progress: bool = False,
) -> Paths:
    """Follow all atoms of one element through a trajectory, reading one frame at a time.

    Only the paths of that element stay in memory (24 bytes an atom and frame). Steps are minimum
    images in the cell of the later frame, so a changing cell (NPT) is right: displacements are sums of steps
    in the simulation box, which keeps the diffusion coefficient unbiased (Bullerjahn et al., J. Chem.
    Theory Comput. 19, 3406 (2023)).

    Args:
        trajectory: file, list or iterator of Atoms, or `Frames`; a Paths is handed back.
        species: the element to follow.
        interval_fs: time in fs between the frames handed in (so a Frames with step=10 has ten times the
            interval of the file). None: the difference of `atoms.info["time_fs"]`, in fs.
        drift: taken off all paths: "framework", the motion of the mass centre of all other elements (right
            for ions in a solid); "all", that of all atoms (right for liquids); "none". "auto" takes
            "framework" where other elements exist, else "all".
        wrapped: False says that the coordinates never jump at a boundary, so that steps of any length are
            right.

    Raises:
        DataError: fewer than 2 frames, atoms that change number or order, or coordinates that cannot be
            unwrapped.
        ElementError, ConfigError: no such element, an interval <= 0 or unknown drift.
    """
    if isinstance(trajectory, Paths):
        if trajectory.species != species:
            raise ConfigError(
                f"these are the paths of {trajectory.species}, not of {species}; read them again"
            )
        return trajectory
    frames = trajectory if isinstance(trajectory, Frames) else Frames(trajectory)
    if drift not in ("auto", "framework", "all", "none"):
        raise ConfigError(f"drift = {drift!r} is not one of auto, framework, all, none")
    follower: _Follower | None = None
    for number, atoms in enumerate(with_progress(frames, f"{species} paths", progress)):
        if follower is None:
            follower = _Follower(atoms, species, drift, wrapped, frames.name)
        else:
            follower.step(atoms, number)
    assert follower is not None  # Frames raises where there is no frame
    return follower.finish(interval_fs)


class _Follower:
    """State of one pass over a trajectory."""

    def __init__(self, atoms: Atoms, species: str, drift: str, wrapped: bool, name: str) -> None:
        self.species, self.wrapped, self.name = species, wrapped, name
        self.chosen = indices_of(atoms, species, f"{name}, frame 0")
        self.others = np.setdiff1d(np.arange(len(atoms)), self.chosen)
        if drift == "framework" and not len(self.others):
            raise StructureError(
                f"{name} holds only {species}, so there is no framework to measure its drift on; use "
                'drift="all"'
            )
        self.drift = drift if drift != "auto" else ("framework" if len(self.others) else "all")
        weights = atoms.get_masses().astype(float)
        if self.drift == "framework":
            weights[self.chosen] = 0.0
        self.weights = weights / weights.sum() if self.drift != "none" else np.zeros(len(atoms))
        self.numbers, self.pbc = atoms.numbers.copy(), atoms.pbc.copy()
        self.first = atoms.copy()
        self.cell, self.positions = _full_cell(atoms), atoms.positions.copy()
        self.cell_sum, self.times = self.cell.copy(), [atoms.info.get("time_fs")]
        self.total = np.zeros((len(atoms), 3))
        self.host_sum = np.zeros((len(self.others), 3))
        self.paths = [np.zeros((len(self.chosen), 3))]
        self.drift_path = [np.zeros(3)]

    def step(self, atoms: Atoms, number: int) -> None:
        """Add the next frame."""
        if not np.array_equal(atoms.numbers, self.numbers):
            raise DataError(
                f"{self.name}, frame {number} has other atoms than frame 0, or another order; atoms can "
                "be followed only if every frame lists the same ones in the same order"
            )
        cell = _full_cell(atoms)
        # both frames seen from the same image of the cell, so that atoms far outside do not move with its
        # strain
        images = np.floor(np.linalg.solve(self.cell.T, self.positions.T).T) * self.pbc  # (n_atoms, 3)
        moved = (atoms.positions - images @ cell) - (self.positions - images @ self.cell)
        if self.wrapped and self.pbc.any():
            moved = self._minimum_image(moved, cell, number)
        self.total += moved
        drift = self.weights @ self.total
        self.paths.append(self.total[self.chosen] - drift)
        self.host_sum += self.total[self.others] - drift
        self.drift_path.append(drift)
        self.cell, self.positions = cell, atoms.positions.copy()
        self.cell_sum += cell
        self.times.append(atoms.info.get("time_fs"))

    def _minimum_image(self, moved: np.ndarray, cell: np.ndarray, number: int) -> np.ndarray:
        reduced, _ = minkowski_reduce(cell, self.pbc)
        share = np.linalg.solve(reduced.T, moved.T).T  # (n_atoms, 3) in reduced cell vectors
        share -= np.round(share) * self.pbc
        worst = np.abs(share * self.pbc).max(axis=1)
        if worst.max() > _AMBIGUOUS:
            atom = int(worst.argmax())
            raise DataError(
                f"{self.name}: atom {atom} ({self.first.symbols[atom]}) moves by {worst[atom]:.2f} of the "
                f"cell between frames {number - 1} and {number}, so wrapped coordinates cannot be "
                "unwrapped (a step of more than half the cell looks like a shorter one the other way). "
                "Save frames more often, or use a larger cell; if the coordinates were never wrapped, "
                "say wrapped=False"
            )
        return share @ reduced

    def finish(self, interval_fs: float | None) -> Paths:
        """The paths, with their time axis."""
        n_frames = len(self.paths)
        if n_frames < 2:
            raise DataError(f"{self.name} has 1 frame; a path needs at least 2")
        return Paths(
            species=self.species,
            start=self.first.positions[self.chosen],
            displacements=np.array(self.paths),
            interval_ps=1e-3 * _interval(interval_fs, self.times, self.name),
            cell=self.cell_sum / n_frames,
            pbc=self.pbc,
            drift=self.drift,
            drift_path=np.array(self.drift_path),
            host_symbols=tuple(str(self.first.symbols[i]) for i in self.others),
            host_positions=self.first.positions[self.others] + self.host_sum / n_frames,
            provenance=provenance(source=self.name),
        )


def _full_cell(atoms: Atoms) -> np.ndarray:
    """The cell with missing vectors filled in, so that it can be inverted."""
    return np.array(atoms.cell.complete().array)


def _interval(interval_fs: float | None, times: list[float | None], name: str) -> float:
    """Time between frames in fs, given or from the frames' own times."""
    if interval_fs is not None:
        if not (np.isfinite(interval_fs) and interval_fs > 0.0):
            raise ConfigError(f"interval_fs = {interval_fs}: the time between frames must be > 0")
        return float(interval_fs)
    if any(time is None for time in times):
        raise ConfigError(
            f"{name} does not store the time of its frames (info['time_fs']); give interval_fs, the time "
            "between the frames that are read"
        )
    steps = np.diff(np.array(times, dtype=float))
    if steps.min() <= 0.0 or steps.max() - steps.min() > 1e-3 * steps.max():
        raise DataError(
            f"{name}: the time between frames runs from {steps.min():g} to {steps.max():g} fs, but it "
            "must be even; select frames with Frames(start, stop, step) or write them evenly"
        )
    return float(steps.mean())
