"""deepmd-kit's data folders and HDF5 files: plain and mixed-type systems."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from dpa2calc.errors import DataError
from dpa2calc.files.limits import check_npy, read_dataset

# deepmd-kit's name -> where `Dataset` looks for the label. Its virial is sum_i r_i (x) F_i, in eV.
_LABELS = {"energy": "energy", "force": "forces", "virial": "virial"}


class _Folder:
    """A system in a folder, seen through the same few calls as one in an HDF5 group."""

    def __init__(self, path: Path):
        self.path, self.name = path, str(path)

    def sets(self) -> list[str]:
        return sorted(p.name for p in self.path.glob("set.*") if p.is_dir())

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def words(self, name: str) -> list[str]:
        return (self.path / name).read_text().split()

    def array(self, name: str) -> np.ndarray | None:
        path = self.path / (name + ".npy")
        if not path.exists():
            return None
        check_npy(path)
        return np.load(path, allow_pickle=False)


class _Group:
    """A system in a group of an HDF5 file."""

    def __init__(self, group: Any, name: str):
        self.group, self.name = group, name

    def sets(self) -> list[str]:
        return sorted(name for name in self.group if name.startswith("set."))

    def has(self, name: str) -> bool:
        return name in self.group

    def words(self, name: str) -> list[str]:
        values = np.ravel(read_dataset(self.group[name]))
        return [v.decode() if isinstance(v, bytes) else str(v) for v in values]

    def array(self, name: str) -> np.ndarray | None:
        for full in (name + ".npy", name):
            if full in self.group:
                return np.asarray(read_dataset(self.group[full]))
        return None


def is_system_folder(path: Path) -> bool:
    """Whether a folder holds a deepmd-kit system, or systems somewhere below."""
    return path.is_dir() and ((path / "type.raw").exists() or next(path.rglob("type.raw"), None) is not None)


def iread_folder(path: Path) -> Iterator[Atoms]:
    """Frames of the system in a folder, or of all systems below it in the order of their names.

    Raises:
        DataError: no system, a missing file or an array of the wrong size; the folder is named.
    """
    places = [path] if (path / "type.raw").exists() else sorted(p.parent for p in path.rglob("type.raw"))
    if not places:
        raise DataError(f"{path} holds no deepmd-kit system (no type.raw)")
    for place in places:
        yield from _frames(_Folder(place))


def iread_hdf5_group(group: Any, name: str) -> Iterator[Atoms]:
    """The same for a group of an open HDF5 file."""
    if "type.raw" in group:
        yield from _frames(_Group(group, name))
        return
    for key in sorted(group):
        if hasattr(group[key], "keys") and not key.startswith("set."):
            yield from iread_hdf5_group(group[key], posixpath.join(name, key))


def _frames(system: _Folder | _Group) -> Iterator[Atoms]:
    types = np.array([int(word) for word in system.words("type.raw")])
    names = np.array(system.words("type_map.raw")) if system.has("type_map.raw") else None
    sets = system.sets()
    if not sets:
        raise DataError(f"{system.name} has no set.000 folder")
    if names is None:
        raise DataError(
            f"{system.name} has no type_map.raw, so its elements are not known; write one with a symbol "
            "for each type"
        )
    unknown = [name for name in names if name not in atomic_numbers]
    if unknown:
        raise DataError(f"{system.name}/type_map.raw names {', '.join(unknown)}, which are no elements")
    numbers = np.array([atomic_numbers[name] for name in names])
    for name in sets:
        yield from _frames_of_set(system, name, types, numbers)


def _frames_of_set(
    system: _Folder | _Group, name: str, types: np.ndarray, numbers: np.ndarray
) -> Iterator[Atoms]:
    place = f"{system.name}/{name}"
    coordinates = system.array(f"{name}/coord")
    if coordinates is None:
        raise DataError(f"{place} has no coord.npy")
    n_frames, n_atoms = len(coordinates), len(types)
    positions = shaped(coordinates, (n_frames, n_atoms, 3), f"{place}/coord.npy")
    periodic = not system.has("nopbc")
    box = system.array(f"{name}/box") if periodic else None
    if periodic and box is None:
        raise DataError(f"{place} has no box.npy; mark a system without a cell with an empty file 'nopbc'")
    cells = None if box is None else shaped(box, (n_frames, 3, 3), f"{place}/box.npy")
    mixed = system.array(f"{name}/real_atom_types")
    all_types = np.broadcast_to(types, (n_frames, n_atoms))
    if mixed is not None:
        all_types = shaped(mixed, (n_frames, n_atoms), f"{place}/real_atom_types.npy")
    labels = {}
    for theirs, ours in _LABELS.items():
        values = system.array(f"{name}/{theirs}")
        if values is not None:
            shape = {"energy": (n_frames,), "force": (n_frames, n_atoms, 3), "virial": (n_frames, 3, 3)}[
                theirs
            ]
            labels[ours] = shaped(values, shape, f"{place}/{theirs}.npy")
    for frame in range(n_frames):
        real = all_types[frame] >= 0  # mixed systems may be padded with type -1
        if all_types[frame][real].max(initial=-1) >= len(numbers):
            raise DataError(f"{place}, frame {frame}: a type outside type_map.raw ({len(numbers)} types)")
        atoms = Atoms(numbers=numbers[all_types[frame][real]], positions=positions[frame][real])
        if cells is not None:
            atoms.set_cell(cells[frame])
            atoms.pbc = True
        for label, values in labels.items():
            if label == "forces":
                atoms.arrays["forces"] = np.array(values[frame][real], dtype=np.float64)
            else:
                atoms.info[label] = values[frame] if label == "virial" else float(values[frame])
        atoms.info["group"] = system.name
        yield atoms


def shaped(values: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """The values in a shape, or a DataError that names them."""
    if values.size != int(np.prod(shape)):
        raise DataError(f"{name} holds {values.size} numbers, expected {int(np.prod(shape))} (shape {shape})")
    return values.reshape(shape)
