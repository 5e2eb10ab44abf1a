"""Evaluate or relax many structures with progress, and keep each answer in a folder so that work resumes."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from dpa2calc.errors import DataError
from dpa2calc.files.arrays import read_arrays, write_arrays
from dpa2calc.files.identity import Part, calculator_identity, claim, digest, structure_identity
from dpa2calc.files.lock import working_in
from dpa2calc.progress import progress_bar
from dpa2calc.structures.given import as_energy

from .structures import check_finite

_OF_MEMBERS = "members_"  # what the names of their arrays in a file begin with
_PLAIN = (bool, int, float, str, list, tuple, np.ndarray, np.generic)


class Relaxer(Protocol):
    """What relaxes a structure before it is evaluated (`relaxation.relaxer.Relaxation`)."""

    def key(self) -> Part:
        """What tells its results from those of another one, ready for JSON."""

    def run(self, atoms: Atoms, *, what: str) -> None:
        """Relax atoms (calculator attached) in place."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One structure's energy (eV), forces (n, 3) eV/Å, stress (6,) eV/Å³ (NaN if not asked), final atoms.

    `ensemble`: by how much the members of the model's ensemble differ from it, under the same names with one
    dimension more in front; None if not asked, or if the calculator knows no doubt.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray
    atoms: Atoms
    ensemble: dict[str, np.ndarray] | None = None

    @property
    def max_force(self) -> float:
        """Largest force on an atom, eV/Å."""
        return float(np.linalg.norm(self.forces, axis=1).max())


def evaluate(
    structures: Sequence[Atoms],
    calculator: BaseCalculator,
    *,
    what: str,
    folder: str | os.PathLike[str] | None = None,
    relaxation: Relaxer | None = None,
    stress: bool = False,
    ensemble: bool = False,
    progress: bool = True,
) -> list[Evaluated]:
    """Energy, forces and stress of each structure, each one relaxed first if asked.

    With `ensemble` also what the members of the calculator's ensemble (`get_ensemble`) make of the final
    structures, where it has one; that takes about as long as six evaluations.

    With a folder, every finished structure is written there at once under a name made of its numbers
    and settings; a second call with the same input reads it back instead of computing it again.

    Raises:
        StructureError: a relaxation did not converge, or a result is not finite.
        ConfigError: the folder belongs to another calculator, or another run is at work there.
        DataError: a stored result is damaged.
        OutputError: the folder cannot be written.
    """
    results = []
    with _working_with(calculator, folder):
        for structure in progress_bar(structures, desc=what, unit="structure", shown=progress):
            key = _key(structure, relaxation, stress)
            path = Path(folder) / f"{key}.npz" if folder is not None else None
            found = _stored(path, structure) if path and path.exists() else None
            if found is None:
                found = _compute(structure, calculator, relaxation, stress, what)
                if path:
                    _store(path, found)
            if ensemble and found.ensemble is None and (made := ensemble_of(found.atoms, calculator)):
                found = dataclasses.replace(found, ensemble=made)
                if path:
                    _store(path, found)
            results.append(found)
    return results


