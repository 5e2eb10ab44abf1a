"""Extended XYZ, read in one pass, in the dialects of ASE, GPUMD, QUIP and Fortran programs."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO

import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.io.extxyz import key_val_str_to_dict

from dpa2calc.errors import DataError

from .limits import PACKED_ERRORS, check_atom_count, most_bytes
from .opening import compression, open_text
from .typed import Json

_CHUNK = 64  # frames handed to ASE's parser at a time
_LONGEST_COUNT = 1000  # characters in the line that holds the number of atoms

# ASE knows these keys in one spelling only; GPUMD writes and documents them in lower case.
_KEYS = {"lattice": "Lattice", "properties": "Properties", "pbc": "pbc"}
# ASE refuses any but nine numbers under these names, so they are parsed under others.
_HIDDEN = {"stress": "_dpa2calc_stress", "virial": "_dpa2calc_virial"}
# Quoted text is passed over; a key is a word before "=", or one of the hidden ones alone.
_KEY = re.compile(
    r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\{[^}]*\}|\[[^\]]*\])"""
    r"""|([A-Za-z_]\w*)(?=\s*=)|(?<!\S)(stress|virial)(?!\S)""",
    re.DOTALL,
)
_COLUMNS = {
    **dict.fromkeys(("species", "symbols", "symbol", "element", "elements"), "species"),
    **dict.fromkeys(("pos", "positions", "position"), "pos"),
    **dict.fromkeys(("z", "numbers", "atomic_numbers"), "Z"),
}
_COLUMN_LIST = re.compile(r"\w+:[RSIL]:\d+(:\w+:[RSIL]:\d+)*", re.IGNORECASE)
_CELL_NAMES = ("cell", "box", "unit_cell", "unitcell")  # with three, six or nine numbers
_CELL_PARTS = ("latt", "latice", "cell", "box")  # of names with nine numbers
_TRUTH = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}
_FORTRAN = re.compile(r"(?<![\w.])([+-]?(?:\d+\.?\d*|\.\d+))[dD]([+-]?\d+)(?![\w.])")
ISOTOPES = {"D": 2.014101778, "T": 3.016049281}  # u


def fortran_numbers(text: str) -> str:
    """The text with exponents that Fortran writes, 1.0D+00, as others read them."""
    return _FORTRAN.sub(r"\1e\2", text)


def iread_extxyz(path: str | Path, index: slice = slice(None)) -> Iterator[Atoms]:
    """Yield the chosen frames of an extended XYZ file, compressed or not.

    ASE's own reader seeks back for every frame, which on a compressed file decompresses it from the
    start each time; here the text is cut into chunks of whole frames that ASE's parser reads from memory.
    Only an index that counts from the end needs a second pass.

    Keys and columns are found in any capitals; deuterium and tritium (D, T) are hydrogen with their mass.

    Raises:
        DataError: the file is damaged, or a header cannot be understood; the message names the frame.
    """
    if index.step is not None and index.step < 0:
        yield from list(iread_extxyz(path))[index]
        return
    number = 0
    try:
        if any(bound is not None and bound < 0 for bound in (index.start, index.stop)):
            with open_text(path) as handle:
                total = sum(1 for _ in _frames(handle, path))
            index = slice(*index.indices(total))
        with open_text(path) as handle:
            chosen = islice(enumerate(_frames(handle, path)), index.start, index.stop, index.step)
            for chunk in _chunks(chosen):
                yield from _parsed(chunk, path)
                number = chunk[-1][0] + 1
    except PACKED_ERRORS as error:
        raise DataError(f"{path} cannot be read after frame {number}: {error}") from error


def _frames(handle: IO[str], path: str | Path) -> Iterator[list[str]]:
    """The lines of each frame: number of atoms, header, atoms, and ADF's cell vectors (VEC1 ...)."""
    number = 0
    size = os.path.getsize(path)
    size = most_bytes(size) if compression(path) else size
    header = handle.readline(_LONGEST_COUNT)
    while header:
        if not header.strip():
            header = handle.readline(_LONGEST_COUNT)
            continue
        n_atoms = _count(header, f"{path}, frame {number}")
        check_atom_count(n_atoms, size, f"{path}, frame {number}")
        lines = [header, *islice(handle, n_atoms + 1)]
        if len(lines) < n_atoms + 2:
            raise DataError(
                f"{path}, frame {number}: the file ends inside the frame ({n_atoms} atoms announced)"
            )
        while (header := handle.readline(_LONGEST_COUNT)).lstrip().startswith("VEC"):
            lines.append(header)
        yield lines
        number += 1


def _count(line: str, place: str) -> int:
    try:
        return int(line)
    except ValueError:
        raise DataError(f"{place}: expected the number of atoms, found {line.strip()[:60]!r}") from None


def _chunks(frames: Iterator[tuple[int, list[str]]]) -> Iterator[list[tuple[int, list[str]]]]:
    """Frames together, `_CHUNK` at a time; those before a damaged one are handed on before its error."""
    chunk: list[tuple[int, list[str]]] = []
    try:
        for frame in frames:
            chunk.append(frame)
            if len(chunk) == _CHUNK:
                yield chunk
                chunk = []
    except Exception:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _parsed(chunk: list[tuple[int, list[str]]], path: str | Path) -> Iterator[Atoms]:
    try:
        joined = _ase("".join(line for _, lines in chunk for line in lines))
    except Exception:  # ASE raises many kinds; which frame it was comes out below
        joined = []
    if len(joined) == len(chunk):
        yield from joined
        return
    for number, lines in chunk:
        try:
            atoms = _mended(lines)
        except Exception as cause:
            reason = f"{cause} is no element" if isinstance(cause, KeyError) else str(cause)
            raise DataError(f"{path}, frame {number}: {reason}") from cause
        yield atoms


