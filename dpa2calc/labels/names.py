"""Labels that a structure carries: in stored calculator results, in `info` or in `arrays`, under a name.

Energies are eV, forces eV/Å. A stress has ASE's sign (positive = tensile), eV/Å^3; a virial is
sum_i r_i (x) F_i = -volume * stress, eV, as deepmd-kit and QUIP write it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.geometry import find_mic

from dpa2calc.errors import DataError
from dpa2calc.files.extxyz import fortran_numbers
from dpa2calc.structures.lattice import is_crystal

# Written by GPUMD and by converters as Energy, Virial, force; what they mean is the same.
_SPELLED_FREELY = {
    "energy": ("energy",),
    "forces": ("forces", "force"),
    "stress": ("stress",),
    "virial": ("virial",),
}
# Of a virial that is not symmetric: what is remarked, over its largest component and in eV/atom, and what no
# stress has. Nine numbers in another order are off by a third and more.
_ASYMMETRIC, _ASYMMETRIC_ATOM, _NO_STRESS = 0.01, 1e-3, 0.25
_SAME_PLACE = 1e-5  # Å; forces change by far less than their convergence


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


OWN_NAMES = LabelKeys()


def stored_label(atoms: Atoms, key: str) -> object:
    """The value under a name, or None; no calculator is run.

    The names energy, forces, stress and virial are found in any capitals, and forces as `force`; any other
    name is taken as it is.

    Raises:
        DataError: the calculator's results belong to other atoms, positions or another cell.

    Example:
        >>> stored_label(Atoms("H", info={"Energy": -13.6}), "energy")
        -13.6
    """
    if not key:
        return None
    value = _exact(atoms, key)
    if value is not None or key not in _SPELLED_FREELY:
        return value
    names = (name for name in (*atoms.info, *atoms.arrays) if str(name).lower() in _SPELLED_FREELY[key])
    return next((value for name in names if (value := _exact(atoms, name)) is not None), None)


def set_labels(atoms: Atoms, labels: Mapping[str, npt.ArrayLike | None]) -> None:
    """Give a structure labels and parameters where `stored_label` finds them; None is passed over.

    Forces and aparam go to `atoms.arrays`, energy, stress, virial and fparam to `atoms.info`.
    """
    for name, value in labels.items():
        if value is None:
            continue
        array = np.array(value, dtype=np.float64)
        if name in ("forces", "aparam"):
            atoms.arrays[name] = array
        else:
            atoms.info[name] = array if array.ndim else float(array)


def drop_labels(atoms: Atoms, *kinds: str) -> None:
    """Take off `info` and `arrays` of a structure, in place, what stands there under the names of labels.

    Args:
        kinds: of energy, forces, stress and virial; in all their spellings.
    """
    names = {name for kind in kinds for name in _SPELLED_FREELY[kind]}
    for place in (atoms.info, atoms.arrays):
        for name in [name for name in place if str(name).lower() in names]:
            del place[name]


def _exact(atoms: Atoms, key: str) -> object:
    if atoms.calc is not None:
        try:
            # Stored results only: a live calculator must never be run to make a label.
            value = getattr(atoms.calc, "results", {}).get(key)
        except PropertyNotImplementedError:
            value = None
        if value is not None and not _is_none(value):
            _require_own_results(atoms, key)
            return value
    value = atoms.info.get(key, atoms.arrays.get(key))
    return None if _is_none(value) else value


def _is_none(value: object) -> bool:
    """Whether it was None before ASE wrote it to extended XYZ, as the bare key, which it reads as True."""
    return value is True or (isinstance(value, str) and value == "None")


def _require_own_results(atoms: Atoms, key: str) -> None:
    """Raise a DataError if the calculator computed its results for something else.

    Atoms wrapped into the cell, or moved all together, keep their results.
    """
    computed = getattr(atoms.calc, "atoms", None)
    if not isinstance(computed, Atoms):
        return
    what = ""
    if not np.array_equal(computed.numbers, atoms.numbers):
        what = f"other atoms ({computed.get_chemical_formula()}, not {atoms.get_chemical_formula()})"
    elif not np.array_equal(computed.pbc, atoms.pbc):
        what = f"pbc = {computed.pbc.tolist()}, not {atoms.pbc.tolist()}"
    elif (gap := np.abs(computed.cell.array - atoms.cell.array)[atoms.pbc].max(initial=0.0)) > _SAME_PLACE:
        what = f"another cell (a component differs by {gap:.2g} Å)"
    elif (gap := _largest_move(computed, atoms)) > _SAME_PLACE:
        what = f"other positions (an atom is {gap:.2g} Å from there)"
    if what:
        raise DataError(
            f"the calculator's {key} belongs to {what}; were the atoms changed after the calculation, or do "
            "several structures share one calculator? Store results right after computing them: "
            "SinglePointCalculator(atoms, energy=..., forces=...)"
        )


def _largest_move(computed: Atoms, atoms: Atoms) -> float:
    moves = atoms.positions - computed.positions
    if not moves.any() or not np.isfinite(moves).all():  # what is not a number is another check's matter
        return 0.0
    moves = moves - moves[0]
    if atoms.pbc.any() and atoms.cell[atoms.pbc].any(axis=1).all():
        moves, _ = find_mic(moves, atoms.cell, atoms.pbc)
    return float(np.linalg.norm(moves, axis=1).max())


def as_number(value: object, name: str) -> float:
    """A number that may come as an array or list of one element, or as text.

    Raises:
        DataError: anything else; a unit in the text is not understood.
    """
    try:
        array = np.asarray(value)
        if array.size == 1 and array.dtype.kind in "iuf":
            return float(array.reshape(()))
        if array.size == 1 and array.dtype.kind in "US":
            text = array.reshape(()).item()
            return float(fortran_numbers(text.decode() if isinstance(text, bytes) else text))
    except ValueError:
        pass
    raise DataError(f"{name} = {_short(value)} is not one number; give it in eV, without a unit")


def as_array(value: object, shape: tuple[int, ...], name: str) -> np.ndarray:
    """An array of numbers, float64, of this shape.

    Raises:
        DataError: another shape, or not numbers.
    """
    array = as_floats(value, name)
    if array.shape != shape:
        raise DataError(f"{name}: shape {array.shape}, expected {shape}")
    return array


def as_matrix(values: object, name: str) -> np.ndarray:
    """A symmetric (3, 3) matrix from 9 numbers, (3, 3), or 6 in Voigt order xx yy zz yz xz xy.

    Raises:
        DataError: another number of values, or not numbers.
    """
    a = as_floats(values, name)
    if a.size == 9 and a.squeeze().shape in ((9,), (3, 3)):
        a = a.reshape(3, 3)
        return 0.5 * (a + a.T)
    if a.squeeze().shape == (6,):
        xx, yy, zz, yz, xz, xy = a.ravel()
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    raise DataError(f"{name} has shape {a.shape}; allowed: (3, 3), (9,) or (6,)")


def as_floats(value: object, name: str) -> np.ndarray:
    """Numbers as float64, also from text.

    Raises:
        DataError: not numbers.
    """
    if isinstance(value, str):
        value = fortran_numbers(value).replace(",", " ").split()
    try:
        array = np.asarray(value)
        if array.dtype.kind in "iufUS":
            return array.astype(np.float64)
    except ValueError:
        pass
    raise DataError(f"{name} = {_short(value)} is not an array of numbers")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def asymmetry_tolerance(virial: np.ndarray, n_atoms: int) -> float:
    """By how much (eV) a component of a virial may differ from its mean with its mirror image unnoticed."""
    return max(_ASYMMETRIC * float(np.abs(virial).max()), _ASYMMETRIC_ATOM * n_atoms)


def _asymmetry(value: object, virial: np.ndarray, name: str, n_atoms: int, volume: float = 1.0) -> float:
    """Largest |W_ab - W_ba| / 2 of a label, eV.

    Args:
        virial: the symmetric (3, 3) made of it. volume: what makes a virial of it.

    Raises:
        DataError: no stress is so asymmetric.
    """
    a = as_floats(value, name)
    if a.size != 9:
        return 0.0
    halves = 0.5 * np.abs(a.reshape(3, 3) - a.reshape(3, 3).T)
    found = volume * float(halves.max())
    if found > max(_NO_STRESS * float(np.abs(virial).max()), 10 * _ASYMMETRIC_ATOM * n_atoms):
        i, j = np.unravel_index(int(halves.argmax()), (3, 3))
        b = a.reshape(3, 3)
        raise DataError(
            f"{name} is no stress: its components {'xyz'[i]}{'xyz'[j]} = {b[i, j]:.4g} and {'xyz'[j]}"
            f"{'xyz'[i]} = {b[j, i]:.4g} differ by too much, and those of a stress are equal. Nine numbers "
            "are xx xy xz yx yy yz zx zy zz, six are xx yy zz yz xz xy; order them, or leave them out: "
            '--stress-key "" --virial-key "" (stress_key = "" in a file, LabelKeys(stress="") in Python)'
        )
    return found


def virial_label(atoms: Atoms, *, stress: str, virial: str) -> tuple[np.ndarray | None, str, float]:
    """The virial (3, 3) in eV under one of two names, or None; why a stress was left out, or ""; asymmetry.

    A stress (eV/Å^3, ASE's sign) goes first. One volume belongs to it only in a cell that is periodic in
    three directions, so that it is left out of molecules and slabs; a virial of them is taken. The asymmetry
    is the largest |W_ab - W_ba| / 2 of the label, eV, which is taken with the mean of the two.

    Raises:
        DataError: a wrong shape, what cannot be a stress, or two labels that contradict each other.
    """
    found, other = stored_label(atoms, stress), stored_label(atoms, virial)
    given = None if other is None else as_matrix(other, virial)
    odd = 0.0 if given is None else _asymmetry(other, given, virial, len(atoms))
    if found is None:
        return given, "", odd
    matrix = as_matrix(found, stress)
    if not is_crystal(atoms):
        if given is not None:
            return given, "", odd
        return None, f"a stress needs a cell periodic in three directions, pbc is {atoms.pbc.tolist()}", 0.0
    made = -atoms.get_volume() * matrix
    odd = _asymmetry(found, made, stress, len(atoms), atoms.get_volume())
    if given is not None and np.abs(made - given).max() > 0.02 * np.abs(made).max() + 1e-3 * len(atoms):
        raise DataError(
            f"{stress} and {virial} contradict each other: {virial} must be -volume * {stress}, in eV, "
            f"with the trace {np.trace(made):.4g}, but that of {virial} is {np.trace(given):.4g}; leave out "
            'the wrong one: --virial-key "" (virial_key = "" in a file, LabelKeys(virial="") in Python)'
        )
    return made, "", odd


# The keys that name each kind of label, and what names of such labels have in common.
_KEYS = {"energy": ("energy",), "forces": ("forces",), "stress": ("stress", "virial")}
_PARTS = {"energy": ("energy",), "forces": ("force",), "stress": ("stress", "virial")}


def unread_labels(atoms: Atoms, keys: LabelKeys, lacking: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Names that look like the labels a structure lacks, such as REF_energy, by kind.

    Args:
        lacking: "energy", "forces", "stress". Kinds that the keys leave out with an empty name are left out.
    """
    results = getattr(atoms.calc, "results", None) or {}
    read = set(vars(keys).values())
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
