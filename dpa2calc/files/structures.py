"""Structures from any file that ASE reads, for calculations and analyses."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import ase.io
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat, string2index

from dpa2calc.errors import DataError, OutputError

from .atomic import atomic_path, check_writable
from .extxyz import ISOTOPES, iread_extxyz
from .opening import PathLike, first_bytes, plain_name, unpacked

_LAMMPS_DATA = (re.compile(rb"^\s*\d+\s+atoms\b", re.M), re.compile(rb"^\s*\S+\s+\S+\s+xlo\s+xhi\b", re.M))
_EXTXYZ = re.compile(rb"\s*\d+[ \t]*\r?\n[^\n]*\b(properties|lattice)\s*=", re.I)
_FILLED = 0.9  # share from which a site of a CIF counts as one of its element
_ARCHIVES = (".tar", ".tgz", ".zip", ".7z")
_LAMMPS_NAMES = (b"Masses", b"Atom Type Labels")
# Outputs that ASE does not read, or takes for those of other programs, by a word near their beginning.
_NOT_ASE = {
    b" CP2K| ": ("CP2K", "'cp2k.out', fmt='cp2k/output'"),
    b"Atomic-orbital Based Ab-initio": ("ABACUS", "'the folder of INPUT', fmt='abacus/scf'"),
}


def iread_structures(path: PathLike, index: slice | int | str = slice(None)) -> Iterator[Atoms]:
    """Yield the chosen frames of any file that ASE reads, also compressed (.xz, .gz, .bz2, .zst).

    Unlike `ase.io.iread`, an `@` in the name is part of the name, extended XYZ is read in any capitals, and
    a LAMMPS data file under any name.

    Args:
        index: as in ASE: a slice, a number, or a text such as "-1" or "::10".

    Raises:
        DataError: no such file, a folder, an unknown format, or a damaged frame.
        MissingDependencyError: a compression whose library is not installed.
    """
    place = Path(path)
    if not os.path.exists(place):
        raise DataError(
            f"there is no file {place}; give one that ASE reads, such as structure.cif or frames.extxyz"
        )
    chosen = frame_slice(index)
    bundle = place.suffix == ".bundle" or (place / "metadata.json").exists()  # a trajectory of ASE
    if place.is_dir() and not bundle:
        raise DataError(about_folder(place))
    if not place.is_dir() and not place.is_file():
        raise DataError(
            f"{place} is a pipe or a device, which can be read only once; save it to a file first"
        )
    if file_format(place) == "extxyz":
        yield from iread_extxyz(place, chosen)
        return
    with unpacked(place) as plain:
        for atoms in _iread_ase(plain, chosen, place):
            _refuse_disorder(atoms, place)
            yield atoms


def named_frame(path: str) -> tuple[str, int | None]:
    """The file and the frame that FILE@N names; no frame where this is a file itself, or FILE is none."""
    name, _, number = path.rpartition("@")
    if not os.path.exists(path) and os.path.isfile(name) and number.removeprefix("-").isdigit():
        return name, int(number)
    return path, None


def read_structures(path: PathLike, index: slice | int | str = slice(None)) -> list[Atoms]:
    """`iread_structures` as a list that is not empty.

    Raises:
        DataError: as there, or no such frame.
    """
    return list(iread_structures(path, index)) or nothing_there(path, index)


def nothing_there(path: PathLike, index: slice | int | str) -> NoReturn:
    """Raise the DataError of a file that has no frame of this index."""
    whole = index in (":", slice(None))
    raise DataError(f"{path} holds no frames" if whole else f"{path} has no frame {index!r}")


def write_structures(path: PathLike, structures: Atoms | Sequence[Atoms], *, kind: str | None = None) -> None:
    """Write with ASE, whole or not at all.

    Args:
        kind: ASE's name of the format; None takes what the file's name says.

    Raises:
        OutputError: the file cannot be written, or ASE does not write such structures in this format.
    """
    with atomic_path(path) as temporary:
        try:
            ase.io.write(temporary, structures, format=kind or filetype(os.fspath(path), read=False))
        except (OSError, MemoryError):
            raise
        except Exception as error:  # ASE's many writers raise whatever they like
            reason = f"ASE cannot write this structure in this format ({type(error).__name__}: {error})"
            if isinstance(error, UnknownFileTypeError):
                reason = "ASE writes no format of that name"
            raise OutputError(f"{path}: {reason}; use for example .extxyz or .cif") from error


def check_structure_file(path: PathLike, atoms: Atoms) -> None:
    """Find out before the work that a structure cannot be written under a name; nothing is left.

    Raises:
        OutputError: see `write_structures`.
    """
    check_writable(path)
    with tempfile.TemporaryDirectory(prefix="dpa2calc-") as folder:
        copy = Path(folder) / Path(path).name
        try:
            write_structures(copy, atoms)
        except OutputError as error:
            raise OutputError(str(error).replace(str(copy), str(path))) from error


def file_format(path: PathLike) -> str:
    """ASE's name of a file's format, by its name and, where that says nothing, by its content.

    Raises:
        DataError: an unknown format, or an empty file.
    """
    place = Path(path)
    name = plain_name(place)
    start = first_bytes(place) if os.path.isfile(place) else None
    if start == b"":
        raise DataError(f"{place} is empty")
    if Path(name).suffix.lower() in (".xyz", ".extxyz") and name != "xyz.in":
        return "extxyz"
    if start is not None:
        _refuse_what_ase_does_not_read(start, place)
        if all(pattern.search(start) for pattern in _LAMMPS_DATA):
            return "lammps-data"
        if _EXTXYZ.match(start):
            return "extxyz"
    try:
        with unpacked(place) as plain:
            kind = str(filetype(str(plain)))
        get_ioformat(kind)  # where nothing is known of a file ASE calls its suffix a format
    except UnknownFileTypeError as error:
        packed = Path(name).suffix.lower() in _ARCHIVES
        way = "unpack it, and name the files in it" if packed else "write it as extended XYZ (.extxyz)"
        raise DataError(f"{place} is of no format that ASE knows ({error}); {way}") from error
    return kind


def _refuse_what_ase_does_not_read(start: bytes, place: Path) -> None:
    for mark, (program, arguments) in _NOT_ASE.items():
        if mark in start:
            raise DataError(
                f"{place} is an output of {program}, which ASE does not read; convert it with dpdata (pip "
                f"install dpdata), dpdata.LabeledSystem({arguments}).to('deepmd/npy', 'converted'), and name "
                "the folder 'converted'"
            )


def frame_slice(index: slice | int | str) -> slice:
    """The frames that an index means, as in ASE.

    Raises:
        DataError: it means none.
    """
    try:
        found = string2index(index) if isinstance(index, str) else index
        if isinstance(found, str):
            raise TypeError
        chosen = found if isinstance(found, slice) else slice(found, found + 1 or None)
        chosen.indices(0)  # no step of 0
    except (TypeError, ValueError):
        raise DataError(
            f"frames {index!r} are not understood; write a number, or a slice such as 10: or ::5"
        ) from None
    # islice takes no larger ones, and no file has so many frames
    bounds = (chosen.start, chosen.stop, chosen.step)
    return slice(*(end if end is None else max(-sys.maxsize, min(end, sys.maxsize)) for end in bounds))


def _iread_ase(plain: Path, index: slice, place: Path) -> Iterator[Atoms]:
    kind = file_format(plain)
    if kind == "lammps-data":
        _require_elements(plain)
    if kind == "runnerdata":
        warnings.warn(
            f"{place} is a file of RuNNer or n2p2, which names no units: it is read as in Bohr, Hartree and "
            "Hartree/Bohr; write it as extended XYZ in Å and eV if it holds others",
            stacklevel=2,
        )
    try:
        # formats of one frame take no index, ASE's databases no step
        if get_ioformat(kind).single or (kind in ("db", "json") and index.step not in (None, 1)):
            yield from list(ase.io.iread(str(plain), format=kind, do_not_split_by_at_sign=True))[index]
            return
        frames = ase.io.iread(str(plain), index=index, format=kind, do_not_split_by_at_sign=True)
        for number, atoms in enumerate(frames):
            if number == 0 and kind == "lammps-dump-text":
                _warn_of_types(plain, place)
            yield atoms
    except DataError:
        raise
    except KeyError as error:
        heavy = "; write H, with its mass" if error.args[:1] and error.args[0] in ISOTOPES else ""
        raise DataError(f"{place} cannot be read: {error} is no element or no entry there{heavy}") from error
    except Exception as error:  # ASE's many readers raise whatever they like
        other = "; try the vasprun.xml of the same calculation" if kind == "vasp-out" else ""
        raise DataError(f"{place} cannot be read: {error or type(error).__name__}{other}") from error


def _refuse_disorder(atoms: Atoms, place: Path) -> None:
    """Raise a DataError for sites of a CIF that ASE would fill with one element of several, or in part."""
    sites = atoms.info.get("occupancy")
    for shares in sites.values() if isinstance(sites, dict) else ():
        if len(shares) > 1 or min(shares.values(), default=1.0) < _FILLED:
            told = ", ".join(f"{element} {share:g}" for element, share in shares.items())
            raise DataError(
                f"{place} has a site that is shared or partly empty ({told}), of which ASE would make one "
                "element; make an ordered structure of it first, for example with pymatgen's "
                "OrderDisorderedStructureTransformation"
            )


def _require_elements(path: Path) -> None:
    """Raise a DataError for a LAMMPS data file whose types ASE would take for hydrogen, helium, and so on."""
    content = path.read_bytes()
    if not any(re.search(rb"^\s*" + name + rb"\b", content, re.M) for name in _LAMMPS_NAMES):
        raise DataError(
            f"{path} is a LAMMPS data file without Masses and Atom Type Labels, so its elements are not "
            "known; add one of these sections"
        )


def _warn_of_types(plain: Path, place: Path) -> None:
    columns = re.search(rb"^ITEM: ATOMS(.*)$", first_bytes(plain, 1 << 16), re.M)
    if columns is not None and b"element" not in columns.group(1).split():
        warnings.warn(
            f"{place} names no elements (no column 'element'): its types 1, 2, ... are taken for H, He, ...; "
            "write the dump with 'element' and dump_modify element",
            stacklevel=2,
        )


def about_folder(folder: Path) -> str:
    """What to do where a folder was named in place of a file."""
    inside = sorted(p.name for p in folder.iterdir() if p.is_file())
    if not inside:
        return f"{folder} is a folder without files; name a file"
    suffix = Path(inside[0]).suffix
    return (
        f"{folder} is a folder, not a file; it holds {', '.join(inside[:5])}"
        f"{' and others' if len(inside) > 5 else ''}: name the files, for example '{folder}/*{suffix}'"
    )
