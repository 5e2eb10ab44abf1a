"""What a structure carries beside elements, places and cell: masses, charges, tags, a name."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
from ase import Atoms

from dpa2calc.files.identity import READ_ARRAYS, read_info
from dpa2calc.files.typed import Json

Attached = dict[str, Json]  # "arrays" and "info", ready for a `Result`

_OWN = ("numbers", "positions", "momenta")
_LABELS = ("energy", "force", "stress", "virial")  # parts of names; other places have other labels
_OF_FILES = ("occupancy", "spacegroup_kinds")  # of the sites of a CIF, not of these atoms
_KINDS = "biufU"  # of arrays that a file of results holds


def attached(atoms: Atoms) -> Attached:
    """Arrays and remarks of a structure, but labels, velocities, and objects that no file holds."""
    arrays = {n: v.copy() for n, v in atoms.arrays.items() if n not in _OWN and _kept(n, v)}
    return {"arrays": arrays, "info": {k: copy.deepcopy(v) for k, v in atoms.info.items() if _kept(k, v)}}


def attach(atoms: Atoms, given: Mapping[str, Json]) -> Atoms:
    """The same atoms with what was `attached` to those that they were made from."""
    for name, values in given.get("arrays", {}).items():
        found = np.asarray(values)
        # JSON has None for what is not finite
        atoms.set_array(name, found.astype(float) if found.dtype == object else found)
    atoms.info.update(copy.deepcopy(given.get("info", {})))
    return atoms


def drop_labels(atoms: Atoms) -> None:
    """Take labels off atoms that have moved: in `info` and `arrays`, by their names."""
    for place in (atoms.info, atoms.arrays):
        for name in [name for name in place if _is_label(name)]:
            del place[name]


def bare(atoms: Atoms) -> Atoms:
    """A copy with what results may depend on, and nothing else: no labels, velocities and constraints."""
    made = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    made.info.update(copy.deepcopy(read_info(atoms)))
    for name in (*READ_ARRAYS, "masses"):
        if name in atoms.arrays:
            made.set_array(name, atoms.arrays[name])
    return made


def _is_label(name: object) -> bool:
    return isinstance(name, str) and any(part in name.lower() for part in _LABELS)


def _kept(name: object, value: object) -> bool:
    named = isinstance(name, str) and name not in _OF_FILES
    return named and not _is_label(name) and _is_plain(value)


def _is_plain(value: object) -> bool:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.kind in _KINDS
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
