"""Labelled structures in memory: frames, and datasets of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.data import chemical_symbols

from dpa2calc.errors import DataError

from .data import PathLike, iread_atoms


@dataclass(frozen=True)
class LabelKeys:
    """Where labels are looked for: the attached calculator's results, then `atoms.info` and `atoms.arrays`.

    `virial` is eV, sum_i r_i (x) F_i = -volume * stress, as deepmd-kit and QUIP write it; `stress` has
    ASE's sign (positive = tensile), eV/Å^3, 3x3 or Voigt. Where both are present the stress is taken.
    """

    energy: str = "energy"
    forces: str = "forces"
    stress: str = "stress"
    virial: str = "virial"
    group: str = "group"


@dataclass(frozen=True, eq=False)
class Frame:
    """One structure with its labels; ASE units.

    Attributes:
        numbers: (n,) atomic numbers. positions: (n, 3). cell: (3, 3). pbc: (3,).
        energy: eV or None. forces: (n, 3) eV/Å or None. virial: (3, 3) eV, symmetric, or None.
        group: the trajectory or part of the set that the frame belongs to.
        source: file and index, for messages.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    energy: float | None = None
    forces: np.ndarray | None = None
    virial: np.ndarray | None = None
    group: str = ""
    source: str = ""

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @property
    def volume(self) -> float:
        """Cell volume, Å^3."""
        return float(abs(np.linalg.det(self.cell)))

    @property
    def stress(self) -> np.ndarray | None:
        """(3, 3) stress in ASE's sign, eV/Å^3, or None."""
        return None if self.virial is None or self.volume == 0 else -self.virial / self.volume

    def atoms(self) -> Atoms:
        """The bare structure, without labels."""
        return Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)


def frame_from_atoms(atoms: Atoms, *, keys: LabelKeys = LabelKeys(), source: str = "") -> Frame:
    """A frame from ASE Atoms; the Atoms are not touched and no calculator is run.

    Raises:
        DataError: a label has the wrong shape.
    """
    energy = _label(atoms, keys.energy)
    forces = _label(atoms, keys.forces)
    if forces is not None and np.shape(forces) != (len(atoms), 3):
        raise DataError(f"{source}: forces have shape {np.shape(forces)}, expected {(len(atoms), 3)}")
    return Frame(
        numbers=atoms.numbers.astype(np.int16),
        positions=atoms.get_positions(),
        cell=np.array(atoms.cell.array),
        pbc=np.array(atoms.pbc),
        energy=None if energy is None else float(energy),
        forces=None if forces is None else np.asarray(forces, dtype=np.float64),
        virial=_virial(atoms, keys, source),
        group=str(atoms.info.get(keys.group, "")),
        source=source,
    )


def _label(atoms: Atoms, key: str) -> Any:
    if atoms.calc is not None:
        try:
            # Stored results only: a live calculator must never be run to make a label.
            value = getattr(atoms.calc, "results", {}).get(key)
        except PropertyNotImplementedError:
            value = None
        if value is not None:
            return value
    return atoms.info.get(key, atoms.arrays.get(key))


def _virial(atoms: Atoms, keys: LabelKeys, source: str) -> np.ndarray | None:
    stress = _label(atoms, keys.stress)
    if stress is not None:
        matrix = as_matrix(stress, f"{source}: {keys.stress}")
        if not bool(np.all(atoms.pbc)) or atoms.cell.rank < 3:
            raise DataError(f"{source}: a stress needs a cell periodic in all directions, pbc is {atoms.pbc}")
        return -atoms.get_volume() * matrix
    virial = _label(atoms, keys.virial)
    return None if virial is None else as_matrix(virial, f"{source}: {keys.virial}")


