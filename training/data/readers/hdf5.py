"""HDF5 files: ANI-1x, Transition1x, and deepmd-kit's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from ase import Atoms
from ase.units import Hartree

from dpa2calc.errors import DataError
from dpa2calc.files.limits import read_dataset
from dpa2calc.labels.names import set_labels

from .databases import OF_ANOTHER_KIND
from .deepmd_folder import iread_hdf5_group

_ANI = {"energy": "wb97x_dz.energy", "forces": "wb97x_dz.forces"}
_TRANSITION = {"energy": "wB97x_6-31G(d).energy", "forces": "wB97x_6-31G(d).forces"}


def iread_hdf5(path: Path, group: str = "") -> Iterator[Atoms]:
    """Frames of an HDF5 file of a known layout.

    ANI-1x (a group for each formula; Hartree) takes the wB97x/6-31G(d) labels; values that the release
    leaves out (NaN) are missing labels. Transition1x (split / formula / reaction; eV) takes the frames of
    `group`, one of its splits, and "data" (all) without one. deepmd-kit's systems may lie below `group`.

    Raises:
        DataError: not HDF5, or of another layout.
    """
    try:
        handle = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path} is not an HDF5 file, or is truncated: {error}") from error
    with handle:
        if group.strip("/") and group.strip("/") not in handle:
            raise DataError(f"{path} has no group {group!r}; it has {', '.join(list(handle)[:20])}")
        root = handle[group] if group.strip("/") else handle
        name = f"{path}#{group}" if group else str(path)
        try:
            yield from _of_layout(root, name)
        except DataError:
            raise
        except Exception as error:  # h5py and NumPy raise many kinds for what is cut or of another shape
            raise DataError(f"{name} is damaged, or has an unknown layout: {error!r}") from error


def _of_layout(root: h5py.Group, name: str) -> Iterator[Atoms]:
    if _holds_systems(root):
        yield from iread_hdf5_group(root, name)
    elif _first(root, "coordinates") is not None:
        for formula, group in root.items():
            yield from _molecule(formula, group["atomic_numbers"], group["coordinates"], group, ani=True)
    elif "data" in root:
        yield from _iread_transition(root["data"])
    elif _first(_first_group(root), "positions") is not None:
        yield from _iread_transition(root)
    else:
        raise DataError(
            f"{name} has none of the known layouts (deepmd-kit, ANI-1x, Transition1x); "
            f"its groups are {', '.join(list(root)[:10]) or 'none'}; {OF_ANOTHER_KIND}"
        )


def _holds_systems(group: h5py.Group) -> bool:
    if "type.raw" in group:
        return True
    first = _first_group(group)
    return first is not None and first is not group and _holds_systems(first)


def _first_group(group: h5py.Group | None) -> h5py.Group | None:
    return next((g for g in group.values() if isinstance(g, h5py.Group)), None) if group is not None else None


def _first(group: h5py.Group | None, dataset: str) -> h5py.Group | None:
    """The first member group, if it has this dataset."""
    member = _first_group(group)
    return member if member is not None and dataset in member else None


def _iread_transition(split: h5py.Group) -> Iterator[Atoms]:
    for formula, reactions in split.items():
        for reaction, group in reactions.items():
            ends = [group[k] for k in ("reactant", "product", "transition_state") if k in group]
            for part in (*ends, group):
                if "positions" in part:
                    name, numbers = f"{formula}/{reaction}", group["atomic_numbers"]
                    yield from _molecule(name, numbers, part["positions"], part, ani=False)


def _molecule(
    name: str, numbers: h5py.Dataset, positions: h5py.Dataset, part: h5py.Group, *, ani: bool
) -> Iterator[Atoms]:
    labels, unit = (_ANI, Hartree) if ani else (_TRANSITION, 1.0)
    optional = ("energy", "forces") if ani else ("forces",)
    given = {kind: label for kind, label in labels.items() if label in part or kind not in optional}
    found = {kind: read_dataset(part[label]) for kind, label in given.items()}
    kinds = read_dataset(numbers)
    for i, place in enumerate(read_dataset(positions)):
        atoms = Atoms(numbers=kinds, positions=place, info={"group": name})
        for kind, values in found.items():
            own = np.asarray(np.ravel(values)[i] if kind == "energy" else values[i], dtype=np.float64)
            if not ani or np.isfinite(own).all():
                set_labels(atoms, {kind: own * unit})
        yield atoms
