"""LAMMPS calls fixes in the order in which they were made: those that act on forces follow the model's."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from dpa2calc.errors import ConfigError

from .wheel import communicator

# First words of styles that set, project or scale forces, or read forces or pressure, when LAMMPS calls them.
# Not npt and its like: they compute the pressure anew when a step begins.
_ACT_ON_FORCES = frozenset(
    "alchemy aveforce drude enforce2d filter freeze grem lineforce manifoldforce msst neb nphug pafi "
    "planeforce plumed poems qbmsst rattle rigid setforce shake ti".split()
)
_LINE = re.compile(r"^Fix\[ *\d+\]: *(\S+), *style = (\S+),", re.MULTILINE)


def check_order(lmp: Any) -> None:
    """Raise a ConfigError where a fix exists that would act on forces before the model has added its own."""
    early = [f"{name} ({style})" for name, style in _fixes(lmp) if _acts(style)]
    if early:
        raise ConfigError(
            f"fix {', '.join(early)} was made before the model is attached, and LAMMPS would call it before "
            "the model's forces are there; put it after `attach` (after `pair_coeff * * O H` "
            "in an input file), or take it away (unfix) and make it again then"
        )


def _acts(style: str) -> bool:
    return style == "store/force" or style.split("/")[0] in _ACT_ON_FORCES


def _fixes(lmp: Any) -> list[tuple[str, str]]:
    """Names and styles in LAMMPS's order; its library does not know styles, so `info` is asked for them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fixes"
        lmp.command(f"info fixes out overwrite {file}")
        found = _LINE.findall(file.read_text()) if file.exists() else []
    if lmp.extract_setting("world_size") > 1:  # the first process alone writes
        found = communicator(lmp).bcast(found)
    return list(found)