def as_matrix(values: Any, name: str) -> np.ndarray:
    """A symmetric (3, 3) matrix from 9 numbers, (3, 3), or 6 in Voigt order xx yy zz yz xz xy.

    Raises:
        DataError: another number of values.
    """
    a = np.asarray(values, dtype=np.float64)
    if a.size == 9:
        a = a.reshape(3, 3)
        return 0.5 * (a + a.T)
    if a.shape == (6,):
        xx, yy, zz, yz, xz, xy = a
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    raise DataError(f"{name} has shape {a.shape}; allowed: (3, 3), (9,) or (6,)")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Frames labelled with one DFT setting.

    Example:
        >>> data = Dataset.read("train.extxyz.xz", name="water")
        >>> train, validation = data.split(0.9, seed=1)
    """

    frames: tuple[Frame, ...]
    name: str = "data"
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(
        cls, paths: PathLike | Sequence[PathLike], *, name: str | None = None, keys: LabelKeys = LabelKeys()
    ) -> Dataset:
        """Read one file or several, see `iread_atoms` for the formats.

        Raises:
            DataError: nothing to read, or a damaged file (file and frame are named).
        """
        several = (
            [paths] if isinstance(paths, (str, bytes)) or not isinstance(paths, Sequence) else list(paths)
        )
        frames = tuple(
            frame_from_atoms(atoms, keys=keys, source=f"{path}, frame {i}")
            for path in several
            for i, atoms in enumerate(iread_atoms(path))
        )
        if not frames:
            raise DataError(f"there are no frames in {', '.join(map(str, several))}")
        return cls(frames, name or str(several[0]))

    @classmethod
    def from_atoms(
        cls, structures: Iterable[Atoms], *, name: str = "data", keys: LabelKeys = LabelKeys()
    ) -> Dataset:
        """From ASE Atoms that carry labels (stored calculator results, `info`, `arrays`)."""
        return cls(
            tuple(
                frame_from_atoms(a, keys=keys, source=f"{name}, frame {i}") for i, a in enumerate(structures)
            ),
            name,
        )

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Frame:
        return self.frames[index]

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def subset(self, indices: Iterable[int]) -> Dataset:
        """The frames of these indices, in this order."""
        return Dataset(tuple(self.frames[int(i)] for i in indices), self.name, self.info)

    def sample(self, n: int, *, seed: int = 0) -> Dataset:
        """`n` frames drawn without repetition; the first frames of a larger sample of the same seed."""
        if n > len(self):
            raise DataError(f"{self.name} has {len(self)} frames, {n} were asked for")
        return self.subset(np.random.default_rng(seed).permutation(len(self))[:n])

    def split(self, fraction: float, *, seed: int = 0, by_group: bool = False) -> tuple[Dataset, Dataset]:
        """Two disjoint parts, the first with about `fraction` of the frames (0 to 1).

        Args:
            by_group: keep frames of the same `group` (a trajectory) together, so that neighbours in
                time do not land on both sides.
        """
        if not 0.0 < fraction < 1.0:
            raise DataError(f"fraction = {fraction} is not allowed; allowed: between 0 and 1")
        rng = np.random.default_rng(seed)
        keys = [f.group for f in self.frames] if by_group else [str(i) for i in range(len(self))]
        names = sorted(set(keys), key=keys.index)
        target, taken, first = fraction * len(self), 0, set()
        sizes = {name: keys.count(name) for name in names} if by_group else dict.fromkeys(names, 1)
        for position in rng.permutation(len(names)):
            if taken >= target:
                break
            first.add(names[position])
            taken += sizes[names[position]]
        inside = [i for i, key in enumerate(keys) if key in first]
        outside = [i for i, key in enumerate(keys) if key not in first]
        if not outside or not inside:
            raise DataError(
                f"{self.name} cannot be split at {fraction}: {len(self)} frames, {len(names)} groups"
            )
        return self.subset(inside), self.subset(outside)

    @cached_property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols that occur, by atomic number."""
        present = {int(z) for frame in self.frames for z in np.unique(frame.numbers)}
        return tuple(chemical_symbols[z] for z in sorted(present))

    @property
    def n_atoms(self) -> int:
        """Atoms in all frames together."""
        return sum(frame.n_atoms for frame in self.frames)

    def compositions(self, type_map: Sequence[str]) -> np.ndarray:
        """Number of atoms of each type in each frame, (n_frames, n_types) float64."""
        lookup = type_lookup(type_map)
        counts = [np.bincount(lookup[f.numbers], minlength=len(type_map)) for f in self.frames]
        return np.array(counts, dtype=np.float64)


def type_lookup(type_map: Sequence[str]) -> np.ndarray:
    """Table from atomic number to position in the type map; -1 where the element is not in it."""
    table = np.full(len(chemical_symbols), -1, dtype=np.int64)
    for position, symbol in enumerate(type_map):
        table[chemical_symbols.index(symbol)] = position
    return table
