"""What a piece of work belongs to: hashes and settings that a later call must match before it resumes.

An identity is a dictionary of parts ("structure", "calculator", "options", ...), each a dictionary of named
details that JSON can hold. Arrays enter as hashes, settings as they are, so that a difference can be named.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.constraints import FixConstraint

from dpa2calc.errors import ConfigError, DataError

from .atomic import write_json
from .typed import Json

Part = dict[str, Json]
Identity = Mapping[str, Part]

# What calculators read of a structure beside elements, places and cell; other entries of `info` (a name, a
# time) say nothing of the physics. Masses decide dynamics.
READ_ARRAYS = ("initial_charges", "initial_magmoms", "aparam")
READ_INFO = ("fparam", "charge", "spin")
_NAMES = {"initial_charges": "charges", "initial_magmoms": "magnetic moments"}  # in files


def digest(*arrays: npt.ArrayLike) -> str:
    """A short hash of arrays: of their shapes, types and bytes."""
    found = hashlib.sha256()
    for item in arrays:
        array = np.ascontiguousarray(item)
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:24]


def text_digest(value: object) -> str:
    """A short hash of whatever JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()[:24]


def _rounded(values: npt.ArrayLike) -> np.ndarray:
    # 10 decimals: far below any physical difference, above the rounding of a supercell built twice
    return np.round(np.asarray(values, dtype=float), 10) + 0.0


def structure_identity(atoms: Atoms, *, momenta: bool = False) -> Part:
    """Everything about a structure that results may depend on.

    Args:
        momenta: also the velocities, for dynamics that start from them.
    """
    part: Part = {
        "formula": atoms.get_chemical_formula(),
        "numbers": digest(np.asarray(atoms.numbers, dtype=np.int64)),
        "positions": digest(_rounded(atoms.positions)),
        "cell": digest(_rounded(atoms.cell.array)),
        "pbc": [bool(direction) for direction in atoms.pbc],
        "masses": digest(_rounded(atoms.get_masses())),
        "constraints": [_constraint(item) for item in atoms.constraints],
    }
    if momenta:
        part["momenta"] = digest(_rounded(atoms.get_momenta()))
    return part | read_identity(atoms)


def read_identity(atoms: Atoms) -> Part:
    """Of what is in `READ_ARRAYS` and `READ_INFO`; {} where nothing of it is given."""
    given = {_NAMES.get(name, name): atoms.arrays[name] for name in READ_ARRAYS if name in atoms.arrays}
    part: Part = {name: digest(_rounded(values)) for name, values in given.items() if np.any(values)}
    return part | {key: text_digest(_plain(value)) for key, value in read_info(atoms).items()}


def read_info(atoms: Atoms) -> dict[str, Json]:
    """Of `READ_INFO` what says something: extended XYZ makes True of None, and loses what is empty."""
    given = {key: atoms.info[key] for key in READ_INFO if key in atoms.info}
    return {key: v for key, v in given.items() if str(v).strip() not in ("", "[]", "()", "None")}


def _constraint(constraint: FixConstraint) -> str:
    try:
        return f"{type(constraint).__name__} {text_digest(_plain(constraint.todict()))}"
    except (NotImplementedError, AttributeError, KeyError, TypeError):
        text = repr(constraint)
        told = _plain(vars(constraint)) if " at 0x" in text else text  # addresses change with the process
        return f"{type(constraint).__name__} {text_digest(told)}"


def read_digest(atoms: Atoms) -> bytes:
    """`read_identity` for a hash of other things: b"" where nothing is given."""
    return text_digest(found).encode() if (found := read_identity(atoms)) else b""


def structures_identity(structures: Iterable[Atoms]) -> Part:
    """One part for many structures: their number and one hash."""
    parts = [structure_identity(atoms) for atoms in structures]
    return {"number": len(parts), "content": text_digest(parts)}


def calculator_identity(calculator: BaseCalculator) -> Part:
    """What tells two calculators apart by the numbers that they give.

    A calculator with a method `identity()` (as DPA2Calculator, which hashes its weights) is asked; of any
    other ASE calculator it is the class and the parameters. Device and threads are no part of it.
    """
    own = getattr(calculator, "identity", None)
    if callable(own):
        return {"class": type(calculator).__name__, **own()}
    part: Part = {"class": type(calculator).__name__}
    mixer = getattr(calculator, "mixer", None)  # of ASE's sums and mixtures
    if members := getattr(mixer, "calcs", ()):
        part["calculators"] = [calculator_identity(item) for item in members]
        part["weights"] = _plain(getattr(mixer, "weights", None))
    part["parameters"] = _plain(dict(getattr(calculator, "parameters", None) or {}))
    return part


