"""Evaluate or relax many structures with progress, and keep each answer in a folder so that work resumes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE

from dpa2calc.errors import ConfigError, DataError, StructureError
from dpa2calc.files.arrays import read_arrays, write_arrays
from dpa2calc.files.atomic import write_json
from dpa2calc.files.identity import (
    calculator_identity,
    differences,
    digest,
    read_identity,
    structure_identity,
)
from dpa2calc.files.lock import working_in
from dpa2calc.progress import progress_bar

from .structures import need_stress, quiet_spglib, require, symmetry_dataset

_PLAIN = (bool, int, float, str, list, tuple, np.ndarray, np.generic)

CellFreedom = Literal["fixed", "volume", "free"]


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """How structures are relaxed before they are evaluated.

    Args:
        fmax: largest force left on an atom, eV/Å (cell gradients per atom in eV are held to the same number).
        cell: "fixed", "volume" (shape relaxes at constant volume) or "free".
        max_steps: give up after so many optimiser steps.
        symmetry: keep the space group of the start (needs spglib).
        symprec: distance tolerance of that space group, Å.
    """

    fmax: float
    cell: CellFreedom = "fixed"
    max_steps: int = 500
    symmetry: bool = False
    symprec: float = 1e-3

    def __post_init__(self) -> None:
        """Find out that spglib is missing before the first structure is relaxed.

        Raises:
            MissingDependencyError: symmetry is to be kept and spglib is not installed.
        """
        if self.symmetry:
            require("spglib", "keeping the symmetry during a relaxation")


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One structure's energy (eV), forces (n, 3) eV/Å, stress (6,) eV/Å³ (NaN if not asked), final atoms."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray
    atoms: Atoms

    @property
    def max_force(self) -> float:
        """Largest force on an atom, eV/Å."""
        return float(np.linalg.norm(self.forces, axis=1).max())


def automatic_optimizer(n_atoms: int) -> type[BFGS] | type[FIRE]:
    """BFGS while its dense Hessian costs less than the forces, else FIRE.

    Not LBFGS: where the energy curves downwards, as around a vacancy that is about to lose its symmetry, it
    can wander about the saddle for a thousand steps.
    """
    return BFGS if n_atoms <= 200 else FIRE


def relax_in_place(atoms: Atoms, settings: Relaxation, *, what: str) -> None:
    """Relax atoms (calculator attached) until the largest force is below settings.fmax.

    Raises:
        StructureError: not converged within max_steps.
    """
    if settings.symmetry:
        symmetry_dataset(atoms, settings.symprec, "keeping the symmetry during a relaxation")
        from ase.constraints import FixSymmetry

        with quiet_spglib():
            atoms.set_constraint([*atoms.constraints, FixSymmetry(atoms, symprec=settings.symprec)])
    target: Any = atoms
    if settings.cell != "fixed":
        need_stress(atoms.calc, f"relaxing the cell for {what}")
        target = FrechetCellFilter(atoms, constant_volume=settings.cell == "volume")
    optimizer = automatic_optimizer(len(atoms))(target, logfile=None, maxstep=0.1)
    if not optimizer.run(fmax=settings.fmax, steps=settings.max_steps):
        reached = float(np.linalg.norm(target.get_forces(), axis=1).max())
        raise StructureError(
            f"{what}: the relaxation of {atoms.get_chemical_formula()} did not reach "
            f"fmax={settings.fmax:g} eV/Å in {settings.max_steps} steps (now {reached:.2g}); "
            "raise max_steps or fmax, use dtype='float64', or start from a better structure"
        )
    if settings.symmetry:
        atoms.set_constraint([c for c in atoms.constraints if type(c).__name__ != "FixSymmetry"])


def evaluate(
    structures: Sequence[Atoms],
    calculator: Any,
    *,
    what: str,
    folder: str | os.PathLike[str] | None = None,
    relaxation: Relaxation | None = None,
    stress: bool = False,
    progress: bool = True,
) -> list[Evaluated]:
    """Energy, forces and stress of each structure, each one relaxed first if asked.

    With a folder, every finished structure is written there at once under a name made of its numbers
    and settings; a second call with the same input reads it back instead of computing it again.

    Raises:
        StructureError: a relaxation did not converge, or a result is not finite.
        ConfigError: the folder belongs to another calculator, or another run is at work there.
        DataError: a stored result is damaged.
        OutputError: the folder cannot be written.
    """
    with working_in(folder):
        return _evaluate(structures, calculator, what, folder, relaxation, stress, progress)


def _evaluate(
    structures: Sequence[Atoms], calculator: Any, what: str, folder: Any, relaxation: Relaxation | None,
    stress: bool, progress: bool,
) -> list[Evaluated]:  # fmt: skip
    cache = ResultFolder(folder, calculator) if folder is not None else None
    results = []
    for structure in progress_bar(structures, desc=what, unit="structure", shown=progress):
        key = _key(structure, relaxation, stress)
        found = cache.read(key, structure) if cache else None
        if found is None:
            found = _compute(structure, calculator, relaxation, stress, what)
            if cache:
                cache.write(key, found)
        results.append(found)
    return results


def _compute(
    structure: Atoms, calculator: Any, relaxation: Relaxation | None, stress: bool, what: str
) -> Evaluated:
    atoms = structure.copy()
    atoms.calc = calculator
    if relaxation is not None:
        relax_in_place(atoms, relaxation, what=what)
    energy = float(atoms.get_potential_energy())
    forces = np.array(atoms.get_forces(apply_constraint=False), dtype=float)
    sigma = np.array(atoms.get_stress(apply_constraint=False), dtype=float) if stress else np.full(6, np.nan)
    if not (np.isfinite(energy) and np.isfinite(forces).all() and (not stress or np.isfinite(sigma).all())):
        raise StructureError(
            f"{what}: {type(calculator).__name__} returned NaN for {atoms.get_chemical_formula()}"
        )
    atoms.calc = None
    return Evaluated(energy=energy, forces=forces, stress=sigma, atoms=atoms)


class ResultFolder:
    """A folder of finished structures, tied to one calculator (whatever its device and threads)."""

    def __init__(self, folder: str | os.PathLike[str], calculator: Any) -> None:
        self.path = Path(folder)
        label = self.path / "calculator.json"
        mine = {"calculator": calculator_identity(calculator)}
        if label.exists():
            stored = read_identity(label)
            if "calculator" in stored:
                _refuse_another(self.path, differences(stored, mine))
                return
            _check_old_label(self.path, stored, calculator_fingerprint(calculator))
        write_json(label, mine)

    def read(self, key: str, structure: Atoms) -> Evaluated | None:
        """The stored result of that key, or None.

        Raises:
            DataError: the file is damaged or belongs to something else.
        """
        path = self.path / f"{key}.npz"
        if not path.exists():
            return None
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
        return Evaluated(
            energy=float(data["energy"]), forces=data["forces"], stress=data["stress"], atoms=atoms
        )

    def write(self, key: str, result: Evaluated) -> None:
        """Store a result.

        Raises:
            OutputError: the folder cannot be written.
        """
        arrays = {
            "energy": np.float64(result.energy),
            "forces": result.forces,
            "stress": result.stress,
            "cell": result.atoms.cell.array,
            "positions": result.atoms.positions,
        }
        write_arrays(self.path / f"{key}.npz", None, arrays)


def _refuse_another(folder: Path, found: list[str]) -> None:
    if found:
        raise ConfigError(
            f"the folder {folder} holds results of another calculator or of other settings (different are "
            f"{'; '.join(found[:6])}); give another folder or delete it"
        )


def calculator_fingerprint(calculator: Any) -> dict[str, Any]:
    """What labels of earlier versions hold: class name, and what `describe()` says or the ASE parameters."""
    describe = getattr(calculator, "describe", None)
    settings = describe() if callable(describe) else dict(getattr(calculator, "parameters", {}) or {})
    record = {"class": type(calculator).__name__, "settings": settings}
    return json.loads(json.dumps(record, default=lambda value: type(value).__name__, sort_keys=True))


def _in_use(text: str) -> dict[str, str]:
    """The decisive settings of a description, which ends in "in use  head = ..., device = ..."."""
    found = re.findall(r"(\w+) = (.*?)(?=, \w+ = |$)", text.rpartition("in use")[2])
    return {name: value for name, value in found if name not in ("device", "skin")}


def _check_old_label(folder: Path, stored: dict[str, Any], mine: dict[str, Any]) -> None:
    """Compare what a label without identity tells; the wording, the device and the skin may have changed.

    Raises:
        ConfigError: it was another calculator.
    """
    theirs, ours = stored.get("settings"), mine["settings"]
    if isinstance(theirs, str) and isinstance(ours, str):
        theirs, ours = _in_use(theirs), _in_use(ours)
        warnings.warn(
            f"{folder} holds results of an earlier version, which did not note the weights; they are taken "
            "as those of this calculator. Delete the folder if the model was trained again since",
            stacklevel=2,
        )
    sides = [
        {"calculator": {"class": side["class"], **(own if isinstance(own, dict) else {"settings": own})}}
        for side, own in ((stored if "class" in stored else {"class": None}, theirs), (mine, ours))
    ]
    _refuse_another(folder, differences(*sides))


def _key(structure: Atoms, relaxation: Relaxation | None, stress: bool) -> str:
    found = hashlib.sha256()
    # 10 decimals: far below any physical difference, above the rounding of a supercell built twice
    for array in (structure.positions, structure.cell.array):
        found.update((np.round(array, 10) + 0.0).tobytes())
    found.update(np.asarray(structure.numbers, dtype=np.int64).tobytes())
    for array in (structure.get_initial_charges(), structure.get_initial_magnetic_moments()):
        found.update(np.asarray(array, dtype=float).tobytes())
    extra: dict[str, Any] = {
        "pbc": structure.pbc.tolist(),
        "relaxation": None if relaxation is None else vars(relaxation),
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
