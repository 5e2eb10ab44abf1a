"""Checks and small geometry shared by the solid-state applications (private to this folder)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator, Calculator
from ase.geometry import minkowski_reduce

from dpa2calc.errors import ConfigError, StructureError, optional_library
from dpa2calc.files.identity import READ_ARRAYS
from dpa2calc.files.results import Result
from dpa2calc.structures.attached import Attached, attach, attached
from dpa2calc.structures.given import require_calculator
from dpa2calc.structures.lattice import is_crystal
from dpa2calc.structures.search import face_distances

from .warned import collected_warnings

if TYPE_CHECKING:
    from spglib import SpglibDataset

GPA = 1.0 / units.GPa  # multiply a stress in eV/Å³ by this to have GPa (160.2177)
_MOST_CELLS = 1e6  # of a supercell
_APART = {"initial_charges": 0.1, "initial_magmoms": 0.1}  # e and μB; less is the scatter of equal atoms
JOULE_PER_M2 = 1e20 / units.J  # multiply a surface energy in eV/Å² by this to have J/m² (16.0218)


def require(module: str, purpose: str, extra: str = "applications") -> ModuleType:
    """Import an optional library, or say how to install it: with an extra of this package.

    Raises:
        MissingDependencyError: the library is not installed.
    """
    needed = f"{purpose} needs the library {module.split('.')[0]}, which is not installed"
    return optional_library(module, f"{needed}: pip install 'dpa2calc[{extra}]'")


def checked_copy(
    atoms: Atoms, *, what: str, periodic: bool = True, masses: bool = False
) -> tuple[Atoms, Calculator]:
    """A copy of the caller's atoms and their calculator, after the checks common to all applications.

    Args:
        atoms: structure with a calculator attached; it is not changed.
        what: name of the calculation, for messages.
        periodic: demand a crystal (three periodic directions and a volume).
        masses: demand that every atom has one.

    Returns:
        The copy (without constraints if `periodic`, with no calculator) and the calculator.

    Raises:
        StructureError: empty, no calculator, NaN, or not a crystal or no masses where they are needed.
    """
    if len(atoms) == 0:
        raise StructureError(f"{what}: the structure has no atoms")
    require_calculator(atoms, what)
    if not np.isfinite(atoms.positions).all():
        raise StructureError(f"{what}: the positions contain NaN or infinity")
    found = atoms.get_masses()
    if masses and len(bad := np.flatnonzero(~((found > 0) & np.isfinite(found)))):
        atom = int(bad[0])
        raise StructureError(
            f"{what}: atom {atom} ({atoms.symbols[atom]}) has the mass {found[atom]:g}; give every atom a "
            "finite mass above 0"
        )
    if periodic and not is_crystal(atoms):
        raise StructureError(
            f"{what} needs a crystal, periodic in three directions; got pbc={atoms.pbc.tolist()} and "
            f"cell lengths {np.round(atoms.cell.lengths(), 3).tolist()} Å; set atoms.pbc = True "
            "for a crystal; slabs, wires and molecules are taken by relax() and run_md(), and their chosen "
            "atoms by vibrations()"
        )
    copy = atoms.copy()
    if periodic and copy.constraints:
        warnings.warn(f"{what}: constraints of the given atoms are ignored", stacklevel=4)
        copy.set_constraint()
    return copy, atoms.calc


def check_finite(atoms: Atoms, calculator: object, what: str, *values: npt.ArrayLike) -> None:
    """Raise StructureError where a calculator returned NaN or infinity for atoms."""
    if not all(np.isfinite(value).all() for value in values):
        raise StructureError(
            f"{what}: {type(calculator).__name__} returned NaN for {atoms.get_chemical_formula()}; do atoms "
            "overlap?"
        )


def fields_of(atoms: Atoms, *names: str, prefix: str = "") -> dict[str, Any]:
    """Parts of a structure, named as ASE names them, and what is attached to it, as fields of a result."""
    read = {"masses": atoms.get_masses, "scaled_positions": atoms.get_scaled_positions}
    found = {prefix + n: np.array(read[n]() if n in read else getattr(atoms, n)) for n in names}
    return {**found, prefix + "attached": attached(atoms)}


def structure_of(result: object, prefix: str = "") -> Atoms:
    """The structure that `fields_of` has put into a result; periodic where nothing else is said."""
    names = ("numbers", "masses", "cell", "positions", "scaled_positions", "pbc")
    found = {name: getattr(result, prefix + name, None) for name in names}
    made = Atoms(**{"pbc": True, **{name: value for name, value in found.items() if value is not None}})
    return attach(made, getattr(result, prefix + "attached"))


@dataclass(frozen=True, kw_only=True)
class WithStructure(Result):
    """Base of results of one structure, whose parts are fields (`fields_of`)."""

    attached: Attached = field(default_factory=dict, repr=False)

    def atoms(self) -> Atoms:
        """The structure that the numbers belong to."""
        return structure_of(self)


def offers_stress(calculator: object) -> bool:
    """Whether a calculator gives the stress."""
    return "stress" in getattr(calculator, "implemented_properties", ())


def need_stress(calculator: BaseCalculator, what: str) -> None:
    """Raise ConfigError unless the calculator offers stress."""
    if not offers_stress(calculator):
        raise ConfigError(
            f"{what} needs the stress, which {type(calculator).__name__} does not offer; "
            "use a calculator that has it"
        )


def positive(name: str, value: float) -> None:
    """Raise ConfigError unless value is a finite number above zero."""
    if not (np.isfinite(value) and value > 0):
        raise ConfigError(f"{name} must be a positive number, got {value!r}")


def image_distance(cell: np.ndarray) -> float:
    """Shortest distance (Å) between an atom and its own periodic image, for any cell (3, 3)."""
    reduced, _ = minkowski_reduce(np.asarray(cell, dtype=float))
    return float(np.linalg.norm(reduced, axis=1).min())


def repeats_for_length(cell: np.ndarray, min_length: float) -> np.ndarray:
    """Smallest diagonal repeats (3,) whose supercell keeps parallel faces at least min_length (Å) apart."""
    repeats = np.maximum(1, np.ceil(min_length / face_distances(cell) - 1e-6))
    cells = math.prod(repeats.tolist())  # NumPy's warns of an overflow
    if not cells <= _MOST_CELLS:
        raise ConfigError(
            f"min_length is {min_length!r} Å: the supercell would have {cells:.2g} cells, at most "
            f"{_MOST_CELLS:g} are allowed; lower min_length"
        )
    return repeats.astype(int)


@contextmanager
def quiet_spglib() -> Iterator[None]:
    """spglib 2.8 announces at every call that it will raise in place of None; a user cannot change that.

    Raises:
        StructureError: instead of spglib's own errors.
    """
    with collected_warnings():
        try:
            yield
        except Exception as error:
            if not type(error).__module__.startswith("spglib"):
                raise
            raise StructureError(
                f"spglib finds no symmetry ({str(error).strip()}); do atoms overlap, or is symprec too large?"
            ) from error


def check_symprec(symprec: float) -> None:
    """Raise ConfigError for what spglib cannot take: it crashes on a negative distance, and hangs with 0."""
    if not 1e-8 <= symprec <= 1.0:
        raise ConfigError(f"symprec is {symprec!r}; it must be a distance from 1e-8 to 1 Å")


def arrays_read(atoms: Atoms, calculator: object = None) -> list[str]:
    """Names of charges, magnetic moments and parameters of atoms, but for what the calculator ignores."""
    ignored = getattr(calculator, "ignored_changes", ())
    return [name for name in READ_ARRAYS if name in atoms.arrays and name not in ignored]


def kinds_of(atoms: Atoms, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) from 1 on of atoms that differ in element or in one of these arrays; the first of each."""
    columns = [atoms.numbers]
    for name in names:
        values = atoms.get_masses() if name == "masses" else atoms.arrays[name]
        columns += [_grouped(column, _APART.get(name, 1e-6)) for column in values.reshape(len(atoms), -1).T]
    _, firsts, labels = np.unique(np.column_stack(columns), axis=0, return_index=True, return_inverse=True)
    return labels.ravel() + 1, firsts


