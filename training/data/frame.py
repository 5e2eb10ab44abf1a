"""One structure with its labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from ase import Atoms

from dpa2calc.errors import DataError
from dpa2calc.files.identity import READ_ARRAYS, read_info
from dpa2calc.labels.errors import require_shapes
from dpa2calc.labels.names import (
    OWN_NAMES,
    LabelKeys,
    as_array,
    as_floats,
    as_number,
    asymmetry_tolerance,
    set_labels,
    stored_label,
    virial_label,
)
from dpa2calc.model.config import HeadConfig
from dpa2calc.structures.attached import Attached, attach
from dpa2calc.structures.lattice import cell_volume

_ARRAYS = ("masses", *(name for name in READ_ARRAYS if name != "aparam"))


@dataclass(frozen=True, eq=False, repr=False)
class Frame:
    """One structure with its labels; ASE units.

    Attributes:
        numbers: (n,) atomic numbers. positions: (n, 3). cell: (3, 3). pbc: (3,).
        energy: eV or None. forces: (n, 3) eV/Å or None. virial: (3, 3) eV, symmetric, or None.
        group: the trajectory or part of the set that the frame belongs to.
        source: file and index, for messages.
        left_out: why a stress that the structure carries is no label, or None.
        asymmetry: largest |W_ab - W_ba| / 2 of the stored virial, eV, where it is worth a remark, or None.
        fparam: (k,) frame parameters, aparam: (n, k) atomic parameters, or None.
        properties: (n,) labels of heads of other kinds, by name.
        attached: masses, and what other calculators read (charges, magnetic moments, a spin), or None.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    energy: float | None = None
    forces: np.ndarray | None = None
    virial: np.ndarray | None = None
    group: str = ""
    source: str = ""
    left_out: str | None = None
    asymmetry: float | None = None
    fparam: np.ndarray | None = None
    aparam: np.ndarray | None = None
    properties: dict[str, np.ndarray] = field(default_factory=dict)
    attached: Attached | None = None
    # Whether `checks` has looked at this very object; no field, so that changed copies are looked at again.
    checked: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_shapes(self, self.n_atoms, self.source or "a frame")

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @property
    def labelled(self) -> bool:
        """Whether it has an energy, forces, a virial, or a label of another kind."""
        return len(self.lacking) < 3 or bool(self.properties)

    @property
    def lacking(self) -> tuple[str, ...]:
        """The labels it does not have: of energy, forces and stress."""
        labels = {"energy": self.energy, "forces": self.forces, "stress": self.virial}
        return tuple(kind for kind, value in labels.items() if value is None)

    @cached_property
    def volume(self) -> float:
        """Cell volume, Å^3; 0 where the cell has none (`cell_volume`)."""
        return cell_volume(Atoms(cell=self.cell, pbc=self.pbc)) or 0.0

    @property
    def stress(self) -> np.ndarray | None:
        """(3, 3) stress in ASE's sign, eV/Å^3, or None."""
        return None if self.virial is None or self.volume == 0 else -self.virial / self.volume

    def atoms(self) -> Atoms:
        """The bare structure, without labels, but with all that its results may depend on."""
        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        set_labels(atoms, {"fparam": self.fparam, "aparam": self.aparam})
        return attach(atoms, self.attached or {})

    def __repr__(self) -> str:
        present = [kind for kind in ("energy", "forces", "stress") if kind not in self.lacking]
        formula = self.atoms().get_chemical_formula()
        return f"<Frame {formula}, {' '.join(present) or 'no labels'}: {self.source or 'no source'}>"


def frame_from_atoms(atoms: Atoms, *, keys: LabelKeys = OWN_NAMES, source: str = "") -> Frame:
    """A frame from ASE Atoms; the Atoms are not touched and no calculator is run.

    Raises:
        DataError: a label has the wrong shape, is not a number, or belongs to other positions.
    """
    try:
        _require_understood(atoms)
        energy = stored_label(atoms, keys.energy)
        forces = stored_label(atoms, keys.forces)
        virial, left_out, odd = virial_label(atoms, stress=keys.stress, virial=keys.virial)
        remarkable = virial is not None and odd > asymmetry_tolerance(virial, len(atoms))
        return Frame(
            numbers=atoms.numbers.astype(np.int16),
            positions=atoms.get_positions(),
            cell=np.array(atoms.cell.array),
            pbc=np.array(atoms.pbc),
            energy=None if energy is None else as_number(energy, keys.energy),
            forces=None if forces is None else as_array(forces, (len(atoms), 3), keys.forces),
            virial=virial,
            group=str(atoms.info.get(keys.group, "")),
            source=source,
            left_out=left_out or None,
            asymmetry=odd if remarkable else None,
            fparam=_parameters(read_info(atoms).get("fparam"), 1, "fparam"),
            aparam=_parameters(atoms.arrays.get("aparam"), len(atoms), "aparam"),
            properties=_properties(atoms),
            attached=_attached(atoms),
        )
    except DataError as error:
        raise DataError(f"{source}: {error}" if source else str(error)) from error


def _attached(atoms: Atoms) -> Attached | None:
    """What `bare` keeps, but for the parameters, which have fields of their own."""
    arrays = {n: atoms.arrays[n].copy() for n in _ARRAYS if n in atoms.arrays}
    info = {key: value for key, value in read_info(atoms).items() if key != "fparam"}
    return {"arrays": arrays, "info": info} if arrays or info else None


def _properties(atoms: Atoms) -> dict[str, np.ndarray]:
    """The labels that heads of other kinds than energies learn, where the structure has them."""
    names = dict.fromkeys(kind.label for kind in HeadConfig.kinds.values() if kind.label)
    found = {name: stored_label(atoms, name) for name in names}
    return {name: as_array(v, (len(atoms),), name) for name, v in found.items() if v is not None}


def _require_understood(atoms: Atoms) -> None:
    """Raise a DataError for dummy atoms, and for a cell or columns that ASE left among its remarks."""
    left = [str(key) for key in atoms.info if str(key).lower() in ("lattice", "properties")]
    if left and not atoms.cell.array.any():
        raise DataError(
            f"atoms.info has {', '.join(left)}, but the structure has no cell: ase.io.read knows these keys "
            "as Lattice and Properties only. Dataset.read(path) knows them in any capitals"
        )
    if not atoms.numbers.all():
        place = int(np.flatnonzero(atoms.numbers == 0)[0])
        raise DataError(
            f"atom {place} is {atoms.symbols[place]}, a dummy without an element; take it out, or name the "
            "element that it is"
        )


def _parameters(value: object, rows: int, name: str) -> np.ndarray | None:
    """(k,) frame parameters, or (n_atoms, k) atomic parameters."""
    if value is None or rows == 0:
        return None
    array = as_floats(value, name)
    if name == "fparam":
        return array.ravel()
    if array.size % rows:
        raise DataError(f"{name} has shape {array.shape}; expected as many numbers for each of {rows} atoms")
    return array.reshape(rows, -1)
