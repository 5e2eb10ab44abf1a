"""The record of one structure: what `screen` writes, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ase import Atoms

from dpa2calc.files.typed import to_json
from dpa2calc.structures.attached import attached

from .sources import Item

Record: TypeAlias = dict[str, Any]

UNITS = {
    "energy": "eV", "forces": "eV/Å", "stress": "eV/Å³", "max_force": "eV/Å", "volume": "Å³",
    "bulk_modulus": "GPa", "tensor": "GPa", "constants": "GPa", "moduli": "GPa", "max_stress": "GPa",
    "density": "kg/m³", "debye_temperature": "K", "zero_point_energy": "eV (phonons: eV/atom)",
    "free_energy": "eV/atom", "entropy": "eV/K/atom", "heat_capacity": "eV/K/atom", "temperatures": "K",
    "lowest_frequency": "THz", "frequencies": "1/cm", "residual": "eV/atom", "positions": "Å", "cell": "Å",
    "energy_std": "eV", "forces_std": "eV/Å", "volume_error": "Å³", "bulk_modulus_error": "GPa",
    "errors": "GPa", "moduli_errors": "GPa", "lowest_commensurate": "THz",
}  # fmt: skip


def failed(item: Item, reason: str) -> Record:
    """The record of a structure that cannot be done."""
    formula = "?" if item.atoms is None else item.atoms.get_chemical_formula()
    line = " ".join(reason.split())
    return {"key": item.key, "name": item.name, "formula": formula, "status": "failed", "error": line}


def done(item: Item, final: Atoms | None, results: Mapping[str, Any], caught: Sequence[str]) -> Record:
    """The record of a structure that is done.

    Args:
        final: the structure as it is now. caught: warnings.
    """
    assert final is not None
    carried = {kind: values for kind, values in to_json(attached(final)).items() if values}
    return {
        "key": item.key,
        "name": item.name,
        "formula": final.get_chemical_formula(),
        "status": "done",
        "warnings": list(caught),
        "numbers": final.numbers.tolist(),
        "positions": final.positions.tolist(),
        "cell": final.cell.array.tolist(),
        "pbc": final.pbc.tolist(),
        **({"attached": carried} if carried else {}),
        "results": to_json(results),
    }