def _ase(text: str) -> list[Atoms]:
    frames = ase.io.iread(io.StringIO(text), index=":", format="extxyz", properties_parser=parse_header)
    return list(frames)


def _mended(lines: list[str]) -> Atoms:
    """One frame, if need be with the exponents of Fortran, and with D and T read as hydrogen."""
    try:
        return _ase("".join(lines))[0]
    except Exception:
        n_atoms = int(lines[0])
        plain = [fortran_numbers(line) for line in lines]
        atoms_lines = plain[2 : n_atoms + 2]
        place = _symbol_column(parse_header(plain[1].strip()))
        masses: dict[int, float] = {}
        for row, line in enumerate(atoms_lines):
            words = line.split()
            symbol = words[place].capitalize() if place is not None and place < len(words) else ""
            if place is not None and symbol in ISOTOPES and symbol not in atomic_numbers:
                masses[row] = ISOTOPES[symbol]
                plain[row + 2] = " ".join([*words[:place], "H", *words[place + 1 :]]) + "\n"
        atoms = _ase("".join(plain))[0]
        if masses and not atoms.has("masses"):
            values = atoms.get_masses()
            values[list(masses)] = list(masses.values())
            atoms.set_masses(values)
        return atoms


def _symbol_column(info: dict[str, Json]) -> int | None:
    """The place of the elements' symbols among the columns, or None."""
    fields = str(info.get("Properties", "species:S:1:pos:R:3")).split(":")
    names, widths = fields[::3], [int(width) for width in fields[2::3]]
    return sum(widths[: names.index("species")]) if "species" in names else None


def parse_header(line: str) -> dict[str, Json]:
    """The keys and values of a header, for ASE's `read_xyz(properties_parser=...)`.

    `Lattice`, `Properties` and `pbc`, and the columns of elements and positions, are found in any capitals;
    `stress` and `virial` may have six numbers.

    Raises:
        ValueError: a cell, a list of columns or a pbc that would be left out.
    """
    info = key_val_str_to_dict(_KEY.sub(_renamed, line))
    shown = {hidden: name for name, hidden in _HIDDEN.items()}
    info = {shown.get(key, key): value for key, value in info.items()}
    for key in _HIDDEN:
        value = info.get(key)
        if isinstance(value, np.ndarray) and value.shape == (9,):
            info[key] = value.reshape((3, 3), order="F")
        elif value is True:  # a word in the comment, not a value
            del info[key]
        elif value is not None and not isinstance(value, np.ndarray):
            info[key] = _numbers(key, value)
    if isinstance(info.get("pbc"), str):
        words = info["pbc"].replace(",", " ").lower().split()
        if not words or any(word not in _TRUTH for word in words):
            raise ValueError(f'pbc="{info["pbc"]}" is not understood; write pbc="T T F"')
        info["pbc"] = [_TRUTH[word] for word in words]
    if "Properties" in info:
        info["Properties"] = _columns(str(info["Properties"]))
    _refuse_half_read(info)
    return info


def _renamed(match: re.Match[str]) -> str:
    quoted, key, alone = match.groups()
    return quoted or _HIDDEN.get(alone) or _KEYS.get(key.lower(), _HIDDEN.get(key, key))


def _numbers(key: str, value: object) -> np.ndarray:
    try:
        return np.array([float(word) for word in fortran_numbers(str(value)).replace(",", " ").split()])
    except ValueError:
        raise ValueError(f"{key}={value!r} is not numbers") from None


def _columns(given: str) -> str:
    """The list of columns with ASE's names of elements and positions, and its capitals of types.

    Raises:
        ValueError: no elements or no positions among them.
    """
    fields = given.split(":")
    names = fields[::3]
    fields[1::3] = [kind.upper() for kind in fields[1::3]]
    for place, name in enumerate(names):
        ours = _COLUMNS.get(name.lower())
        if ours == "Z" and fields[3 * place + 1 : 3 * place + 2] != ["I"]:
            continue  # a coordinate
        if ours and ours not in names:
            names[place] = ours
    fields[::3] = names
    if "pos" not in names or not {"species", "Z"} & set(names):
        raise ValueError(
            f"Properties={given} lists no {'positions (pos:R:3)' if 'pos' not in names else 'elements'}; "
            "write species:S:1:pos:R:3 and what else there is"
        )
    return ":".join(fields)


def _refuse_half_read(info: dict[str, Json]) -> None:
    """Raise a ValueError for a cell or a list of columns under a name that nobody reads."""
    if "Lattice" not in info:
        cells = [key for key, value in info.items() if _looks_like_cell(str(key).lower(), np.size(value))]
        if cells:
            raise ValueError(
                f'the header has {cells[0]}= but no Lattice=; write the cell as Lattice="ax ay az bx by bz '
                'cx cy cz", or the frame would be an isolated cluster'
            )
    if "Properties" not in info:
        lists = [k for k, v in info.items() if isinstance(v, str) and _COLUMN_LIST.fullmatch(v)]
        if lists:
            raise ValueError(f"{lists[0]}= looks like the list of columns, whose name is Properties=")


def _looks_like_cell(name: str, size: int) -> bool:
    return (name in _CELL_NAMES and size in (3, 6)) or (size == 9 and any(p in name for p in _CELL_PARTS))
