"""deepmd-kit's data folders and HDF5 files: plain and mixed-type systems."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from dpa2calc.errors import DataError
from dpa2calc.files.arrays import declared
from dpa2calc.files.extxyz import fortran_numbers
from dpa2calc.files.limits import read_dataset
from dpa2calc.labels.names import set_labels

from .type_map import TypeMap

if TYPE_CHECKING:  # slow to load
    import h5py


class _Folder:
    """A system in a folder, seen through the same few calls as one in an HDF5 group."""

    def __init__(self, path: Path):
        self.path, self.name = path, str(path)

    def sets(self) -> list[str]:
        return sorted(p.name for p in self.path.glob("set.*") if p.is_dir())

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def words(self, name: str) -> list[str]:
        try:
            return (self.path / name).read_text(encoding="utf-8-sig").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path / name} cannot be read: {error}") from error

    def array(self, name: str) -> np.ndarray | None:
        path = self.path / (name + ".npy")
        return load_array(path) if path.exists() else None


class _Group:
    """A system in a group of an HDF5 file."""

    def __init__(self, group: h5py.Group, name: str):
        self.group, self.name = group, name

    def sets(self) -> list[str]:
        return sorted(name for name in self.group if name.startswith("set."))

    def has(self, name: str) -> bool:
        return name in self.group

    def words(self, name: str) -> list[str]:
        values = np.ravel(self._values(name))
        return [v.decode() if isinstance(v, bytes) else str(v) for v in values]

    def array(self, name: str) -> np.ndarray | None:
        for full in (name + ".npy", name):
            if full in self.group:
                return numbers_only(np.asarray(self._values(full)), f"{self.name}/{full}")
        return None

    def _values(self, name: str) -> np.ndarray:
        try:
            return read_dataset(self.group[name])
        except DataError:
            raise
        except Exception as error:  # h5py raises many kinds for what is cut, or is a group
            raise DataError(f"{self.name}/{name} cannot be read: {error}") from error


def load_array(path: Path) -> np.ndarray:
    """The numbers in a `.npy` file; a DataError for one that is cut or holds anything else."""
    try:
        with open(path, "rb") as handle:
            empty = 0 in declared(handle)[0]
        # Mapped first: a size beyond the end of the file is then an error before any memory is taken.
        found = np.load(path, mmap_mode=None if empty else "r", allow_pickle=False)
        return np.array(numbers_only(found, str(path)))
    except DataError:
        raise
    except Exception as error:  # NumPy's parser of headers raises many kinds
        raise DataError(f"{path} cannot be read ({error}); it must be a whole array of numbers") from error


def numbers_only(values: np.ndarray, name: str) -> np.ndarray:
    """The array, or a DataError that names it if it does not hold real numbers."""
    if values.dtype.kind not in "iuf":
        raise DataError(f"{name} holds values of type {values.dtype}, not real numbers")
    return values


def whole_numbers(values: object, name: str) -> np.ndarray:
    """Types as int64, or a DataError; numbers such as 0.00e+00, which numpy.savetxt writes, are taken."""
    try:
        if isinstance(values, list):
            values = [float(fortran_numbers(word)) for word in values]
        array = np.asarray(values, dtype=np.float64)
        if np.isfinite(array).all() and (array == np.rint(array)).all():
            return array.astype(np.int64)
    except ValueError:
        pass
    raise DataError(f"{name} must hold the atoms' types, whole numbers from 0; it has {str(values)[:60]}")


def is_system_folder(path: Path) -> bool:
    """Whether a folder is a deepmd-kit system, or holds systems somewhere below."""
    return path.is_dir() and next(path.rglob("type.raw"), None) is not None


def iread_folder(path: Path) -> Iterator[Atoms]:
    """Frames of the system in a folder and of all systems below it, in the order of their names."""
    places = sorted(p.parent for p in path.rglob("type.raw"))
    if not places:
        raise DataError(f"{path} holds no deepmd-kit system (no type.raw)")
    for place in places:
        yield from _frames(_Folder(place))


def iread_hdf5_group(group: h5py.Group, name: str) -> Iterator[Atoms]:
    """The same for a group of an open HDF5 file."""
    if "type.raw" in group:
        yield from _frames(_Group(group, name))
    for key in sorted(group):
        if hasattr(group[key], "keys") and not key.startswith("set."):
            yield from iread_hdf5_group(group[key], posixpath.join(name, key))


def _frames(system: _Folder | _Group) -> Iterator[Atoms]:
    types = whole_numbers(system.words("type.raw"), f"{system.name}/type.raw")
    names = system.words("type_map.raw") if system.has("type_map.raw") else None
    sets = system.sets()
    if not sets:
        raw = system.has("coord.raw")
        advice = "; `raw_to_set.sh` of deepmd-kit, or dpdata, makes one of its .raw files" if raw else ""
        raise DataError(f"{system.name} has no set.000 folder{advice}")
    if names is None:
        raise DataError(
            f"{system.name} has no type_map.raw, so its elements are not known; write one with a symbol "
            "for each type"
        )
    type_map = TypeMap.of(names, f"{system.name}/type_map.raw")
    for name in sets:
        yield from _frames_of_set(system, name, types, type_map)


def _frames_of_set(
    system: _Folder | _Group, name: str, types: np.ndarray, type_map: TypeMap
) -> Iterator[Atoms]:
    place = f"{system.name}/{name}"
    coordinates = system.array(f"{name}/coord")
    if coordinates is None or coordinates.ndim == 0:
        raise DataError(f"{place} has no {'coord.npy' if coordinates is None else 'frames in coord.npy'}")
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
        mixed = shaped(mixed, (n_frames, n_atoms), f"{place}/real_atom_types.npy")
        all_types = whole_numbers(mixed, f"{place}/real_atom_types.npy")
    labels = _labels_of_set(system, name, n_frames, n_atoms)
    for frame in range(n_frames):
        real = all_types[frame] >= 0  # mixed systems may be padded with type -1
        kinds = all_types[frame][real]
        if kinds.max(initial=-1) >= len(type_map) or (mixed is None and not real.all()):
            raise DataError(f"{place}, frame {frame}: a type outside type_map.raw ({len(type_map)} types)")
        atoms = type_map.atoms(kinds, positions[frame][real])
        if cells is not None:
            atoms.set_cell(cells[frame])
            atoms.pbc = True
        own = {label: values[frame] for label, values in labels.items()}
        set_labels(atoms, {n: v[real] if n in ("forces", "aparam") else v for n, v in own.items()})
        atoms.info["group"] = system.name
        yield atoms


def _labels_of_set(system: _Folder | _Group, name: str, n_frames: int, n_atoms: int) -> dict[str, np.ndarray]:
    """Labels and parameters of a set, frame by frame, under the names where `Dataset` looks for them."""
    found = {}
    for label, shape in label_shapes(n_atoms).items():
        theirs = "force" if label == "forces" else label
        values = system.array(f"{name}/{theirs}")
        if values is not None:
            found[label] = shaped(values, (n_frames, *shape), f"{system.name}/{name}/{theirs}.npy")
    return found


def label_shapes(n_atoms: int) -> dict[str, tuple[int, ...]]:
    """Labels and parameters of one frame, and their shapes; the virial is sum_i r_i (x) F_i, in eV."""
    return {"energy": (), "forces": (n_atoms, 3), "virial": (3, 3), "fparam": (-1,), "aparam": (n_atoms, -1)}


def shaped(values: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """The values in a shape, whose last number may be -1 (what is left), or a DataError that names them."""
    known = int(np.prod([n for n in shape if n >= 0]))
    wrong = values.size != known if -1 not in shape else (known == 0 or values.size % known)
    if wrong:
        expected = f"{known} numbers" if -1 not in shape else f"a multiple of {known}"
        raise DataError(f"{name} holds {values.size} numbers, expected {expected} (shape {shape})")
    return values.reshape(shape)
