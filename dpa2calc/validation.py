"""Checks of what a user hands in, each with its own sentence."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from torch import Tensor

from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.results import FAR
from dpa2calc.model.config import FittingConfig
from dpa2calc.model.rigidity import Rigidity

# Below this distance two atoms are the same atom written twice; no model has an answer.
COINCIDENT = 0.01  # Å
# Bonds under 60 GPa or at 5000 K stay above this fraction of the sum of covalent radii.
CLOSEST_FRACTION = 0.5
_RADII = np.asarray(covalent_radii)  # by atomic number, Å


def check_structure(atoms: object) -> Atoms:
    """Refuse what is not one structure with at least one atom, and hand it on.

    Positions, cell and pbc are checked by the neighbour search.

    Raises:
        StructureError: not `ase.Atoms`, or no atoms in it.
    """
    if not isinstance(atoms, Atoms):
        raise StructureError(
            f"expected ase.Atoms, got {type(atoms).__name__}; for a list use calc.evaluate(...)"
        )
    if len(atoms) == 0:
        raise StructureError("the structure has no atoms; hand in at least one")
    return atoms


class DistanceCheck:
    """Raises on coincident atoms, warns once about atoms closer than any bond.

    It is an `Inspector` of `structures.graph_builder`: it sees the pairs before they are sorted into rows.
    """

    def __init__(self) -> None:
        self.warned = False

    def __call__(self, i: Tensor, j: Tensor, squares: Tensor, numbers: np.ndarray) -> None:
        """Check all pairs of one structure: i, j, squares (n_pairs,) in Å^2; atomic numbers (n_atoms,).

        Raises:
            StructureError: two atoms are closer than 0.01 Å.
        """
        shortest = float(squares.min()) ** 0.5
        if shortest < COINCIDENT:
            self.coincident(*_pair(i, j, squares), shortest)
        # no limit of a pair is above both of its atoms'
        if self.warned or shortest >= (reach := 2.0 * CLOSEST_FRACTION * float(_RADII[numbers].max())):
            return
        near = (squares < reach**2).nonzero().squeeze(1)
        i, j, squares = i[near].cpu(), j[near].cpu(), squares[near].cpu()
        radii = torch.from_numpy(_RADII[numbers])
        limits = CLOSEST_FRACTION * (radii[i] + radii[j])
        close = torch.where(squares < limits**2, squares, torch.inf)
        if bool(close.isfinite().any()):
            self.warn(*_pair(i, j, close), float(close.min()) ** 0.5, numbers)

    def coincident(self, first: int, second: int, distance: float) -> None:
        """Refuse a closest pair at `distance` (Å) if that is one atom twice.

        Raises:
            StructureError: closer than 0.01 Å.
        """
        if distance < COINCIDENT:
            raise StructureError(
                f"atoms {first} and {second} are {distance:.4g} Å apart: the same atom twice, or a cell "
                "that is too small; remove one of them or check cell and pbc"
            )

    def warn(self, first: int, second: int, distance: float, numbers: np.ndarray) -> None:
        """Warn, once, of a pair closer than any bond of its elements; atomic numbers (n_atoms,)."""
        if self.warned:
            return
        self.warned = True
        a, b = (f"{k} ({chemical_symbols[numbers[k]]})" for k in (first, second))
        warnings.warn(
            f"atoms {a} and {b} are only {distance:.3f} Å apart, closer than any "
            "bond of these elements; the energy is an extrapolation (said once by this calculator)",
            stacklevel=2,
        )


class UnreadCheck:
    """Warns once about charges and magnetic moments on a structure, which no model here reads."""

    def __init__(self) -> None:
        self.warned = False

    def __call__(self, atoms: Atoms) -> Atoms:
        """Look at `initial_charges` and `initial_magmoms`, `charge` and `spin` in `info`; hand it on."""
        if self.warned:
            return atoms
        given = [f"atoms.arrays[{name!r}]" for name in _UNREAD if np.any(atoms.arrays.get(name, 0.0))]
        for name, nothing in _UNREAD_INFO.items():
            if isinstance(value := atoms.info.get(name), (int, float, np.number)) and value not in nothing:
                given.append(f"atoms.info[{name!r}]")
        if not given:
            return atoms
        self.warned = True
        warnings.warn(
            f"{' and '.join(given)} of {atoms.get_chemical_formula()} are not read by any model: "
            "every charge and every magnetic order has the same energy, that of what the head was trained on "
            "(said once by this calculator)",
            stacklevel=2,
        )
        return atoms


_UNREAD = ("initial_charges", "initial_magmoms")
_UNREAD_INFO = {"charge": (0,), "spin": (0, 1)}  # values that say nothing: neutral, a singlet


def closest_distances(type_map: Sequence[str]) -> np.ndarray:
    """Å, below which a warning is due, of each pair of types of a model, (n_types, n_types)."""
    radii = _RADII[[atomic_numbers.get(symbol, 0) for symbol in type_map]]
    limits: np.ndarray = CLOSEST_FRACTION * (radii[:, None] + radii)
    return limits


@dataclass(frozen=True)
class Met:
    """What a `RangeCheck` saw: the least known atom, and how often atoms were beyond their range.

    `least`: the largest deviation over the usual largest one of the element (0 where that is not known), the
    deviation (eV) and the element. `atoms` of elements with a range, `beyond` of them outside it;
    `structures`, `far` of them with an atom beyond `FAR` times its range.
    """

    least: tuple[float, float, str]
    atoms: int
    beyond: int
    structures: int
    far: int

    def __add__(self, other: Met) -> Met:
        return Met(
            max(self.least, other.least),
            self.atoms + other.atoms,
            self.beyond + other.beyond,
            self.structures + other.structures,
            self.far + other.far,
        )


class RangeCheck:
    """Warns once, about the first atom far beyond what the head was trained on; keeps count of all.

    Far is `FAR` times the deviation that all but one in a thousand training atoms of the element have.

    Attributes:
        met: what was seen; None as long as nothing was. May be set back.
        disagreement: the largest `forces_std` of a committee, eV/Å, likewise.
    """

    def __init__(self, type_map: Sequence[str], head: str, rigidity: Rigidity | None) -> None:
        self.head, self.warned, self.facts = head, False, None if rigidity is None else rigidity.facts
        self.met: Met | None = None
        self.disagreement: float | None = None
        self.limits = np.full(len(chemical_symbols), np.inf)  # by atomic number, eV
        if rigidity is not None:
            for symbol, limit in zip(type_map, rigidity.limits.tolist()):
                if limit > 0 and symbol in atomic_numbers:
                    self.limits[atomic_numbers[symbol]] = limit

    def __call__(self, atoms: Atoms, results: Mapping[str, npt.ArrayLike]) -> None:
        """Look at the results of one structure; those without deviations are passed over."""
        values = results.get("energies_std")
        if values is None:
            if self.facts is None and "forces_std" in results:
                largest = float(np.max(results["forces_std"]))
                self.disagreement = max(largest, self.disagreement or 0.0)
            return
        values = np.asarray(values)
        limits = self.limits[atoms.numbers]
        ratios = values / limits
        worst = int((ratios if ratios.any() else values).argmax())
        many = int((ratios > FAR).sum())
        found = Met(
            (float(ratios[worst]), float(values[worst]), str(atoms.symbols[worst])),
            atoms=int(np.isfinite(limits).sum()),
            beyond=int((ratios > 1.0).sum()),
            structures=1,
            far=int(many > 0),
        )
        self.met = found if self.met is None else self.met + found
        if self.warned or not many:
            return
        self.warned = True
        warnings.warn(
            f"atom {worst} ({atoms.symbols[worst]}) of {atoms.get_chemical_formula()} is far from what head "
            f"{self.head!r} was trained on: the deviation of its energy is {ratios[worst]:.1f} times the "
            f"largest usual one of the training set ({many} of {len(atoms)} atoms are beyond "
            f"{FAR:g} times). Do not rely on these numbers: look for a better head "
            "(`dpa2calc heads`, calc.rank_heads), fine-tune on such structures, or end runs with "
            "uncertainty_limit (said once by this calculator)",
            stacklevel=2,
        )


def _pair(i: Tensor, j: Tensor, squares: Tensor) -> tuple[int, int]:
    """The two atoms of the smallest entry, the lower index first."""
    at = int(squares.argmin())
    pair = (int(i[at]), int(j[at]))
    return min(pair), max(pair)


def check_finite(results: Mapping[str, npt.ArrayLike]) -> None:
    """Refuse results that are not numbers, whatever they are; they are never handed on silently.

    Raises:
        StructureError: names the first result concerned, and the atom.
    """
    first = {name: results[name] for name in _OF_ATOMS if name in results}  # these name the atom
    for name, value in (first | dict(results)).items():
        finite = np.asarray(np.isfinite(value))
        if finite.all():
            continue
        where = f"the {name.replace('_', ' ')}"
        if name in _OF_ATOMS:
            bad = np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1))
            where = f"{_OF_ATOMS[name]} atom {bad[0]} ({len(bad)} atoms in all)"
        raise StructureError(
            f"{where} came out as not a number; the structure is far outside what the model can "
            "describe (atoms too close?), or overflowed in float32: try dtype='float64'"
        )


_OF_ATOMS = {
    "forces": "the force on",
    "energies": "the energy of",
    "energies_std": "the standard deviation of the energy of",
    "stresses": "the stress of",
    "forces_std": "the standard deviation of the force on",
    "descriptors": "the descriptor of",
}


def head_parameters(atoms: Atoms, fitting: FittingConfig) -> dict[str, np.ndarray]:
    """What a head takes besides the atoms: fparam (1, n) and aparam (n_atoms, n), float64, as far as it does.

    They are atoms.info['fparam'], or where it is missing the default of the head, and atoms.arrays['aparam'].

    Raises:
        StructureError: missing, of the wrong size, or not finite.
    """
    found = {}
    for name, place, rows, width in (
        ("fparam", atoms.info, 1, fitting.numb_fparam),
        ("aparam", atoms.arrays, len(atoms), fitting.numb_aparam),
    ):
        given, is_frame = place.get(name), name == "fparam"
        if width == 0:
            continue
        if given is None and is_frame:  # else a batch of frames with and without would lose all of them
            given = fitting.default_fparam
        where = f"atoms.{'info' if is_frame else 'arrays'}[{name!r}]"
        wanted = f"{width} numbers" if is_frame else f"{width} numbers per atom, shape {(rows, width)}"
        if given is None:
            raise StructureError(f"this head needs {wanted}; set {where}")
        try:
            values = np.array(given, dtype=np.float64)
        except (TypeError, ValueError):
            raise StructureError(f"{where} = {given!r} is not numbers; this head needs {wanted}") from None
        if values.size != rows * width:
            raise StructureError(f"{where} has shape {values.shape}; this head needs {wanted}")
        if not np.isfinite(values).all():
            raise StructureError(f"{where} holds a number that is not finite; this head needs {wanted}")
        found[name] = values.reshape(rows, width)
    return found


def check_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """float32 or float64, as a string or a torch dtype.

    Raises:
        ConfigError: anything else.
    """
    known = {"float32": torch.float32, "float64": torch.float64}
    key = str(dtype).removeprefix("torch.")
    if key not in known:
        raise ConfigError(f"dtype = {dtype!r} is not allowed; allowed: 'float32', 'float64'")
    return known[key]


def check_device(device: str | torch.device | int | None, dtype: torch.dtype = torch.float32) -> torch.device:
    """The torch device to compute on; None means CUDA where there is a GPU, else the CPU.

    Raises:
        ConfigError: no such device on this machine, or it cannot compute in this precision.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if isinstance(device, bool):
            raise TypeError("it is neither a name nor a torch.device")
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"device = {device!r} cannot be used here ({reason}); allowed: 'cpu', 'cuda', 'cuda:1', 'mps', "
            "as far as this machine has them"
        ) from None
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device = {device!r} is not supported; allowed: 'cpu', 'cuda', 'cuda:1', 'mps'")
    if chosen.type == "mps" and dtype == torch.float64:
        raise ConfigError("device = 'mps' has no float64; use dtype='float32', or device='cpu'")
    return chosen
