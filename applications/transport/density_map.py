"""Where the atoms of one species spend their time: a probability density on a grid of the cell."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.cube import write_cube

from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.trajectory import Frames, TrajectoryLike
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.atomic import atomic_path
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.files.results import Result

from .unwrapped import Drift, Paths, followed, read_paths

_MOST_VOXELS = 2e8  # 1.6 GB
_CHUNK = 1_000_000  # positions handled at a time


@dataclass(frozen=True, kw_only=True)
class DensityMap(Result):
    """Time-averaged number density of one species in a fixed cell.

    Attributes:
        species: the element.
        density: (n_a, n_b, n_c) in 1/Å³; voxel (i, j, k) holds fractional coordinates from (i/n_a, ...) to
            ((i+1)/n_a, ...). Its sum times the voxel volume is the number of atoms in the cell.
        cell: (3, 3) in Å.
        host_symbols, host_positions: mean places of the other atoms (n_host,), (n_host, 3) in the same frame
            of reference and cell.
        n_frames, n_atoms: what was averaged; drift: the frame of reference.
    """

    species: str
    density: np.ndarray
    cell: np.ndarray
    host_symbols: tuple[str, ...]
    host_positions: np.ndarray
    n_frames: int
    n_atoms: int
    drift: str

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in Å³."""
        return abs(float(np.linalg.det(self.cell))) / self.density.size

    def summary(self) -> str:
        flat = np.sort(self.density.ravel())[::-1] * self.voxel_volume
        half = np.searchsorted(np.cumsum(flat), 0.5 * flat.sum()) + 1
        visited = np.count_nonzero(self.density) / self.density.size
        shape = " x ".join(str(n) for n in self.density.shape)
        return (
            f"density map of {self.n_atoms} {self.species}: {self.n_frames} frames on {shape} voxels, "
            f"drift of {self.drift} taken off\n"
            f"  half the time is spent in {100 * half / flat.size:.2f} % of the volume, "
            f"{100 * visited:.1f} % was visited at all\n"
            f"  highest density {self.density.max():.3f} 1/Å³, mean {self.density.mean():.4f} 1/Å³"
        )

    def plot(self, ax: Axes | None = None, *, axis: int = 2, slab: tuple[float, float] = (0.0, 1.0)) -> Axes:
        """Draw the density summed along one cell axis, with the host atoms; returns the axes.

        Args:
            ax: matplotlib axes; new ones if None.
            axis: cell vector to look along: 0, 1 or 2.
            slab: part of that axis to sum over, in fractional coordinates.
        """
        if axis not in (0, 1, 2) or not 0.0 <= slab[0] < slab[1] <= 1.0:
            raise ConfigError(
                f"axis = {axis}, slab = {slab}: take axis 0, 1 or 2 and 0 <= slab[0] < slab[1] <= 1"
            )
        ax = axes_for(ax, (5.2, 4.6))
        u, v = [k for k in range(3) if k != axis]
        n = self.density.shape[axis]
        layers = slice(round(slab[0] * n), max(round(slab[1] * n), round(slab[0] * n) + 1))
        chosen = np.moveaxis(self.density, axis, 2)[:, :, layers]
        length, width, _ = np.linalg.norm(self.cell[[u, v, axis]], axis=1)
        along = self.cell[u] @ self.cell[v] / length
        # the two vectors in the picture, of cells of either hand
        a, b = np.array([length, 0.0]), np.array([along, np.sqrt(width**2 - along**2)])
        # voxel volume over its area in the picture turns a sum of densities into a column density
        area = abs(a[0] * b[1]) / (chosen.shape[0] * chosen.shape[1])
        column = chosen.sum(axis=2) * self.voxel_volume / area  # 1/Å²
        s, t = np.meshgrid(*(np.linspace(0, 1, k + 1) for k in chosen.shape[:2]), indexing="ij")
        mesh = ax.pcolormesh(
            s * a[0] + t * b[0], s * a[1] + t * b[1], column, cmap="magma_r", rasterized=True
        )
        ax.figure.colorbar(mesh, ax=ax, label=f"{self.species} column density (1/Å²)", shrink=0.85)
        self._draw_host(ax, axis, slab, [u, v], np.array([a, b]))
        names = "abc"[u], "abc"[v]
        ax.set(xlabel=f"along {names[0]} (Å)", ylabel=f"in the {''.join(names)} plane (Å)", aspect="equal")
        return ax

    def _draw_host(
        self, ax: Axes, axis: int, slab: tuple[float, float], uv: list[int], ab: np.ndarray
    ) -> None:
        if not self.host_symbols:
            return
        scaled = np.linalg.solve(self.cell.T, self.host_positions.T).T % 1.0
        inside = (scaled[:, axis] >= slab[0]) & (scaled[:, axis] <= slab[1])
        where = scaled[:, uv] @ ab
        symbols = np.array(self.host_symbols)
        for element in sorted(set(self.host_symbols)):
            mask = inside & (symbols == element)
            ax.plot(*where[mask].T, "o", ms=4, mec="k", mew=0.5, alpha=0.8, label=element, clip_on=False)
        ax.legend(frameon=False, fontsize=8, ncols=6, loc="lower left", bbox_to_anchor=(0.0, 1.0))

    def write_cube(self, path: str | os.PathLike[str]) -> Path:
        """Write density (1/Å³) and host atoms as a Gaussian cube file, which VESTA and OVITO read."""
        target = Path(path)
        atoms = Atoms(self.host_symbols, positions=self.host_positions, cell=self.cell, pbc=True)
        atoms.wrap()
        middle = (0.5 / np.array(self.density.shape)) @ self.cell  # of the first voxel: files have points
        comment = f"{self.species} number density (1/Angstrom^3)"
        with atomic_path(target) as temporary, open(temporary, "w", encoding="utf-8") as handle:
            write_cube(handle, atoms, data=self.density, origin=middle, comment=comment)
        return target