def _grouped(values: np.ndarray, gap: float) -> np.ndarray:
    """Groups (n,) of numbers; between groups lies more than the gap."""
    order = np.argsort(values, kind="stable")
    groups = np.empty(len(values), dtype=int)
    groups[order] = np.cumsum(np.diff(values[order], prepend=values[order[:1]]) > gap)
    return groups


def symmetry_dataset(atoms: Atoms, symprec: float, purpose: str, calculator: object = None) -> SpglibDataset:
    """spglib's symmetry dataset of a crystal.

    Args:
        calculator: one that reads charges or magnetic moments, where they are to be of the symmetry.

    Raises:
        ConfigError: symprec is no distance that atoms could be off by.
        StructureError: spglib finds no symmetry, which means overlapping atoms or a broken cell.
        MissingDependencyError: spglib is not installed.
    """
    check_symprec(symprec)
    spglib = require("spglib", purpose)
    labels, _ = kinds_of(atoms, [] if calculator is None else arrays_read(atoms, calculator))
    cell = (atoms.cell.array, atoms.get_scaled_positions(), labels)
    data, reason = None, "no result"
    with quiet_spglib():
        try:
            data = spglib.get_symmetry_dataset(cell, symprec)
        except Exception as error:  # which class depends on spglib's version
            reason = str(error)
    if data is None:
        raise StructureError(
            f"{purpose}: spglib finds no symmetry with symprec={symprec:g} Å ({reason}); do atoms overlap?"
        )
    return data


def conventional_matrix(atoms: Atoms, symprec: float) -> np.ndarray:
    """Integer matrix M (3, 3) so that M @ cell is the conventional cell of the atoms' own lattice.

    The orientation and origin of the atoms are kept; only lattice vectors are combined. Returns the
    identity where the given cell is not smaller than the conventional one.
    """
    data = symmetry_dataset(atoms, symprec, "finding the conventional cell")
    # spglib: (a b c) = (a_s b_s c_s) P with column vectors, so rows of the conventional cell are P^-T cell
    matrix = np.linalg.inv(np.asarray(data.transformation_matrix)).T
    rounded = np.rint(matrix).astype(int)
    if not np.allclose(matrix, rounded, atol=1e-3) or round(abs(np.linalg.det(rounded))) == 0:
        return np.eye(3, dtype=int)  # the given cell is itself a supercell of the conventional one
    return rounded


def supercell_matrix(atoms: Atoms, min_length: float, symprec: float) -> np.ndarray:
    """Supercell matrix (3, 3): repeats of the conventional cell, opposite faces >= min_length (Å) apart."""
    conventional = conventional_matrix(atoms, symprec)
    repeats = repeats_for_length(conventional @ atoms.cell.array, min_length)
    return repeats[:, None] * conventional
