"""Steps of VASP and Quantum ESPRESSO whose electrons had not converged: ASE reads them like all others."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator

from ase import Atoms

from dpa2calc.errors import DataError
from dpa2calc.files.opening import PathLike, open_text
from dpa2calc.files.structures import file_format, frame_slice, nothing_there
from dpa2calc.labels.names import stored_label

from . import iread_atoms

_NELM = re.compile(r"\bNELM\b[\">\s=]+(\d+)")
_ITERATION = re.compile(r"Iteration\s+\d+\(\s*(\d+)\)")


def iread_converged(path: PathLike) -> Iterator[tuple[int, Atoms]]:
    """Number and structure of the frames whose labels can be believed; a warning names the others.

    Those are the steps of VASP and Quantum ESPRESSO whose electrons had converged, and all frames of other
    files; see `iread_atoms`.

    Raises:
        DataError: none is left, or as `iread_atoms` does.
    """
    left, number = [], -1
    for number, (atoms, good) in enumerate(_iread_marked(path, _checked_kind(path))):
        if good:
            yield number, atoms
        else:
            left.append(number)
    if not left:
        return
    if len(left) > number:
        raise DataError(
            f"{_why(path, left)}, and no other frame is there; calculate again with more electronic steps"
        )
    warnings.warn(f"{_why(path, left)}; left out, {number + 1 - len(left)} frames are taken", stacklevel=2)


def read_for_labels(path: PathLike, index: slice | int | str = slice(None)) -> list[Atoms]:
    """As `iread_atoms`; frames whose electrons had not converged lose their labels, with a warning.

    Raises:
        DataError: as there, or no such frame.
    """
    kind = _checked_kind(path)
    if not kind:
        return list(iread_atoms(path, index)) or nothing_there(path, index)
    frames, left = [], []
    for number, (atoms, good) in enumerate(_iread_marked(path, kind)):
        frames.append(atoms)
        if not good:
            atoms.calc = None
            left.append(number)
    if left:
        warnings.warn(f"{_why(path, left)}; these labels are left out", stacklevel=2)
    return frames[frame_slice(index)] or nothing_there(path, index)


def _checked_kind(path: PathLike) -> str:
    """ASE's name of the format, "" of those whose convergence is not looked at."""
    with contextlib.suppress(DataError):  # formats that ASE does not know, and what iread_atoms refuses
        kind = file_format(path) if os.path.isfile(path) else ""
        return kind if kind in (*_FAILED, "espresso-out") else ""
    return ""


def _iread_marked(path: PathLike, kind: str) -> Iterator[tuple[Atoms, bool]]:
    """Structures, and whether their labels can be believed."""
    failed: list[bool] = []
    if kind in _FAILED:
        with open_text(path) as lines:
            failed = _FAILED[kind](lines)
    for number, atoms in enumerate(iread_atoms(path)):
        # pw.x marks the energy only of what has converged, so that ASE finds none beside the forces
        lacks = kind == "espresso-out" and stored_label(atoms, "energy") is None
        yield atoms, not (lacks or (number < len(failed) and failed[number]))


def _why(path: PathLike, left: list[int]) -> str:
    several = f"frame{'' if len(left) == 1 else 's'} {', '.join(map(str, left[:10]))}"
    return (
        f"{path}: the electrons of {several}{', ...' if len(left) > 10 else ''} had not converged, so that "
        "energy and forces are wrong"
    )


def _failed_in_outcar(lines: Iterable[str]) -> list[bool]:
    """Of each ionic step. VASP 6 says it; 5 writes "EDIFF is reached" after the last of NELM steps too."""
    failed, said, used, limit, old = [], False, 0, 0, True
    for number, line in enumerate(lines):
        if number == 0:
            old = " vasp.6" not in line
        if "Iteration" in line and (found := _ITERATION.search(line)):
            used = int(found[1])
        elif not limit and "NELM" in line and (found := _NELM.search(line)):
            limit = int(found[1])
        elif "EDIFF was not reached" in line:
            said = True
        elif "FREE ENERGIE OF THE ION-ELECTRON SYSTEM" in line:
            failed.append(said or (old and 0 < limit <= used))
            said, used = False, 0
    return failed


def _failed_in_vasprun(lines: Iterable[str]) -> list[bool]:
    """Of each ionic step: whether all NELM electronic steps were used, which is all that the file tells."""
    limit = 0
    used: list[int] = []
    for line in lines:
        if "<scstep" in line and used:
            used[-1] += 1
        elif "<calculation" in line:
            used.append(0)
        elif not limit and 'name="NELM"' in line and (found := _NELM.search(line)):
            limit = int(found[1])  # the first: that of the response functions stands below, and is 1
    return [0 < limit <= count for count in used]


_FAILED: dict[str, Callable[[Iterable[str]], list[bool]]] = {
    "vasp-out": _failed_in_outcar,
    "vasp-xml": _failed_in_vasprun,
}
