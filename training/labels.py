"""Where the labels of a structure are found, under the names that a file gives them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from ase import Atoms

from dpa2calc.errors import DataError
from dpa2calc.lattice import is_crystal
from dpa2calc.stored_labels import stored_label


@dataclass(frozen=True)
class LabelKeys:
    """Where labels are looked for: the attached calculator's results, then `atoms.info` and `atoms.arrays`.

    `virial` is eV, sum_i r_i (x) F_i = -volume * stress, as deepmd-kit and QUIP write it; `stress` has
    ASE's sign (positive = tensile), eV/Å^3, 3x3 or Voigt. Where both are present the stress is taken. An
    empty name leaves the label out: `LabelKeys(stress="", virial="")`. The own names are found in any
    capitals (`Energy`), and forces as `force`.

    Example:
        >>> Dataset.read("train.xyz", keys=LabelKeys(energy="REF_energy", forces="REF_forces"))
    """

    energy: str = "energy"
    forces: str = "forces"
    stress: str = "stress"
    virial: str = "virial"
    group: str = "group"

    def named(self) -> dict[str, str]:
        """Labels that were given another name than their own, by what they are."""
        own = {f.name: f.default for f in fields(self)}
        return {kind: key for kind, key in vars(self).items() if key and key != own[kind]}

    def read(self) -> set[str]:
        """The names that are looked for."""
        return set(vars(self).values())


OWN_NAMES = LabelKeys()
# The keys that name each kind of label, and what names of such labels have in common.
_KEYS = {"energy": ("energy",), "forces": ("forces",), "stress": ("stress", "virial")}
_PARTS = {"energy": ("energy",), "forces": ("force",), "stress": ("stress", "virial")}


def virial_label(atoms: Atoms, keys: LabelKeys, source: str) -> np.ndarray | None:
    """The virial (3, 3) in eV, from the stress or the virial of a structure, or None.

    Raises:
        DataError: a wrong shape, or a stress in a cell that is not periodic in all directions.
    """
    stress = stored_label(atoms, keys.stress)
    if stress is not None:
        matrix = as_matrix(stress, f"{source}: {keys.stress}")
        if not is_crystal(atoms):
            raise DataError(
                f"{source}: a stress needs a cell periodic in all directions, pbc is {atoms.pbc}; leave "
                "stresses out with LabelKeys(stress=''), stress_key = '' or --stress-key ''"
            )
        return -atoms.get_volume() * matrix
    virial = stored_label(atoms, keys.virial)
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


def unread_labels(atoms: Atoms, keys: LabelKeys, lacking: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Names that look like the labels a structure lacks, such as REF_energy, by kind.

    Args:
        lacking: "energy", "forces", "stress". Kinds that the keys leave out with an empty name are left out.
    """
    results = getattr(atoms.calc, "results", None) or {}
    read = keys.read()
    names = [str(n) for n in dict.fromkeys([*results, *atoms.info, *atoms.arrays]) if n not in read]
    wanted = [kind for kind in lacking if all(getattr(keys, key) for key in _KEYS[kind])]
    found = {kind: tuple(n for n in names if any(p in n.lower() for p in _PARTS[kind])) for kind in wanted}
    return {kind: names for kind, names in found.items() if names}


def advice(found: Iterable[str]) -> str:
    """What to do about labels under other names, for messages."""
    found = tuple(dict.fromkeys(found))
    where = "LabelKeys(energy=...), energy_key = ... in a set of a file, or --energy-key, and so on"
    if not found:
        return f"labels under other names are read with {where}"
    return f"there are {', '.join(found)}: name what to learn with {where}"
