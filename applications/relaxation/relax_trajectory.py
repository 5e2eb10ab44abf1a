"""What the trajectory of a relaxation belongs to, and resuming from it."""

from __future__ import annotations

import re

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from dpa2calc.dynamics.frames import FrameWriter
from dpa2calc.errors import DataError
from dpa2calc.files.identity import (
    Part,
    calculator_identity,
    require_same,
    structure_identity,
    take_as_same,
    text_digest,
)

KEY = "belongs_to"  # in the info of every frame
_WAYS = "Give the same structure, calculator and options, another trajectory, or overwrite=True"
_WORD = re.compile(r"(\w+)\.([^=]+)=([^;]*);")


def belongs_to(start: Atoms, calculator: Calculator, options: Part) -> str:
    """The identity of a relaxation in one line that any reader of extxyz takes: long values by their hash."""
    parts = {
        "structure": structure_identity(start),
        "calculator": calculator_identity(calculator),
        "options": options,
    }
    found = []
    for name, part in parts.items():
        for key, value in part.items():
            plain = re.fullmatch(r"[\w.+-]{1,24}", str(value))
            found.append(f"{name}.{key.replace(' ', '_')}={value if plain else text_digest(value)};")
    return " ".join(found)


def first_and_last(writer: FrameWriter, start: Atoms, mine: str) -> tuple[Atoms, Atoms] | None:
    """The first frame and the one to resume from; None where the trajectory has none yet.

    Args:
        mine: `belongs_to` of this relaxation.

    Raises:
        ConfigError: the trajectory belongs to another structure, calculator or other options.
        DataError: it is damaged, or no trajectory of relax.
    """
    ends = writer.ends() if writer.path.exists() else None
    if ends is None:
        return None
    first, last = ends
    step = last.info.get("step")
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or step < 0:
        raise DataError(
            f"{writer.path} is not a relax trajectory: its last frame has no step number; give another "
            "name, or overwrite=True to replace it"
        )
    if not np.array_equal(last.numbers, start.numbers):
        raise DataError(
            f"{writer.path} holds {last.get_chemical_formula()}, not {start.get_chemical_formula()}; "
            "give another file or overwrite=True"
        )
    if KEY in last.info:
        require_same(_parts(str(last.info[KEY])), _parts(mine), where=str(writer.path), ways=_WAYS)
        return first, last
    moved = len(first) != len(start) or max(
        np.abs(first.positions - start.positions).max(), np.abs(first.cell.array - start.cell.array).max()
    )
    if first.info.get("step") == 0 and not moved < 1e-6:
        raise DataError(
            f"{writer.path} begins with another structure than the one given; give another trajectory or "
            "overwrite=True"
        )
    take_as_same(str(writer.path), "the calculator and the options")
    return first, last


def _parts(text: str) -> dict[str, Part]:
    found: dict[str, Part] = {}
    for part, key, value in _WORD.findall(text):
        found.setdefault(part, {})[key.replace("_", " ")] = value
    return found
