"""What of a structure the models consume: a copy of it, and whether it is still the same."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from ase import Atoms

from .committee import Member


def _parameters(members: Sequence[Member]) -> tuple[bool, bool]:
    """Whether a head takes info['fparam'], and arrays['aparam']."""
    fittings = [member.head.fitting for member in members]
    return any(f.numb_fparam for f in fittings), any(f.numb_aparam for f in fittings)


def snapshot(atoms: Atoms, members: Sequence[Member]) -> Atoms:
    """Own copies of what was consumed."""
    kept = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    fparam, aparam = _parameters(members)
    if fparam and "fparam" in atoms.info:
        kept.info["fparam"] = copy.deepcopy(atoms.info["fparam"])
    if aparam and "aparam" in atoms.arrays:
        kept.arrays["aparam"] = atoms.arrays["aparam"].copy()
    return kept


def changes(old: Atoms, now: Atoms, members: Sequence[Member]) -> list[str]:
    """Names of what differs to the last bit, in ASE's words."""
    pairs: dict[str, tuple[npt.ArrayLike | None, npt.ArrayLike | None]] = {
        "positions": (old.positions, now.positions),
        "numbers": (old.numbers, now.numbers),
        "cell": (old.cell.array, now.cell.array),
        "pbc": (old.pbc, now.pbc),
    }
    fparam, aparam = _parameters(members)
    if fparam:
        pairs["fparam"] = (old.info.get("fparam"), now.info.get("fparam"))
    if aparam:
        pairs["aparam"] = (old.arrays.get("aparam"), now.arrays.get("aparam"))
    return [name for name, (a, b) in pairs.items() if not np.array_equal(a, b)]  # type: ignore[arg-type]
