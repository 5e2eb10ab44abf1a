"""Labels that a structure carries: in stored calculator results, in `info` or in `arrays`, under a name."""

from __future__ import annotations

from typing import Any

from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

# Written by GPUMD and by converters as Energy, Virial, force; what they mean is the same.
_SPELLED_FREELY = {
    "energy": ("energy",),
    "forces": ("forces", "force"),
    "stress": ("stress",),
    "virial": ("virial",),
}


def stored_label(atoms: Atoms, key: str) -> Any:
    """The value under a name, or None; no calculator is run.

    The names energy, forces, stress and virial are found in any capitals, and forces as `force`; any other
    name is taken as it is.

    Example:
        >>> stored_label(Atoms("H", info={"Energy": -13.6}), "energy")
        -13.6
    """
    if not key:
        return None
    value = _exact(atoms, key)
    if value is not None or key not in _SPELLED_FREELY:
        return value
    names = (name for name in (*atoms.info, *atoms.arrays) if str(name).lower() in _SPELLED_FREELY[key])
    return next((value for name in names if (value := _exact(atoms, name)) is not None), None)


def _exact(atoms: Atoms, key: str) -> Any:
    if atoms.calc is not None:
        try:
            # Stored results only: a live calculator must never be run to make a label.
            value = getattr(atoms.calc, "results", {}).get(key)
        except PropertyNotImplementedError:
            value = None
        if value is not None:
            return value
    return atoms.info.get(key, atoms.arrays.get(key))