@contextmanager
def _working_with(calculator: BaseCalculator, folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """At work alone in a folder, which is tied to one calculator, whatever its device and threads."""
    with working_in(folder):
        if folder is not None:
            mine = {"calculator": calculator_identity(calculator)}
            claim(Path(folder) / "calculator.json", mine, calculator)
        yield


class HasHessian(Protocol):
    """A calculator with exact second derivatives, in the form of DPA2Calculator."""

    def get_hessian(self, atoms: Atoms, *, indices: np.ndarray | None, progress: bool) -> np.ndarray:
        """Rows (3m, 3n) of the m atoms `indices`, eV/Å²."""


def hessian_of(calculator: object) -> HasHessian | None:
    """The calculator itself, or None if it has no Hessians in this form."""
    method = getattr(calculator, "get_hessian", None)
    known = callable(method) and {"indices", "progress"} <= set(inspect.signature(method).parameters)
    return cast(HasHessian, calculator) if known else None


def hessian_rows(
    structure: Atoms, calculator: HasHessian, indices: np.ndarray, *,
    folder: str | os.PathLike[str] | None = None, progress: bool = True,
) -> np.ndarray:  # fmt: skip
    """Rows (3m, 3n) of the Hessian of the m atoms `indices`, eV/Å²; kept in the folder when they are done.

    Raises:
        ConfigError, DataError, OutputError: as `evaluate`.
    """
    with _working_with(cast(BaseCalculator, calculator), folder):
        name = f"hessian-{_key(structure, None, False)}-{digest(np.asarray(indices))[:8]}.npz"
        path = Path(folder) / name if folder is not None else None
        if path is None or not path.exists():
            rows = calculator.get_hessian(structure, indices=indices, progress=progress)
            if path is not None:
                write_arrays(path, None, {"rows": rows})
            return rows
        _, data = read_arrays(path, "a stored Hessian")
        shape = (3 * len(indices), 3 * len(structure))
        if "rows" not in data or data["rows"].shape != shape or not np.isfinite(data["rows"]).all():
            raise DataError(f"{path} is damaged: no rows of shape {shape}; delete it and run again")
        return data["rows"]


def ensemble_of(atoms: Atoms, calculator: object) -> dict[str, np.ndarray] | None:
    """By how much the members of a calculator's ensemble differ from it; None where it has none."""
    ask = getattr(calculator, "get_ensemble", None)
    return ask(atoms) if callable(ask) else None


def _compute(
    structure: Atoms, calculator: BaseCalculator, relaxation: Relaxer | None, stress: bool, what: str
) -> Evaluated:
    atoms = structure.copy()
    atoms.calc = calculator
    if relaxation is not None:
        relaxation.run(atoms, what=what)
    energy = as_energy(atoms.get_potential_energy())
    forces = np.array(atoms.get_forces(apply_constraint=False), dtype=float)
    sigma = np.array(atoms.get_stress(apply_constraint=False), dtype=float) if stress else np.full(6, np.nan)
    check_finite(atoms, calculator, what, energy, forces, sigma if stress else 0.0)
    atoms.calc = None
    return Evaluated(energy=energy, forces=forces, stress=sigma, atoms=atoms)


def _stored(path: Path, structure: Atoms) -> Evaluated:
    """What `_store` wrote; raises DataError for a file that is damaged or belongs to something else."""
    try:
        _, data = read_arrays(path, "a stored result")
    except DataError as error:
        raise DataError(f"{path.name} is damaged ({error}); delete it and run again") from error
    n = len(structure)
    shapes = {"energy": (), "forces": (n, 3), "stress": (6,), "cell": (3, 3), "positions": (n, 3)}
    for name, shape in shapes.items():
        found = data.get(name)
        whole = found is not None and found.shape == shape and found.dtype.kind == "f"
        if found is None or not whole or not (np.isfinite(found).all() or name == "stress"):
            raise DataError(
                f"{path} is damaged: no {name} of {n} atoms, or not finite; delete it and run again"
            )
    atoms = structure.copy()
    atoms.set_cell(data["cell"])
    atoms.set_positions(data["positions"], apply_constraint=False)
    energy = float(data["energy"])
    ensemble = {name: data[_OF_MEMBERS + name] for name in shapes if _OF_MEMBERS + name in data}
    return Evaluated(
        energy=energy, forces=data["forces"], stress=data["stress"], atoms=atoms, ensemble=ensemble or None
    )


def _store(path: Path, result: Evaluated) -> None:
    arrays: dict[str, npt.ArrayLike] = {
        "energy": result.energy, "forces": result.forces, "stress": result.stress,
        "cell": result.atoms.cell.array, "positions": result.atoms.positions,
        **{_OF_MEMBERS + name: value for name, value in (result.ensemble or {}).items()},
    }  # fmt: skip
    write_arrays(path, None, arrays)


def _key(structure: Atoms, relaxation: Relaxer | None, stress: bool) -> str:
    found = hashlib.sha256()
    # 10 decimals: far below any physical difference, above the rounding of a supercell built twice
    for array in (structure.positions, structure.cell.array):
        found.update((np.round(array, 10) + 0.0).tobytes())
    found.update(np.asarray(structure.numbers, dtype=np.int64).tobytes())
    for array in (structure.get_initial_charges(), structure.get_initial_magnetic_moments()):
        found.update(np.asarray(array, dtype=float).tobytes())
    extra: Part = {
        "pbc": structure.pbc.tolist(),
        "relaxation": None if relaxation is None else relaxation.key(),
        "stress": stress,
        "constraints": [repr(c) for c in structure.constraints],
        # a calculator may read numbers from info (a charge, a field); objects have no stable text
        "info": {str(k): repr(v) for k, v in structure.info.items() if isinstance(v, _PLAIN)},
    }
    # what the texts above do not tell: they shorten arrays, and of some constraints they hold an address
    if any(" at 0x" in text for text in extra["constraints"]):
        extra["constraints"] = structure_identity(structure)["constraints"]
    arrays = {name: v for name, v in structure.info.items() if isinstance(v, np.ndarray)}
    if "aparam" in structure.arrays:
        arrays["arrays aparam"] = structure.arrays["aparam"]
    if arrays:
        extra["arrays"] = {str(name): digest(value) for name, value in arrays.items()}
    found.update(json.dumps(extra, sort_keys=True).encode())
    return found.hexdigest()[:24]
