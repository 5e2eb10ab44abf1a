"""Where the labels of a structure are found, under the names that a file gives them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from ase import Atoms

from dpa2calc.labels.names import as_matrix

__all__ = ["OWN_NAMES", "LabelKeys", "advice", "as_matrix", "unread_labels"]


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
    where = (
        "energy_key=..., forces_key=..., in a file under [sets.NAME] "
        "(in Python LabelKeys(energy=...), on the command line --energy-key)"
    )
    if not found:
        return f"labels under other names are read with {where}"
    return f"there are {', '.join(found)}: name what to learn with {where}"
