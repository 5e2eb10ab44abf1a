"""Labelled frames on disk: files that grow frame by frame and can be cut off at any moment."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator

from dpa2calc.errors import DataError
from dpa2calc.files.atomic import rename, write_json, write_text, writing
from dpa2calc.structures.attached import bare
from dpa2calc.structures.given import as_energy
from dpa2calc.structures.lattice import is_crystal

from . import iread_extxyz


def read_json(path: Path) -> Any:
    """What `write_json` wrote; a DataError where the file is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove it to do this part again") from error


def labelled(atoms: Atoms, calculator: Calculator, **info: object) -> Atoms:
    """A `bare` copy that holds the calculator's energy, forces and, where there is one, stress."""
    work = atoms.copy()
    work.set_constraint()
    work.calc = calculator
    results = {"energy": as_energy(work.get_potential_energy()), "forces": np.array(work.get_forces())}
    if is_crystal(work):
        with contextlib.suppress(PropertyNotImplementedError):
            results["stress"] = np.array(work.get_stress())
    frame = bare(work)
    frame.info.update(info)
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def as_text(frames: Iterable[Atoms]) -> str:
    """Extended XYZ."""
    buffer = io.StringIO()
    for atoms in frames:
        ase.io.write(buffer, atoms, format="extxyz")
    return buffer.getvalue()


def write_frames(path: Path, frames: Iterable[Atoms]) -> None:
    """Write extended XYZ, whole or not at all; no frames give an empty file."""
    write_text(path, as_text(frames))


def read_frames(path: Path) -> list[Atoms]:
    """All frames of an extended XYZ file, which may be empty."""
    return list(iread_extxyz(path))


def _checked(note: object, path: Path) -> Note:
    """A note that says how much of its file counts; a DataError for anything else."""
    kinds = {"finished": bool, "bytes": int, "frames": int}
    if (
        not isinstance(note, dict)
        or any(type(note.get(name)) is not kind for name, kind in kinds.items())
        or min(note["bytes"], note["frames"]) < 0
    ):
        raise DataError(f"{path} is damaged; remove it to do this part again")
    return dict(note)


Note = dict[str, Any]  # how much of a file counts, and what the caller wants to know after a kill
_EMPTY: Note = {"bytes": 0, "frames": 0, "finished": False}


class FrameFile:
    """Frames appended to `NAME.extxyz.part`, with a note in `NAME.json` of how much of it counts.

    After a kill the file is cut back to what the note says; `finish` renames it to `NAME.extxyz`.
    """

    def __init__(self, path: Path):
        self.path, self.note_path = path, path.with_suffix(".json")
        self.part = path.with_name(path.name + ".part")
        self.note = dict(_EMPTY)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        if self.note_path.exists():
            self.note = _checked(read_json(self.note_path), self.note_path)
        if not path.exists():
            self._cut()
            if self.note["finished"]:
                rename(self.part, path)

    def _cut(self) -> None:
        with writing(self.part), open(self.part, "ab") as handle:
            if handle.tell() < self.note["bytes"]:  # lost by the file system: start again
                self.note = dict(_EMPTY)
            handle.truncate(self.note["bytes"])

    @property
    def finished(self) -> bool:
        """Whether all frames are there."""
        return bool(self.note["finished"]) and self.path.exists()

    def restart(self) -> None:
        """Forget everything."""
        self.path.unlink(missing_ok=True)
        self.note = dict(_EMPTY)
        self._cut()

    def append(self, atoms: Atoms | None, **note: object) -> None:
        """Add a frame (or none) and keep what the caller wants to know after a kill."""
        if atoms is not None:
            with writing(self.part), open(self.part, "ab") as handle:
                handle.write(as_text([atoms]).encode())
                size = handle.tell()
            self.note = {**self.note, "bytes": size, "frames": self.note["frames"] + 1}
        self.note = {**self.note, **note}
        write_json(self.note_path, self.note)

    def finish(self, **note: object) -> None:
        """The file is whole; `note` replaces what was kept for a restart."""
        kept = {name: self.note[name] for name in ("bytes", "frames")}
        self.note = {**kept, **note, "finished": True}
        write_json(self.note_path, self.note)
        rename(self.part, self.path)
