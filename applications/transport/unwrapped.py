"""The paths of one species through a trajectory: unwrapped, with the drift of the host taken off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.geometry import minkowski_reduce

from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.trajectory import Frames, TrajectoryLike, with_progress
from dpa2calc.applications.structure.pair_counts import indices_of
from dpa2calc.errors import ConfigError, DataError, StructureError
from dpa2calc.files.results import Result

from .analyzer import diffusion_analyzer
from .times import interval_of

Drift: TypeAlias = Literal["auto", "framework", "all", "none"]

# A step longer than this share of the cell cannot be told from one the other way round.
_AMBIGUOUS = 0.45
# Between two frames a cell vector may change by this share; beyond it the frames do not belong together.
_CELL_JUMP = 0.3
# Fewer other atoms than this share are solutes and no framework: their own diffusion would be taken off.
_FRAMEWORK = 0.1
WITHOUT_CELL = "no periodic cell: coordinates taken as unwrapped"


@dataclass(frozen=True, kw_only=True)
class Paths(Result):
    """Unwrapped paths of the atoms of one element.

    Attributes:
        species: the element.
        start: positions (n_atoms, 3) in Å in the first frame, carried into the mean cell.
        displacements: (n_frames, n_atoms, 3) in Å from the first frame, through periodic boundaries,
            relative to what `drift` names, all measured in the mean cell.
        interval_ps: time between frames in ps.
        cell: mean cell (3, 3) in Å; vectors of directions that are not periodic are those of the first frame.
        pbc: periodic directions (3,).
        drift: "framework", "all" or "none".
        drift_path: displacement (n_frames, 3) in Å that was taken off.
        host_symbols, host_positions: the other atoms (n_host,) and their mean positions (n_host, 3) in Å,
            drift taken off.
        wrapped: False where the caller said that the coordinates never jump at a boundary.
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
    wrapped: bool = True

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

    @property
    def without_cell(self) -> bool:
        """Whether the coordinates were taken as unwrapped only because no direction is periodic."""
        return self.wrapped and not self.pbc.any()

    to_pymatgen = diffusion_analyzer

    def summary(self) -> str:
        length = np.linalg.norm(self.displacements[-1], axis=1)
        return (
            f"{self.n_atoms} {self.species} over {self.n_frames} frames, {self.duration:.3f} ps: "
            f"net displacement {length.mean():.2f} Å on average, {length.max():.2f} Å at most; "
            f"drift taken off: {self.drift}, {np.linalg.norm(self.drift_path[-1]):.3f} Å"
            + (f"\n{WITHOUT_CELL}" if self.without_cell else "")
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

    Only the paths of that element stay in memory (24 bytes per atom and frame). Steps are minimum images in
    cell coordinates; their sums are turned into Å by the mean cell. So a crystal that does not diffuse stays
    where it is while its cell breathes (NPT), wherever the origin lies and however the coordinates are
    wrapped, and displacements are those of the thermal motion without the strain that the barostat adds.
    Sums of steps in Å have neither property: an atom that vibrates across a face takes the change of the
    box length along at each crossing (von Bulow et al., J. Chem. Phys. 153, 021101 (2020); Kulke and
    Vermaas, J. Chem. Theory Comput. 18, 6161 (2022)). The diffusion coefficient of a walk in a cell whose
    lengths fluctuate by a share s is right within 3 s². Frames whose cell is another choice of vectors of
    the same lattice (a flipped box) are followed too.

    Without a periodic direction the coordinates are taken as they are. Where they jump by the length of a box
    all the same, they were wrapped into a cell that the file does not hold, and that is an error.

    Args:
        trajectory: file, list or iterator of Atoms, or `Frames`; a Paths is handed back.
        species: the element to follow.
        interval_fs: time in fs between the frames given (so a Frames with step=10 has ten times the
            interval of the file). None: the difference of `atoms.info["time_fs"]`, in fs.
        drift: taken off all paths: "framework", the motion of the mass centre of all other elements (right
            for ions in a solid); "all", that of all atoms (right for liquids); "none". "auto" takes
            "framework" where a tenth of the atoms or more are of other elements, else "all".
        wrapped: False says that the coordinates never jump at a boundary, so that steps of any length are
            right.

    Raises:
        DataError: fewer than 2 frames, atoms that change number or order, coordinates that cannot be
            unwrapped, or wrapped coordinates without a cell.
        ElementError, ConfigError: no such element, an interval <= 0 or unknown drift.
    """
    if isinstance(trajectory, Paths):
        _check_same(trajectory, species, interval_fs, drift, wrapped)
        return trajectory
    follower = followed(Frames(trajectory), species, drift=drift, wrapped=wrapped, progress=progress)
    return follower.finish(interval_of(interval_fs, follower.times, follower.name))


def _check_same(paths: Paths, species: str, interval_fs: float | None, drift: str, wrapped: bool) -> None:
    """Raise ConfigError where paths that were read before are not those asked for now."""
    if paths.species != species:
        raise ConfigError(f"these are the paths of {paths.species}, not of {species}; read them again")
    for name, now, before in (
        ("interval_fs", interval_fs, 1000.0 * paths.interval_ps),
        ("drift", None if drift == "auto" else drift, paths.drift),
        ("wrapped", None if wrapped else False, paths.wrapped),
    ):
        if now is not None and now != before and not (name == "interval_fs" and np.isclose(now, before)):
            raise ConfigError(f"{name} = {now!r}, but these paths were read with {before!r}; read them again")


def followed(frames: Frames, species: str, *, drift: Drift, wrapped: bool, progress: bool) -> Follower:
    """All frames, followed; raises as `read_paths`, which says what the options are."""
    follower: Follower | None = None
    for number, atoms in enumerate(with_progress(frames, f"{species} paths", progress)):
        if follower is None:
            follower = Follower(atoms, species, drift, wrapped, frames.name)
        else:
            follower.step(atoms, number)
    assert follower is not None  # Frames raises where there is no frame
    if len(follower.paths) < 2:
        raise DataError(f"{frames.name} has 1 frame; a path needs at least 2")
    return follower


class Follower:
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
        few = len(self.others) < _FRAMEWORK * len(atoms)
        self.drift = drift if drift != "auto" else ("all" if few else "framework")
        weights = atoms.get_masses().astype(float)
        if self.drift == "framework":
            weights[self.chosen] = 0.0
        self.weights = weights / weights.sum() if self.drift != "none" else np.zeros(len(atoms))
        self.numbers, self.pbc = atoms.numbers.copy(), atoms.pbc.copy()
        self.first = atoms.copy()
        self.cell = self._basis(atoms)
        self.scaled = _scaled(atoms.positions, self.cell)  # (n_atoms, 3)
        self.start = self.scaled.copy()
        self.cell_sum, self.times = self.cell.copy(), [atoms.info.get("time_fs")]
        self.total = np.zeros((len(atoms), 3))  # cell coordinates, as all sums below
        self.host_sum = np.zeros((len(self.others), 3))
        self.paths = [np.zeros((len(self.chosen), 3))]
        self.drift_path = [np.zeros(3)]
        self.jumps = _Jumps(self.scaled)

    def step(self, atoms: Atoms, number: int) -> None:
        """Add the next frame."""
        if not np.array_equal(atoms.numbers, self.numbers):
            raise DataError(
                f"{self.name}, frame {number} has other atoms than frame 0, or another order; atoms can "
                "be followed only if every frame lists the same ones in the same order"
            )
        cell = self._same_vectors(self._basis(atoms), number)
        scaled = _scaled(atoms.positions, cell)
        moved = scaled - self.scaled
        if self.wrapped:
            if self.pbc.any():
                moved = self._minimum_image(moved, cell, number)
            self.jumps.add(scaled, moved)
        self.total += moved
        drift = self.weights @ self.total
        self.paths.append(self.total[self.chosen] - drift)
        self.host_sum += self.total[self.others] - drift
        self.drift_path.append(drift)
        self.cell, self.scaled = cell, scaled
        self.cell_sum += cell
        self.times.append(atoms.info.get("time_fs"))

    def _basis(self, atoms: Atoms) -> np.ndarray:
        """Cell vectors (3, 3) of the periodic directions, unit vectors for the others."""
        cell = atoms.cell.array * self.pbc[:, None]
        return np.array(Cell(cell).complete().array) if self.pbc.any() else np.eye(3)

    def _same_vectors(self, cell: np.ndarray, number: int) -> np.ndarray:
        """The cell (3, 3) written by the vectors that continue those of the frame before."""
        turn = cell @ np.linalg.inv(self.cell)
        whole = np.rint(turn)
        if np.abs(turn - whole).max() > _CELL_JUMP or abs(round(np.linalg.det(whole))) != 1:
            raise DataError(
                f"{self.name}: the cell changes from {np.round(self.cell, 3).tolist()} to "
                f"{np.round(cell, 3).tolist()} Å between frames {number - 1} and {number}, so the atoms "
                "cannot be followed; save frames more often, or analyse the parts before and after it"
            )
        return np.linalg.inv(whole) @ cell

    def _minimum_image(self, moved: np.ndarray, cell: np.ndarray, number: int) -> np.ndarray:
        """Steps (n_atoms, 3) in cell coordinates, to the nearest image in periodic directions."""
        _, operation = minkowski_reduce(cell, self.pbc)
        share = moved @ np.linalg.inv(operation)  # in reduced cell vectors
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
        return share @ operation

    def finish(self, interval_fs: float) -> Paths:
        """The paths, with their time axis."""
        n_frames = len(self.paths)
        self._refuse_jumps()
        cell = self.cell_sum / n_frames
        displacements = np.array(self.paths)
        np.matmul(displacements, cell, out=displacements)
        shown = np.where(self.pbc[:, None], cell, self.first.cell.complete().array)
        return Paths(
            species=self.species,
            start=self.start[self.chosen] @ cell,
            displacements=displacements,
            interval_ps=1e-3 * interval_fs,
            cell=shown,
            pbc=self.pbc,
            drift=self.drift,
            drift_path=np.array(self.drift_path) @ cell,
            host_symbols=tuple(str(self.first.symbols[i]) for i in self.others),
            host_positions=(self.start[self.others] + self.host_sum / n_frames) @ cell,
            wrapped=self.wrapped,
            provenance={"source": self.name},
        )

    def _refuse_jumps(self) -> None:
        """Raise where coordinates without a periodic direction were wrapped nevertheless."""
        if not self.wrapped:
            return
        for axis in np.flatnonzero(~self.pbc):
            length = self.jumps.length(int(axis))
            if length:
                direction = "xyz"[axis] if not self.pbc.any() else f"cell vector {'abc'[axis]}"
                raise DataError(
                    f"{self.name}: pbc is {self.pbc.tolist()}, but atoms jump by about {length:.2f} Å along "
                    f"{direction} between frames and by nothing in between: the coordinates were wrapped "
                    "into a periodic cell that is missing here. Set cell and pbc of every frame "
                    "(atoms.set_cell(...); atoms.pbc = True), or write a format that stores it, such as "
                    "extxyz; if the coordinates were never wrapped, say wrapped=False"
                )


class _Jumps:
    """Steps as long as the whole extent of the atoms: the mark of coordinates wrapped into a box.

    Wrapping splits the steps along an axis in two: short ones, and ones of the box length less a short one.
    A real motion fills the gap between.
    """

    def __init__(self, places: np.ndarray) -> None:
        self.low, self.high = places.min(axis=0), places.max(axis=0)
        self.long: list[list[float]] = [[], [], []]
        self.n_short, self.longest_short = np.zeros(3, dtype=int), np.zeros(3)

    def add(self, places: np.ndarray, moved: np.ndarray) -> None:
        """Take the new places (n_atoms, 3) and the steps that led there."""
        np.minimum(self.low, places.min(axis=0), out=self.low)
        np.maximum(self.high, places.max(axis=0), out=self.high)
        steps = np.abs(moved)
        long = steps > 0.5 * (self.high - self.low)
        self.n_short += (~long).sum(axis=0)
        np.maximum(self.longest_short, np.where(long, 0.0, steps).max(axis=0), out=self.longest_short)
        for axis in range(3):
            self.long[axis] += steps[long[:, axis], axis].tolist()

    def length(self, axis: int) -> float:
        """Length of the box along an axis, or 0 where nothing shows that there was one."""
        steps, extent = np.array(self.long[axis]), self.high[axis] - self.low[axis]
        far = steps[steps > 0.5 * extent]
        near = max(float(steps[steps <= 0.5 * extent].max(initial=0.0)), float(self.longest_short[axis]))
        rare = len(far) < self.n_short[axis] + len(steps) - len(far)
        if not len(far) or not rare or far.min() < 0.7 * max(far.max(), extent) or near > 0.5 * far.min():
            return 0.0
        return float(far.max())


def _scaled(positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Cell coordinates (n_atoms, 3)."""
    return np.linalg.solve(cell.T, positions.T).T