def _plain(value: object) -> Json:
    """As JSON gives it back; arrays by their hash, other objects by their class."""
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= 9 and value.dtype.kind in "biuf" else digest(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else type(value).__name__


def differences(stored: Identity, asked: Identity) -> list[str]:
    """The details in which two identities differ, as "part: detail" or "part: detail (old -> new)"."""
    found = []
    for name in {**stored, **asked}:
        parts = (side.get(name) or {} for side in (stored, asked))
        old, new = (_plain(part if isinstance(part, Mapping) else {"value": part}) for part in parts)
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                found.append(f"{name}: {key}{_values(old.get(key), new.get(key))}")
    return found


def _values(old: object, new: object) -> str:
    texts = [json.dumps(value) for value in (old, new)]
    readable = not any(len(text) > 60 or re.fullmatch('"[0-9a-f]{24}"', text) for text in texts)
    return f" ({texts[0]} -> {texts[1]})" if readable else ""


def require_same(stored: Identity, asked: Identity, *, where: str, ways: str) -> None:
    """Refuse to resume work that belongs to something else.

    Args:
        where: the file or folder, for the message.
        ways: what the caller may do instead, for the message.

    Raises:
        ConfigError: names what differs, and the ways out.
    """
    found = differences(stored, asked)
    if found:
        more = f" and {len(found) - 6} more" if len(found) > 6 else ""
        raise ConfigError(
            f"{where} belongs to other work; different are {'; '.join(found[:6])}{more}. {ways}"
        )


def take_as_same(where: str, what: str, *, stacklevel: int = 6) -> None:
    """Warn that a file or folder written before identities were noted cannot be checked."""
    warnings.warn(
        f"{where} was written by an earlier version, which did not note {what} that it belongs to; they are "
        "taken to be the same. Start afresh if they are not",
        stacklevel=stacklevel,
    )


def claim(label: Path, mine: Identity, calculator: BaseCalculator | None = None) -> None:
    """Note in a folder, in the file `label`, what it belongs to; refuse one that belongs to other work.

    Args:
        calculator: of which earlier versions noted the class and the settings instead.

    Raises:
        ConfigError: names what differs, and the ways out.
        DataError: the label is damaged.
        OutputError: it cannot be written.
    """
    if not label.exists():
        write_json(label, mine)
        return
    ways = "give another folder, or delete that one"
    try:
        stored = json.loads(label.read_text(encoding="utf-8"))
        if not isinstance(stored, dict):
            raise ValueError("it holds no parts")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{label} is damaged ({error}); it tells what {label.parent} belongs to: {ways}"
        ) from error
    if all(place.name in (".lock", label.name) for place in label.parent.iterdir()):  # nothing was finished
        write_json(label, mine)
        return
    where, ways = str(label.parent), f"{ways.capitalize()} to start afresh"
    if calculator is None or "calculator" in stored:
        require_same(stored, mine, where=where, ways=ways)
        return
    describe = getattr(calculator, "describe", None)
    settings = describe() if callable(describe) else dict(getattr(calculator, "parameters", None) or {})
    before = _in_label(stored.get("class"), stored.get("settings"))
    require_same(before, _in_label(type(calculator).__name__, settings), where=where, ways=ways)
    if isinstance(settings, str):  # parameters tell all
        take_as_same(where, "the weights")
    write_json(label, mine)


def _in_label(kind: Json, settings: Json) -> Identity:
    """What labels of earlier versions tell of a calculator: its class and the settings that decide."""
    if isinstance(settings, str):  # a page of changing words that ends in "in use  head = ..., device = ..."
        found = re.findall(r"(\w+) = (.*?)(?=, \w+ = |$)", settings.rpartition("in use")[2])
        settings = {name: value for name, value in found if name not in ("device", "skin")}
    settings = json.loads(json.dumps(settings, default=lambda value: type(value).__name__))
    part = settings if isinstance(settings, dict) else {"settings": settings}
    return {"calculator": {"class": kind, **part}}