@application
def density_map(
    trajectory: TrajectoryLike | Paths,
    species: str = "Li",
    *,
    spacing: float = 0.3,
    fold: tuple[int, int, int] = (1, 1, 1),
    interval_fs: float | None = None,
    drift: Drift = "auto",
    wrapped: bool = True,
    progress: bool = False,
) -> DensityMap:
    """Probability density of one species, relative to its drifting host.

    Args:
        trajectory, species, interval_fs, drift, wrapped, progress: see `read_paths`.
        spacing: largest voxel edge in Å.
        fold: the cell is this many repeats of a smaller one, onto which all atoms are folded; the density is
            then the mean over the repeats.

    Raises:
        StructureError: not periodic in three directions.
        ConfigError: a spacing or fold that cannot be.

    Example:
        >>> density = density_map("md.traj", "Li", interval_fs=100)
        >>> density.write_cube("li.cube"); density.plot(axis=0)
    """
    if interval_fs is None and not isinstance(trajectory, Paths):  # the map needs no time: any interval does
        follower = followed(Frames(trajectory), species, drift=drift, wrapped=wrapped, progress=progress)
        paths = follower.finish(1.0)
    else:
        paths = read_paths(
            trajectory, species, interval_fs=interval_fs, drift=drift, wrapped=wrapped, progress=progress
        )
    if not paths.pbc.all() or paths.volume == 0.0:
        raise StructureError("a density map needs a cell that is periodic in three directions")
    if not spacing > 0.0 or min(fold) < 1:
        raise ConfigError(f"spacing = {spacing} Å must be > 0, and fold = {fold} three whole numbers >= 1")
    cell = paths.cell / np.array(fold)[:, None]
    edges = np.maximum(1.0, np.ceil(np.linalg.norm(cell, axis=1) / spacing - 1e-9))
    if edges.prod() > _MOST_VOXELS:
        raise ConfigError(
            f"spacing = {spacing} Å gives {edges.prod():.3g} voxels in this cell; choose a larger one, "
            f"for at most {_MOST_VOXELS:.0e}"
        )
    shape = edges.astype(int)
    inverse = np.linalg.inv(cell)
    counts = np.zeros(int(np.prod(shape)))
    step = max(1, _CHUNK // paths.n_atoms)
    for first in range(0, paths.n_frames, step):
        places = (paths.start + paths.displacements[first : first + step]).reshape(-1, 3)
        voxel = ((places @ inverse) % 1.0 * shape).astype(np.int64)
        np.minimum(voxel, shape - 1, out=voxel)  # -1e-17 % 1.0 is 1.0
        flat = np.ravel_multi_index(tuple(voxel.T), tuple(shape))
        counts += np.bincount(flat, minlength=len(counts))
    n_cells = int(np.prod(fold))
    voxel_volume = paths.volume / n_cells / len(counts)
    # the host atoms of one of the folded cells, that at the corner; with a little slack, so that atoms on a
    # face are not counted on both sides or on none by their vibrations
    scaled = np.linalg.solve(cell.T, paths.host_positions.T).T
    inside = ((scaled + 0.02) % np.array(fold) < 1.0).all(axis=1)
    first_cell = np.flatnonzero(inside | (max(fold) == 1))
    return DensityMap(
        species=species,
        density=(counts / (paths.n_frames * n_cells * voxel_volume)).reshape(shape),
        cell=cell,
        host_symbols=tuple(paths.host_symbols[i] for i in first_cell),
        host_positions=paths.host_positions[first_cell],
        n_frames=paths.n_frames,
        n_atoms=paths.n_atoms,
        drift=paths.drift,
        provenance={"source": paths.provenance.get("source")},
    )
